//! `lizctl` against a receiver: its output and exit codes. Issuing is tested in the lizctl package.

use std::process::Command;

use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::harness::process::{Finished, program, run};
use crate::harness::world::Holder;
use crate::harness::{World, answer};

/// Runs a verb against the world's receiver with this holder's certificate.
fn ask(world: &World, holder: &Holder, line: &[&str]) -> Finished {
    run(&mut command(world, holder, line))
}

fn command(world: &World, holder: &Holder, line: &[&str]) -> Command {
    let mut command = program("lizctl");
    command.args(line).arg("--receiver").arg(world.issuer());
    command
        .arg("--cert")
        .arg(&holder.cert)
        .arg("--key")
        .arg(&holder.key);
    command.arg("--ca").arg(world.root());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_alone_is_printed() {
    let world = World::start().await;
    let reader = world.reader();
    let done = ask(&world, &reader, &["token"]);
    assert_eq!(done.stderr, "");
    let text = done.success();
    let token = text.trim_end();
    assert_eq!(
        (token.split('.').count(), text.lines().count()),
        (3, 1),
        "{text}"
    );
    let got = answer(reader.http.get(world.url("/api/perf")).bearer_auth(token)).await;
    assert_eq!(got.json("the token is good"), json!({"hosts": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn summaries_are_shown() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    let token = world.token(&node).await;
    let path = format!("/api/perf/web1/{}", world.clock.now());
    world
        .post(&node, &token, &path, r#"{"cpu":4.98,"mem":61.2}"#)
        .await
        .no_content("a sample");
    let token = world.token(&reader).await;
    for holder in [&node, &reader] {
        // The receiver's answer, unchanged.
        let done = ask(&world, holder, &["query", "web1", "--output", "json"]);
        assert_eq!(done.stderr, "");
        let shown: Value = serde_json::from_str(&done.success()).unwrap();
        let got = world
            .get(&reader, &token, "/api/perf/web1")
            .await
            .json("web1");
        assert_eq!(shown, got);
        let done = ask(
            &world,
            holder,
            &["query", "web1", "CPU", "--output", "json"],
        )
        .success();
        let shown: Value = serde_json::from_str(&done).unwrap();
        let names: Vec<_> = shown.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["summary:by-hour:cpu", "summary:by-minute:cpu"]);
        for form in ["table", "chart"] {
            let shown = ask(&world, holder, &["query", "web1", "--output", form]).success();
            assert!(
                shown.contains("cpu") && shown.contains("mem"),
                "{form}: {shown}"
            );
        }
    }
    let csv = ask(
        &world,
        &reader,
        &["query", "web1", "cpu", "--output", "csv"],
    )
    .success();
    let minute = csv
        .lines()
        .find(|line| line.starts_with("web1,cpu,by-minute,"));
    assert!(minute.unwrap().ends_with(",1,4.98,4.98,4.98"), "{csv}");
    let mut latin = command(&world, &reader, &["query", "web1", "--output", "chart"]);
    let latin = run(latin.env("LC_ALL", "de_DE.ISO-8859-1"));
    assert!(
        latin.stderr.contains("this is the table"),
        "{}",
        latin.stderr
    );
    assert!(latin.success().is_ascii());
    let shown = ask(&world, &reader, &["hosts"]).success();
    let values = shown.lines().find(|line| line.starts_with("web1 "));
    let values = values.unwrap_or_else(|| panic!("{shown}"));
    assert!(
        values.contains(" 5 %") && values.contains(" 61 %"),
        "{shown}"
    );
    let shown: Value =
        serde_json::from_str(&ask(&world, &reader, &["hosts", "--json"]).success()).unwrap();
    assert!(shown.to_string().contains(r#""name":"web1""#), "{shown}");
    assert_eq!(shown["hosts"][0]["troubles"], json!([]), "{shown}");
    assert_eq!(shown["unused-join-tokens"], Value::Null, "no CA here");
    // Where there is a CA, who could still join is told.
    let certs = world.certs();
    let certs = certs.to_str().unwrap();
    let token = ["join-token", "web7", "--certs", certs];
    run(program("lizctl").args(token)).success();
    let with_ca = ["hosts", "--certs", certs];
    let shown = ask(&world, &reader, &with_ca).success();
    assert!(shown.contains("web7"), "{shown}");
    let shown = ask(&world, &reader, &[&with_ca[..], &["--json"]].concat()).success();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["unused-join-tokens"][0]["name"], "web7", "{shown}");
}

/// 0 done, 1 failed, 2 wrong usage, 3 refused, 4 unreachable; one line on stderr, nothing on
/// stdout.
#[tokio::test(flavor = "multi_thread")]
async fn exit_codes() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    let receiver = world.holder(Role::Receiver, "other");
    let elsewhere = World::without_receiver(|_| ());
    let stranger = elsewhere.holder(Role::Reader, "dashboard");
    let nothing = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let failed = |done: Finished, code: i32, story: &str| {
        let said = done.failure(code).to_owned();
        assert_eq!(done.stdout, "", "{story}");
        assert_eq!(said.lines().count(), 1, "{story}: {said}");
        assert!(said.starts_with("lizctl: "), "{story}: {said}");
    };
    failed(
        ask(&world, &reader, &["query", "nobody"]),
        1,
        "an unknown host",
    );
    failed(
        ask(&world, &node, &["query", "db1"]),
        3,
        "another host: 403",
    );
    failed(ask(&world, &node, &["hosts"]), 3, "all hosts: 403");
    failed(
        ask(&world, &receiver, &["token"]),
        3,
        "no client: unauthorized_client",
    );
    failed(
        ask(&world, &stranger, &["token"]),
        3,
        "another CA's certificate: TLS alert",
    );
    let at = |url: &str, holder: &Holder| {
        let mut command = program("lizctl");
        command
            .args(["token", "--receiver", url])
            .arg("--cert")
            .arg(&holder.cert);
        command
            .arg("--key")
            .arg(&holder.key)
            .arg("--ca")
            .arg(world.root());
        command
    };
    failed(
        run(&mut at(&format!("https://{nothing}"), &reader)),
        4,
        "nobody listens",
    );
    failed(
        run(&mut at("https://no-such-host.invalid:8443", &reader)),
        4,
        "no such host",
    );
    let plain = world.issuer().replace("https", "http");
    for url in [
        &plain,
        "ftp://localhost",
        "localhost",
        "https://",
        "https://user:pw@localhost:1",
    ] {
        let done = run(&mut at(url, &reader));
        assert_eq!(done.status.code(), Some(2), "{url}: {}", done.stderr);
        assert_eq!(done.stdout, "", "{url}");
    }
    let mut missing = at(&world.issuer(), &reader);
    missing.arg("--certs").arg(world.folder());
    let gone = Holder {
        cert: world.folder().join("gone.crt"),
        ..reader.clone()
    };
    failed(
        run(&mut at(&world.issuer(), &gone)),
        1,
        "no such certificate",
    );
    let mismatched = Holder {
        key: node.key.clone(),
        ..reader.clone()
    };
    failed(
        run(&mut at(&world.issuer(), &mismatched)),
        1,
        "a key of another certificate",
    );
}

/// The server must have a receiver's certificate of the CA, for the name in the URL.
#[tokio::test(flavor = "multi_thread")]
async fn a_false_receiver_is_not_believed() {
    let (world, other) = (World::start().await, World::start().await);
    let reader = world.reader();
    let cases = [
        ("another CA's receiver", other.issuer()),
        (
            "the right receiver, under a name that is not in its certificate",
            format!("https://127.0.0.2:{}", world.port()),
        ),
    ];
    for (story, url) in cases {
        let mut command = program("lizctl");
        command.args(["token", "--receiver", &url, "--cert"]);
        command.arg(&reader.cert).arg("--key").arg(&reader.key);
        command.arg("--ca").arg(world.root());
        let done = run(&mut command);
        let said = &done.stderr;
        assert!(matches!(done.status.code(), Some(1 | 4)), "{story}: {said}");
        assert_eq!(done.stdout, "", "{story}");
    }
}
