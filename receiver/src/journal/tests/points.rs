//! Points: sent again they count once, whatever is lost in between, and as many series are taken as
//! the flag says.

use std::collections::BTreeMap;

use lizmon_summary::{PointKind, TIERS};
use proptest::prelude::*;

use super::*;
use crate::clock::ClockReading;
use crate::store::record::PointNumber;

/// Milliseconds after [`NOW`], what it is, and values by label.
type Points<'a> = &'a [(u64, PointKind, &'a [(&'a str, f64)])];

fn points_of(host: &str, points: Points<'_>) -> Submission {
    let values = |values: &[(&str, f64)]| -> Vec<_> {
        let values = values.iter();
        let checked = values.map(|(label, value)| {
            let label = Label::of_series((*label).to_owned()).unwrap();
            (label, Value::new(*value).unwrap())
        });
        checked.collect()
    };
    let numbered: Vec<_> = points
        .iter()
        .map(|(millis, kind, of)| {
            let number = PointNumber {
                millis: NOW * 1_000 + millis,
                kind: *kind,
            };
            (number, values(of))
        })
        .collect();
    let numbered = numbered.iter();
    let numbered = numbered.map(|(number, values)| (*number, values.as_slice()));
    Submission::of_points(&host.parse().unwrap(), 9, NOW, numbered)
}

fn committer(disk: &MemoryDisk) -> Committer {
    let mut store = MemoryStore::open(disk.clone());
    let summarizer = Summarizer::open(&mut store, NOW).unwrap();
    Committer::new(Box::new(store), summarizer, ClockReading::of_one(NOW))
}

fn take(committer: &mut Committer, submission: &Submission) -> Result<BatchAnswer, SubmitError> {
    let request = std::iter::once((submission, NOW + 30));
    committer
        .take(request, ClockReading::of_one(NOW + 30))
        .remove(0)
}

#[derive(Debug, Default, PartialEq)]
struct Sum {
    count: u64,
    sum: f64,
}

/// By label, everything of the last day.
fn summed(committer: &Committer, host: &str) -> BTreeMap<String, Sum> {
    let table = committer.summarizer().table();
    let hosts = table.shard_with(host);
    let series = hosts.get(host).into_iter().flat_map(|host| &host.series);
    let by_hour = TIERS.len() - 1;
    let mut sums = BTreeMap::new();
    for (label, series) in series {
        let sum: &mut Sum = sums.entry(label.to_string()).or_default();
        for (_, bucket, _) in series.intervals().filter(|(tier, ..)| *tier == by_hour) {
            sum.count += bucket.count;
            sum.sum += bucket.sum;
        }
    }
    sums
}

#[test]
fn points_that_come_again_count_once() {
    use PointKind::{Counter, End, Gauge};
    let disk = MemoryDisk::default();
    let mut receiver = committer(&disk);
    let sent = points_of(
        "web1",
        &[
            (0, Gauge, &[("up", 1.0)]),
            (0, Counter, &[("requests_total", 10.0)]),
            (15_000, Gauge, &[("up", 0.0)]),
            (15_000, Counter, &[("requests_total", 40.0)]),
            (20_000, End, &[("up", 0.0)]),
        ],
    );
    let answer = |accepted, duplicate| BatchAnswer {
        accepted,
        duplicate,
    };
    assert_eq!(take(&mut receiver, &sent).unwrap(), answer(5, 0));
    assert_eq!(take(&mut receiver, &sent).unwrap(), answer(0, 5));
    let check = |receiver: &Committer| {
        let sums = summed(receiver, "web1");
        let told: Vec<_> = sums
            .iter()
            .map(|(label, of)| (&**label, of.count, of.sum))
            .collect();
        assert_eq!(told, [("requests_total", 1, 2.0), ("up", 2, 1.0)]);
    };
    check(&receiver);
    // Killed: the journal is read again. And once more after all of it was committed.
    drop(receiver);
    let mut receiver = committer(&disk);
    check(&receiver);
    assert_eq!(take(&mut receiver, &sent).unwrap(), answer(0, 5));
    receiver.finish().unwrap();
    assert_eq!(disk.journal_len(), 0);
    drop(receiver);
    let mut receiver = committer(&disk);
    check(&receiver);
    assert_eq!(take(&mut receiver, &sent).unwrap(), answer(0, 5));
    // It goes on where it was, also after the end of the series.
    let next = points_of(
        "web1",
        &[
            (30_000, Counter, &[("requests_total", 4.5)]),
            (30_000, Gauge, &[("up", 1.0)]),
        ],
    );
    assert_eq!(take(&mut receiver, &next).unwrap(), answer(2, 0));
    let sums = summed(&receiver, "web1");
    assert_eq!(
        (sums["requests_total"].count, sums["requests_total"].sum),
        (2, 2.3)
    );
    assert_eq!((sums["up"].count, sums["up"].sum), (3, 2.0));
}

/// A counter that has only begun has no interval, and a sweep must leave it.
#[test]
fn a_counter_that_has_begun_outlives_a_sweep() {
    let disk = MemoryDisk::default();
    let mut receiver = committer(&disk);
    let counter = |at, value| {
        points_of(
            "web1",
            &[(at, PointKind::Counter, &[("requests_total", value)])],
        )
    };
    take(&mut receiver, &counter(0, 10.0)).unwrap();
    (0..2_000).for_each(|secs| _ = receiver.maintain(ClockReading::of_one(NOW + secs)));
    let later = ClockReading::of_one(NOW + 2_000);
    let next = counter(2_000_000, 4_010.0);
    let answer = receiver
        .take(std::iter::once((&next, NOW + 2_000)), later)
        .remove(0);
    assert_eq!(answer.unwrap().accepted, 1);
    let sums = summed(&receiver, "web1");
    assert_eq!(
        (sums["requests_total"].count, sums["requests_total"].sum),
        (1, 2.0)
    );
    // A day without any ends it.
    (0..90_000).step_by(10).for_each(|secs| {
        receiver.maintain(ClockReading::of_one(NOW + 2_000 + secs));
    });
    (90_000..91_000)
        .for_each(|secs| _ = receiver.maintain(ClockReading::of_one(NOW + 2_000 + secs)));
    assert!(summed(&receiver, "web1").is_empty());
}

#[test]
fn a_host_has_so_many_series_of_points_beside_its_labels() {
    let disk = MemoryDisk::default();
    let mut receiver = committer(&disk);
    receiver.summarizer().table().limit_host_series(3);
    let gauges = |labels: &[&str], at| {
        let values: Vec<_> = labels.iter().map(|label| (*label, 1.0)).collect();
        points_of("web1", &[(at, PointKind::Gauge, &values)])
    };
    let fault_of = |answer: Result<BatchAnswer, SubmitError>| match answer {
        Err(SubmitError::Refused(AdmissionError::Values { fault, errors, .. })) => {
            assert!(errors[0].reason.contains("--host-series"), "{errors:?}");
            fault
        }
        other => panic!("{other:?}"),
    };
    // As many labels as there may be, none of which is a series of points.
    let samples = keyed(producer(1), &[(1, NOW)], &labels(0..HOST_LABELS_MAX));
    assert_eq!(take(&mut receiver, &samples).unwrap().accepted, 1);
    assert_eq!(
        take(&mut receiver, &gauges(&["a", "b", "z"], 0))
            .unwrap()
            .accepted,
        3
    );
    let refused = take(&mut receiver, &gauges(&["a", "c"], 1));
    assert_eq!(fault_of(refused), ValueFault::TooManyLabels);
    let before = summed(&receiver, "web1");
    assert_eq!(before["a"].count, 1, "nothing of it is counted");
    // What is there goes on, and in a group what waits counts as well.
    assert_eq!(
        take(&mut receiver, &gauges(&["a", "b"], 2))
            .unwrap()
            .accepted,
        2
    );
    receiver.summarizer().table().limit_host_series(5);
    let group = [gauges(&["c"], 3), gauges(&["d"], 3), gauges(&["e"], 3)];
    let requests = group.iter().map(|submission| (submission, NOW));
    let answers = receiver.take(requests, ClockReading::of_one(NOW));
    let is_taken: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(is_taken, [true, true, false]);
    // A label more is one too many for samples.
    let more = keyed(producer(1), &[(2, NOW)], &["new".to_owned()]);
    assert!(take(&mut receiver, &more).is_err());
}

/// Regression: labels of samples that got points were labels of neither, so a host could have any
/// number of them.
#[test]
fn a_label_of_samples_that_gets_a_point_counts_as_a_series() {
    let disk = MemoryDisk::default();
    let mut receiver = committer(&disk);
    receiver.summarizer().table().limit_host_series(3);
    let gauges = |labels: &[&str], at| {
        let values: Vec<_> = labels.iter().map(|label| (*label, 1.0)).collect();
        points_of("web1", &[(at, PointKind::Gauge, &values)])
    };
    let samples = keyed(producer(1), &[(1, NOW)], &labels(0..HOST_LABELS_MAX));
    assert_eq!(take(&mut receiver, &samples).unwrap().accepted, 1);
    assert!(take(&mut receiver, &gauges(&["l0", "l1", "l2", "l3"], 0)).is_err());
    assert_eq!(
        take(&mut receiver, &gauges(&["l0", "l1", "l2"], 0))
            .unwrap()
            .accepted,
        3
    );
    assert!(take(&mut receiver, &gauges(&["l3"], 1)).is_err());
    // In a group as well.
    receiver.summarizer().table().limit_host_series(4);
    let group = [gauges(&["l3"], 2), gauges(&["l4"], 2)];
    let requests = group.iter().map(|submission| (submission, NOW));
    let answers = receiver.take(requests, ClockReading::of_one(NOW));
    let is_taken: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(is_taken, [true, false]);
    // A sample of a series of points makes none.
    let again = keyed(producer(1), &[(2, NOW)], &["l0".to_owned()]);
    assert_eq!(take(&mut receiver, &again).unwrap().accepted, 1);
}

/// Regression: points from a wrong clock, which was set right, hid those that came then: they were
/// taken for duplicates, and acknowledged.
#[test]
fn points_behind_one_that_is_ahead_of_the_clock_are_not_lost() {
    const AHEAD: u64 = 1_200;
    let disk = MemoryDisk::default();
    let mut receiver = committer(&disk);
    let mut monotonic = NOW;
    let mut at = |wall: u64, passed: u64| {
        monotonic += passed;
        ClockReading {
            monotonic,
            ..ClockReading::of_one(wall)
        }
    };
    let counter = |secs: u64| {
        points_of(
            "web1",
            &[(
                secs * 1_000,
                PointKind::Counter,
                &[("requests_total", secs as f64)],
            )],
        )
    };
    let send = |receiver: &mut Committer, secs: u64, reading: ClockReading| {
        let sent = counter(secs);
        let answers = receiver.take(std::iter::once((&sent, reading.wall)), reading);
        answers
            .into_iter()
            .next()
            .unwrap()
            .map(|answer| (answer.accepted, answer.duplicate))
    };
    // All is ahead, for long enough that the clock is taken for right.
    (0..400).for_each(|_| _ = receiver.maintain(at(NOW + AHEAD, 1)));
    assert_eq!(
        send(&mut receiver, AHEAD, at(NOW + AHEAD, 1)).unwrap(),
        (1, 0)
    );
    // The clock is set right.
    let refused = send(&mut receiver, 10, at(NOW + 10, 10)).unwrap_err();
    let is_unsteady = matches!(
        refused,
        SubmitError::Refused(AdmissionError::ClockUnsteady { .. })
    );
    assert!(is_unsteady, "{refused:?}");
    // Once it is known to be, what was ahead goes, and is not there after a restart either.
    (0..400).for_each(|secs| _ = receiver.maintain(at(NOW + 10 + secs, 1)));
    let other = points_of("web1", &[(410_000, PointKind::Gauge, &[("up", 1.0)])]);
    let reading = at(NOW + 411, 1);
    let answers = receiver.take(std::iter::once((&other, reading.wall)), reading);
    assert_eq!(answers[0].as_ref().unwrap().accepted, 1);
    receiver.finish().unwrap();
    drop(receiver);
    let mut receiver = committer(&disk);
    for secs in [411, 412] {
        let reading = ClockReading::of_one(NOW + secs + 1);
        assert_eq!(send(&mut receiver, secs, reading).unwrap(), (1, 0));
    }
    let sums = summed(&receiver, "web1");
    assert_eq!(
        (sums["requests_total"].count, sums["requests_total"].sum),
        (1, 1.0)
    );
}

/// A gateway's request is taken for all of its hosts or for none.
#[test]
fn several_hosts_are_checked_together() {
    let disk = MemoryDisk::default();
    let receiver = committer(&disk);
    let table = receiver.summarizer().table();
    table.limit_host_series(1);
    let gauge = |host: &str, labels: &[&str]| {
        let values: Vec<_> = labels.iter().map(|label| (*label, 1.0)).collect();
        points_of(host, &[(0, PointKind::Gauge, &values)])
    };
    let check = |submissions: &[Submission], now| Journal::check_together(&table, submissions, now);
    let (one, two) = (gauge("web1", &["up"]), gauge("web2", &["up", "load"]));
    assert!(check(&[one.clone(), gauge("web2", &["up"])], NOW).is_ok());
    assert!(check(&[one.clone(), two], NOW).is_err(), "series");
    assert!(
        check(&[one.clone(), gauge("web1", &["load"])], NOW).is_err(),
        "both of one"
    );
    assert!(
        check(std::slice::from_ref(&one), NOW + 2 * 86_400).is_err(),
        "too old"
    );
    assert!(check(&[one], NOW - 2 * 86_400).is_err(), "in the future");
    assert!(
        summed(&receiver, "web1").is_empty(),
        "it is a question alone"
    );
}

fn arbitrary_points() -> impl Strategy<Value = Vec<(u64, bool, f64)>> {
    let value = prop_oneof![Just(0.0), 0.0..1e6_f64];
    // Some of them late, or sent again.
    proptest::collection::vec((0..40_u64, any::<bool>(), value), 0..12)
}

proptest! {
    /// Sent twice, in pieces, with a restart anywhere: the same as in one go.
    #[test]
    fn what_is_lost_in_between_changes_nothing(
        requests in proptest::collection::vec(arbitrary_points(), 0..8),
        restarts in proptest::collection::vec((any::<bool>(), any::<bool>()), 8),
    ) {
        let submission = |points: &Vec<(u64, bool, f64)>| {
            let mut points = points.clone();
            points.sort_by_key(|(at, ..)| *at);
            let values: Vec<_> = points.iter().map(|(.., value)| [("c_total", *value), ("g", *value)]).collect();
            let numbered: Vec<_> = points
                .iter()
                .zip(&values)
                .map(|((at, is_counter, _), values)| match is_counter {
                    true => (at * 500, PointKind::Counter, &values[..1]),
                    false => (at * 500, PointKind::Gauge, &values[1..]),
                })
                .collect();
            points_of("web1", &numbered)
        };
        let submissions: Vec<_> = requests.iter().map(submission).collect();
        let mut once = committer(&MemoryDisk::default());
        for submission in &submissions {
            take(&mut once, submission).unwrap();
        }
        let disk = MemoryDisk::default();
        let mut receiver = committer(&disk);
        for (submission, (restarts, commits)) in submissions.iter().zip(&restarts) {
            let first = take(&mut receiver, submission).unwrap();
            if *commits {
                receiver.finish().unwrap();
            }
            if *restarts {
                drop(receiver);
                receiver = committer(&disk);
            }
            let again = take(&mut receiver, submission).unwrap();
            prop_assert_eq!(again.accepted, 0);
            prop_assert_eq!(again.duplicate, first.accepted + first.duplicate);
        }
        prop_assert_eq!(summed(&receiver, "web1"), summed(&once, "web1"));
    }
}
