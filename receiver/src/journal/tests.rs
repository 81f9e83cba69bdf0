//! One group after another: who is answered what, what counts, and what is left of it later.

mod admission;
mod clocks;
mod points;

use std::sync::Arc;

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Dropped, Epoch, ProducerId, SampleSet, Seq, Value};
use uuid::Uuid;

use super::*;
use crate::clock::ClockReading;
use crate::store::HistoryRetention;
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::summarize::SummaryTable;

const NOW: u64 = 1_465_001_814;

fn producer(number: u128) -> ProducerId {
    ProducerId::new(Uuid::from_u128(number))
}

fn keyed(id: ProducerId, records: &[(u64, u64)], labels: &[String]) -> Submission {
    keyed_by("web1", id, records, labels)
}

fn keyed_by(host: &str, id: ProducerId, records: &[(u64, u64)], labels: &[String]) -> Submission {
    numbered(host, id, records, labels, &[])
}

/// A submission of these records, each with all the labels, that gives up these ranges.
fn numbered(
    host: &str,
    id: ProducerId,
    records: &[(u64, u64)],
    labels: &[String],
    given_up: &[(u64, u64)],
) -> Submission {
    let values = labels.iter().map(|label| {
        (
            Label::new(label.as_str()).unwrap(),
            Value::new(1.0).unwrap(),
        )
    });
    let set = SampleSet::new(values.collect());
    let records = records
        .iter()
        .map(|(seq, epoch)| (Seq::new(*seq), Epoch::new(*epoch).unwrap(), &set));
    let dropped = |(from, to): &(u64, u64)| Dropped {
        from: Seq::new(*from).unwrap(),
        to: Seq::new(*to).unwrap(),
        why: Label::new("too old").unwrap(),
    };
    let given_up: Vec<_> = given_up.iter().map(dropped).collect();
    Submission::new(&host.parse().unwrap(), 9, Some(id), NOW)
        .with_records_and_dropped(records, &given_up)
}

fn labels(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|at| format!("l{at}")).collect()
}

/// A clock that goes wrong for a moment, in either direction, deletes nothing and puts off no
/// commit.
#[test]
fn a_jump_of_the_clock_deletes_nothing() {
    const YEAR: u64 = 365 * 86_400;
    let disk = MemoryDisk::default();
    let mut store = MemoryStore::open(disk.clone());
    let summarizer = Summarizer::open(&mut store, NOW).unwrap();
    let mut committer = Committer::new(Box::new(store), summarizer, ClockReading::of_one(NOW));
    let mut monotonic = NOW;
    let mut at = move |wall: u64| {
        monotonic += 1;
        ClockReading {
            monotonic,
            ..ClockReading::of_one(wall)
        }
    };
    let take = |committer: &mut Committer, seq: u64, at: ClockReading| {
        let submission = keyed(producer(1), &[(seq, NOW)], &labels(0..1));
        committer
            .take(std::iter::once((&submission, at.wall)), at)
            .remove(0)
            .unwrap()
            .accepted
    };
    assert_eq!(take(&mut committer, 1, at(NOW)), 1);
    (NOW..NOW + 700).for_each(|now| _ = committer.maintain(at(now)));
    (0..200).for_each(|secs| _ = committer.maintain(at(NOW + 10 * YEAR + secs)));
    (0..200).for_each(|secs| _ = committer.maintain(at(NOW + 900 + secs)));
    assert_eq!(
        samples_of_web1(&committer.summarizer().table()),
        1,
        "still there"
    );
    assert_eq!(take(&mut committer, 1, at(NOW + 1_100)), 0, "still known");
    assert_eq!(take(&mut committer, 2, at(NOW + 1_100)), 1);
    (0..200).for_each(|secs| _ = committer.maintain(at(NOW + 1_100 + secs)));
    assert_eq!(
        disk.journal_len(),
        0,
        "commits go on after the clock was set back"
    );
    // Nor does one that stays there: nobody has sent anything for so long.
    (0..2_000).for_each(|secs| _ = committer.maintain(at(NOW + 10 * YEAR + secs)));
    (0..400).for_each(|secs| _ = committer.maintain(at(NOW + 3_300 + secs)));
    assert_eq!(samples_of_web1(&committer.summarizer().table()), 2);
}

/// A journal on a disk that the test can break.
fn journal(disk: &MemoryDisk) -> (Journal, Arc<SummaryTable>, JournalThreads) {
    let mut store = MemoryStore::open(disk.clone());
    let summarizer = Summarizer::open(&mut store, NOW).unwrap();
    let summaries = summarizer.table();
    let (journal, thread) = Journal::start(
        Box::new(store),
        summarizer,
        GATHER_WINDOW,
        Clocks::of_one(Arc::new(|| NOW)),
    )
    .unwrap();
    (journal, summaries, thread)
}

/// The collector runs on while the thread is waited for.
async fn ended(threads: JournalThreads) {
    let joined = tokio::task::spawn_blocking(|| threads.join()).await;
    joined.unwrap().unwrap();
}

fn samples_of_web1(summaries: &SummaryTable) -> u64 {
    let hosts = summaries.shard_with("web1");
    let window = hosts
        .get("web1")
        .and_then(|host| host.series.get("l0")?.window(0, NOW));
    window.map_or(0, |window| {
        window.averages.iter().map(|average| average.count).sum()
    })
}

#[tokio::test]
async fn a_failed_sync_is_answered_to_everyone_and_counts_nothing() {
    let disk = MemoryDisk::default();
    let (journal, summaries, thread) = journal(&disk);
    let one = keyed(producer(1), &[(1, NOW)], &labels(0..1));
    disk.set_failing(true);
    for _ in 0..3 {
        let refused = journal.submit(one.clone(), NOW).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Unavailable), "{refused:?}");
    }
    assert_eq!(samples_of_web1(&summaries), 0);
    disk.set_failing(false);
    let again = journal.submit(one.clone(), NOW).await.unwrap();
    assert_eq!(
        again,
        BatchAnswer {
            accepted: 1,
            duplicate: 0
        }
    );
    let twice = journal.submit(one, NOW).await.unwrap();
    assert_eq!(
        twice,
        BatchAnswer {
            accepted: 0,
            duplicate: 1
        }
    );
    assert_eq!(samples_of_web1(&summaries), 1);
    drop(journal);
    ended(thread).await;
    assert_eq!(disk.journal_len(), 0, "everything was committed at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_answered_and_all_counted() {
    let disk = MemoryDisk::default();
    let (journal, summaries, thread) = journal(&disk);
    let tasks: Vec<_> = (1..=500)
        .map(|seq| {
            let journal = journal.clone();
            tokio::spawn(async move {
                journal
                    .submit(keyed(producer(1), &[(seq, NOW)], &labels(0..1)), NOW)
                    .await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().accepted, 1);
    }
    assert_eq!(samples_of_web1(&summaries), 500);
    drop(journal);
    ended(thread).await;
}

fn open_store(folder: &std::path::Path) -> Box<dyn crate::store::Store> {
    let folder = crate::store::LockedFolder::lock(folder).unwrap();
    crate::store::open(folder, NOW).unwrap()
}

/// Two weeks of five hosts with labels that come and go: after the second day the file grows no
/// more.
#[test]
fn the_file_is_bounded_under_constant_load() {
    const HOUR: u64 = 3600;
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_store(folder.path());
    let summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    let mut committer = Committer::new(store, summarizer, ClockReading::of_one(NOW));
    let mut size_after_days = Vec::new();
    for hour in 1..=14 * 24 {
        let now = NOW + hour * HOUR;
        // Every hour another label, and every day another spool.
        let names = ["cpu".to_owned(), format!("process:{hour}")];
        let spool = producer(u128::from(hour / 24));
        let records: Vec<_> = (0..60)
            .map(|minute| (hour * 60 + minute, now - HOUR + minute * 60))
            .collect();
        for host in 0..5 {
            let submission = keyed_by(&format!("h{host}"), spool, &records, &names);
            let answers = committer.take(
                std::iter::once((&submission, now)),
                ClockReading::of_one(now),
            );
            assert_eq!(answers[0].as_ref().unwrap().accepted, 60);
        }
        (0..60).for_each(|minute| _ = committer.maintain(ClockReading::of_one(now + minute * 60)));
        if hour % 24 == 0 {
            let size = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.unwrap().metadata().unwrap().len()
            };
            size_after_days.push(
                std::fs::read_dir(folder.path())
                    .unwrap()
                    .map(size)
                    .sum::<u64>(),
            );
        }
    }
    let (settled, last) = (size_after_days[2], size_after_days[13]);
    assert!(
        last <= settled + settled / 4,
        "bytes after each day: {size_after_days:?}"
    );
    let summaries = committer.summarizer().table();
    let (series, producers) = summaries
        .shards()
        .fold((0, 0), |(series, producers), hosts| {
            let count =
                |host: &crate::summarize::HostSummaries| (host.series.len(), host.producers.len());
            hosts
                .values()
                .map(count)
                .fold((series, producers), |(s, p), (series, producers)| {
                    (s + series, p + producers)
                })
        });
    assert!(
        series <= 5 * 30 && producers <= 5 * 9,
        "{series} series and {producers} producers are kept"
    );
}

/// Every eight days another fleet reports for an hour and is gone: each leaves memory and file, and
/// nobody leaves much.
#[test]
fn the_file_comes_down_when_a_fleet_is_gone() {
    const HOSTS: usize = 150;
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_store(folder.path());
    // The history is kept longer than the test lasts.
    let nothing = HistoryRetention {
        hours_secs: 0,
        days_secs: 0,
    };
    let summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    let summarizer = summarizer.keeping(nothing);
    let mut committer = Committer::new(store, summarizer, ClockReading::of_one(NOW));
    let bytes = || {
        let file = folder.path().join("lizmon.db");
        std::fs::metadata(file).unwrap().len()
    };
    let hosts = |committer: &Committer| {
        let summaries = committer.summarizer().table();
        summaries.shards().map(|hosts| hosts.len()).sum::<usize>()
    };
    let mut now = NOW;
    let mut sizes = Vec::new();
    for fleet in 0..4 {
        let records: Vec<_> = (1..=60).map(|minute| (minute, now - minute * 60)).collect();
        for host in 0..HOSTS {
            let name = format!("h{fleet}-{host}");
            let submission = keyed_by(&name, producer(1), &records, &labels(0..40));
            let answers = committer.take(
                std::iter::once((&submission, now)),
                ClockReading::of_one(now),
            );
            assert_eq!(answers[0].as_ref().unwrap().accepted, 60);
        }
        assert_eq!(hosts(&committer), HOSTS, "the last fleet is gone");
        let end = now + 8 * 86_400;
        let mut largest = 0;
        while now < end {
            committer.maintain(ClockReading::of_one(now));
            now += 120;
            largest = largest.max(bytes());
        }
        sizes.push((largest, bytes()));
    }
    let (full, empty) = sizes[0];
    for (largest, last) in &sizes {
        assert!(
            *largest <= full + full / 4,
            "most and last bytes: {sizes:?}"
        );
        assert!(*last <= empty + empty / 4, "most and last bytes: {sizes:?}");
    }
    assert!(2 * empty < full, "most and last bytes: {sizes:?}");
    assert_eq!(hosts(&committer), 0);
}

/// Whoever waited for the journal's end may open the folder at once.
#[tokio::test]
async fn the_folder_is_free_when_the_journal_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..100 {
        let mut store = open_store(folder.path());
        let summarizer = Summarizer::open(&mut *store, NOW).unwrap();
        let (journal, thread) = Journal::start(
            store,
            summarizer,
            GATHER_WINDOW,
            Clocks::of_one(Arc::new(|| NOW)),
        )
        .unwrap();
        drop(journal);
        ended(thread).await;
    }
}

fn committer(disk: &MemoryDisk) -> Committer {
    let mut store = MemoryStore::open(disk.clone());
    let summarizer = Summarizer::open(&mut store, NOW).unwrap();
    Committer::new(Box::new(store), summarizer, ClockReading::of_one(NOW))
}

fn takes(committer: &mut Committer, seq: u64) -> bool {
    let submission = keyed(producer(1), &[(seq, NOW)], &labels(0..2));
    let mut answers = committer.take(
        std::iter::once((&submission, NOW)),
        ClockReading::of_one(NOW),
    );
    answers.remove(0).is_ok()
}

/// The story: a damaged page, and every POST was refused for ever, or answered and never committed.
#[test]
fn a_store_that_is_damaged_while_it_is_used_is_made_anew() {
    let disk = MemoryDisk::default();
    let mut committer = committer(&disk);
    assert!(takes(&mut committer, 1));
    disk.damage();
    assert!(takes(&mut committer, 2));
    assert_eq!(committer.status().refusal(), None);
    disk.damage();
    // A round of commits ends, and the next begins.
    for rounds in 1..3 {
        committer.maintain(ClockReading::of_one(NOW + rounds * COMMITTED_WITHIN_SECS));
    }
    assert_eq!(committer.status().refusal(), None);
    drop(committer);
    let reopened = Summarizer::open(&mut MemoryStore::open(disk.clone()), NOW).unwrap();
    let summaries = reopened.table();
    let shard = summaries.shard_with("web1");
    assert_eq!(shard["web1"].producers[&producer(1)].set.ranges(), [(1, 2)]);
    assert_eq!(disk.journal_len(), 0);
}

/// Longer than a round of commits.
const COMMITTED_WITHIN_SECS: u64 = 30;

/// The story: on a full disk every POST was 503, and readiness was 200.
#[test]
fn a_failed_store_is_reported_and_recovers_without_requests() {
    let disk = MemoryDisk::default();
    let mut committer = committer(&disk);
    assert!(takes(&mut committer, 1));
    let refused = |committer: &Committer, words: &str| {
        let refusal = committer.status().refusal().unwrap_or_default();
        assert!(refusal.contains(words), "{words}: {refusal}");
    };
    disk.set_failing(true);
    assert!(!takes(&mut committer, 2));
    refused(&committer, "the journal cannot be written");
    committer.maintain(ClockReading::of_one(NOW + COMMITTED_WITHIN_SECS));
    refused(&committer, "cannot be committed");
    committer.maintain(ClockReading::of_one(NOW + COMMITTED_WITHIN_SECS + 2));
    refused(&committer, "the journal cannot be written");
    disk.set_failing(false);
    for later in 4..7 {
        committer.maintain(ClockReading::of_one(NOW + COMMITTED_WITHIN_SECS + later));
    }
    assert_eq!(committer.status().refusal(), None);
    assert_eq!(committer.status().warnings(NOW), [] as [String; 0]);
    assert_eq!(committer.summarizer().uncommitted(), 0);
    assert_eq!(disk.journal_len(), 0);
}

/// A committer in which all shards have changed, at 40 s, when the next round begins. Each host has
/// so many labels.
fn committer_with_all_changed(labels_of_each: usize) -> Committer {
    let mut committer = committer(&MemoryDisk::default());
    for host in 0..500 {
        let name = format!("h{host}");
        let labels = labels(0..labels_of_each);
        let submission = keyed_by(&name, producer(1), &[(1, NOW)], &labels);
        let at = ClockReading::of_one(NOW);
        let answers = committer.take(std::iter::once((&submission, NOW)), at);
        assert!(answers[0].is_ok());
    }
    assert_eq!(committer.summarizer().changed_shards(), 64);
    // What came in this round is committed in the next.
    committer.maintain(ClockReading::of_one(NOW + 20));
    committer
}

/// The story: every twenty seconds requests waited while all shards were committed one after the
/// other.
#[test]
fn the_commits_of_a_round_are_spread_over_its_time() {
    // Small shards are committed with one sync, large ones one by one: it says that more is due.
    for (labels_of_each, more) in [(1, 0), (20, 3)] {
        let mut committer = committer_with_all_changed(labels_of_each);
        let mut left = 64;
        for sec in 40..60 {
            let at = ClockReading::of_one(NOW + sec);
            // As often as it says that more is due, and then as often as groups come.
            let asked = (0..100).take_while(|_| committer.maintain(at)).count();
            (0..10).for_each(|_| _ = committer.maintain(at));
            let before = std::mem::replace(&mut left, committer.summarizer().changed_shards());
            assert_eq!(before - left, before.min(4), "second {sec}");
            assert_eq!(asked, if before > 0 { more } else { 0 }, "second {sec}");
        }
        assert_eq!(left, 0);
    }
    let mut committer = committer_with_all_changed(1);
    for sec in 40..60 {
        committer.maintain(ClockReading::of_one(NOW + sec));
    }
    // The rounds are no longer for it: one began at 40, and the next at 60.
    let submission = keyed_by("h0", producer(1), &[(2, NOW)], &labels(0..1));
    committer.take(
        std::iter::once((&submission, NOW)),
        ClockReading::of_one(NOW + 59),
    );
    for sec in [60, 80] {
        assert_eq!(committer.summarizer().changed_shards(), 1, "second {sec}");
        committer.maintain(ClockReading::of_one(NOW + sec));
    }
    assert_eq!(committer.summarizer().changed_shards(), 0);
}
