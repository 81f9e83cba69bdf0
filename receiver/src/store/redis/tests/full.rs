//! A server whose memory is full: nothing is refused by it, and nothing is lost.

use super::*;
use crate::journal::{GroupCommit, SharedCommitter, SubmitError};
use crate::store::Store;
use crate::watch::{HIGH_WATER_PERCENT, Watch, WatchStatus};

const MAXMEMORY: u64 = 20 << 20;
/// Hosts of different shards.
const HOSTS: [&str; 4] = ["web1", "db1", "a", "b"];
/// About a hundred kilobytes of samples.
const RECORDS: u64 = 8;
const LABELS: usize = 100;

/// A receiver that appends, and what was acknowledged.
struct Appending {
    committer: SharedCommitter,
    status: Arc<WatchStatus>,
    watch: Watch,
    values: SampleSet<'static>,
    /// By host, the last number.
    acknowledged: [u64; HOSTS.len()],
}

impl Appending {
    fn start(url: &str) -> Self {
        let role = GroupRole {
            reads: true,
            summarizes: false,
        };
        let member = GroupMember::open(Box::new(open(url)), role, new_id(), reading(0)).unwrap();
        let store = open(url);
        let shards = store.shard_count();
        let status = WatchStatus::new(HIGH_WATER_PERCENT, shards, member.counts());
        let status = Arc::new(status);
        let config = RedisConfig::new(url.parse().unwrap());
        let watch = super::super::open_watch(config, shards).unwrap();
        let label = |at| Label::new(format!("{at:0>120}")).unwrap();
        let values = (0..LABELS).map(|at| (label(at), Value::new(1.5).unwrap()));
        Self {
            committer: SharedCommitter::new(Box::new(store), member.table(), reading(0))
                .watched_by(status.clone()),
            watch: Watch::new(Box::new(watch), status.clone()),
            status,
            values: SampleSet::new(values.collect()),
            acknowledged: [0; HOSTS.len()],
        }
    }

    fn look(&mut self, secs: u64) {
        self.watch.look(AT + secs, secs).unwrap();
    }

    /// One group with a submission of each host. Whether all were acknowledged; else the store was
    /// too full for some.
    fn posts(&mut self) -> bool {
        let producer = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b".parse().unwrap();
        let submission = |(host, last): (&str, &u64)| {
            let records: Vec<_> = (last + 1..=last + RECORDS)
                .map(|seq| {
                    let epoch = Epoch::new(AT + seq % 60).unwrap();
                    (Some(Seq::new(seq).unwrap()), epoch, &self.values)
                })
                .collect();
            Submission::new(&host.parse().unwrap(), AT * 2, Some(producer), AT)
                .with_records(records.into_iter())
        };
        let of_hosts = HOSTS.into_iter().zip(&self.acknowledged);
        let submissions: Vec<_> = of_hosts.map(submission).collect();
        let requests = submissions.iter().map(|submission| (submission, AT));
        let answers = self.committer.take(requests, reading(0));
        let mut all = true;
        for (acknowledged, answer) in self.acknowledged.iter_mut().zip(answers) {
            match answer {
                Ok(answer) => {
                    assert_eq!((answer.accepted, answer.duplicate), (RECORDS, 0));
                    *acknowledged += RECORDS;
                }
                Err(SubmitError::StoreFull) => all = false,
                Err(error) => panic!("{error}"),
            }
        }
        all
    }

    fn fill(&mut self) {
        while self.posts() {}
    }
}

fn used(server: &EngineNode) -> u64 {
    server.info_line("used_memory").parse().unwrap()
}

#[test]
fn a_full_server_refuses_nothing_and_loses_nothing() {
    let settings = EngineSettings {
        maxmemory_bytes: MAXMEMORY,
        ..EngineSettings::redis()
    };
    let server = EngineNode::start(&settings);
    let url = &server.url();
    let mut receiver = Appending::start(url);
    receiver.look(0);
    assert_eq!(receiver.status.warnings(AT), [""; 0]);
    // A receiver that hears nothing of its servers meanwhile counts what it appends.
    receiver.fill();
    assert!(receiver.acknowledged[0] > 0);
    assert!(used(&server) < MAXMEMORY / 100 * 85);
    // And it goes on when it hears that there is more room.
    receiver.look(1);
    let mut secs = 1;
    while receiver.posts() {
        secs += 1;
        receiver.look(secs);
    }
    for _ in 0..4 {
        receiver.look(secs + 60);
    }
    assert!(used(&server) > MAXMEMORY / 100 * 60);
    let warnings = receiver.status.warnings(AT);
    let said = |words: &str| warnings.iter().any(|warning| warning.contains(words));
    assert!(
        said("of 20 MiB: samples are answered 503 overloaded"),
        "{warnings:?}"
    );
    assert!(said("no summarizer has 64 of 64 shards"), "{warnings:?}");
    // As full as it can be: a summarizer can work all the same, which is what helps.
    server.cli(&["CONFIG", "SET", "maxmemory", "8mb"]);
    assert!(used(&server) > 8 << 20);
    let role = GroupRole {
        reads: false,
        summarizes: true,
    };
    let mut summarizer =
        GroupMember::open(Box::new(open(url)), role, new_id(), reading(0)).unwrap();
    for secs in [1, 12, 24] {
        summarizer.maintain(reading(secs));
        summarizer.read_on(AT + secs);
    }
    assert_eq!(summarizer.counts().owned(), 64);
    let (commits, failed) = summarizer.counts().commits();
    assert_eq!((commits >= HOSTS.len() as u64, failed), (true, 0));
    for _ in 0..4 {
        receiver.look(secs + 61);
    }
    assert_eq!(receiver.status.warnings(AT), [""; 0]);
    assert!(receiver.posts());
    summarizer.read_on(AT);
    let counted = HOSTS.map(|host| received(&summarizer, host));
    assert_eq!(counted, receiver.acknowledged);
    assert!(
        !server.info().contains("errorstat_OOM"),
        "{}",
        server.info()
    );
    summarizer.finish().unwrap();
}

/// Another user of it may fill it, mark or not. What receivers must know of each other is taken all
/// the same, above all who is revoked.
#[test]
fn a_server_that_refuses_is_full() {
    for settings in [EngineSettings::redis(), EngineSettings::valkey()] {
        let server = EngineNode::start(&settings);
        let (mut store, mut other) = (open(&server.url()), open(&server.url()));
        server.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
        let (shard, group) = group_of(&store, "web1", 1);
        let refused = store.append(&[(shard, &group)]).remove(0).unwrap_err();
        assert!(refused.is_full(), "{refused}");
        assert!(store.probe().unwrap_err().is_full());
        store.add_crl("n1", "a CRL").unwrap();
        assert_eq!(other.crl("n1").unwrap().as_deref(), Some(&b"a CRL"[..]));
        assert_eq!(server.cli(&["HLEN", &keys::keys(shard)]), "1");
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        store.append(&[(shard, &group)]).remove(0).unwrap();
        assert_eq!(groups_in(&mut other, shard), 1);
    }
}

/// The group was acknowledged, and no summarizer counted it.
#[test]
fn a_group_whose_key_is_unknown_is_not_appended() {
    let server = EngineNode::start(&EngineSettings::redis());
    let (mut store, mut other) = (open(&server.url()), open(&server.url()));
    let (shard, group) = group_of(&store, "web1", 1);
    server.cli(&["SET", &keys::keys(shard), "of another type"]);
    assert!(store.append(&[(shard, &group)]).remove(0).is_err());
    server.cli(&["DEL", &keys::keys(shard)]);
    store.append(&[(shard, &group)]).remove(0).unwrap();
    assert_eq!(groups_in(&mut other, shard), 2, "both can be read");
}

fn groups_in(store: &mut RedisStore, shard: Shard) -> usize {
    let mut groups = 0;
    let read = store.read_after(&[(shard, Position::START)], &mut |_, _, _| groups += 1);
    read.complete().unwrap();
    groups
}
