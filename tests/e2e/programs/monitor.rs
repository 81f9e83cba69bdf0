//! `liz-monitor` as a process, against a receiver in this one.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::World;
use crate::harness::process::{Running, program};
use crate::harness::world::Holder;

const AT_ONCE: Duration = Duration::from_secs(10);

pub(crate) fn monitor(world: &World, node: &Holder) -> Command {
    let mut command = program("liz-monitor");
    command.args([
        "--this-host",
        &node.name,
        "--publish",
        &world.url("/api/perf"),
    ]);
    command
        .arg("--cert")
        .arg(&node.cert)
        .arg("--key")
        .arg(&node.key)
        .arg("--ca")
        .arg(world.root());
    command.env("RUST_LOG", "debug");
    command
}

async fn delivered(world: &World, node: &Holder) -> Value {
    let token = world.token(node).await;
    let got = world
        .get(node, &token, &format!("/api/delivery/{}", node.name))
        .await;
    got.json("delivery")["producers"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_publishes_cpu_and_mem() {
    let world = World::start().await;
    let node = world.node("web1");
    let mut running = Running::start(monitor(&world, &node).args(["--collect", "cpu,mem"]));
    for _ in 0..3 {
        let line = running.wait_for("Publish was successful to");
        assert!(line.contains(&world.url("/api/perf")), "{line}");
    }
    running.signal(Signal::TERM);
    let done = running.wait_within(AT_ONCE);
    assert_eq!(done.success(), "", "a log is no answer: it goes to stderr");
    let token = world.token(&node).await;
    let got = world
        .get(&node, &token, "/api/perf/web1")
        .await
        .json("web1");
    let names: Vec<_> = got.as_object().unwrap().keys().cloned().collect();
    let expected = [
        "by-hour:cpu",
        "by-hour:mem",
        "by-minute:cpu",
        "by-minute:mem",
    ];
    assert_eq!(names, expected.map(|name| format!("summary:{name}")));
    for label in ["cpu", "mem"] {
        let average = &got[format!("summary:by-hour:{label}")]["averages"][0];
        assert!(average["num-samples"].as_u64().unwrap() >= 3, "{average}");
        let (min, max) = (
            average["min"].as_f64().unwrap(),
            average["max"].as_f64().unwrap(),
        );
        assert!(
            (0.0..=100.0).contains(&min) && (min..=100.0).contains(&max),
            "{label} in percent: {average}"
        );
    }
    assert_eq!(
        delivered(&world, &node).await["missing"],
        serde_json::json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_its_machine_is() {
    let world = World::start().await;
    let node = world.node("web1");
    let mut running = Running::start(&mut monitor(&world, &node));
    running.wait_for("Publish was successful to");
    // It may have been told before the first sample.
    let told = || async {
        let stored = world.stored(&world.reader()).await;
        stored["web1"][0]["facts"].clone()
    };
    let mut facts = told().await;
    for _ in 0..20 {
        if facts.is_null() {
            running.wait_for("sampled");
            facts = told().await;
        }
    }
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let memory: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(facts["memory-bytes"], memory * 1_024, "{facts}");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(facts["kernel"], kernel.trim(), "{facts}");
    assert_eq!(
        facts["agent"],
        concat!("lizmon ", env!("CARGO_PKG_VERSION"))
    );
    running.signal(Signal::TERM);
    running.wait_within(AT_ONCE).success();
}

/// The receiver stops and restarts: every sample of the time between arrives, once.
#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_a_receiver_that_is_away() {
    let mut world = World::start().await;
    let node = world.node("web1");
    let mut running = Running::start(&mut monitor(&world, &node));
    running.wait_for("Publish was successful to");
    world.stop().await;
    running.wait_for("WARN");
    // It restarts with other token keys: the old token is refused, a new one is fetched, the sample
    // is not lost.
    std::fs::remove_file(world.data().join("token-keys.json")).unwrap();
    world.boot_on_same_port().await;
    for _ in 0..2 {
        running.wait_for("Publish was successful to");
    }
    running.signal(Signal::INT);
    running.wait_within(AT_ONCE).success();
    let told = delivered(&world, &node).await;
    assert_eq!(told["missing"], serde_json::json!([]), "{told}");
    let token = world.token(&node).await;
    let got = world
        .get(&node, &token, "/api/perf/web1")
        .await
        .json("web1");
    let counted: u64 = got["summary:by-hour:cpu"]["averages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["num-samples"].as_u64().unwrap())
        .sum();
    assert_eq!(told["received"], counted, "{told}");
}

/// An unreachable destination does not delay another.
#[tokio::test(flavor = "multi_thread")]
async fn several_destinations_go_their_own_pace() {
    let world = World::start().await;
    let node = world.node("web1");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = monitor(&world, &node);
    command.args(["--publish", &format!("https://{nobody}/api/perf")]);
    let mut running = Running::start(&mut command);
    for _ in 0..3 {
        running.wait_for("Publish was successful to");
    }
    running.signal(Signal::TERM);
    running.wait_within(Duration::from_secs(30)).success();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_at_once() {
    let world = World::start().await;
    let (node, other) = (world.node("web1"), world.node("db1"));
    let swapped = Holder {
        key: other.key.clone(),
        ..node.clone()
    };
    let misnamed = Holder {
        name: "db1".into(),
        ..node.clone()
    };
    let gone = Holder {
        cert: world.folder().join("gone.crt"),
        ..node.clone()
    };
    for (story, holder) in [
        ("a key of another", swapped),
        ("another's name", misnamed),
        ("no such file", gone),
    ] {
        let done =
            Running::start(monitor(&world, &holder).env_remove("RUST_LOG")).wait_within(AT_ONCE);
        let code = done.status.code();
        assert!(
            matches!(code, Some(1 | 2)),
            "{story}: {code:?} {}",
            done.stderr
        );
        assert_eq!(done.stdout, "", "{story}");
        assert_eq!(done.stderr.lines().count(), 1, "{story}: {}", done.stderr);
    }
}
