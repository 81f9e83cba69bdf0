//! The environment of every program: signals, variables, an unwritable log, too few open files.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, prlimit};

use super::monitor::monitor;
use crate::crash::{receiver_command, started};
use crate::harness::World;
use crate::harness::process::{Running, liz_ca, program, run};
use crate::harness::raw::{self, tls_config};
use crate::harness::world::Holder;

const AT_ONCE: Duration = Duration::from_secs(10);

/// All daemons.
fn daemons(world: &World, node: &Holder) -> [Command; 3] {
    [
        receiver_command(world),
        liz_ca(world.certs()),
        monitor(world, node),
    ]
}

/// Regression: SIGHUP ended receiver and monitor without a flush. The other signals end a program
/// that does not handle them.
#[tokio::test(flavor = "multi_thread")]
async fn daemons_go_on_after_a_signal_that_does_not_end_them() {
    let world = World::start().await;
    let node = world.node("web1");
    for command in daemons(&world, &node) {
        // The folder of the receiver in this process is locked, so use another.
        let data = tempfile::tempdir().unwrap();
        let mut command = without_data(&command);
        command.env("LIZMON_DATA", data.path());
        let mut running = Running::start(&mut command);
        running.wait_for("READY");
        for signal in [Signal::USR1, Signal::USR2, Signal::PIPE] {
            running.signal(signal);
        }
        for _ in 0..2 {
            running.signal(Signal::HUP);
            running.wait_for("SIGHUP");
        }
        running.signal(Signal::QUIT);
        running.wait_within(AT_ONCE).success();
    }
}

/// The same command without `--data DIR`.
fn without_data(command: &Command) -> Command {
    let mut bare = Command::new(command.get_program());
    let mut arguments = command.get_args();
    while let Some(argument) = arguments.next() {
        match argument == "--data" {
            true => drop(arguments.next()),
            false => drop(bare.arg(argument)),
        }
    }
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bare.env(key, value),
            None => bare.env_remove(key),
        };
    }
    bare.stdin(Stdio::null());
    bare
}

/// Regression: when a terminal was closed, the last samples were lost. Under `nohup` the program
/// must continue.
#[test]
fn up_ends_cleanly_with_its_terminal() {
    for (wrapper, ends) in [("", true), ("trap '' HUP;", false)] {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = free.local_addr().unwrap().to_string();
        let lizctl = program("lizctl");
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{wrapper} exec \"$@\""), "sh"])
            .arg(lizctl.get_program())
            .args(["up", "--listen", &free])
            .current_dir(folder.path())
            .stdin(Stdio::null());
        let mut running = Running::start(&mut command);
        running.wait_for("Publish was successful");
        running.signal(Signal::HUP);
        if !ends {
            // It continues to print its table, and stops on SIGTERM.
            running.wait_for(" by minute, ");
            running.signal(Signal::TERM);
        }
        let done = running.wait_within(AT_ONCE);
        assert!(done.stderr.contains("everything is committed"), "{done:?}");
        done.success();
    }
}

/// Regression: Compose files and `EnvironmentFile=` set empty variables, and programs refused to
/// start.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_is_none() {
    let world = World::start().await;
    let node = world.node("web1");
    for empty in ["", " "] {
        for command in daemons(&world, &node) {
            let help = run(Command::new(command.get_program()).arg("--help")).success();
            let mut twins: Vec<&str> = help.split("[env: ").skip(1).collect();
            for twin in &mut twins {
                *twin = twin.split('=').next().unwrap();
            }
            assert!(twins.len() > 5, "{help}");
            let data = tempfile::tempdir().unwrap();
            let mut command = without_data(&command);
            for twin in twins {
                command.env(twin, empty);
            }
            command.env("RUST_LOG", "info").current_dir(data.path());
            let mut running = Running::start(&mut command);
            running.wait_for("READY");
            running.signal(Signal::TERM);
            running.wait_within(AT_ONCE).success();
        }
        let mut lizctl = program("lizctl");
        lizctl
            .args(["list", "--json", "--certs"])
            .arg(world.certs());
        for twin in ["EXPIRING", "JSON", "LOG_FORMAT", "PASSPHRASE_FILE", "CERTS"] {
            lizctl.env(format!("LIZMON_{twin}"), empty);
        }
        run(&mut lizctl).success();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_lists_are_trimmed() {
    let world = World::start().await;
    let node = world.node("web1");
    let url = world.url("/api/perf");
    let cases = [
        ("COLLECT", "cpu, mem".to_owned(), None),
        ("PUBLISH", format!(" {url} , {url}"), None),
        ("COLLECT", "cpu,".to_owned(), None),
        ("PUBLISH", format!("{url}, "), None),
        ("COLLECT", ",".to_owned(), Some("the list is empty")),
        ("PUBLISH", " , ".to_owned(), Some("the list is empty")),
        ("PUBLISH", format!("{url} {url}"), Some("has a space in it")),
    ];
    for (twin, value, refusal) in cases {
        let whole = monitor(&world, &node);
        let mut command = program("liz-monitor");
        let mut arguments = whole.get_args();
        while let Some(argument) = arguments.next() {
            match twin == "PUBLISH" && argument == "--publish" {
                true => drop(arguments.next()),
                false => drop(command.arg(argument)),
            }
        }
        command.env(format!("LIZMON_{twin}"), &value);
        let mut running = Running::start(&mut command);
        if let Some(refusal) = refusal {
            let done = running.wait();
            assert!(done.failure(2).contains(refusal), "{value}: {done:?}");
            continue;
        }
        running.wait_for("READY");
        running.signal(Signal::TERM);
        running.wait_within(AT_ONCE).success();
    }
}

/// Regression: on a full disk every program panicked with exit code 101.
#[test]
fn exit_codes_hold_with_a_closed_stderr() {
    let files = |command: &mut Command| {
        command.args(["--cert", "none", "--key", "none", "--ca", "none"]);
    };
    let mut receiver = program("liz-receiver");
    files(receiver.args(["--listen", "127.0.0.1:0", "--crl", "none"]));
    let mut monitor = program("liz-monitor");
    files(monitor.args(["--this-host", "a", "--publish", "https://a:1/api/perf"]));
    let mut ca = program("liz-ca");
    ca.args(["--listen", "127.0.0.1:0", "--certs", "/none"]);
    let mut list = program("lizctl");
    list.args(["list", "--certs", "/none"]);
    let mut wrong = program("lizctl");
    wrong.arg("--no-such-flag");
    for (mut command, code) in [(receiver, 1), (monitor, 1), (ca, 1), (list, 1), (wrong, 2)] {
        command.stdout(Stdio::null());
        let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
        let (reader, gone) = std::io::pipe().unwrap();
        drop(reader);
        for stderr in [full(), gone.into(), Stdio::null()] {
            let status = command.stderr(stderr).status().unwrap();
            assert_eq!(status.code(), Some(code), "{command:?}");
        }
    }
}

/// Only log lines are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_stops_nothing() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let whole = receiver_command(&world);
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$@\" 2>/dev/full", "sh"])
        .arg(whole.get_program())
        .env("RUST_LOG", "debug");
    for argument in whole.get_args() {
        match argument == "127.0.0.1:0" {
            true => command.arg(address.to_string()),
            false => command.arg(argument),
        };
    }
    let running = Running::start(&mut command);
    // It cannot print READY.
    while TcpStream::connect(address).is_err() {
        tokio::task::yield_now().await;
    }
    world.set_port(address.port());
    let token = world.token(&node).await;
    let path = format!("/api/perf/web1/{}", world.clock.now());
    world
        .post(&node, &token, &path, r#"{"cpu":1}"#)
        .await
        .no_content("a sample");
    running.signal(Signal::TERM);
    running.wait_within(AT_ONCE).success();
}

/// The same command with a limit on open files.
fn with_open_files(command: &Command, max: u32) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -n {max}; exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    limited
}

/// From now on a program may open only so many files more.
fn leave_open_files(running: &Running, more: u64) {
    let pid = running.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let current = Some(open.count() as u64 + more);
    let limit = Rlimit {
        current,
        maximum: current,
    };
    prlimit(Some(pid), Resource::Nofile, limit).unwrap();
}

/// Regression: unauthenticated idle connections up to the limit of open files locked everybody out
/// of `liz-ca`.
#[tokio::test(flavor = "multi_thread")]
async fn idle_unauthenticated_connections_block_no_client() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("web1");
    for (command, path) in [
        (liz_ca(world.certs()), "/.well-known/est/cacerts"),
        (receiver_command(&world), "/healthz"),
    ] {
        let running = started(&mut world, &mut with_open_files(&command, 256));
        let address = format!("127.0.0.1:{}", world.port());
        // The server may close some of them because it has no more files: those are not counted.
        let idle: Vec<_> = (0..600).map(|_| TcpStream::connect(&address)).collect();
        let mut begun = Vec::new();
        for _ in 0..100 {
            let config = tls_config(&world.root(), None, &["http/1.1"]);
            begun.push(raw::connect(&world, config).await);
        }
        let config = tls_config(&world.root(), Some(node.shown()), &["http/1.1"]);
        let mut shown = raw::connect(&world, config).await.expect(path);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let got = raw::exchange(&mut shown, request.as_bytes()).await.unwrap();
        assert_eq!(raw::status(&got), 200, "{path}");
        drop((idle, begun));
        running.signal(Signal::TERM);
        let said = running.wait_within(Duration::from_secs(60)).stderr;
        for words in [
            "the limit on open files allows few connections",
            "cause=\"evicted\"",
        ] {
            assert!(said.contains(words), "{path}: {words}: {said}");
        }
    }
}

/// Regression: nobody could connect, and no log line said why.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_open_files_are_logged() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("web1");
    for (command, what) in [
        (liz_ca(world.certs()), "liz-ca"),
        (receiver_command(&world), "the receiver"),
    ] {
        let mut running = started(&mut world, &mut with_open_files(&command, 64));
        let address = world.url("");
        let address = address
            .rsplit('/')
            .next()
            .unwrap()
            .replace("localhost", "127.0.0.1");
        // Fewer than at its start, so that its own caps on connections do not come first.
        leave_open_files(&running, 4);
        let held: Vec<_> = (0..8).map(|_| TcpStream::connect(&address)).collect();
        let line = running.wait_for("cannot accept connections");
        assert!(line.contains("LimitNOFILE"), "{what}: {line}");
        drop(held);
        if what == "the receiver" {
            world.token(&node).await;
        }
        running.signal(Signal::TERM);
        running.wait_within(Duration::from_secs(60)).success();
    }
}
