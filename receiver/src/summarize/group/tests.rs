//! Members of a group on an engine in memory.

use std::num::NonZeroU16;

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Epoch, SampleSet, Value};

use super::*;
use crate::store::JournalStore;
use crate::store::memory::engine::{Disturbance, MemoryEngine, RequestFate, RequestKind};
use crate::store::memory::shared::SharedMemoryStore;
use crate::store::record::{Group, Submission};

const AT: u64 = 1_465_001_814;
/// The only one.
const SHARD: Shard = Shard::new(0);

fn append(writer: &mut SharedMemoryStore, host: &str) {
    append_to(writer, SHARD, host);
}

fn append_to(writer: &mut SharedMemoryStore, shard: Shard, host: &str) {
    let values = SampleSet::new(vec![(Label::new("cpu").unwrap(), Value::new(1.5).unwrap())]);
    let records = [(None, Epoch::new(AT).unwrap(), &values)];
    let submission =
        Submission::new(&host.parse().unwrap(), AT * 2, None, AT).with_records(records.into_iter());
    let mut group = Group::default();
    group.push(&submission);
    writer.append(&[(shard, group.seal())]).remove(0).unwrap();
}

fn refuse(engine: &MemoryEngine, refused: Option<RequestKind>) {
    engine.set_fates(move |kind, _| Disturbance {
        fate: match Some(kind) == refused {
            true => RequestFate::Refused,
            false => RequestFate::Answered,
        },
        ..Disturbance::NONE
    });
}

/// A receiver that summarizes had read a shard before it acquired it. The shard could not be loaded
/// then, and what it committed was only what it had read since, with a cursor behind all of it.
#[test]
fn what_could_not_be_loaded_is_not_committed() {
    let one = NonZeroU16::MIN;
    let engine = MemoryEngine::new(one, one);
    let open = |id| SharedMemoryStore::open(engine.clone(), Uuid::from_u128(id));
    let member = |id, summarizes| {
        let role = GroupRole {
            reads: true,
            summarizes,
        };
        let at = ClockReading::of_one(AT);
        GroupMember::open(Box::new(open(id)), role, Uuid::from_u128(id + 1), at).unwrap()
    };
    let mut writer = open(1);
    let mut owner = member(2, true);
    append(&mut writer, "web1");
    owner.read_on(AT);
    refuse(&engine, Some(RequestKind::Load));
    owner.maintain(ClockReading::of_one(AT + 1));
    assert_eq!(owner.owned().len(), 1);
    append(&mut writer, "web2");
    owner.read_on(AT + 1);
    owner.finish().unwrap();
    refuse(&engine, None);
    let table = member(4, false).table();
    for host in ["web1", "web2"] {
        assert!(table.shard_with(host).contains_key(host), "{host}");
    }
}

/// A commit of a large shard takes a while, and so a round of all of them longer than a lease: the
/// last ones were another's by then.
#[test]
fn leases_are_renewed_while_a_round_is_committed() {
    let (shards, one) = (NonZeroU16::new(64).unwrap(), NonZeroU16::MIN);
    let engine = MemoryEngine::new(shards, one);
    let open = |id| SharedMemoryStore::open(engine.clone(), Uuid::from_u128(id));
    let role = GroupRole {
        reads: false,
        summarizes: true,
    };
    let mut writer = open(1);
    let at = ClockReading::of_one(AT);
    let mut owner = GroupMember::open(Box::new(open(2)), role, Uuid::from_u128(3), at).unwrap();
    owner.maintain(ClockReading::of_one(AT + 1));
    owner.read_on(AT + 1);
    assert_eq!(owner.owned().len(), 64);
    for number in 0..200 {
        let host = format!("web{number}");
        let shard = writer.shard_count().shard_of(&host);
        append_to(&mut writer, shard, &host);
    }
    owner.read_on(AT + 1);
    let changed = owner.summarizer.changed(u64::MAX).len();
    assert!(changed > 50, "{changed}");
    engine.set_fates(|kind, _| Disturbance {
        late_millis: if kind == RequestKind::Commit { 300 } else { 0 },
        ..Disturbance::NONE
    });
    for secs in [1, 11, 22] {
        owner.maintain(ClockReading::of_one(AT + secs));
    }
    assert_eq!(owner.owned().len(), 64);
    assert!(owner.summarizer.changed(u64::MAX).is_empty());
}
