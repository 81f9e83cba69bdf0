use std::num::NonZeroU16;

use super::*;
use crate::store::{Position, Shard};

const AT: u64 = 1_465_001_814;

fn status() -> WatchStatus {
    let shards = ShardCount::new(NonZeroU16::new(2).unwrap());
    WatchStatus::new(85, shards, Arc::default())
}

fn reading(used_mib: u64, cursors: [u64; 2], is_owned: bool) -> StoreReading {
    let shard = |number, cursor| ShardReading {
        shard: Shard::new(number),
        cursor: Position::new(cursor),
        waiting_groups: 3,
        journal_bytes: Some(1_000),
        is_owned,
    };
    StoreReading {
        servers: vec![ServerReading {
            name: "r1:6379".to_owned(),
            shards: vec![Shard::new(0), Shard::new(1)],
            used_bytes: used_mib << 20,
            limit_bytes: Some(100 << 20),
        }],
        shards: vec![shard(0, cursors[0]), shard(1, cursors[1])],
        members: vec![(MemberRole::Receiver, 1)],
    }
}

fn note(status: &WatchStatus, reading: StoreReading, now: u64) -> Change {
    let then = status.high_water().appended_then();
    status.note(reading, &then, now)
}

#[test]
fn what_is_full_is_said_once() {
    let status = status();
    for (used, filled, emptied) in [(10, 0, 0), (90, 1, 0), (91, 0, 0), (70, 0, 1), (70, 0, 0)] {
        let change = note(&status, reading(used, [1, 1], true), 1);
        let found = (change.filled.len(), change.emptied.len());
        assert_eq!(found, (filled, emptied), "{used}");
        assert_eq!(status.figures().servers[0].1, used > 85, "{used}");
    }
    note(&status, reading(90, [1, 1], true), 1);
    let warnings = status.warnings(AT);
    let words = "r1:6379 uses 90 of 100 MiB: samples are answered 503 overloaded until summarizers have caught up, and it uses less than 80 %";
    assert_eq!(warnings, [words]);
}

#[test]
fn shards_that_nobody_summarizes() {
    let status = status();
    let warned = |words: &str| {
        let warnings = status.warnings(AT);
        match words {
            "" => assert_eq!(warnings, [""; 0]),
            words => assert!(
                warnings.len() == 1 && warnings[0].contains(words),
                "{warnings:?}"
            ),
        }
    };
    for (now, cursors, is_owned, words) in [
        (100, [0, 0], false, ""),
        (114, [0, 0], false, ""),
        (
            115,
            [0, 0],
            false,
            "no summarizer has 2 of 2 shards, for up to 15 s",
        ),
        (116, [0, 0], true, ""),
        (159, [0, 7], true, ""),
        (
            160,
            [0, 8],
            true,
            "nothing of 1 of 2 shards was committed for up to 60 s",
        ),
        (161, [1, 8], true, ""),
    ] {
        note(&status, reading(10, cursors, is_owned), now);
        warned(words);
    }
    assert_eq!(status.figures().waiting_groups(), 6);
    assert_eq!(status.figures().waiting_secs(), 1);
    assert_eq!(status.figures().memory(), (10 << 20, 90 << 20));
}

/// For a day, as damage is.
#[test]
fn refused_groups_are_reported() {
    let status = status();
    assert_eq!(status.warnings(AT), [""; 0]);
    status.counts().note_refused(
        &[(crate::store::signing::GroupRefusal::BadSignature, 2)],
        AT,
    );
    let warnings = status.warnings(AT);
    assert!(
        warnings[0].contains("2 because its signature is not valid here"),
        "{warnings:?}"
    );
    assert_eq!(status.warnings(AT + REPORTED_SECS), [""; 0]);
}
