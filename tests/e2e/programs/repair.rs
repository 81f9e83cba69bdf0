//! A receiver is put back to an older copy, and gets from its monitors what it has lost.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::monitor::monitor;
use super::receiver::replaced;
use crate::crash::{receiver_command, start_receiver, started};
use crate::harness::World;
use crate::harness::process::{Finished, PATIENCE, Running, program, run};
use crate::harness::world::Holder;

/// Each sample is one.
const PUBLISHED: &str = "Publish was successful to";

fn on_data(world: &World, words: &[&str]) -> String {
    let mut command = program("liz-receiver");
    run(command.args(words).arg("--data").arg(world.data())).success()
}

/// The receiver at the port that it had.
fn start_again(world: &mut World) -> Running {
    let listen = format!("127.0.0.1:{}", world.port());
    let arguments = replaced(&mut receiver_command(world), "--listen", &listen);
    started(world, program("liz-receiver").args(arguments))
}

fn spooling(world: &World, node: &Holder, spool: &Path) -> Running {
    let mut command = monitor(world, node);
    Running::start(command.arg("--spool").arg(spool))
}

fn audit(world: &World, reader: &Holder, more: &[&str]) -> Finished {
    let mut command = program("lizctl");
    command.args(["audit", "web1", "--receiver", &world.url("")]);
    command
        .arg("--cert")
        .arg(&reader.cert)
        .arg("--key")
        .arg(&reader.key);
    run(command.arg("--ca").arg(world.root()).args(more))
}

/// Backup, more samples, kill -9, restore: by the time the audit is asked, nothing is lost. With
/// `kills_monitor` the monitor is killed as well, and finds in its spool what it keeps.
async fn restored(kills_monitor: bool) {
    let mut world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let spool = world.folder().join("spool");
    let backup = world.folder().join("backup");
    let receiver = start_receiver(&mut world);
    let mut first = spooling(&world, &node, &spool);
    for _ in 0..3 {
        first.wait_for(PUBLISHED);
    }
    on_data(&world, &["backup", &backup.display().to_string()]);
    for _ in 0..4 {
        first.wait_for(PUBLISHED);
    }
    receiver.kill();
    let mut running = if kills_monitor {
        first.kill();
        spooling(&world, &node, &spool)
    } else {
        first
    };
    let said = on_data(&world, &["restore", &backup.display().to_string()]);
    assert!(
        said.contains("monitors send again what they keep"),
        "{said}"
    );
    let receiver = start_again(&mut world);
    running.wait_for("that it had acknowledged: sending them again");
    running.wait_for("records again that it had lost");
    running.wait_for(PUBLISHED);
    running.signal(Signal::TERM);
    running.wait_within(PATIENCE).success();

    let report: Value =
        serde_json::from_str(&audit(&world, &reader, &["--output", "json"]).success()).unwrap();
    assert_eq!(
        (&report["lost"], &report["twice"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    let (received, repaired) = (&report["received"], report["repaired"].as_u64().unwrap());
    assert!(
        (3..=received.as_u64().unwrap()).contains(&repaired),
        "{report}"
    );
    assert_eq!(
        (&report["before"], &report["dropped"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    assert_eq!(report["producers"][0]["repaired"], repaired, "{report}");
    let table = audit(&world, &reader, &[]).success();
    assert!(table.contains("REPAIRED"), "{table}");
    let verdict = format!("lost 0, twice 0, repaired {repaired} up to");
    assert!(table.contains(&verdict), "{table}");
    // Every number stands for one sample of each series.
    let token = world.token(&node).await;
    let got = world.get(&node, &token, "/api/perf/web1/by-hour:cpu").await;
    let got = got.json("summaries");
    let averages = got["summary:by-hour:cpu"]["averages"].as_array().unwrap();
    let counted: u64 = averages
        .iter()
        .map(|a| a["num-samples"].as_u64().unwrap())
        .sum();
    assert_eq!(*received, counted, "{report}");
    drop(receiver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_receiver_gets_back_what_it_had_acknowledged() {
    restored(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_from_a_monitor_that_was_killed() {
    restored(true).await;
}

/// Without its data the receiver knows neither host nor producer.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_begins_anew_gets_everything_that_is_kept() {
    let mut world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let receiver = start_receiver(&mut world);
    let mut running = Running::start(&mut monitor(&world, &node));
    for _ in 0..4 {
        running.wait_for(PUBLISHED);
    }
    receiver.kill();
    std::fs::remove_dir_all(world.data()).unwrap();
    let receiver = start_again(&mut world);
    running.wait_for("records again that it had lost");
    running.signal(Signal::TERM);
    running.wait_within(PATIENCE).success();
    let table = audit(&world, &reader, &["--wait", "10s"]).success();
    assert!(table.contains("lost 0, twice 0, repaired "), "{table}");
    assert!(!table.contains("repaired 0"), "{table}");
    drop(receiver);
}

/// Off means off: what a restored receiver misses is told, as before there were repairs.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_repaired_if_nothing_is_kept() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let receiver = start_receiver(&mut world);
    let mut command = monitor(&world, &node);
    let mut running = Running::start(command.args(["--keep-acknowledged", "0s"]));
    for _ in 0..3 {
        running.wait_for(PUBLISHED);
    }
    receiver.kill();
    std::fs::remove_dir_all(world.data()).unwrap();
    let _receiver = start_again(&mut world);
    running.wait_for("that it once had and that are not kept here any more");
    running.signal(Signal::TERM);
    running.wait_within(PATIENCE).success();
}
