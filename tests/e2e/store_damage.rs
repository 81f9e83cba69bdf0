//! Flipped bits and lost files under the shipped receiver: it starts, reports what is lost, and
//! shows no number that was not sent.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::{receiver_command, start_receiver};
use crate::harness::process::{Finished, Running, program, run};
use crate::harness::world::wall_clock;
use crate::harness::{Holder, World, answer};

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
const DB: &str = "lizmon.db";

/// A receiver that was stopped after it accepted records of these hosts.
struct Stopped {
    world: World,
    hosts: Vec<Holder>,
    reader: Holder,
    /// When the records were sent. Intervals that were open then are shown later, damage or not.
    sent: u64,
}

fn label(at: usize) -> String {
    format!("load-{at}")
}

async fn stopped(hosts: usize) -> Stopped {
    let mut world = World::without_receiver(|_| ());
    let hosts: Vec<_> = (0..hosts)
        .map(|at| world.node(&format!("web{at}")))
        .collect();
    let reader = world.reader();
    let receiver = start_receiver(&mut world);
    let sent = wall_clock();
    for (at, host) in hosts.iter().enumerate() {
        let token = world.token(host).await;
        let values: serde_json::Map<_, _> = (0..40)
            .map(|label_at| (label(label_at), json!(at * 1000 + label_at)))
            .collect();
        let records: Vec<_> = (1..=3)
            .map(|seq| json!({"seq": seq, "epoch": wall_clock() - 600 - seq, "values": values}))
            .collect();
        let body = json!({"producer": PRODUCER, "records": records}).to_string();
        let url = world.url(&format!("/api/perf/web{at}"));
        let got = answer(host.http.post(url).bearer_auth(&token).body(body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    stop(receiver);
    Stopped {
        world,
        hosts,
        reader,
        sent,
    }
}

fn stop(receiver: Running) {
    receiver.signal(Signal::TERM);
    let finished = receiver.wait();
    assert!(finished.status.success(), "{}", finished.stderr);
}

impl Stopped {
    /// For each host the summaries of intervals that were closed when the records were sent, and its
    /// delivery; `None` if the host is not known.
    async fn numbers(&self) -> Vec<Option<(Value, Value)>> {
        let mut numbers = Vec::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let token = self.world.token(host).await;
            let got = self
                .world
                .get(host, &token, &format!("/api/perf/web{at}"))
                .await;
            if got.status == 404 {
                numbers.push(None);
                continue;
            }
            let mut summaries = got.json("summaries");
            for window in summaries.as_object_mut().unwrap().values_mut() {
                let intervals = window["averages"].as_array_mut().unwrap();
                intervals.retain(|interval| interval["end-sec"].as_u64().unwrap() <= self.sent);
            }
            let delivery = self
                .world
                .get(host, &token, &format!("/api/delivery/web{at}"))
                .await;
            numbers.push(Some((
                summaries,
                delivery.json("delivery")["producers"].clone(),
            )));
        }
        numbers
    }

    async fn health(&self) -> String {
        answer(self.reader.http.get(self.world.url("/healthz")))
            .await
            .text()
    }

    async fn ready(&self) -> u16 {
        answer(self.reader.http.get(self.world.url("/readyz")))
            .await
            .status
    }

    async fn damaged(&self) -> i64 {
        let shown = answer(self.reader.http.get(self.world.url("/metrics"))).await;
        let text = shown.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("lizmon_store_damaged "));
        line.expect("the metric").parse().unwrap()
    }

    fn care(&self, words: &[&str]) -> Finished {
        let mut command = program("liz-receiver");
        run(command.args(words).arg("--data").arg(self.world.data()))
    }
}

/// What a host shows now was shown before, or is reported as lost.
fn compare(
    story: &str,
    before: &[Option<(Value, Value)>],
    after: &[Option<(Value, Value)>],
    told: &str,
) {
    for (at, (before, after)) in before.iter().zip(after).enumerate() {
        let name = format!("web{at}");
        let is_told = told.contains(&format!("{name} "))
            || told.contains(&format!("{name}:"))
            || told.contains("is lost");
        let Some((summaries, delivery)) = before else {
            continue;
        };
        let Some((now_summaries, now_delivery)) = after else {
            assert!(is_told, "{story}: {name} is gone: {told}");
            continue;
        };
        assert!(
            delivery == now_delivery || is_told,
            "{story}: {name}: {now_delivery}: {told}"
        );
        for (key, window) in summaries.as_object().unwrap() {
            let now = &now_summaries[key]["averages"];
            let is_same = *now == window["averages"];
            assert!(is_same || now.is_null(), "{story}: {name} {key}: {now}");
            assert!(is_same || is_told, "{story}: {name} {key}: {told}");
        }
    }
}

/// Regression: of thirty flipped bits fourteen were shown as numbers, and some prevented the
/// receiver from starting.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_reported_and_never_shown() {
    let mut stopped = stopped(6).await;
    let file = stopped.world.data().join(DB);
    let good = fs::read(&file).unwrap();
    let receiver = start_receiver(&mut stopped.world);
    let before = stopped.numbers().await;
    assert_eq!(stopped.damaged().await, 0);
    stop(receiver);
    let check = stopped.care(&["check"]);
    assert!(check.success().ends_with("whole\n"));
    let mut random = fastrand::Rng::with_seed(31);
    for round in 0..12 {
        let (at, bit) = (random.usize(..good.len()), random.u8(..8));
        let story = format!("round {round}, bit {bit} of byte {at}");
        let mut flipped = good.clone();
        flipped[at] ^= 1 << bit;
        write(&file, &flipped);
        let receiver = start_receiver(&mut stopped.world);
        let told = stopped.health().await;
        compare(&story, &before, &stopped.numbers().await, &told);
        assert_eq!(stopped.ready().await, 200, "{story}");
        let is_told = told.contains(DB);
        assert_eq!(stopped.damaged().await > 0, is_told, "{story}: {told}");
        stop(receiver);
    }
}

/// Replaces the database, and removes its WAL.
fn write(file: &Path, bytes: &[u8]) {
    for companion in ["-wal", "-shm"] {
        let _gone = fs::remove_file(format!("{}{companion}", file.display()));
    }
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_emptied_missing_or_no_database_is_reported() {
    let mut stopped = stopped(1).await;
    let file = stopped.world.data().join(DB);
    let empty: fn(&Path) = |file| write(file, b"");
    let garbage: fn(&Path) = |file| write(file, &b"my shopping list ".repeat(1000));
    let missing: fn(&Path) = |file| fs::remove_file(file).unwrap();
    for (damage, words) in [
        (empty, "is empty, and was not before"),
        (missing, "is missing, and was here before"),
        (garbage, "file is not a database"),
    ] {
        damage(&file);
        let receiver = start_receiver(&mut stopped.world);
        let told = stopped.health().await;
        assert!(told.contains(words), "{words}: {told}");
        assert_eq!(stopped.ready().await, 200);
        stop(receiver);
        let check = stopped.care(&["check"]).success();
        assert!(check.contains(words), "{words}: {check}");
    }
    // A file of another kind is not touched.
    let refused = |stopped: &Stopped, words: &str| {
        let before = fs::read(&file).ok();
        let finished = run(&mut receiver_command(&stopped.world));
        let said = finished.failure(1);
        assert!(said.contains(words) && said.contains(DB), "{words}: {said}");
        assert_eq!(fs::read(&file).ok(), before, "{words}");
    };
    let sql = |statement: &str| {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(statement).unwrap();
    };
    sql("UPDATE meta SET value = 99 WHERE key = 'version'; PRAGMA journal_mode = DELETE");
    refused(&stopped, "the store has version 99");
    fs::remove_file(&file).unwrap();
    sql("CREATE TABLE bookmarks(url); INSERT INTO bookmarks VALUES ('https://example.org')");
    refused(&stopped, "another program's database");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused(&stopped, "see that it is a file");
}

/// Regression: the file was deleted under a running receiver, which continued to acknowledge.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_while_it_is_used_is_made_anew() {
    let mut stopped = stopped(2).await;
    let file = stopped.world.data().join(DB);
    let receiver = start_receiver(&mut stopped.world);
    let before = stopped.numbers().await;
    fs::remove_file(&file).unwrap();
    let made = async {
        while !file.exists() || stopped.ready().await != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::process::PATIENCE, made)
        .await
        .expect("a new one is made");
    assert!(
        stopped
            .health()
            .await
            .contains("removed, moved or replaced")
    );
    receiver.kill();
    let receiver = start_receiver(&mut stopped.world);
    compare("made anew", &before, &stopped.numbers().await, "");
    stop(receiver);
}

/// Another program locks the database, so nothing can be stored, as on a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_503_while_the_journal_cannot_be_written() {
    let mut stopped = stopped(1).await;
    let receiver = start_receiver(&mut stopped.world);
    assert_eq!(stopped.ready().await, 200);
    let other = rusqlite::Connection::open(stopped.world.data().join(DB)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let host = &stopped.hosts[0];
    let token = stopped.world.token(host).await;
    let url = stopped
        .world
        .url(&format!("/api/perf/web0/{}", wall_clock()));
    let got = answer(host.http.post(url).bearer_auth(&token).body(r#"{"cpu":1}"#)).await;
    got.refused("store_unavailable", "the database is locked");
    let ready = answer(stopped.reader.http.get(stopped.world.url("/readyz"))).await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("the journal cannot be written"),
        "{}",
        ready.text()
    );
    assert!(
        stopped
            .health()
            .await
            .contains("the journal cannot be written")
    );
    drop(other);
    // The receiver retries although nobody sends anything.
    let works = async {
        while stopped.ready().await != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::process::PATIENCE, works)
        .await
        .expect("it works again");
    let shown = answer(stopped.reader.http.get(stopped.world.url("/metrics"))).await;
    for line in [
        "lizmon_journal_sync_failures_total 1\n",
        "lizmon_store_ready 1\n",
    ] {
        assert!(shown.text().contains(line), "{line}: {}", shown.text());
    }
    stop(receiver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_while_the_receiver_runs_and_takes_the_stores_place() {
    let mut stopped = stopped(3).await;
    let backup = stopped.world.folder().join("backup-1");
    let place = backup.display().to_string();
    let receiver = start_receiver(&mut stopped.world);
    let before = stopped.numbers().await;
    stopped.care(&["check"]).success();
    let said = stopped.care(&["backup", &place]).success();
    assert!(said.starts_with("3 hosts are in "), "{said}");
    stopped.care(&["backup", &place]).failure(1);
    let refused = stopped.care(&["restore", &place]);
    assert!(
        refused
            .failure(1)
            .contains("another receiver is using this folder")
    );
    // Not in the backup.
    let host = &stopped.hosts[0];
    let token = stopped.world.token(host).await;
    let url = stopped
        .world
        .url(&format!("/api/perf/web0/{}", wall_clock()));
    let later = answer(
        host.http
            .post(url)
            .bearer_auth(&token)
            .body(r#"{"later":1}"#),
    )
    .await;
    assert_eq!(later.status, 204);
    stop(receiver);
    let said = stopped.care(&["restore", &place]).success();
    assert!(
        said.contains("3 hosts are restored, as of 20") && said.contains("lizmon.db.replaced-1"),
        "{said}"
    );
    stopped.care(&["check"]).success();
    let receiver = start_receiver(&mut stopped.world);
    let after = stopped.numbers().await;
    assert_eq!(
        after[0].as_ref().map(|(_, delivery)| delivery),
        before[0].as_ref().map(|(_, delivery)| delivery)
    );
    compare("restored", &before, &after, "");
    let (summaries, _) = after[0].as_ref().unwrap();
    assert!(summaries["summary:by-hour:later"].is_null());
    assert!(!stopped.health().await.contains(DB));
    stop(receiver);
    // A damaged backup does not replace a good database.
    let copy = backup.join(DB);
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(7);
    fs::write(&copy, bytes).unwrap();
    assert!(
        stopped
            .care(&["restore", &place])
            .failure(1)
            .contains("is damaged")
    );
    stopped.care(&["check"]).success();
}
