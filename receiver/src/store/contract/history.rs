//! The history: what commits add, cuts remove, and readers find.

use lizmon_protocol::history::HistoryTier;
use lizmon_summary::Bucket;

use super::super::engine::Store;
use super::super::history::{Chunk, ChunkKey, ChunkQuery, EvictedHour, HistoryRetention};
use super::super::state::ShardChanges;
use super::{NOW, SHARD, commit, host};

const DAY: u64 = 86_400;
/// For ever: servers go by their own clock.
const KEPT: HistoryRetention = HistoryRetention {
    hours_secs: 100 * 366 * DAY,
    days_secs: 100 * 366 * DAY,
};

fn evicted(label: &str, start: u64, count: u64) -> EvictedHour {
    EvictedHour {
        host: "web247".into(),
        label: label.into(),
        bucket: Bucket {
            start,
            count,
            sum: -0.0,
            min: -0.0,
            max: 0.0,
        },
    }
}

/// Start and count of the intervals of a series of web247.
fn intervals<S: Store>(store: &S, label: &str, tier: HistoryTier) -> Vec<(u64, u64)> {
    let reader = store.history().unwrap();
    let query = ChunkQuery {
        shard: SHARD,
        host: "web247",
        label,
        tier,
        from: NOW - 90 * DAY,
        to: NOW + 10 * DAY,
        chunks_max: 1_000,
    };
    let mut all = Vec::new();
    for (start, bytes) in reader.chunks(&query).unwrap() {
        let key = ChunkKey {
            host: "web247",
            label,
            tier,
            start,
        };
        let chunk = Chunk::decode(&key, &bytes).unwrap();
        for day in chunk.intervals() {
            assert!(day.bucket.sum.is_sign_negative());
            all.push((day.bucket.start, day.bucket.count));
        }
    }
    all
}

pub(super) fn is_kept<S: Store>(open: &mut dyn FnMut() -> S) {
    let (hours, days) = (HistoryTier::ByHour, HistoryTier::ByDay);
    let today = NOW - NOW % DAY;
    let changes = |evicted: Vec<EvictedHour>| ShardChanges {
        evicted,
        retention: KEPT,
        ..ShardChanges::default()
    };
    let mut store = open();
    assert_eq!(intervals(&store, "disk:/", hours), []);
    let knows = |store: &S, host: &str| {
        let reader = store.history().unwrap();
        reader.knows(SHARD, host, &KEPT, NOW).unwrap()
    };
    assert!(!knows(&store, "web247"));
    let first = vec![
        evicted("disk:/", today - 60 * DAY, 1),
        evicted("disk:/", today, 2),
        evicted("cpu", today, 9),
    ];
    let with_host = ShardChanges {
        hosts: vec![host("web247", vec![])],
        ..changes(first)
    };
    commit(&mut store, SHARD, &with_host);
    let second = vec![
        evicted("disk:/", today + 3_600, 3),
        evicted("disk:/", today, 2),
    ];
    commit(&mut store, SHARD, &changes(second));
    drop(store);
    let mut store = open();
    let both = [(today - 60 * DAY, 1), (today, 2), (today + 3_600, 3)];
    assert_eq!(intervals(&store, "disk:/", hours), both);
    let of_days = [(today - 60 * DAY, 1), (today, 5)];
    assert_eq!(intervals(&store, "disk:/", days), of_days);
    assert_eq!(intervals(&store, "disk", hours), [], "a label is exact");
    // What has ended in the state stays in the history.
    let ends = ShardChanges {
        ended_hosts: vec!["web247".to_owned()],
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &ends);
    assert!(knows(&store, "web247") && !knows(&store, "web2"));
    assert_eq!(intervals(&store, "disk:/", days), of_days);
    let mut chunks = Vec::new();
    let each = &mut |chunk: super::super::history::StoredChunk| {
        chunks.push((chunk.label.clone(), chunk.tier, chunk.start));
        Ok(())
    };
    store.all_chunks(&[SHARD], each).unwrap();
    assert_eq!(chunks.len(), 3 + 3, "{chunks:?}");
    let cut = ShardChanges {
        cuts: vec![("web247".to_owned(), today + 3_600)],
        ..changes(vec![])
    };
    commit(&mut store, SHARD, &cut);
    drop(store);
    let mut store = open();
    assert_eq!(intervals(&store, "disk:/", hours), both[..2]);
    assert_eq!(
        intervals(&store, "disk:/", days),
        [(today - 60 * DAY, 1), (today, 2)]
    );
    let all = ShardChanges {
        cuts: vec![("web247".to_owned(), 0)],
        ..changes(vec![])
    };
    commit(&mut store, SHARD, &all);
    assert_eq!(intervals(&store, "disk:/", days), []);
    assert_eq!(intervals(&store, "cpu", hours), []);
}
