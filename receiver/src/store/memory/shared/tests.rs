//! The contract, and what a real server does only at bad moments.

use std::num::NonZeroU16;

use super::super::super::contract::{append, check_shared, check_sharing, fence};
use super::super::engine::{Disturbance, EngineChange, RequestFate};
use super::*;

const SHARD: Shard = Shard::new(3);

fn engine() -> MemoryEngine {
    let number = |number| NonZeroU16::new(number).unwrap();
    MemoryEngine::new(number(64), number(3))
}

/// Opens a store for one more process.
fn opener(engine: &MemoryEngine) -> impl FnMut() -> SharedMemoryStore + use<> {
    let engine = engine.clone();
    let mut opened = 0_u128;
    move || {
        opened += 1;
        SharedMemoryStore::open(engine.clone(), Uuid::from_u128(opened))
    }
}

fn read(store: &mut SharedMemoryStore, after: Position) -> (Vec<Vec<u8>>, JournalRead) {
    let mut groups = Vec::new();
    let report = store.read_after(&[(SHARD, after)], &mut |_, _, group| {
        groups.push(group.to_vec());
    });
    (groups, report)
}

fn commit(store: &mut SharedMemoryStore, fence: Fence, cursor: Position) -> Result<(), StoreError> {
    let changes = ShardChanges {
        cursor,
        ..ShardChanges::default()
    };
    store.commit(fence, &changes)
}

#[test]
fn keeps_the_contract() {
    let engine = engine();
    let mut open = opener(&engine);
    check_shared(&mut open);
    check_sharing(&mut open);
}

#[test]
fn a_lease_ends_by_the_engines_clock() {
    let engine = engine();
    let mut open = opener(&engine);
    let (mut one, mut other) = (open(), open());
    let held = fence(&mut one, SHARD);
    engine.set_now(LEASE_MILLIS - 1);
    assert!(other.acquire(&[SHARD]).unwrap().is_empty());
    assert_eq!(one.renew(&[held]).unwrap(), [held]);
    engine.set_now(2 * LEASE_MILLIS - 1);
    assert!(
        commit(&mut one, held, Position::START).is_err(),
        "it has ended"
    );
    assert!(one.renew(&[held]).unwrap().is_empty());
    assert!(held.epoch() < fence(&mut other, SHARD).epoch());
}

#[test]
fn what_is_sent_again_is_read_once() {
    let engine = engine();
    let mut open = opener(&engine);
    let (mut writer, mut reader) = (open(), open());
    let unknown = |is_done| RequestFate::Unknown { is_done };
    for first in [unknown(true), unknown(false), RequestFate::Delayed] {
        let mut requests = 0;
        engine.set_fates(move |_, _| {
            requests += 1;
            let fate = match requests {
                1 => first,
                _ => RequestFate::Answered,
            };
            Disturbance {
                fate,
                ..Disturbance::NONE
            }
        });
        append(&mut writer, SHARD, b"once").unwrap();
    }
    let (groups, report) = read(&mut reader, Position::START);
    assert_eq!(groups.len(), 3);
    assert_eq!(report.through, [(SHARD, Position::new(5))]);
}

#[test]
fn the_end_of_a_shard_is_forgotten_as_a_whole() {
    let engine = engine();
    engine.keep_revisions(100_000);
    let mut open = opener(&engine);
    let (mut owner, mut reader) = (open(), open());
    let held = fence(&mut owner, SHARD);
    append(&mut owner, SHARD, b"kept").unwrap();
    engine.set_now(1_000);
    append(&mut owner, SHARD, b"forgotten").unwrap();
    let at = read(&mut owner, Position::START).1.through[0].1;
    assert_eq!(read(&mut reader, Position::START).0.len(), 2);
    commit(&mut owner, held, at).unwrap();
    engine.set_now(1_500);
    engine.take_events();
    engine.fail_over(&[(SHARD, 700)]);
    let events = engine.take_events();
    assert!(matches!(events[..], [ref one] if matches!(one.change, EngineChange::Forgot { .. })));
    assert!(
        commit(&mut owner, held, at).is_err(),
        "its last commit is gone"
    );
    append(&mut owner, SHARD, b"another").unwrap();
    let (groups, report) = read(&mut reader, at);
    assert_eq!((groups.len(), report.rewound), (0, vec![SHARD]));
    assert_eq!(reader.load(&[SHARD], 0).unwrap()[0].cursor, Position::START);
    let (groups, _) = read(&mut reader, Position::START);
    assert_eq!(groups, [b"kept".to_vec(), b"another".to_vec()]);
}

/// A cursor in what a failover has forgotten: what others appended there since would be trimmed,
/// and never counted.
#[test]
fn what_was_forgotten_is_not_committed() {
    let engine = engine();
    engine.keep_revisions(100_000);
    let mut open = opener(&engine);
    let (mut owner, mut writer) = (open(), open());
    let held = fence(&mut owner, SHARD);
    append(&mut writer, SHARD, b"kept").unwrap();
    engine.set_now(1_000);
    append(&mut writer, SHARD, b"forgotten").unwrap();
    let at = read(&mut owner, Position::START).1.through[0].1;
    engine.fail_over(&[(SHARD, 500)]);
    let again = append(&mut writer, SHARD, b"another").unwrap();
    assert_eq!(again, at, "in the same place");
    assert!(commit(&mut owner, held, at).is_err());
    let groups = read(&mut open(), Position::START).0;
    assert_eq!(groups, [b"kept".to_vec(), b"another".to_vec()]);
}
