//! Summarizers that share a store, in virtual time: what they tell together.

use std::num::NonZeroU16;

use super::*;
use crate::store::memory::engine::MemoryEngine;
use crate::store::memory::shared::SharedMemoryStore;
use crate::store::record::Group;
use crate::store::{MemberRole, Members};
use crate::summarize::group::{GroupMember, GroupRole};

const SHARDS: NonZeroU16 = NonZeroU16::new(4).unwrap();

/// Two summarizers, and what receivers have appended for them.
struct Site {
    engine: MemoryEngine,
    outside: Arc<Outside>,
    /// A receiver's connection.
    writer: SharedMemoryStore,
    has_receiver: bool,
    summarizers: [Option<GroupMember>; 2],
    ids: u128,
    now: u64,
    stopped: BTreeSet<usize>,
}

impl Site {
    fn new() -> Self {
        let engine = MemoryEngine::new(SHARDS, NonZeroU16::MIN);
        Self {
            outside: Outside::new(RULES),
            writer: SharedMemoryStore::open(engine.clone(), Uuid::from_u128(1)),
            has_receiver: true,
            summarizers: [None, None],
            ids: 1,
            engine,
            now: START,
            stopped: BTreeSet::new(),
        }
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn start(&mut self, at: usize) {
        let role = GroupRole {
            reads: false,
            summarizes: true,
        };
        let store = SharedMemoryStore::open(self.engine.clone(), self.id());
        let count = store.shard_count();
        let reading = ClockReading::of_one(self.now);
        let member = GroupMember::open(Box::new(store), role, self.id(), reading).unwrap();
        let queues = self.outside.clone();
        let alarms = AlarmEvaluator::new(queues, Arc::default(), "sum1".to_owned(), count);
        self.summarizers[at] = Some(member.judging(alarms));
    }

    fn pass(&mut self, secs: u64) {
        for _ in 0..secs {
            self.now += 1;
            self.engine.set_now(self.now * 1_000);
            if self.has_receiver {
                let receiver = Uuid::from_u128(7_777);
                let role = MemberRole::Receiver;
                self.writer.attend(role, receiver, "", 5_000).unwrap();
                for host in 0..8 {
                    let is_due = (self.now + host as u64).is_multiple_of(10);
                    if is_due && !self.stopped.contains(&host) {
                        self.append(&format!("web{host}"));
                    }
                }
            }
            let at = ClockReading::of_one(self.now);
            for member in self.summarizers.iter_mut().flatten() {
                member.read_on(self.now);
                member.maintain(at);
            }
            self.outside.accept();
        }
    }

    fn append(&mut self, host: &str) {
        let label = Label::new("cpu").unwrap();
        let set = SampleSet::new(vec![(label, Value::new(1.0).unwrap())]);
        let records = [(None, Epoch::new(self.now).unwrap(), &set)];
        let submission = Submission::new(&host.parse().unwrap(), START * 2, None, self.now);
        let mut group = Group::default();
        group.push(&submission.with_records(records.into_iter()));
        let shard = self.writer.shard_count().shard_of(host);
        self.writer
            .append(&[(shard, group.seal())])
            .remove(0)
            .unwrap();
    }

    fn told(&self) -> Vec<(String, String, AlarmState)> {
        let inner = self.outside.inner();
        let mut known = BTreeSet::new();
        let of_one = inner.told.iter().filter(|(channel, ..)| channel == "ops");
        let told = of_one.filter(|(_, _, notice)| known.insert(notice.id.clone()));
        let told = told.map(|(_, host, notice)| (host.clone(), notice.rule.clone(), notice.state));
        told.collect()
    }

    fn expect(&self, expected: &[(&str, &str, AlarmState)]) {
        let told = self.told();
        let told: Vec<_> = told
            .iter()
            .map(|(host, rule, state)| (&**host, &**rule, *state))
            .collect();
        assert_eq!(told, expected);
    }
}

/// A summarizer is killed while a host is becoming silent, and while that is told: the other takes
/// its shards over.
#[test]
fn an_alarm_survives_its_summarizer() {
    for secs in [1, 60, 115, 125, 135, 150] {
        let mut site = Site::new();
        site.start(0);
        site.pass(4 * MINUTE);
        site.stopped.insert(3);
        site.pass(secs);
        site.summarizers[0] = None;
        site.start(1);
        site.pass(5 * MINUTE);
        site.expect(&[("web3", "silent", Firing)]);
        // It stops cleanly, and the first takes over.
        site.start(0);
        site.pass(MINUTE);
        site.summarizers[1].take().unwrap().finish().unwrap();
        site.stopped.clear();
        site.pass(2 * MINUTE);
        site.expect(&[("web3", "silent", Firing), ("web3", "silent", Resolved)]);
    }
}

/// No receiver runs, so nothing can come from any host.
#[test]
fn without_a_receiver_no_host_is_silent() {
    let mut site = Site::new();
    site.start(0);
    site.start(1);
    site.pass(4 * MINUTE);
    site.has_receiver = false;
    site.pass(5 * MINUTE);
    site.expect(&[]);
    site.has_receiver = true;
    site.pass(5 * MINUTE);
    site.expect(&[("sum1", "receiver-blind", Firing)]);
}

/// All summarizers are away for a while.
#[test]
fn without_a_summarizer_nobody_looks() {
    let mut site = Site::new();
    site.start(0);
    site.pass(4 * MINUTE);
    site.summarizers[0] = None;
    site.stopped.insert(2);
    site.pass(5 * MINUTE);
    site.start(1);
    site.pass(100);
    site.expect(&[("sum1", "receiver-blind", Firing)]);
    site.pass(MINUTE);
    site.expect(&[
        ("sum1", "receiver-blind", Firing),
        ("web2", "silent", Firing),
    ]);
}
