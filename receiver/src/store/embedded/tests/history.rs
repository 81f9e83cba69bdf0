//! The history in SQLite: damage, and expiry.

use lizmon_protocol::history::HistoryTier;
use lizmon_summary::Bucket;

use super::*;
use crate::store::history::{Chunk, ChunkKey, ChunkQuery, EvictedHour, HistoryRetention};

const DAY: u64 = 86_400;
pub(super) const TODAY: u64 = NOW - NOW % DAY;

pub(super) fn evicted(label: &str, start: u64) -> EvictedHour {
    EvictedHour {
        host: "web247".into(),
        label: label.into(),
        bucket: Bucket {
            start,
            count: 2,
            sum: 3.0,
            min: 1.0,
            max: 2.0,
        },
    }
}

pub(super) fn commit(
    store: &mut EmbeddedStore,
    evicted: Vec<EvictedHour>,
) -> Result<(), StoreError> {
    let changes = ShardChanges {
        evicted,
        ..ShardChanges::default()
    };
    let fence = fence(store, SHARD);
    store.commit(fence, &changes)
}

/// How many intact chunks of a series there are, and how many others.
pub(super) fn chunks(store: &EmbeddedStore, label: &str, tier: HistoryTier) -> (usize, usize) {
    let query = ChunkQuery {
        shard: SHARD,
        host: "web247",
        label,
        tier,
        from: 0,
        to: u64::MAX,
        chunks_max: 1_000,
    };
    let read = store.history().unwrap().chunks(&query).unwrap();
    let is_intact = |(start, bytes): &(u64, Vec<u8>)| {
        let (host, start) = ("web247", *start);
        let key = ChunkKey {
            host,
            label,
            tier,
            start,
        };
        Chunk::decode(&key, bytes).is_some()
    };
    let intact = read.iter().filter(|chunk| is_intact(chunk)).count();
    (intact, read.len() - intact)
}

/// A chunk in the middle of the table is not what was written.
#[test]
fn a_damaged_part_is_told_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    load_all(&mut store);
    let days = (0..5).map(|day| evicted("cpu", TODAY - day * DAY));
    commit(&mut store, days.collect()).unwrap();
    let hours = HistoryTier::ByHour;
    assert_eq!(chunks(&store, "cpu", hours), (5, 0));
    let damage = "UPDATE history SET body = zeroblob(length(body)) WHERE tier = 1 AND start = ?1";
    let changed = store.connection.execute(damage, [(TODAY - 2 * DAY) as i64]);
    assert_eq!(changed.unwrap(), 1);
    assert_eq!(chunks(&store, "cpu", hours), (4, 1));
    let found = backup::check(folder.path(), NOW).unwrap().damage;
    let words: Vec<_> = found.iter().map(ToString::to_string).collect();
    let told =
        "web247 cpu 2016-06-02T00:00:00Z to 2016-06-03T00:00:00Z: the hours of a day are lost";
    assert_eq!(words, [told]);
    // Another day is written beside it.
    commit(&mut store, vec![evicted("cpu", TODAY + DAY)]).unwrap();
    // This one is not written over it: the store is made again, and says what is lost.
    let hour = TODAY - 2 * DAY + 3_600;
    let refused = commit(&mut store, vec![evicted("cpu", hour)]).unwrap_err();
    assert!(refused.is_damage(), "{refused}");
    let (fences, mut states) = load_all(&mut store);
    states[0].evicted = vec![evicted("cpu", hour), evicted("mem", hour)];
    store.rebuild(&fences, states, "a test", NOW).unwrap();
    assert_eq!(chunks(&store, "cpu", hours), (6, 0));
    assert_eq!(chunks(&store, "mem", hours), (1, 0));
    drop(store);
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    load_all(&mut store);
    let known = store.damage().iter().map(ToString::to_string);
    let known: Vec<_> = known.collect();
    assert!(known.contains(&told.to_owned()), "{known:?}");
    assert_eq!(chunks(&store, "cpu", hours), (6, 0));
}

#[test]
fn what_has_ended_goes_a_little_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    load_all(&mut store);
    let labels: Vec<_> = (0..150).map(|at| format!("label-{at}")).collect();
    let old = labels.iter().map(|label| evicted(label, TODAY - 10 * DAY));
    let new = labels.iter().take(10).map(|label| evicted(label, TODAY));
    commit(&mut store, old.chain(new).collect()).unwrap();
    let series = |store: &EmbeddedStore| {
        let count = "SELECT count(*) FROM history_series";
        store
            .connection
            .query_row(count, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let retention = HistoryRetention {
        hours_secs: 5 * DAY,
        days_secs: 0,
    };
    // To the second: nothing has ended yet.
    let ends = TODAY - 10 * DAY + DAY + 5 * DAY;
    let all = HistoryRetention {
        days_secs: 400 * DAY,
        ..retention
    };
    for _ in 0..4 {
        store.expire_history(&all, ends - 1).unwrap();
    }
    assert_eq!(chunks(&store, "label-100", HistoryTier::ByHour), (1, 0));
    let later = ends + 3_600;
    for _ in 0..4 {
        let before = series(&store);
        store.expire_history(&retention, later).unwrap();
        let gone = before - series(&store);
        assert!((0..=64).contains(&gone), "{gone}");
    }
    assert_eq!(series(&store), 10);
    assert_eq!(chunks(&store, "label-1", HistoryTier::ByHour), (1, 0));
    assert_eq!(chunks(&store, "label-1", HistoryTier::ByDay), (0, 0));
}
