//! The TLS versions that the servers accept, tested with OpenSSL's client.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::crash::{receiver_command, started};
use crate::harness::World;
use crate::harness::process::{Running, program, run};

const ASKED: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Whether a client that offers only this version gets an answer.
fn is_answered(version: &str, port: u16, root: &Path) -> bool {
    let mut client = Command::new("openssl")
        .args(["s_client", version, "-quiet", "-verify_return_error"])
        .args(["-cipher", "DEFAULT@SECLEVEL=0"])
        .arg("-CAfile")
        .arg(root)
        .args(["-connect", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client whose handshake was refused reads nothing more.
    let _unread = client.stdin.take().unwrap().write_all(ASKED.as_bytes());
    let done = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let complaint = String::from_utf8_lossy(&done.stderr);
    let is_answered = said.starts_with("HTTP/1.1 200");
    assert!(
        is_answered || complaint.contains(" alert "),
        "{version}: {said}{complaint}"
    );
    is_answered
}

fn check(port: u16, root: &Path, takes_1_2: bool, what: &str) {
    for (version, expected) in [
        ("-tls1_3", true),
        ("-tls1_2", takes_1_2),
        ("-tls1_1", false),
    ] {
        let got = is_answered(version, port, root);
        assert_eq!(got, expected, "{what}, {version}");
    }
}

/// Values of flag and variable, and whether TLS 1.2 is accepted.
const SETTINGS: [(&[&str], Option<&str>, bool); 5] = [
    (&[], None, true),
    (&["--tls-min", "1.2"], None, true),
    (&["--tls-min", "1.3"], None, false),
    (&[], Some("1.3"), false),
    (&["--tls-min", "1.2"], Some("1.3"), true),
];

fn set(command: &mut Command, arguments: &[&str], twin: Option<&str>) {
    command.args(arguments);
    if let Some(value) = twin {
        command.env("LIZMON_TLS_MIN", value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_can_be_ruled_out_at_a_receiver() {
    for (arguments, twin, takes_1_2) in SETTINGS {
        let mut world = World::without_receiver(|_| ());
        let mut command = receiver_command(&world);
        set(&mut command, arguments, twin);
        let mut running = started(&mut world, &mut command);
        let what = format!("liz-receiver {arguments:?} {twin:?}");
        check(world.port(), &world.root(), takes_1_2, &what);
        // A reload builds a new TLS configuration.
        world.node("gone");
        let mut revoke = program("lizctl");
        revoke
            .args(["revoke", "gone", "--certs"])
            .arg(world.certs());
        run(&mut revoke).success();
        running.wait_for("reloaded");
        check(world.port(), &world.root(), takes_1_2, &what);
    }
}

fn port(url: &str) -> u16 {
    url.trim_end().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn tls_1_2_can_be_ruled_out_at_liz_ca() {
    for (arguments, twin, takes_1_2) in SETTINGS {
        let world = World::without_receiver(|_| ());
        let mut command = program("liz-ca");
        command.args(["--listen", "127.0.0.1:0", "--certs"]);
        command.arg(world.certs());
        set(&mut command, arguments, twin);
        let mut running = Running::start(&mut command);
        let port = port(&running.wait_for("READY on "));
        let what = format!("liz-ca {arguments:?} {twin:?}");
        check(port, &world.root(), takes_1_2, &what);
    }
}

#[test]
fn tls_1_2_can_be_ruled_out_at_up() {
    for (arguments, takes_1_2) in [(&[][..], true), (&["--tls-min", "1.3"], false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program("lizctl");
        command
            .args(["up", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .current_dir(folder.path());
        let mut running = Running::start(&mut command);
        let line = running.wait_for("receiver: https://");
        let url = line
            .split([' ', ','])
            .find(|word| word.starts_with("https"));
        running.wait_for("Publish was successful");
        let root = folder.path().join("certs/root.crt");
        let what = format!("lizctl up {arguments:?}");
        check(port(url.unwrap()), &root, takes_1_2, &what);
    }
}

#[test]
fn other_versions_are_refused_by_name() {
    let commands: [&[&str]; 3] = [&["liz-receiver"], &["liz-ca"], &["lizctl", "up"]];
    for command in commands {
        let (name, verb) = command.split_first().unwrap();
        for wrong in ["1.1", "1.4", "1", "tls1.3", "1.30", "1.2,1.3", ""] {
            let typed = run(program(name).args(verb).args(["--tls-min", wrong]));
            let refusal = typed.failure(2);
            assert!(
                refusal.contains("--tls-min") && refusal.contains("1.2 or 1.3"),
                "{name} {wrong}: {refusal}"
            );
            if wrong.is_empty() {
                continue;
            }
            let by_twin = run(program(name).args(verb).env("LIZMON_TLS_MIN", wrong));
            assert!(by_twin.failure(2).contains("--tls-min"), "{by_twin:?}");
        }
    }
}
