//! The same summaries, whatever happens between the samples.

use std::collections::BTreeMap;

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};
use lizmon_summary::TIERS;
use proptest::prelude::*;

use super::*;
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::record::{Group, Submission};
use crate::store::{JournalStore, StoredDocument};

const NOW: u64 = 1_465_001_814;
const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

fn submission(host: &str, records: &[(u64, u64, f64)]) -> Submission {
    let keyed = records.iter().all(|(seq, ..)| *seq > 0);
    let sets: Vec<_> = records
        .iter()
        .map(|(_, _, value)| {
            SampleSet::new(vec![(
                Label::new("cpu").unwrap(),
                Value::new(*value).unwrap(),
            )])
        })
        .collect();
    let records = records
        .iter()
        .zip(&sets)
        .map(|((seq, epoch, _), set)| (Seq::new(*seq), Epoch::new(*epoch).unwrap(), set));
    let producer = keyed.then(|| PRODUCER.parse().unwrap());
    Submission::new(&host.parse().unwrap(), 9, producer, NOW).with_records(records)
}

/// The records of a step, as they arrive: those with numbers may be a repair.
fn of_step(host: u8, records: &[(u64, u64, f64)], is_repair: bool) -> Submission {
    let submission = submission(&format!("h{host}"), records);
    let has_producer = submission.view().unwrap().producer.is_some();
    match is_repair && has_producer {
        true => submission.as_repair(),
        false => submission,
    }
}

/// Every interval of every series, and the counts of records and duplicates: all that a reader
/// could ever see.
fn everything(summaries: &SummaryTable) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for hosts in summaries.shards() {
        for (name, host) in hosts.iter() {
            let mut lines = Vec::new();
            for (label, series) in &host.series {
                for tier in 0..TIERS.len() {
                    lines.push(format!("{label} {:?}", series.window(tier, NOW)));
                }
            }
            for (id, producer) in &host.producers {
                let (ranges, repaired) = (producer.set.ranges(), producer.repaired);
                lines.push(format!("{id} {ranges:?} repaired {repaired}"));
            }
            all.insert(name.to_string(), lines);
        }
    }
    all
}

/// A receiver's state without its threads and sockets.
struct Pipeline {
    disk: MemoryDisk,
    store: MemoryStore,
    summarizer: Summarizer,
}

impl Pipeline {
    fn open(disk: MemoryDisk) -> Self {
        let mut store = MemoryStore::open(disk.clone());
        let summarizer = Summarizer::open(&mut store, NOW).unwrap();
        Self {
            disk,
            store,
            summarizer,
        }
    }

    fn take(&mut self, submission: &Submission) -> BatchAnswer {
        let position = self.append(submission);
        self.summarizer.begin_group();
        self.summarizer.apply(position, &submission.view().unwrap())
    }

    /// Durable but not counted: the moment between the sync and the memory.
    fn append_and_crash(mut self, submission: &Submission) -> Self {
        self.append(submission);
        Self::open(self.disk)
    }

    fn append(&mut self, submission: &Submission) -> Position {
        let mut group = Group::default();
        group.push(submission);
        let view = submission.view().unwrap();
        self.append_bytes(view.host, group.seal())
    }

    fn append_bytes(&mut self, host: &str, group: &[u8]) -> Position {
        let shard = self.store.shard_count().shard_of(host);
        self.store.append(&[(shard, group)]).remove(0).unwrap()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take {
        host: u8,
        records: Vec<(u64, u64, f64)>,
        is_repair: bool,
    },
    TakeAndCrash {
        host: u8,
        records: Vec<(u64, u64, f64)>,
        is_repair: bool,
    },
    Commit,
    FailedCommit,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (1..40_u64, NOW - 7200..NOW + 60, -1e3..1e3_f64);
    let records = prop_oneof![
        proptest::collection::vec(record.clone(), 0..6),
        // Without numbers: every one counts.
        proptest::collection::vec(record.prop_map(|(_, epoch, value)| (0, epoch, value)), 1..2),
    ];
    let step = prop_oneof![
        5 => (0..3_u8, records.clone(), any::<bool>())
            .prop_map(|(host, records, is_repair)| Step::Take { host, records, is_repair }),
        1 => (0..3_u8, records, any::<bool>())
            .prop_map(|(host, records, is_repair)| Step::TakeAndCrash { host, records, is_repair }),
        2 => Just(Step::Commit),
        1 => Just(Step::FailedCommit),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The records, with these labels of `a` to `d`, as one submission: labels may be there twice, as
/// in a journal that another program wrote.
fn labelled(records: &[(u64, u64, Vec<usize>)]) -> Submission {
    let value = |(at, label): (usize, &usize)| {
        let name = ["a", "b", "c", "d"][*label];
        let value = Value::new((at * 10 + label) as f64).unwrap();
        (Label::new(name).unwrap(), value)
    };
    let set = |labels: &Vec<usize>| SampleSet::new(labels.iter().enumerate().map(value).collect());
    let sets: Vec<_> = records.iter().map(|(.., labels)| set(labels)).collect();
    let records = records.iter().zip(&sets);
    let records =
        records.map(|((seq, epoch, _), set)| (Seq::new(*seq), Epoch::new(*epoch).unwrap(), set));
    let producer = Some(PRODUCER.parse().unwrap());
    Submission::new(&"h1".parse().unwrap(), 9, producer, NOW).with_records(records)
}

proptest! {
    /// However many records come at once, and whether or not they have the same labels.
    #[test]
    fn a_batch_counts_as_its_records_one_by_one(
        records in prop::collection::vec((1..20_u64, NOW - 90_000..NOW + 60), 0..12),
        labels in prop::collection::vec(0..4_usize, 0..5),
        other in prop::collection::vec(0..4_usize, 0..3),
        others in prop::collection::vec(any::<bool>(), 12),
        is_any_other in any::<bool>(),
    ) {
        let records: Vec<_> = records
            .iter()
            .zip(others)
            .map(|((seq, epoch), is_other)| match is_other && is_any_other {
                true => (*seq, *epoch, other.clone()),
                false => (*seq, *epoch, labels.clone()),
            })
            .collect();
        let [mut at_once, mut one_by_one] =
            [(); 2].map(|()| Pipeline::open(MemoryDisk::default()));
        let whole = at_once.take(&labelled(&records));
        let mut parts = BatchAnswer::default();
        for record in records {
            let answer = one_by_one.take(&labelled(&[record]));
            parts.accepted += answer.accepted;
            parts.duplicate += answer.duplicate;
        }
        prop_assert_eq!(whole, parts);
        let [at_once, one_by_one] = [at_once, one_by_one].map(|of| everything(&of.summarizer.table()));
        prop_assert_eq!(at_once, one_by_one);
    }

    /// Crashes and commits at any place change nothing, to the bit.
    #[test]
    fn crashes_and_commits_change_no_number(steps in steps()) {
        let mut broken = Pipeline::open(MemoryDisk::default());
        let mut steady = Pipeline::open(MemoryDisk::default());
        for step in steps {
            match step {
                Step::Take { host, records, is_repair } => {
                    let submission = of_step(host, &records, is_repair);
                    prop_assert_eq!(broken.take(&submission), steady.take(&submission));
                }
                Step::TakeAndCrash { host, records, is_repair } => {
                    let submission = of_step(host, &records, is_repair);
                    broken = broken.append_and_crash(&submission);
                    steady.take(&submission);
                }
                Step::Commit => {
                    broken.summarizer.commit_oldest(&mut broken.store, u64::MAX, Some(NOW), 1).unwrap();
                }
                Step::FailedCommit => {
                    broken.disk.set_failing(true);
                    let _ = broken.summarizer.commit_oldest(&mut broken.store, u64::MAX, Some(NOW), 1);
                    broken.disk.set_failing(false);
                }
                Step::Crash => broken = Pipeline::open(broken.disk),
            }
            prop_assert_eq!(everything(&broken.summarizer.table()), everything(&steady.summarizer.table()));
        }
    }
}

/// Only records that are new count as repaired, each once: in memory, after a replay, and after a
/// commit.
#[test]
fn repaired_records_are_counted_once() {
    let mut pipeline = Pipeline::open(MemoryDisk::default());
    let repaired = |pipeline: &Pipeline| {
        let table = pipeline.summarizer.table();
        let hosts = table.shard_with("web1");
        hosts["web1"].producers[&PRODUCER.parse().unwrap()].repaired
    };
    let records = |seqs: std::ops::RangeInclusive<u64>| {
        let records: Vec<_> = seqs.map(|seq| (seq, NOW, 1.0)).collect();
        submission("web1", &records)
    };
    pipeline.take(&records(1..=3));
    assert_eq!(repaired(&pipeline), 0);
    for (seqs, accepted, expected) in [(2..=5, 2, 2), (2..=5, 0, 2), (6..=6, 1, 3)] {
        let answer = pipeline.take(&records(seqs).as_repair());
        assert_eq!((answer.accepted, repaired(&pipeline)), (accepted, expected));
        pipeline = Pipeline::open(pipeline.disk);
        assert_eq!(repaired(&pipeline), expected, "from the journal");
    }
    commit_all(&mut pipeline, NOW);
    pipeline = Pipeline::open(pipeline.disk);
    assert_eq!(repaired(&pipeline), 3, "from the committed state");
}

/// A crash after the append, after a commit, and what the evaluator sets itself.
#[test]
fn documents_survive_like_samples() {
    let document = |kind, body: &[u8]| StoredDocument {
        kind,
        body: body.into(),
    };
    let sent = |kind: DocumentKind, body: &[u8]| {
        let host = "web1".parse().unwrap();
        let certificate_end = if kind.is_from_host() { 1 } else { 77 };
        Submission::of_document(&host, certificate_end, NOW, &document(kind, body))
    };
    let body = |pipeline: &Pipeline, kind| {
        let table = pipeline.summarizer.table();
        let hosts = table.shard_with("web1");
        hosts["web1"].documents.get(kind).map(<[u8]>::to_vec)
    };
    let mut pipeline = Pipeline::open(MemoryDisk::default());
    pipeline.take(&submission("web1", &[(1, NOW, 1.0)]));
    pipeline.take(&sent(DocumentKind::Facts, b"old"));
    pipeline = pipeline.append_and_crash(&sent(DocumentKind::Facts, b"new"));
    assert_eq!(body(&pipeline, DocumentKind::Facts).unwrap(), b"new");
    commit_all(&mut pipeline, NOW);
    pipeline.take(&sent(DocumentKind::Silence, b"2h"));
    let shard = pipeline.store.shard_count().shard_of("web1");
    let summarizer = &mut pipeline.summarizer;
    summarizer.set_document("web1", DocumentKind::Alarms, b"state");
    summarizer.set_document("web2", DocumentKind::Alarms, b"of nobody");
    summarizer.set_shard_document(shard, DocumentKind::Alarms, b"blind");
    commit_all(&mut pipeline, NOW);
    pipeline = Pipeline::open(pipeline.disk);
    let kinds = [
        DocumentKind::Facts,
        DocumentKind::Silence,
        DocumentKind::Alarms,
    ];
    let bodies = kinds.map(|kind| body(&pipeline, kind).unwrap());
    assert_eq!(bodies, [b"new".to_vec(), b"2h".to_vec(), b"state".to_vec()]);
    let of_shard = pipeline.summarizer.shard_documents(shard);
    assert_eq!(of_shard.get(DocumentKind::Alarms), Some(&b"blind"[..]));
    let table = pipeline.summarizer.table();
    let hosts = table.shard_with("web1");
    // Of a host's own document; an operator's comes with another certificate.
    assert_eq!((hosts.len(), hosts["web1"].certificate_end), (1, 1));
}

fn commit_all(pipeline: &mut Pipeline, now: u64) {
    while pipeline
        .summarizer
        .commit_oldest(&mut pipeline.store, u64::MAX, Some(now), 1)
        .unwrap()
        > 0
    {}
}

#[test]
fn once_all_is_committed_the_journal_is_empty() {
    let mut pipeline = Pipeline::open(MemoryDisk::default());
    for host in 0..100 {
        pipeline.take(&submission(&format!("h{host}"), &[(1, NOW, 1.0)]));
    }
    assert_eq!(pipeline.disk.journal_len(), 100);
    commit_all(&mut pipeline, NOW);
    assert_eq!(pipeline.disk.journal_len(), 0);
    let before = everything(&pipeline.summarizer.table());
    assert_eq!(before.len(), 100);
    assert_eq!(
        everything(&Pipeline::open(pipeline.disk).summarizer.table()),
        before
    );
}

fn sweep_all(pipeline: &mut Pipeline, now: u64) {
    for _every_shard in pipeline.store.shard_count().all() {
        pipeline
            .summarizer
            .sweep_next(&mut pipeline.store, now)
            .unwrap();
    }
}

#[test]
fn what_has_ended_leaves_memory_and_store() {
    const DAY: u64 = 86_400;
    let mut pipeline = Pipeline::open(MemoryDisk::default());
    pipeline.take(&submission("gone", &[(1, NOW - 3600, 1.0)]));
    pipeline.take(&submission("unnumbered", &[(0, NOW - 3600, 1.0)]));
    pipeline.take(&submission("here", &[(1, NOW, 1.0)]));
    commit_all(&mut pipeline, NOW);
    let left = |pipeline: &Pipeline| {
        let summaries = pipeline.summarizer.table();
        let mut left = BTreeMap::new();
        for hosts in summaries.shards() {
            left.extend(
                hosts
                    .iter()
                    .map(|(name, host)| (name.to_string(), host.series.len())),
            );
        }
        left
    };
    let check = |pipeline: &mut Pipeline, now: u64, expected: &[(&str, usize)]| {
        sweep_all(pipeline, now);
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, series)| ((*name).to_owned(), *series))
            .collect();
        assert_eq!(left(pipeline), expected, "in memory");
        *pipeline = Pipeline::open(pipeline.disk.clone());
        assert_eq!(left(pipeline), expected, "in the store");
    };
    check(
        &mut pipeline,
        NOW,
        &[("gone", 1), ("here", 1), ("unnumbered", 1)],
    );
    // Summaries end with their window; what a producer delivered is remembered for a week.
    check(&mut pipeline, NOW + DAY, &[("gone", 0), ("here", 1)]);
    check(&mut pipeline, NOW + 8 * DAY, &[]);
}

#[test]
fn where_producers_are_many_the_old_ones_make_room() {
    let mut pipeline = Pipeline::open(MemoryDisk::default());
    for number in 0..=host::PRODUCERS_KEPT_LONG_MAX as u64 {
        let epoch = if number == 0 { NOW } else { NOW - 3600 };
        let producer = lizmon_protocol::sample::ProducerId::from_bytes([number as u8; 16]);
        let set = SampleSet::new(Vec::new());
        let record = (Seq::new(1), Epoch::new(epoch).unwrap(), &set);
        let taken_at = epoch;
        let submission = Submission::new(&"web1".parse().unwrap(), 9, Some(producer), taken_at)
            .with_records(std::iter::once(record));
        pipeline.take(&submission);
    }
    sweep_all(&mut pipeline, NOW + 86_400);
    let summaries = pipeline.summarizer.table();
    assert_eq!(summaries.shard_with("web1")["web1"].producers.len(), 1);
}

#[test]
fn a_damaged_group_is_left_out_and_the_rest_counts() {
    let mut pipeline = Pipeline::open(MemoryDisk::default());
    pipeline.take(&submission("web1", &[(1, NOW, 1.0)]));
    pipeline.append_bytes("web1", b"not a group");
    pipeline.take(&submission("web1", &[(2, NOW, 2.0)]));
    let reopened = Pipeline::open(pipeline.disk);
    assert_eq!(
        everything(&reopened.summarizer.table()),
        everything(&pipeline.summarizer.table())
    );
}
