//! `lizctl doctor`: fine where all is well, and each fault, made for real, has its code.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_ca::pki::Reason;
use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::crash::start_receiver;
use crate::harness::World;
use crate::harness::process::{Finished, program, run};
use crate::harness::world::{Holder, wall_clock};

/// `lizctl doctor` with these flags. Programs of systemd are found in this folder alone.
fn doctor(tools: &Path, flags: &[(&str, &str)]) -> Finished {
    let mut command = program("lizctl");
    command.args(["doctor", "--json"]).env("PATH", tools);
    for (flag, value) in flags {
        command.arg(format!("--{flag}={value}"));
    }
    run(&mut command)
}

/// The flags of a holder at this receiver.
fn flags(world: &World, holder: &Holder, url: &str) -> Vec<(&'static str, String)> {
    let show = |path: &Path| path.display().to_string();
    vec![
        ("receiver", url.to_owned()),
        ("cert", show(&holder.cert)),
        ("key", show(&holder.key)),
        ("ca", show(&world.root())),
    ]
}

fn run_with(tools: &Path, flags: &[(&'static str, String)]) -> Finished {
    let flags: Vec<(&str, &str)> = flags
        .iter()
        .map(|(flag, value)| (*flag, value.as_str()))
        .collect();
    doctor(tools, &flags)
}

fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// The codes of all findings. Each has a remedy, and with one the exit code is 1.
#[track_caller]
fn codes(finished: &Finished) -> Vec<String> {
    let report = report(finished);
    let mut codes = Vec::new();
    for result in report["results"].as_array().unwrap() {
        let is_finding = matches!(result["status"].as_str().unwrap(), "warning" | "failed");
        assert_eq!(result["remedy"].is_string(), is_finding, "{result}");
        codes.extend(result["code"].as_str().map(str::to_owned));
    }
    let code = i32::from(!codes.is_empty());
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    codes
}

/// A program of systemd that prints this.
fn stub(tools: &Path, name: &str, text: &str) {
    let file = tools.join(name);
    fs::write(
        &file,
        format!("#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <<'END'\n{text}\nEND\n"),
    )
    .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Nodes, readers and operators: each step is tried, and nothing that is stored changes.
#[tokio::test(flavor = "multi_thread")]
async fn all_is_well() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    let operator = world.holder(Role::Operator, "olga");
    let token = world.token(&node).await;
    let path = format!("/api/perf/web1/{}", world.clock.now());
    let sent = world.post(&node, &token, &path, r#"{"cpu":1}"#).await;
    sent.no_content("a sample");
    let before = world.stored(&reader).await;
    let tools = tempfile::tempdir().unwrap();
    for (holder, tried) in [
        (
            &node,
            &[
                "files",
                "certificate",
                "clock",
                "receiver",
                "token",
                "read",
                "write",
            ][..],
        ),
        (
            &reader,
            &["files", "certificate", "clock", "receiver", "token", "read"],
        ),
        (
            &operator,
            &[
                "files",
                "certificate",
                "clock",
                "receiver",
                "token",
                "read",
                "read",
            ],
        ),
    ] {
        let done = run_with(tools.path(), &flags(&world, holder, &world.issuer()));
        assert_eq!(codes(&done), [""; 0], "{}", done.stdout);
        let report = report(&done);
        let results = report["results"].as_array().unwrap().iter();
        let fine = results.filter(|result| result["status"] == "ok");
        let fine: Vec<&str> = fine
            .map(|result| result["check"].as_str().unwrap())
            .collect();
        assert_eq!(fine, tried, "{}", holder.name);
        let identity = report["identity"].as_str().unwrap();
        assert!(identity.ends_with(&holder.name), "{identity}");
    }
    let after = world.stored(&reader).await;
    assert_eq!(before["web1"], after["web1"], "nothing was counted");
    let mut shown = program("lizctl");
    shown.arg("doctor").env("PATH", tools.path());
    for (flag, value) in flags(&world, &node, &world.issuer()) {
        shown.arg(format!("--{flag}={value}"));
    }
    let shown = run(&mut shown).success();
    assert!(
        shown.starts_with("as spiffe://lizmon.internal/node/web1\n"),
        "{shown}"
    );
    assert!(shown.contains("\nok       write        "), "{shown}");
}

/// What is wrong with names, connections, roots, certificates and files.
#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found() {
    let world = World::start().await;
    let (reader, other) = (world.reader(), World::without_receiver(|_| ()));
    let node = world.node("web1");
    let tools = tempfile::tempdir().unwrap();
    let at = |name: &str| world.folder().join(name);
    let show = |path: &Path| path.display().to_string();
    let changed = |holder: &Holder, flag: &'static str, value: String| {
        let mut flags = flags(&world, holder, &world.issuer());
        flags.retain(|(known, _)| *known != flag);
        flags.push((flag, value));
        flags
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Write;
        for mut stream in plain.incoming().flatten() {
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let readable = at("readable.key");
    fs::copy(&reader.key, &readable).unwrap();
    fs::set_permissions(&readable, fs::Permissions::from_mode(0o644)).unwrap();
    let open = at("open");
    fs::create_dir(&open).unwrap();
    fs::copy(&reader.cert, open.join("reader.crt")).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let link = at("link.crt");
    symlink(&reader.cert, &link).unwrap();
    let ended = ended_reader(&world, &reader);
    let old_ca = tempfile::tempdir().unwrap();
    let old_certs = old_ca.path().join("certs");
    Authority::init(
        &old_certs,
        &InitOptions::default(),
        wall_clock() - 40 * 86_400,
    )
    .unwrap();
    let mut with_link = changed(&reader, "cert", show(&link));
    with_link.push(("ca-url", format!("https://{closed}")));
    let mut old_list = flags(&world, &reader, &world.issuer());
    old_list.push(("crl", show(&old_certs.join("crl.pem"))));
    for (story, flags, expected) in [
        (
            "no such name",
            changed(&reader, "receiver", "https://nowhere.invalid:8443".into()),
            &["name-unknown"][..],
        ),
        (
            "nothing listens",
            changed(&reader, "receiver", format!("https://{closed}")),
            &["no-connection"],
        ),
        (
            "no TLS",
            changed(
                &reader,
                "receiver",
                format!("https://127.0.0.1:{plain_port}"),
            ),
            &["no-tls"],
        ),
        (
            "no file",
            changed(&reader, "key", show(&at("none"))),
            &["missing"],
        ),
        (
            "another's key",
            changed(&reader, "key", show(&node.key)),
            &["key-of-another"],
        ),
        (
            "a key for all",
            changed(&reader, "key", show(&readable)),
            &["key-not-private"],
        ),
        (
            "a folder for all",
            changed(&reader, "cert", show(&open.join("reader.crt"))),
            &["folder-writable-by-others"],
        ),
        ("a link", with_link, &["symbolic-link", "no-connection"]),
        (
            "another root",
            changed(&reader, "ca", show(&other.root())),
            &["not-of-these-roots", "server-not-trusted"],
        ),
        (
            "an ended certificate",
            flags(&world, &ended, &world.issuer()),
            &["expired"],
        ),
        ("ended CRLs", old_list, &["crl-expired"]),
        (
            "no samples",
            flags(&world, &node, &world.issuer()),
            &["no-samples"],
        ),
    ] {
        let done = run_with(tools.path(), &flags);
        assert_eq!(codes(&done), expected, "{story}: {}", done.stdout);
        assert!(
            done.stderr.contains("checks failed"),
            "{story}: {}",
            done.stderr
        );
    }
}

/// A reader's certificate that has ended an hour ago.
fn ended_reader(world: &World, reader: &Holder) -> Holder {
    let mut request = Request::new(Role::Reader, "ended".parse().unwrap());
    request.lifetime = Duration::from_secs(3_600);
    world.ca.issue(request, wall_clock() - 7_200).unwrap();
    let file = |end: &str| world.certs().join(format!("readers/ended.{end}"));
    Holder {
        name: "ended".into(),
        cert: file("crt"),
        key: file("key"),
        ..reader.clone()
    }
}

/// A clock that is wrong on one side: the receiver's here, because programs have the machine's.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_told() {
    let world = World::start().await;
    let reader = world.reader();
    let tools = tempfile::tempdir().unwrap();
    let now = world.clock.now();
    for (ahead, status) in [(30, "warning"), (1_000, "failed")] {
        world.clock.set(now + ahead);
        let done = run_with(tools.path(), &flags(&world, &reader, &world.issuer()));
        let codes = codes(&done);
        assert_eq!(codes[0], "clocks-differ", "{codes:?}");
        let report = report(&done);
        let results = report["results"].as_array().unwrap();
        let told = results
            .iter()
            .find(|result| result["code"] == "clocks-differ")
            .unwrap();
        assert_eq!(told["status"], status, "{told}");
        assert!(
            told["what"].as_str().unwrap().contains("s behind that of"),
            "{told}"
        );
    }
}

/// A revoked certificate is told by the CRLs that are given, and by the receiver's refusal.
#[test]
fn a_revoked_certificate_is_told() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let entries = world.ca.entries().unwrap();
    let entry = entries.iter().find(|entry| entry.name == "web1").unwrap();
    let serial = entry.serial.parse().unwrap();
    world
        .ca
        .revoke(&serial, Reason::KeyCompromise, world.clock.now())
        .unwrap();
    let receiver = start_receiver(&mut world);
    let tools = tempfile::tempdir().unwrap();
    let mut flags = flags(&world, &node, &world.issuer());
    flags.push(("crl", world.certs().join("crl.pem").display().to_string()));
    let done = run_with(tools.path(), &flags);
    assert_eq!(
        codes(&done),
        ["revoked", "certificate-refused"],
        "{}",
        done.stdout
    );
    drop(receiver);
}

/// The settings of daemons say what to check, and systemd how they fare.
#[test]
fn settings_say_what_to_check() {
    let world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let tools = tempfile::tempdir().unwrap();
    let at = |name: &str| world.folder().join(name);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let files = world.trust_files();
    let write = |name: &str, settings: &[(&str, &Path)], more: &str| -> PathBuf {
        let lines = settings
            .iter()
            .map(|(key, path)| format!("{key} = {path:?}\n"));
        let file = at(name);
        fs::write(&file, lines.collect::<String>() + more).unwrap();
        file
    };
    let monitor = write(
        "monitor.toml",
        &[
            ("cert", &node.cert),
            ("key", &node.key),
            ("ca", &files.ca),
            ("spool", &at("spool")),
        ],
        &format!("this-host = \"web1\"\npublish = [\"https://{closed}/api/perf\"]\ninterval = 1\n"),
    );
    let receiver = write(
        "receiver.toml",
        &[
            ("cert", &files.cert),
            ("key", &files.key),
            ("ca", &files.ca),
            ("crl", &files.crl),
            ("data", &world.data()),
        ],
        &format!("listen = \"{closed}\"\n"),
    );
    let ca = write("ca.toml", &[("certs", &world.certs())], "");
    let config = |file: &Path| doctor(tools.path(), &[("config", &file.display().to_string())]);
    assert_eq!(codes(&config(&monitor)), ["missing", "no-connection"]);
    let told = codes(&config(&receiver));
    assert_eq!(told, ["missing", "no-connection"]);
    stub(tools.path(), "timedatectl", "no");
    let failed = "LoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=disabled\nNRestarts=5\nResult=exit-code";
    stub(tools.path(), "systemctl", failed);
    // liz-ca has not issued its own certificate yet.
    let told = codes(&config(&ca));
    let of_service = [
        "clock-not-synchronized",
        "missing",
        "missing",
        "not-running",
        "not-enabled",
    ];
    assert_eq!(told, of_service);
    let nothing = doctor(tools.path(), &[]);
    assert!(
        nothing.failure(2).contains("--config"),
        "{}",
        nothing.stderr
    );
    let broken = write("broken.toml", &[], "\ncert = 1\n");
    assert!(config(&broken).failure(2).contains("broken.toml:2: "));
    let report = report(&config(&monitor));
    let service = report["results"].as_array().unwrap().last().unwrap();
    let (what, check) = (service["what"].as_str().unwrap(), &service["check"]);
    assert_eq!(*check, json!("service"));
    assert!(what.contains("lizmon-monitor.service"), "{what}");
}
