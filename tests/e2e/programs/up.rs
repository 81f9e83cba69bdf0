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
    let again = run(&mut curl).success();
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
/// A browser with the cookie of `up`'s page: curl, in this folder.
struct Browser<'f> {
    folder: &'f Path,
    origin: String,
}

impl<'f> Browser<'f> {
    fn open(page: &str, folder: &'f Path) -> Self {
        let (origin, _key) = page.split_once("/open/").unwrap();
        let browser = Self {
            folder,
            origin: origin.to_owned(),
        };
        run(browser.curl(&["-c", "jar", page]).arg("-L")).success();
        browser
    }

    fn curl(&self, arguments: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.current_dir(self.folder)
            .args(["-qsS", "--noproxy", "*", "-w", "\n%{http_code}"])
            .args(arguments);
        curl
    }

    /// The page and its status.
    fn ask(&self, arguments: &[&str], path: &str) -> (String, u16) {
        let url = format!("{}{path}", self.origin);
        let text = run(self.curl(arguments).arg(url)).success();
        let (page, status) = text.rsplit_once('\n').unwrap();
        (page.to_owned(), status.parse().unwrap())
    }

    /// A form of a page of this server.
    fn send(&self, path: &str, form: &str) -> (String, u16) {
        let origin = format!("origin: {}", self.origin);
        self.ask(&["-b", "jar", "-H", &origin, "-d", form], path)
    }
}

fn text_of(html: &str) -> String {
    let named = [
        ("&quot;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    named
        .iter()
        .fold(html.to_owned(), |text, (name, is)| text.replace(name, is))
}

/// A second machine is added on the page, joins with the line that is shown there, and is revoked.
#[test]
fn a_machine_is_added_and_revoked_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(&mut up(folder.path(), &["--this-host", "web1"]));
    let page = running.wait_for("http://127.0.0.1:");
    running.wait_for("Publish was successful to");
    let browser = Browser::open(&page, folder.path());
    let (form, status) = browser.ask(&["-b", "jar"], "/add");
    assert!(status == 200 && form.contains(" method=\"post\" action=\"add\">"));
    let wrong = browser.send("/add", "name=<b>&tags=");
    assert!(
        wrong.1 == 422 && wrong.0.contains("`&lt;b&gt;` is not a node name"),
        "{wrong:?}"
    );
    let wrong = browser.send("/add", "name=web2&tags=env=prod+env=test");
    assert!(
        wrong.1 == 422 && wrong.0.contains("`env` is given twice"),
        "{wrong:?}"
    );
    let (added, status) = browser.send("/add", "name=web2&tags=env=prod");
    assert_eq!(status, 200, "{added}");
    let (_, line) = added.split_once("<code>lizctl ").unwrap();
    let line = text_of(line.split_once("</code>").unwrap().0);
    let (_, again) = added.split_once("data-again=\"").unwrap();
    let again = format!("/{}", text_of(again.split_once('"').unwrap().0));
    let (waiting, _) = browser.ask(&["-b", "jar"], &again);
    assert!(waiting.contains("Waiting for"), "{waiting}");
    let (tokens, _) = browser.ask(&["-b", "jar"], "/add");
    assert!(
        tokens.contains("<bdi>web2</bdi>"),
        "it is not used: {tokens}"
    );
    let second = tempfile::tempdir().unwrap();
    let mut join = program("lizctl");
    let joined = run(join.current_dir(second.path()).args(line.split(' ')));
    let (_, next) = joined.stderr.split_once("next: liz-monitor ").unwrap();
    let mut monitor = program("liz-monitor");
    monitor
        .current_dir(second.path())
        .args(next.lines().next().unwrap().split(' '));
    let mut monitor = Running::start(&mut monitor);
    monitor.wait_for("Publish was successful to");
    let (appeared, _) = browser.ask(&["-b", "jar"], &again);
    assert!(
        appeared.contains("has appeared") && !appeared.contains("data-again"),
        "{appeared}"
    );
    let let_in = |browser: &Browser| {
        let (page, _) = browser.ask(&["-b", "jar"], "/add");
        let (unused, let_in) = page.split_once(" id=\"let-in\"").unwrap();
        assert!(!unused.contains("<bdi>web2</bdi>"), "it is used: {unused}");
        let row = let_in
            .split("<tr>")
            .find(|row| row.contains("<bdi>web2</bdi>"));
        row.map(str::to_owned)
    };
    let row = let_in(&browser).unwrap();
    assert!(row.contains("<bdi>join token "), "{row}");
    let mut hosts = program("lizctl");
    hosts.current_dir(folder.path()).args(["hosts", "--json"]);
    let hosts: Value = serde_json::from_str(&run(&mut hosts).success()).unwrap();
    let hosts = hosts["hosts"].as_array().unwrap();
    let web2 = hosts.iter().find(|host| host["name"] == "web2").unwrap();
    assert_eq!(web2["tags"], serde_json::json!(["env=prod"]), "{web2}");
    let (revoked, status) = browser.send("/revoke/web2", "");
    assert!(
        status == 200 && revoked.contains("ms after you asked"),
        "{revoked}"
    );
    monitor.wait_for("revoked");
    assert_eq!(let_in(&browser), None, "it was revoked");
    for running in [monitor, running] {
        running.signal(Signal::TERM);
        running.wait();
    }
}

/// Another site's form, a browser without the cookie, and what is not a form.
#[test]
fn only_a_page_of_ours_adds_machines() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(&mut up(folder.path(), &["--this-host", "web1"]));
    let page = running.wait_for("http://127.0.0.1:");
    let browser = Browser::open(&page, folder.path());
    let ours = format!("origin: {}", browser.origin);
    let form = ["-d", "name=web2"];
    for (story, arguments, expected) in [
        ("no cookie", &["-H", &ours][..], 401),
        ("no origin", &["-b", "jar"], 403),
        (
            "another origin",
            &["-b", "jar", "-H", "origin: http://evil.example"],
            403,
        ),
        (
            "another name",
            &["-b", "jar", "-H", &ours, "-H", "host: evil.example"],
            421,
        ),
    ] {
        for path in ["/add", "/revoke/web1"] {
            let (page, status) = browser.ask(&[arguments, &form].concat(), path);
            assert_eq!(status, expected, "{story}, {path}: {page}");
        }
    }
    let (_, status) = browser.send("/", "name=web2");
    assert_eq!(status, 405, "no form is there");
    let long = format!("name={}", "w".repeat(9_000));
    assert_eq!(browser.send("/add", &long).1, 413);
    let mut list = program("lizctl");
    let listed = run(list.current_dir(folder.path()).args(["list", "--json"])).success();
    assert!(!listed.contains("\"state\":\"revoked\""), "{listed}");
    running.signal(Signal::TERM);
    running.wait();
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
