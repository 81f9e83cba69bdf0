//! `liz-receiver` as a process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::crash::{receiver_command, start_receiver, started};
use crate::harness::process::{Running, run};
use crate::harness::raw::{self, tls_config};
use crate::harness::{World, answer};

/// A clean exit has nothing to wait for here.
const AT_ONCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_it_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut world = World::without_receiver(|_| ());
        let node = world.node("a");
        let running = start_receiver(&mut world);
        let token = world.token(&node).await;
        let path = format!("/api/perf/a/{}", world.clock.now());
        // An idle keep-alive connection does not delay the exit.
        world
            .post(&node, &token, &path, r#"{"cpu":1}"#)
            .await
            .no_content("a sample");
        running.signal(signal);
        let done = running.wait_within(AT_ONCE);
        assert_eq!(
            done.success(),
            "",
            "stdout is for answers, and it gives none"
        );
        let running = start_receiver(&mut world);
        let token = world.token(&node).await;
        let got = world
            .get(&node, &token, "/api/perf/a/by-minute:cpu")
            .await
            .json("after it");
        assert_eq!(
            got["summary:by-minute:cpu"]["averages"][0]["num-samples"],
            1
        );
        drop(running);
    }
}

/// Accepted requests are finished: a request whose body is being sent gets its 204; new connections
/// get nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("a");
    let mut running = start_receiver(&mut world);
    let token = world.token(&node).await;
    let config = || tls_config(&world.root(), Some(node.shown()), &["http/1.1"]);
    let mut stream = raw::connect(&world, config()).await.unwrap();
    let path = format!("/api/perf/a/{}", world.clock.now());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = [0; 64];
    // The receiver asks for the body, so the request has begun.
    let read = stream.read(&mut said).await.unwrap();
    assert!(
        said[..read].starts_with(b"HTTP/1.1 100"),
        "{}",
        String::from_utf8_lossy(&said[..read])
    );
    running.signal(Signal::TERM);
    running.wait_for("stopping");
    stream.write_all(b"{\"cpu\":").await.unwrap();
    let refused = async { while raw::connect(&world, config()).await.is_ok() {} };
    tokio::time::timeout(AT_ONCE, refused)
        .await
        .expect("no new connection");
    stream.write_all(b"1}").await.unwrap();
    let said = raw::read_to_close(&mut stream).await.unwrap();
    assert_eq!(
        raw::status(&said),
        204,
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert!(running.wait_within(AT_ONCE).status.success());
    let _running = start_receiver(&mut world);
    let token = world.token(&node).await;
    world
        .get(&node, &token, "/api/perf/a")
        .await
        .json("it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_has_the_data() {
    let mut world = World::without_receiver(|_| ());
    let first = start_receiver(&mut world);
    let second = run(&mut receiver_command(&world));
    let said = second.failure(1);
    assert!(
        said.contains(&world.data().display().to_string()),
        "it names the folder: {said}"
    );
    assert_eq!(second.stdout, "");
    // The first process is not disturbed, and a kill does not leave the lock behind.
    let client = world.client(None, &["http/1.1"]);
    assert_eq!(answer(client.get(world.url("/healthz"))).await.status, 200);
    first.kill();
    drop(start_receiver(&mut world));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let world = World::without_receiver(|_| ());
    let node = world.node("a");
    let files = world.trust_files();
    let show = |path: &Path| path.display().to_string();
    let (nowhere, text) = (
        world.folder().join("nowhere.pem"),
        world.folder().join("text.pem"),
    );
    fs::write(&text, "hello").unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (flag, value, culprit) in [
        ("--cert", show(&nowhere), "nowhere.pem"),
        ("--cert", show(&text), "text.pem"),
        ("--cert", show(&node.cert), "node"),
        ("--key", show(&nowhere), "nowhere.pem"),
        ("--key", show(&node.key), "main.crt"),
        ("--ca", show(&nowhere), "nowhere.pem"),
        ("--ca", show(&files.key), "main.key"),
        ("--crl", show(&nowhere), "nowhere.pem"),
        ("--crl", show(&files.ca), "root.crt"),
        ("--data", show(&text), "text.pem"),
        ("--listen", taken, "listen"),
    ] {
        let mut command = receiver_command(&world);
        let mut edited = Command::new(command.get_program());
        edited.args(replaced(&mut command, flag, &value));
        let done = run(&mut edited);
        let said = done.failure(1);
        assert!(said.contains(culprit), "{flag} {value}: {said}");
        assert_eq!(said.lines().count(), 1, "{flag} {value}: {said}");
        assert_eq!(done.stdout, "", "{flag} {value}");
    }
}

/// A limit of zero would let nobody in.
#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_nothing() {
    let world = World::without_receiver(|_| ());
    for flag in [
        "--connections-per-address",
        "--connections-per-holder",
        "--requests-per-second",
        "--records-per-second",
    ] {
        for value in ["0", "-1", "many", ""] {
            let mut command = receiver_command(&world);
            let done = run(command.arg(format!("{flag}={value}")));
            let said = done.failure(2);
            assert!(said.contains(flag), "{flag} {value}: {said}");
        }
    }
}

/// The command's arguments, with another value of this flag.
pub(super) fn replaced(command: &mut Command, flag: &str, value: &str) -> Vec<String> {
    let mut arguments: Vec<String> = command
        .get_args()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let at = arguments
        .iter()
        .position(|argument| argument == flag)
        .expect("the flag is there");
    value.clone_into(&mut arguments[at + 1]);
    arguments
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_its_owners_whatever_the_umask() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("a");
    let plain = receiver_command(&world);
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 000; exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args());
    let running = started(&mut world, &mut command);
    let token = world.token(&node).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    world
        .post(&node, &token, &path, r#"{"cpu":1}"#)
        .await
        .no_content("a sample");
    let mut seen = 0;
    for entry in fs::read_dir(world.data()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
        seen += 1;
    }
    assert!(seen >= 2, "a store and a key");
    let mode = fs::metadata(world.data()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o022, 0, "{mode:o}");
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_notified_when_it_is_ready_and_when_it_stops() {
    let mut world = World::without_receiver(|_| ());
    let path = world.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut command = receiver_command(&world);
    let running = started(&mut world, command.env("NOTIFY_SOCKET", &path));
    let heard = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a word in time");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert!(heard().contains("READY=1"));
    // Issued three hours ago, for 90 days.
    assert!(heard().contains("STATUS=its certificate is valid for 89 days"));
    let client = world.client(None, &["http/1.1"]);
    assert_eq!(answer(client.get(world.url("/readyz"))).await.status, 200);
    running.signal(Signal::TERM);
    assert!(heard().contains("STOPPING=1"));
    assert!(running.wait_within(AT_ONCE).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_log_can_be_json() {
    let mut world = World::without_receiver(|_| ());
    let mut command = receiver_command(&world);
    let running = started(&mut world, command.args(["--log-format", "json"]));
    running.signal(Signal::TERM);
    let done = running.wait_within(AT_ONCE);
    assert!(done.stderr.lines().count() >= 2, "{}", done.stderr);
    for line in done.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
}

/// Every flag from its environment variable; the command line wins.
#[tokio::test(flavor = "multi_thread")]
async fn flags_come_from_the_environment() {
    let mut world = World::without_receiver(|_| ());
    let typed = receiver_command(&world);
    let arguments: Vec<_> = typed
        .get_args()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let mut command = crate::harness::process::program("liz-receiver");
    for pair in arguments.chunks(2) {
        let twin = format!(
            "LIZMON_{}",
            pair[0]
                .trim_start_matches('-')
                .to_uppercase()
                .replace('-', "_")
        );
        command.env(twin, &pair[1]);
    }
    command
        .env("LIZMON_TOKEN_TTL", "1h")
        .args(["--token-ttl", "7m"]);
    let _running: Running = started(&mut world, &mut command);
    let node = world.node("a");
    let got = world
        .ask_token(&node.http, &[("grant_type", "client_credentials")])
        .await
        .json("a token");
    assert_eq!(got["expires_in"], 420);
}

/// As `openssl x509 -text` and people write it. Regression: it was ignored without a warning.
#[tokio::test(flavor = "multi_thread")]
async fn text_beside_sections_is_warned_of() {
    let mut world = World::without_receiver(|_| ());
    let files = world.trust_files();
    for file in [&files.ca, &files.crl, &files.cert] {
        let sections = fs::read_to_string(file).unwrap();
        let text = "Certificate:\n    Data:\n        Version: 3 (0x2)\n";
        fs::write(file, format!("{text}{sections}")).unwrap();
    }
    let running = start_receiver(&mut world);
    running.signal(Signal::TERM);
    let done = running.wait_within(AT_ONCE);
    for file in [&files.ca, &files.crl, &files.cert] {
        let named = format!("{}: line 1 is text", file.display());
        let warned = done.stderr.lines().filter(|line| line.contains(&named));
        let warned: Vec<&str> = warned.collect();
        assert!(
            warned.len() == 1 && warned[0].contains("WARN") && warned[0].contains("3 lines"),
            "{}",
            done.stderr
        );
    }
}
