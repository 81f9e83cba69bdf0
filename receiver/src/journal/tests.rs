//! One group after another: who is answered what, and what counts.

use std::sync::Arc;

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Dropped, Epoch, ProducerId, SampleSet, Seq, Value};
use proptest::prelude::*;
use uuid::Uuid;

use super::admit::{Admission, Novelty};
use super::*;
use crate::store::memory::{Disk, MemoryStore};
use crate::summarize::Summaries;

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

fn unkeyed(epoch: u64, labels: &[String]) -> Submission {
    let values = labels.iter().map(|label| {
        (
            Label::new(label.as_str()).unwrap(),
            Value::new(1.0).unwrap(),
        )
    });
    let set = SampleSet::new(values.collect());
    let record = (None, Epoch::new(epoch).unwrap(), &set);
    Submission::new(&"web1".parse().unwrap(), 9, None, NOW).with_records(std::iter::once(record))
}

fn labels(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|at| format!("l{at}")).collect()
}

fn summarizer() -> Summarizer {
    Summarizer::open(&mut MemoryStore::open(Disk::default())).unwrap()
}

fn count(summarizer: &mut Summarizer, submission: &Submission) {
    let position = summarizer.position() + 1;
    summarizer.apply(position, &submission.view().unwrap());
}

/// Judges submissions as one group, and gives what each of them is refused for.
fn judge(summaries: &Summaries, submissions: &[Submission]) -> Vec<Result<Novelty, Code>> {
    let mut admission = Admission::new(summaries);
    submissions
        .iter()
        .map(|one| {
            admission
                .admit(one, NOW)
                .map_err(|rejection| rejection.code())
        })
        .collect()
}

#[test]
fn known_numbers_are_recognised_before_their_epoch_is_judged() {
    let mut summarizer = summarizer();
    let cpu = labels(0..1);
    count(&mut summarizer, &keyed(producer(1), &[(7, NOW)], &cpu));
    let too_old = NOW - 100_000;
    let verdicts = judge(
        &summarizer.summaries(),
        &[
            keyed(producer(1), &[(7, too_old)], &cpu),
            keyed(producer(1), &[(8, too_old)], &cpu),
            keyed(producer(1), &[(7, NOW), (8, too_old)], &cpu),
            keyed(producer(1), &[(8, NOW + 121)], &cpu),
            keyed(producer(2), &[(7, too_old)], &cpu),
            unkeyed(too_old, &cpu),
            unkeyed(NOW + 120, &cpu),
        ],
    );
    let (old, future) = (Err(Code::EpochTooOld), Err(Code::EpochInFuture));
    assert_eq!(
        verdicts,
        [
            Ok(Novelty::Known),
            old,
            old,
            future,
            old,
            old,
            Ok(Novelty::New)
        ]
    );
}

#[test]
fn a_number_twice_in_one_group_is_known_the_second_time() {
    let summarizer = summarizer();
    let cpu = labels(0..1);
    let one = keyed(producer(1), &[(1, NOW)], &cpu);
    let too_old = keyed(producer(1), &[(1, 5)], &cpu);
    let verdicts = judge(&summarizer.summaries(), &[one.clone(), one, too_old]);
    assert_eq!(
        verdicts,
        [Ok(Novelty::New), Ok(Novelty::Known), Ok(Novelty::Known)]
    );
}

#[test]
fn a_refused_submission_leaves_no_trace_in_its_group() {
    let summarizer = summarizer();
    let refused = keyed(producer(1), &[(1, NOW), (2, 5)], &labels(0..1));
    let same_number = keyed(producer(1), &[(1, 5)], &labels(0..1));
    let verdicts = judge(&summarizer.summaries(), &[refused, same_number]);
    assert_eq!(verdicts, [Err(Code::EpochTooOld), Err(Code::EpochTooOld)]);
}

#[test]
fn labels_at_and_over_the_limit() {
    let mut summarizer = summarizer();
    for from in (0..900).step_by(100) {
        count(&mut summarizer, &unkeyed(NOW, &labels(from..from + 100)));
    }
    let verdicts = judge(
        &summarizer.summaries(),
        &[
            unkeyed(NOW, &labels(900..1000)),
            unkeyed(NOW, &labels(999..1001)),
            unkeyed(NOW, &labels(0..200)),
            unkeyed(NOW, &labels(1000..1001)),
        ],
    );
    let full = Err(Code::TooManyLabels);
    assert_eq!(verdicts, [Ok(Novelty::New), full, Ok(Novelty::New), full]);
}

#[test]
fn producers_at_and_over_the_limit() {
    let mut summarizer = summarizer();
    let cpu = labels(0..1);
    for number in 1..HOST_PRODUCERS_MAX {
        count(
            &mut summarizer,
            &keyed(producer(number as u128), &[(1, NOW)], &cpu),
        );
    }
    let verdicts = judge(
        &summarizer.summaries(),
        &[
            keyed(producer(100), &[(1, NOW)], &cpu),
            keyed(producer(101), &[(1, NOW)], &cpu),
            keyed(producer(100), &[(2, NOW)], &cpu),
            keyed(producer(1), &[(2, NOW)], &cpu),
        ],
    );
    let (new, refused) = (Ok(Novelty::New), Err(Code::InvalidValues));
    assert_eq!(verdicts, [new, refused, new, new]);
}

#[test]
fn ranges_at_and_over_the_limit() {
    let mut summarizer = summarizer();
    let cpu = labels(0..1);
    let last = 2 * PRODUCER_RANGES_MAX as u64;
    let odd: Vec<_> = (1..last - 1).step_by(2).map(|seq| (seq, NOW)).collect();
    assert_eq!(odd.len(), PRODUCER_RANGES_MAX - 1);
    count(&mut summarizer, &keyed(producer(1), &odd, &cpu));
    let verdicts = judge(
        &summarizer.summaries(),
        &[
            keyed(producer(1), &[(last + 10, NOW), (last + 20, NOW)], &cpu),
            keyed(producer(1), &[(last + 10, NOW)], &cpu),
            keyed(producer(1), &[(last + 20, NOW)], &cpu),
            keyed(producer(1), &[(2, NOW)], &cpu),
            keyed(producer(1), &[(last + 20, NOW)], &cpu),
        ],
    );
    let (new, refused) = (Ok(Novelty::New), Err(Code::InvalidValues));
    assert_eq!(verdicts, [refused, new, refused, new, new]);
}

#[test]
fn who_is_over_the_limit_may_fill_gaps() {
    let mut summarizer = summarizer();
    let cpu = labels(0..1);
    let odd: Vec<_> = (1..=2 * PRODUCER_RANGES_MAX as u64 + 9)
        .step_by(2)
        .map(|seq| (seq, NOW))
        .collect();
    count(&mut summarizer, &keyed(producer(1), &odd, &cpu));
    let verdicts = judge(
        &summarizer.summaries(),
        &[keyed(producer(1), &[(2, NOW)], &cpu)],
    );
    assert_eq!(verdicts, [Ok(Novelty::New)]);
}

fn arbitrary_submission() -> impl Strategy<Value = Submission> {
    let last = 2 * PRODUCER_RANGES_MAX as u64;
    let number = prop_oneof![1..12_u64, last - 8..last + 8];
    let ranges = proptest::collection::vec((number.clone(), 0..3_u64), 0..4);
    let records = proptest::collection::vec((number, 0..30_u64), 0..40);
    (1..3_u128, records, ranges, 0..6_usize).prop_map(|(id, records, ranges, new)| {
        // Now and then an epoch that is too old.
        let epoch = |age: u64| if age == 0 { NOW - 100_000 } else { NOW };
        let records: Vec<_> = records
            .iter()
            .map(|(seq, age)| (*seq, epoch(*age)))
            .collect();
        let ranges: Vec<_> = ranges
            .iter()
            .map(|(from, more)| (*from, from + more))
            .collect();
        let labels = labels(HOST_LABELS_MAX - 3..HOST_LABELS_MAX + new - 3);
        numbered("web1", producer(id), &records, &labels, &ranges)
    })
}

proptest! {
    /// What waits counts as what is stored does: with a producer that has nearly all the ranges it may have, and a host with
    /// nearly all its labels.
    #[test]
    fn a_group_is_judged_as_its_requests_would_be_one_by_one(
        submissions in proptest::collection::vec(arbitrary_submission(), 0..12),
    ) {
        let start = || {
            let mut summarizer = summarizer();
            let last = 2 * PRODUCER_RANGES_MAX as u64;
            let odd: Vec<_> = (13..last - 9).step_by(2).map(|seq| (seq, NOW)).collect();
            count(&mut summarizer, &keyed(producer(1), &odd, &labels(0..1)));
            count(&mut summarizer, &unkeyed(NOW, &labels(0..HOST_LABELS_MAX - 3)));
            let given_up: Vec<_> = (20..last).step_by(2).map(|seq| (seq, seq)).collect();
            count(&mut summarizer, &giving_up(producer(1), &given_up));
            summarizer
        };
        let together = judge(&start().summaries(), &submissions);
        let mut summarizer = start();
        let mut one_by_one = Vec::new();
        for submission in &submissions {
            let verdict = judge(&summarizer.summaries(), std::slice::from_ref(submission)).remove(0);
            if verdict == Ok(Novelty::New) {
                count(&mut summarizer, submission);
            }
            one_by_one.push(verdict);
        }
        prop_assert_eq!(together, one_by_one);
    }
}

fn giving_up(id: ProducerId, ranges: &[(u64, u64)]) -> Submission {
    numbered("web1", id, &[], &[], ranges)
}

#[test]
fn what_was_given_up_is_news_once() {
    let mut summarizer = summarizer();
    count(
        &mut summarizer,
        &keyed(producer(1), &[(1, NOW), (9, NOW)], &labels(0..1)),
    );
    let verdict = |summarizer: &Summarizer, ranges: &[(u64, u64)]| {
        judge(&summarizer.summaries(), &[giving_up(producer(1), ranges)])
    };
    assert_eq!(verdict(&summarizer, &[(2, 5)]), [Ok(Novelty::New)]);
    count(&mut summarizer, &giving_up(producer(1), &[(2, 5)]));
    assert_eq!(
        verdict(&summarizer, &[(2, 5), (3, 3)]),
        [Ok(Novelty::Known)]
    );
    assert_eq!(verdict(&summarizer, &[(5, 6)]), [Ok(Novelty::New)]);
    assert_eq!(verdict(&summarizer, &[]), [Ok(Novelty::Known)]);
    let summaries = summarizer.summaries();
    let hosts = summaries.shard_with("web1");
    let kept = &hosts["web1"].producers[&producer(1)];
    assert_eq!(kept.dropped.take_out_of(kept.set.missing()), [(6, 8)]);
}

#[test]
fn what_was_given_up_is_kept_of_a_host_nobody_has_heard_of() {
    let mut summarizer = summarizer();
    let told = giving_up(producer(1), &[(1, 9)]);
    assert_eq!(
        judge(&summarizer.summaries(), std::slice::from_ref(&told)),
        [Ok(Novelty::New)]
    );
    count(&mut summarizer, &told);
    assert_eq!(
        judge(&summarizer.summaries(), &[told]),
        [Ok(Novelty::Known)]
    );
}

#[test]
fn given_up_ranges_at_and_over_the_limit() {
    let mut summarizer = summarizer();
    count(
        &mut summarizer,
        &keyed(producer(1), &[(1, NOW)], &labels(0..1)),
    );
    let apart: Vec<_> = (1..=PRODUCER_RANGES_MAX as u64 + 1)
        .map(|at| (2 * at, 2 * at))
        .collect();
    let at_limit = giving_up(producer(1), &apart[..PRODUCER_RANGES_MAX]);
    assert_eq!(
        judge(&summarizer.summaries(), std::slice::from_ref(&at_limit)),
        [Ok(Novelty::New)]
    );
    count(&mut summarizer, &at_limit);
    let over = giving_up(producer(1), &apart);
    let record = [(2 * apart.len() as u64 + 9, NOW)];
    let beside = numbered("web1", producer(1), &record, &[], &apart);
    let joining = giving_up(producer(1), &[(1, 2 * PRODUCER_RANGES_MAX as u64)]);
    let verdicts = judge(&summarizer.summaries(), &[over, beside, joining]);
    let refused = Err(Code::InvalidValues);
    assert_eq!(verdicts, [refused, refused, Ok(Novelty::New)]);
}

/// What a group has admitted counts for the rest of the group, though it is not durable yet.
#[test]
fn given_up_ranges_of_one_group_are_counted_together() {
    let summarizer = summarizer();
    let apart = |at: u64| {
        let ranges: Vec<_> = (1..=PRODUCER_RANGES_MAX as u64 / 2)
            .map(|n| (2 * n + at * 10_000, 2 * n + at * 10_000))
            .collect();
        giving_up(producer(1), &ranges)
    };
    let verdicts = judge(
        &summarizer.summaries(),
        &[apart(0), apart(1), apart(2), apart(0)],
    );
    let (new, refused) = (Ok(Novelty::New), Err(Code::InvalidValues));
    assert_eq!(verdicts, [new, new, refused, Ok(Novelty::Known)]);
}

/// A clock that goes wrong for a moment, in either direction, deletes nothing and puts off no commit.
#[test]
fn a_jump_of_the_clock_deletes_nothing() {
    const YEAR: u64 = 365 * 86_400;
    let disk = Disk::default();
    let mut store = MemoryStore::open(disk.clone());
    let summarizer = Summarizer::open(&mut store).unwrap();
    let mut committer = Committer::new(Box::new(store), summarizer, NOW);
    let take = |committer: &mut Committer, seq: u64, now: u64| {
        let submission = keyed(producer(1), &[(seq, NOW)], &labels(0..1));
        committer
            .take(std::iter::once((&submission, now)))
            .remove(0)
            .unwrap()
            .accepted
    };
    assert_eq!(take(&mut committer, 1, NOW), 1);
    (NOW..NOW + 700).for_each(|now| committer.upkeep(now));
    (0..200).for_each(|secs| committer.upkeep(NOW + 10 * YEAR + secs));
    (0..200).for_each(|secs| committer.upkeep(NOW + 900 + secs));
    assert_eq!(
        samples_of_web1(&committer.summarizer().summaries()),
        1,
        "still there"
    );
    assert_eq!(take(&mut committer, 1, NOW), 0, "still known");
    assert_eq!(take(&mut committer, 2, NOW), 1);
    (0..200).for_each(|secs| committer.upkeep(NOW + 1_100 + secs));
    assert_eq!(
        disk.journal_len(),
        0,
        "commits go on after the clock was set back"
    );
    // A clock that stays there is believed in the end.
    (0..2_000).for_each(|secs| committer.upkeep(NOW + 10 * YEAR + secs));
    assert_eq!(samples_of_web1(&committer.summarizer().summaries()), 0);
}

/// A journal on a disk that the test can break.
fn journal(disk: &Disk) -> (Journal, Arc<Summaries>, JournalThread) {
    let mut store = MemoryStore::open(disk.clone());
    let summarizer = Summarizer::open(&mut store).unwrap();
    let summaries = summarizer.summaries();
    let (journal, thread) =
        Journal::start(Box::new(store), summarizer, GATHER_WINDOW, Arc::new(|| NOW)).unwrap();
    (journal, summaries, thread)
}

fn samples_of_web1(summaries: &Summaries) -> u64 {
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
    let disk = Disk::default();
    let (journal, summaries, thread) = journal(&disk);
    let one = keyed(producer(1), &[(1, NOW)], &labels(0..1));
    disk.set_failing(true);
    for _ in 0..3 {
        let refused = journal.submit(one.clone(), NOW).await.unwrap_err();
        assert_eq!(refused.code(), Code::StoreUnavailable);
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
    thread.join().unwrap();
    assert_eq!(disk.journal_len(), 0, "everything was committed at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_answered_and_all_counted() {
    let disk = Disk::default();
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
    thread.join().unwrap();
}

/// Two weeks of five hosts with labels that come and go: after the second day the file grows no more.
#[test]
fn the_file_is_bounded_under_constant_load() {
    const HOUR: u64 = 3600;
    let folder = tempfile::tempdir().unwrap();
    let mut store = crate::store::embedded::EmbeddedStore::open(folder.path()).unwrap();
    let summarizer = Summarizer::open(&mut store).unwrap();
    let mut committer = Committer::new(Box::new(store), summarizer, NOW);
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
            let answers = committer.take(std::iter::once((&submission, now)));
            assert_eq!(answers[0].as_ref().unwrap().accepted, 60);
        }
        (0..60).for_each(|minute| committer.upkeep(now + minute * 60));
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
    let summaries = committer.summarizer().summaries();
    let (series, producers) = summaries
        .shards()
        .fold((0, 0), |(series, producers), hosts| {
            let count = |host: &crate::summarize::Host| (host.series.len(), host.producers.len());
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

/// Every eight days another fleet reports for an hour and is gone: each leaves memory and file, and nobody leaves much.
#[test]
fn the_file_comes_down_when_a_fleet_is_gone() {
    const HOSTS: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    let mut store = crate::store::embedded::EmbeddedStore::open(folder.path()).unwrap();
    let summarizer = Summarizer::open(&mut store).unwrap();
    let mut committer = Committer::new(Box::new(store), summarizer, NOW);
    let bytes = || {
        let size =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
        std::fs::read_dir(folder.path())
            .unwrap()
            .map(size)
            .sum::<u64>()
    };
    let hosts = |committer: &Committer| {
        let summaries = committer.summarizer().summaries();
        summaries.shards().map(|hosts| hosts.len()).sum::<usize>()
    };
    let mut now = NOW;
    let mut sizes = Vec::new();
    for fleet in 0..4 {
        let records: Vec<_> = (1..=60).map(|minute| (minute, now - minute * 60)).collect();
        for host in 0..HOSTS {
            let name = format!("h{fleet}-{host}");
            let submission = keyed_by(&name, producer(1), &records, &labels(0..40));
            let answers = committer.take(std::iter::once((&submission, now)));
            assert_eq!(answers[0].as_ref().unwrap().accepted, 60);
        }
        assert_eq!(hosts(&committer), HOSTS, "the last fleet is gone");
        let end = now + 8 * 86_400;
        let mut largest = 0;
        while now < end {
            committer.upkeep(now);
            now += 60;
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
#[test]
fn the_folder_is_free_when_the_journal_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..100 {
        let mut store = crate::store::embedded::EmbeddedStore::open(folder.path()).unwrap();
        let summarizer = Summarizer::open(&mut store).unwrap();
        let (journal, thread) =
            Journal::start(Box::new(store), summarizer, GATHER_WINDOW, Arc::new(|| NOW)).unwrap();
        drop(journal);
        thread.join().unwrap();
    }
}
