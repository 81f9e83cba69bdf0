//! Who is admitted, and refused for what.

use proptest::prelude::*;

use super::super::admission::{Admission, Dedup, EpochMarks, Unread};
use super::super::intake::{Intake, KnownRecords};
use super::*;
use crate::clock::ClockVerdict;
use crate::store::{DocumentKind, JournalStore, Position, StoredDocument};

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

fn summarizer() -> Summarizer {
    Summarizer::open(&mut MemoryStore::open(MemoryDisk::default()), NOW).unwrap()
}

fn count(summarizer: &mut Summarizer, submission: &Submission) {
    summarizer.begin_group();
    summarizer.apply(Position::new(1), &submission.view().unwrap());
}

fn right_clock() -> ClockVerdict {
    ClockVerdict {
        now: NOW,
        steady_secs: 3_600,
        floor: NOW,
        other: Some(NOW),
        regime: 0,
    }
}

/// Judges submissions as one group, and gives what each of them is refused for.
fn admit_group(table: &SummaryTable, submissions: &[Submission]) -> Vec<Result<Dedup, ValueFault>> {
    let mut marks = EpochMarks::default();
    let mut unread = Unread::default();
    let mut admission = Admission::new(table, right_clock(), &mut marks, &mut unread);
    submissions
        .iter()
        .map(|one| {
            admission
                .admit(one, NOW)
                .map(|admitted| admitted.dedup)
                .map_err(|error| match error {
                    AdmissionError::Values { fault, .. } => fault,
                    other => panic!("{other:?}"),
                })
        })
        .collect()
}

#[test]
fn known_numbers_are_recognised_before_their_epoch_is_checked() {
    let mut summarizer = summarizer();
    let cpu = labels(0..1);
    count(&mut summarizer, &keyed(producer(1), &[(7, NOW)], &cpu));
    let too_old = NOW - 100_000;
    let verdicts = admit_group(
        &summarizer.table(),
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
    let (old, future) = (Err(ValueFault::EpochTooOld), Err(ValueFault::EpochInFuture));
    assert_eq!(
        verdicts,
        [Ok(Dedup::Known), old, old, future, old, old, Ok(Dedup::New)]
    );
}

#[test]
fn a_number_twice_in_one_group_is_known_the_second_time() {
    let summarizer = summarizer();
    let cpu = labels(0..1);
    let one = keyed(producer(1), &[(1, NOW)], &cpu);
    let too_old = keyed(producer(1), &[(1, 5)], &cpu);
    let verdicts = admit_group(&summarizer.table(), &[one.clone(), one, too_old]);
    assert_eq!(
        verdicts,
        [Ok(Dedup::New), Ok(Dedup::Known), Ok(Dedup::Known)]
    );
}

#[test]
fn a_refused_submission_leaves_no_trace_in_its_group() {
    let summarizer = summarizer();
    let refused = keyed(producer(1), &[(1, NOW), (2, 5)], &labels(0..1));
    let same_number = keyed(producer(1), &[(1, 5)], &labels(0..1));
    let verdicts = admit_group(&summarizer.table(), &[refused, same_number]);
    assert_eq!(
        verdicts,
        [Err(ValueFault::EpochTooOld), Err(ValueFault::EpochTooOld)]
    );
}

#[test]
fn labels_at_and_over_the_limit() {
    let mut summarizer = summarizer();
    for from in (0..900).step_by(100) {
        count(&mut summarizer, &unkeyed(NOW, &labels(from..from + 100)));
    }
    let verdicts = admit_group(
        &summarizer.table(),
        &[
            unkeyed(NOW, &labels(900..1000)),
            unkeyed(NOW, &labels(999..1001)),
            unkeyed(NOW, &labels(0..200)),
            unkeyed(NOW, &labels(1000..1001)),
        ],
    );
    let full = Err(ValueFault::TooManyLabels);
    assert_eq!(verdicts, [Ok(Dedup::New), full, Ok(Dedup::New), full]);
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
    let verdicts = admit_group(
        &summarizer.table(),
        &[
            keyed(producer(100), &[(1, NOW)], &cpu),
            keyed(producer(101), &[(1, NOW)], &cpu),
            keyed(producer(100), &[(2, NOW)], &cpu),
            keyed(producer(1), &[(2, NOW)], &cpu),
        ],
    );
    let (new, refused) = (Ok(Dedup::New), Err(ValueFault::Invalid));
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
    let verdicts = admit_group(
        &summarizer.table(),
        &[
            keyed(producer(1), &[(last + 10, NOW), (last + 20, NOW)], &cpu),
            keyed(producer(1), &[(last + 10, NOW)], &cpu),
            keyed(producer(1), &[(last + 20, NOW)], &cpu),
            keyed(producer(1), &[(2, NOW)], &cpu),
            keyed(producer(1), &[(last + 20, NOW)], &cpu),
        ],
    );
    let (new, refused) = (Ok(Dedup::New), Err(ValueFault::Invalid));
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
    let verdicts = admit_group(
        &summarizer.table(),
        &[keyed(producer(1), &[(2, NOW)], &cpu)],
    );
    assert_eq!(verdicts, [Ok(Dedup::New)]);
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
    /// What waits counts as what is stored does: with a producer that has nearly all the ranges it
    /// may have, and a host with nearly all its labels.
    #[test]
    fn a_group_is_admitted_as_its_requests_would_be_one_by_one(
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
        let together = admit_group(&start().table(), &submissions);
        let mut summarizer = start();
        let mut one_by_one = Vec::new();
        for submission in &submissions {
            let verdict = admit_group(&summarizer.table(), std::slice::from_ref(submission)).remove(0);
            if verdict == Ok(Dedup::New) {
                count(&mut summarizer, submission);
            }
            one_by_one.push(verdict);
        }
        prop_assert_eq!(together, one_by_one);
    }
}

/// It has no records, and changes what is known all the same.
#[test]
fn a_document_is_news_each_time() {
    let document = StoredDocument {
        kind: DocumentKind::Facts,
        body: b"{}"[..].into(),
    };
    let facts = Submission::of_document(&"web1".parse().unwrap(), 9, NOW, &document);
    let mut summarizer = summarizer();
    for _ in 0..2 {
        let table = summarizer.table();
        let admitted = admit_group(&table, &[facts.clone(), facts.clone()]);
        assert_eq!(admitted, [Ok(Dedup::New), Ok(Dedup::New)]);
        count(&mut summarizer, &facts);
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
        admit_group(&summarizer.table(), &[giving_up(producer(1), ranges)])
    };
    assert_eq!(verdict(&summarizer, &[(2, 5)]), [Ok(Dedup::New)]);
    count(&mut summarizer, &giving_up(producer(1), &[(2, 5)]));
    assert_eq!(verdict(&summarizer, &[(2, 5), (3, 3)]), [Ok(Dedup::Known)]);
    assert_eq!(verdict(&summarizer, &[(5, 6)]), [Ok(Dedup::New)]);
    assert_eq!(verdict(&summarizer, &[]), [Ok(Dedup::Known)]);
    let summaries = summarizer.table();
    let hosts = summaries.shard_with("web1");
    let kept = &hosts["web1"].producers[&producer(1)];
    assert_eq!(kept.dropped.take_out_of(kept.set.missing()), [(6, 8)]);
}

#[test]
fn dropped_numbers_of_an_unknown_host_are_stored() {
    let mut summarizer = summarizer();
    let told = giving_up(producer(1), &[(1, 9)]);
    assert_eq!(
        admit_group(&summarizer.table(), std::slice::from_ref(&told)),
        [Ok(Dedup::New)]
    );
    count(&mut summarizer, &told);
    assert_eq!(
        admit_group(&summarizer.table(), &[told]),
        [Ok(Dedup::Known)]
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
        admit_group(&summarizer.table(), std::slice::from_ref(&at_limit)),
        [Ok(Dedup::New)]
    );
    count(&mut summarizer, &at_limit);
    let over = giving_up(producer(1), &apart);
    let record = [(2 * apart.len() as u64 + 9, NOW)];
    let beside = numbered("web1", producer(1), &record, &[], &apart);
    let joining = giving_up(producer(1), &[(1, 2 * PRODUCER_RANGES_MAX as u64)]);
    let verdicts = admit_group(&summarizer.table(), &[over, beside, joining]);
    let refused = Err(ValueFault::Invalid);
    assert_eq!(verdicts, [refused, refused, Ok(Dedup::New)]);
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
    let verdicts = admit_group(
        &summarizer.table(),
        &[apart(0), apart(1), apart(2), apart(0)],
    );
    let (new, refused) = (Ok(Dedup::New), Err(ValueFault::Invalid));
    assert_eq!(verdicts, [new, new, refused, Ok(Dedup::Known)]);
}

/// In a shared store a group is counted a moment after it was appended. In that moment a node with
/// a valid certificate could add any number of labels.
#[test]
fn limits_hold_for_what_is_appended_and_not_read_yet() {
    let summarizer = summarizer();
    let table = summarizer.table();
    let store = MemoryStore::open(MemoryDisk::default());
    let mut intake = Intake::new(store.shard_count(), KnownRecords::Append);
    let shard = table.shard_of("web1");
    let mut admitted = |submission: &Submission, position: u64| {
        let requests = std::iter::once((submission, NOW));
        let verdict = intake.admit(&table, requests, right_clock()).remove(0).1;
        let groups = intake.take_groups();
        let appended = groups.shards().iter().map(|_| Ok(Position::new(position)));
        let appended = appended.collect();
        intake.put_back(groups, 1, appended);
        verdict.map(|admitted| (admitted.dedup, admitted.new_records))
    };
    let first = keyed(producer(1), &[(1, NOW)], &labels(0..256));
    assert_eq!(admitted(&first, 1).unwrap(), (Dedup::New, 1));
    assert_eq!(admitted(&first, 2).unwrap(), (Dedup::Known, 0));
    for (number, labels) in [(2, labels(256..512)), (3, labels(512..768))] {
        let more = keyed(producer(1), &[(number, NOW)], &labels);
        admitted(&more, number + 1).unwrap();
    }
    let over = keyed(producer(1), &[(4, NOW)], &labels(768..1_001));
    assert!(admitted(&over, 5).is_err());
    let full = keyed(producer(1), &[(4, NOW)], &labels(768..1_000));
    admitted(&full, 5).unwrap();
    // It was read on through there.
    table.set_read_through(shard, Position::new(5));
    admitted(&over, 6).unwrap();
    assert_eq!(admitted(&over, 7).unwrap(), (Dedup::Known, 0));
    // A failover has forgotten it, and the shard was loaded again: a monitor that repairs it must
    // not be told that it was there.
    table.set_reloaded(shard, Position::new(1));
    assert_eq!(admitted(&over, 2).unwrap(), (Dedup::New, 1));
}
