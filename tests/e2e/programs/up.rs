//! `lizctl up`: everything on this machine, in an empty folder, with one command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::process::{Running, program, run};

/// The command in this folder, on a port that was free a moment ago.
fn up(folder: &Path, arguments: &[&str]) -> Command {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let free = free.local_addr().expect("it is bound").to_string();
    let mut command = program("lizctl");
    command
        .current_dir(folder)
        .args(["up", "--listen", &free])
        .args(arguments);
    command
}

fn pasted(line: &str) -> Value {
    let mut shell = Command::new("bash");
    // The printed command must work in any shell and folder.
    shell
        .args(["-c", line])
        .current_dir("/")
        .env("no_proxy", "*");
    let done = run(&mut shell);
    let text = done.success();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{line}: {text}"))
}

#[test]
fn a_table_is_shown_and_it_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    for story in ["in an empty folder", "and again, on what is there"] {
        let roots = fs::read(folder.path().join("certs/root.crt"));
        let shown = run(&mut up(folder.path(), &["--for", "5s"])).success();
        let samples = |label: &str| -> u64 {
            let rows = shown.lines().filter(|line| line.starts_with(label));
            rows.map(|row| {
                row.split_whitespace()
                    .nth(3)
                    .and_then(|count| count.parse::<u64>().ok())
                    .unwrap_or(0)
            })
            .sum()
        };
        assert!(
            samples("cpu ") >= 3 && samples("mem ") >= 3,
            "{story}: {shown}"
        );
        if let Ok(root) = roots {
            let now = fs::read(folder.path().join("certs/root.crt")).unwrap();
            assert_eq!(root, now, "{story}: the CA stays");
        }
    }
    for folder in [
        "certs",
        "certs/nodes",
        "certs/readers",
        "certs/receivers",
        "data",
    ]
    .map(|name| folder.path().join(name))
    {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let secret = path
                .extension()
                .is_some_and(|end| end == "key" || end == "db" || end == "json");
            assert_eq!(
                mode & if secret { 0o077 } else { 0o022 },
                0,
                "{}: {mode:o}",
                path.display()
            );
        }
    }
}

#[test]
fn the_printed_command_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // A folder name that needs quoting in a shell.
    let folder = folder.path().join("it's a \"folder\" $HOME");
    fs::create_dir(&folder).unwrap();
    let mut running = Running::start(&mut up(&folder, &[]));
    // First comes what a browser opens, without a certificate.
    let page = running.wait_for("http://127.0.0.1:");
    let mut curl = Command::new("curl");
    curl.args([
        "-qsSL",
        "--noproxy",
        "*",
        "-c",
        "-",
        "-w",
        "%{url_effective}\n",
    ]);
    let shown = run(curl.arg(&page)).success();
    let (origin, _key) = page.split_once("/open/").unwrap();
    assert!(shown.contains("lizmon-open-"), "{shown}");
    assert!(shown.contains(&format!("{origin}/\n")), "{shown}");
    let again = run(Command::new("curl").args(["-qsS", "--noproxy", "*", &page])).success();
    assert!(again.contains("not_opened"), "{again}");
    let line = running.wait_for("curl ");
    running.wait_for("Publish was successful to");
    // In this folder no flag is needed.
    for verb in ["hosts", "token", "doctor"] {
        let done = run(program("lizctl").current_dir(&folder).arg(verb));
        assert!(!done.stdout.is_empty(), "{verb}: {}", done.stderr);
        done.success();
    }
    let shown = pasted(&line);
    let average = &shown["summary:by-minute:cpu"]["averages"][0];
    assert!(average["num-samples"].as_u64().unwrap() >= 1, "{shown}");
    running.signal(Signal::INT);
    let done = running.wait_within(Duration::from_secs(20));
    assert!(done.status.success(), "{}", done.stderr);
    assert!(
        done.stdout.contains("cpu") && done.stdout.contains("mem"),
        "{}",
        done.stdout
    );
}

/// A port in use is not an error: the next free one is used and reported.
/// What the README says of a second machine, with the commands as they are printed.
#[test]
fn a_second_machine_joins_with_the_printed_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(&mut up(folder.path(), &["--this-host", "web1"]));
    running.wait_for("Publish was successful to");
    let mut join_token = program("lizctl");
    join_token.current_dir(folder.path());
    let made = run(join_token.args(["join-token", "web2", "--tag", "env=prod"]));
    let token = made.stdout.trim().to_owned();
    let (_, line) = made.stderr.split_once("next, on web2: lizctl ").unwrap();
    let line = line.lines().next().unwrap().replace("TOKEN", &token);
    let second = tempfile::tempdir().unwrap();
    let mut join = program("lizctl");
    join.current_dir(second.path()).args(line.split(' '));
    let joined = run(&mut join);
    let (_, next) = joined.stderr.split_once("next: liz-monitor ").unwrap();
    let mut monitor = program("liz-monitor");
    monitor
        .current_dir(second.path())
        .args(next.lines().next().unwrap().split(' '));
    let mut monitor = Running::start(&mut monitor);
    monitor.wait_for("Publish was successful to");
    let mut hosts = program("lizctl");
    hosts.current_dir(folder.path()).args(["hosts", "--json"]);
    let hosts: Value = serde_json::from_str(&run(&mut hosts).success()).unwrap();
    let hosts = hosts["hosts"].as_array().unwrap();
    let named: Vec<_> = hosts
        .iter()
        .map(|host| (&host["name"], &host["tags"]))
        .collect();
    let prod = serde_json::json!(["env=prod"]);
    assert_eq!(
        named,
        [(&"web1".into(), &Value::Null), (&"web2".into(), &prod)]
    );
    for running in [monitor, running] {
        running.signal(Signal::TERM);
        let ended = running.wait();
        assert!(ended.status.success(), "{}", ended.stderr);
    }
}

#[test]
fn the_next_free_port_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let mut command = program("lizctl");
    command
        .current_dir(folder.path())
        .args(["up", "--listen", &taken.to_string()]);
    let mut running = Running::start(&mut command);
    let line = running.wait_for("curl ");
    assert!(!line.contains(&format!(":{}/", taken.port())), "{line}");
    running.wait_for("Publish was successful to");
    pasted(&line);
    running.signal(Signal::TERM);
    let done = running.wait_within(Duration::from_secs(20));
    assert!(done.status.success(), "{}", done.stderr);
    assert!(
        done.stderr.contains(&taken.port().to_string()),
        "it says that the port was taken: {}",
        done.stderr
    );
}
