//! `lizctl bench`: what it counts as taken is what the receiver has.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::crash::{receiver_command, start_receiver, started};
use crate::harness::World;
use crate::harness::process::{Running, program, run};

/// Every key of the JSON, as docs/bench.md describes it.
const KEYS: [&str; 23] = [
    "load",
    "target",
    "nodes",
    "connections",
    "streams",
    "http",
    "batch",
    "rate",
    "measured-secs",
    "interrupted",
    "requests",
    "records",
    "requests-per-second",
    "records-per-second",
    "not-sent",
    "latency-ms",
    "service-ms",
    "refused",
    "taken",
    "unanswered",
    "receiver-has",
    "differing-nodes",
    "server",
];

fn bench(arguments: &str) -> Command {
    let mut command = program("lizctl");
    command.args(["bench", "--json"]);
    command.args(arguments.split_whitespace());
    command
}

fn bench_at(world: &World, arguments: &str) -> Command {
    let mut command = bench(arguments);
    command.arg("--certs").arg(world.certs());
    command.args(["--target", &format!("https://127.0.0.1:{}", world.port())]);
    command
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// How many records of the hosts PREFIX-000001 and so on the receiver has, as another reader sees
/// it.
fn received(world: &World, prefix: &str, nodes: u32) -> u64 {
    let reader = world.reader();
    let of = |at: u32| {
        let mut audit = program("lizctl");
        audit.args(["audit", "--json", &format!("{prefix}-{at:06}")]);
        audit.args(["--receiver", &format!("https://127.0.0.1:{}", world.port())]);
        audit.arg("--cert").arg(&reader.cert);
        audit.arg("--key").arg(&reader.key);
        audit.arg("--ca").arg(world.root());
        parsed(&run(&mut audit).success())["received"]
            .as_u64()
            .unwrap()
    };
    (1..=nodes).map(of).sum()
}

#[test]
fn every_load_ends_with_as_many_as_the_receiver_has() {
    let mut world = World::without_receiver(|_| ());
    let receiver = start_receiver(&mut world);
    for (at, load) in [
        "samples",
        "samples --http 2 --streams 4 --connections 2",
        "samples --rate 200",
        "samples --batch 20 --zstd --values 10",
        "handshakes",
        "handshakes --http 2 --rate 50",
        "reconnect --connections 2",
        "queries --http 2 --streams 3",
    ]
    .into_iter()
    .enumerate()
    {
        let prefix = format!("load{at}");
        let arguments =
            format!("{load} --nodes 3 --warm-up 50ms --duration 300ms --prefix {prefix}");
        let done = run(&mut bench_at(&world, &arguments));
        let report = parsed(&done.success());
        let keys: BTreeSet<_> = report
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, BTreeSet::from(KEYS), "{load}");
        assert_eq!(
            report["refused"],
            Value::Object(serde_json::Map::new()),
            "{load}"
        );
        assert!(report["requests"].as_u64().unwrap() > 0, "{load}: {report}");
        let taken = report["taken"].as_u64().unwrap();
        assert_eq!(report["receiver-has"].as_u64(), Some(taken), "{load}");
        assert_eq!(received(&world, &prefix, 3), taken, "{load}");
        if load.starts_with("queries") {
            assert_eq!((taken, report["records"].as_u64()), (3, Some(0)), "{load}");
        }
        let latency = &report["latency-ms"];
        for smaller_first in ["p50", "p90", "p99", "p99.9", "max"].windows(2) {
            let [a, b] = [0, 1].map(|at| latency[smaller_first[at]].as_f64().unwrap());
            assert!(a > 0.0 && a <= b, "{load}: {latency}");
        }
        // It is found by its port.
        assert!(
            report["server"]["rss-bytes"].as_u64().unwrap() > 1 << 20,
            "{load}"
        );
    }
    // No key is left, and no file of any of these nodes.
    for folder in ["nodes", "readers"] {
        for file in fs::read_dir(world.certs().join(folder))
            .into_iter()
            .flatten()
        {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("load"), "{name}");
        }
    }
    drop(receiver);
}

/// Requests without an answer are sent again under their numbers.
#[test]
fn a_receiver_that_is_killed_meanwhile_has_what_it_took() {
    let mut world = World::without_receiver(|_| ());
    let receiver = start_receiver(&mut world);
    let arguments = "--nodes 4 --rate 400 --warm-up 0s --duration 4s";
    let mut running = Running::start(&mut bench_at(&world, arguments));
    running.wait_for(" requests/s");
    receiver.kill();
    let mut again = program("liz-receiver");
    let command = receiver_command(&world);
    for argument in command.get_args() {
        match argument == "127.0.0.1:0" {
            true => again.arg(format!("127.0.0.1:{}", world.port())),
            false => again.arg(argument),
        };
    }
    let receiver = started(&mut world, &mut again);
    let report = parsed(&running.wait().success());
    let count = |name: &str| report[name].as_u64().unwrap();
    assert!(
        !report["refused"].as_object().unwrap().is_empty(),
        "{report}"
    );
    assert!(count("taken") > 0, "{report}");
    assert_eq!(count("differing-nodes"), 0, "{report}");
    let possible = count("taken")..=count("taken") + count("unanswered");
    assert!(possible.contains(&count("receiver-has")), "{report}");
    assert_eq!(received(&world, "bench", 4), count("receiver-has"));
    drop(receiver);
}

/// Records that disappear are found: the receiver starts again without its data.
#[test]
fn a_receiver_that_lost_what_it_took_ends_with_1() {
    let mut world = World::without_receiver(|_| ());
    let receiver = start_receiver(&mut world);
    let arguments = "--nodes 2 --rate 100 --warm-up 0s --duration 2s";
    let mut running = Running::start(&mut bench_at(&world, arguments));
    running.wait_for(" requests/s");
    receiver.kill();
    let empty = tempfile::tempdir().unwrap();
    let command = receiver_command(&world);
    let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    *arguments.last_mut().unwrap() = empty.path().into();
    let mut again = program("liz-receiver");
    for argument in arguments {
        match argument == "127.0.0.1:0" {
            true => again.arg(format!("127.0.0.1:{}", world.port())),
            false => again.arg(argument),
        };
    }
    let receiver = started(&mut world, &mut again);
    let done = running.wait();
    let why = done.failure(1);
    assert!(
        why.contains("of 2 nodes the receiver has not exactly what it took"),
        "{why}"
    );
    let report = parsed(&done.stdout);
    assert!(
        report["receiver-has"].as_u64() < report["taken"].as_u64(),
        "{report}"
    );
    drop(receiver);
}

/// Ctrl-C: what was measured until then is shown.
#[test]
fn an_interrupted_run_shows_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    // Without --target it needs nothing: another site's variables are not for it.
    let mut command = bench("--nodes 2 --warm-up 0s --duration 1h");
    command
        .current_dir(folder.path())
        .env("LIZMON_RECEIVER", "https://192.0.2.1:8443")
        .env("TMPDIR", folder.path());
    let mut running = Running::start(&mut command);
    running.wait_for("issuing 2 certificates");
    let pid = running.pid();
    running.wait_for("sending");
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let report = parsed(&running.wait().success());
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["receiver-has"], report["taken"]);
    assert!(report["server"].is_object(), "{report}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_sent() {
    let usage = [
        ("--streams 2", "--streams needs --http 2"),
        (
            "handshakes --http 2 --streams 2",
            "--streams is for samples",
        ),
        ("reconnect --rate 5", "reconnect has no --rate"),
        ("queries --batch 5", "queries have no --batch"),
        ("--zstd", "--zstd needs --batch"),
        ("--duration 0s", "--duration is nothing"),
    ];
    for (arguments, why) in usage {
        let done = run(&mut bench(arguments));
        assert!(
            done.failure(2).contains(why),
            "{arguments}: {}",
            done.stderr
        );
    }
    let done = run(&mut bench("--prefix .."));
    assert!(done.failure(2).contains("is not a node name"));
    let folder = tempfile::tempdir().unwrap();
    let mut command = bench("--target https://127.0.0.1:1");
    let done = run(command.arg("--certs").arg(folder.path().join("none")));
    assert!(done.failure(1).contains("init-ca"), "{}", done.stderr);

    let mut world = World::without_receiver(|_| ());
    let done = run(bench("--target https://127.0.0.1:1 --nodes 1")
        .arg("--certs")
        .arg(world.certs()));
    assert!(
        done.failure(4).contains("cannot connect"),
        "{}",
        done.stderr
    );
    let receiver = start_receiver(&mut world);
    // Somebody's host is not given made-up samples.
    world.node("web-000002");
    let done = run(&mut bench_at(&world, "--nodes 3 --prefix web"));
    let why = "node `web-000002` has a certificate that is in use";
    assert!(done.failure(1).contains(why), "{}", done.stderr);
    let other = World::without_receiver(|_| ());
    let mut command = bench("--nodes 1");
    command.arg("--certs").arg(other.certs());
    command.args(["--target", &format!("https://127.0.0.1:{}", world.port())]);
    let done = run(&mut command);
    assert!(
        done.failure(1)
            .contains("is --certs the CA of this receiver?"),
        "{}",
        done.stderr
    );
    drop(receiver);
}
