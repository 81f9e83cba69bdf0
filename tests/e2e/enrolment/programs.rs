//! `liz-ca` as a process.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use lizmon_ca::authority::{Authority, InitOptions};
use lizmon_protocol::name::Role;
use rustix::process::Signal;
use serde_json::Value;

use super::{ENROLL, join, root_fingerprint, token};
use crate::harness::process::{Running, liz_ca, program, run};
use crate::harness::world::wall_clock;
use crate::harness::{World, answer};

const AT_ONCE: Duration = Duration::from_secs(10);

/// Waits until it is ready; returns its URL.
fn ready(running: &mut Running) -> String {
    let line = running.wait_for("READY on ");
    line.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn it_says_what_it_is() {
    let help = run(program("liz-ca").arg("--help")).success();
    for flag in [
        "listen",
        "certs",
        "san",
        "name",
        "cert",
        "key",
        "passphrase-file",
        "tls-min",
        "log-format",
    ] {
        let twin = format!("[env: LIZMON_{}=", flag.to_uppercase().replace('-', "_"));
        assert!(
            help.contains(&format!("--{flag}")) && help.contains(&twin),
            "{flag}: {help}"
        );
    }
    let version = run(program("liz-ca").arg("--version")).success();
    assert_eq!(version, format!("liz-ca {}\n", env!("CARGO_PKG_VERSION")));
    for wrong in [
        &["--no-such"][..],
        &["verb"],
        &["--cert", "x"],
        &["--san", "a b"],
        &["--log-format", "xml"],
    ] {
        let done = run(program("liz-ca").args(wrong));
        assert_eq!(
            (done.status.code(), &*done.stdout),
            (Some(2), ""),
            "{wrong:?}"
        );
    }
}

#[test]
fn it_joins_a_machine_and_stops_cleanly() {
    let world = World::without_receiver(|_| ());
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start(liz_ca(world.certs()).env("RUST_LOG", "debug"));
        let url = ready(&mut running);
        let token = token(&world, "web1");
        let join_into = |folder: &str| {
            let out = world.folder().join(folder);
            run(&mut join(&url, &token, &root_fingerprint(&world), &out))
        };
        join_into("out").success();
        // Somebody else uses the same token later: the log says who, but never the token.
        join_into("elsewhere").failure(3);
        running.wait_for("used this token before, with another key");
        running.signal(signal);
        let done = running.wait_within(AT_ONCE);
        let secret = token.rsplit_once('.').unwrap().1;
        assert!(!done.stderr.contains(secret), "{}", done.stderr);
        assert_eq!(
            done.success(),
            "",
            "stdout is for answers, and it gives none"
        );
    }
    // The second run got the certificate of the first.
    let own = world.ca.entries().unwrap();
    let own = own.iter().filter(|entry| entry.profile.as_str() == "ca");
    assert_eq!(own.count(), 1);
}

#[test]
fn what_is_missing_is_named() {
    let world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held = holder.local_addr().unwrap().to_string();
    let at = |address: &str, certs: &std::path::Path| {
        let mut command = program("liz-ca");
        command.args(["--listen", address, "--certs"]).arg(certs);
        command
    };
    let mut of_node = liz_ca(world.certs());
    of_node
        .arg("--cert")
        .arg(&node.cert)
        .arg("--key")
        .arg(&node.key);
    let (empty, free) = (world.folder().join("empty"), "127.0.0.1:0");
    for (mut command, part) in [
        (at(free, &empty), "lizctl init-ca"),
        (at(&held, &world.certs()), "--listen"),
        (of_node, "node"),
    ] {
        let done = run(&mut command);
        let said = done.failure(1);
        assert!(said.contains(part), "{part}: {said}");
        assert_eq!(done.stdout, "", "{part}");
    }
}

/// No certificate outlives its CA: long before lifetimes are cut short, the log, /healthz and
/// `lizctl list` say what to do.
#[test]
fn a_ca_that_should_be_replaced_is_complained_of() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let options = InitOptions {
        issuing_days: 1,
        ..InitOptions::default()
    };
    Authority::init(&certs, &options, wall_clock() - 20 * 3600).unwrap();
    let mut command = program("liz-ca");
    command.args(["--listen", "127.0.0.1:0", "--certs"]);
    let mut running = Running::start(command.arg(&certs));
    let url = ready(&mut running);
    let said = running.wait_for("no certificate outlives it");
    assert!(said.contains("WARN"), "{said}");
    let mut curl = Command::new("curl");
    curl.args(["-fsS", "--cacert"]).arg(certs.join("root.crt"));
    let health = run(curl.arg(format!("{url}/healthz"))).success();
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["status"], "ok");
    let warning = health["warnings"][0].as_str().unwrap().to_owned();
    let listed = run(program("lizctl").args(["list", "--certs"]).arg(&certs));
    for place in [&said, &warning, &listed.stderr] {
        assert!(place.contains("lizctl rotate issuing --next"), "{place}");
    }
}

#[test]
fn it_shows_a_certificate_that_it_is_given() {
    let world = World::without_receiver(|_| ());
    let own = world.holder(Role::Ca, "front");
    let mut command = liz_ca(world.certs());
    command
        .arg("--cert")
        .arg(&own.cert)
        .arg("--key")
        .arg(&own.key);
    let mut running = Running::start(&mut command);
    let url = ready(&mut running);
    let out = world.folder().join("out");
    run(&mut join(
        &url,
        &token(&world, "web1"),
        &root_fingerprint(&world),
        &out,
    ))
    .success();
    assert!(!world.certs().join("cas/liz-ca.crt").exists());
}

#[test]
fn systemd_is_notified_and_the_log_can_be_json() {
    let world = World::without_receiver(|_| ());
    let path = world.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut command = liz_ca(world.certs());
    command
        .env("NOTIFY_SOCKET", &path)
        .args(["--log-format", "json"]);
    let running = Running::start(&mut command);
    let heard = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a word in time");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert!(heard().contains("READY=1"));
    running.signal(Signal::TERM);
    assert!(heard().contains("STOPPING=1"));
    let done = running.wait_within(AT_ONCE);
    assert!(done.stderr.lines().count() >= 2, "{}", done.stderr);
    for line in done.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(line["level"].is_string(), "{line}");
    }
}

/// Guessed tokens cause a few log lines, and a count of suppressed ones.
#[tokio::test(flavor = "multi_thread")]
async fn an_unauthenticated_client_does_not_fill_its_log() {
    let world = World::without_receiver(|_| ());
    let mut running = Running::start(&mut liz_ca(world.certs()));
    let port = ready(&mut running).rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://localhost:{port}{ENROLL}");
    let client = world.client(None, &["http/1.1"]);
    let mut refused = 0;
    for _ in 0..1_000 {
        let guess = client.post(&url).basic_auth("web1", Some("web1.guess"));
        let got = answer(guess.body("x")).await;
        assert!(matches!(got.status, 401 | 429), "{}", got.text());
        refused += usize::from(got.status == 401);
    }
    running.signal(Signal::TERM);
    let log = running.wait_within(AT_ONCE).stderr;
    let lines = log
        .lines()
        .filter(|line| line.contains(" refused "))
        .count();
    // The test takes some time, so a few more attempts and lines are allowed.
    assert!(
        refused >= 100,
        "as many as one address may try at once: {refused}"
    );
    assert!(
        (30..90).contains(&lines),
        "{lines} lines of {refused}:\n{log}"
    );
}
