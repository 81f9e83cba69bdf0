//! The history in SQLite: damage, expiry, and a store of the version before.

use lizmon_protocol::history::HistoryTier;
use lizmon_summary::Bucket;

use super::*;
use crate::store::history::{Chunk, ChunkKey, ChunkQuery, EvictedHour, HistoryRetention};

const DAY: u64 = 86_400;
const TODAY: u64 = NOW - NOW % DAY;

fn evicted(label: &str, start: u64) -> EvictedHour {
    EvictedHour {
        host: "web1".into(),
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

fn commit(store: &mut EmbeddedStore, evicted: Vec<EvictedHour>) -> Result<(), StoreError> {
    let changes = ShardChanges {
        evicted,
        ..ShardChanges::default()
    };
    let fence = fence(store, SHARD);
    store.commit(fence, &changes)
}

/// How many intact chunks of a series there are, and how many others.
fn chunks(store: &EmbeddedStore, label: &str, tier: HistoryTier) -> (usize, usize) {
    let query = ChunkQuery {
        shard: SHARD,
        host: "web1",
        label,
        tier,
        from: 0,
        to: u64::MAX,
        chunks_max: 1_000,
    };
    let read = store.history().unwrap().chunks(&query).unwrap();
    let is_intact = |(start, bytes): &(u64, Vec<u8>)| {
        let (host, start) = ("web1", *start);
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
    let told = "web1 cpu 2016-06-02T00:00:00Z to 2016-06-03T00:00:00Z: the hours of a day are lost";
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

/// Makes the store one of version 4: tables that came later are not there.
fn make_older(folder: &Path) {
    let database = Connection::open(folder.join(FILE)).unwrap();
    database
        .execute_batch(
            "DROP TABLE document; DROP TABLE history; DROP TABLE history_series;
             UPDATE meta SET value = 4 WHERE key = 'version'; PRAGMA user_version = 4;",
        )
        .unwrap();
}

fn older(folder: &Path) -> Vec<ShardState> {
    let mut store = EmbeddedStore::open(folder, NOW).unwrap();
    load_all(&mut store);
    let host = crate::store::StoredHost {
        name: "web1".into(),
        last_epoch: NOW,
        certificate_end: NOW + 9,
        buckets: vec![crate::store::StoredBucket {
            label: "cpu".into(),
            tier: 1,
            slot: 3,
            bucket: evicted("cpu", TODAY).bucket,
        }],
        ..crate::store::StoredHost::default()
    };
    let changes = ShardChanges {
        hosts: vec![host],
        ..ShardChanges::default()
    };
    let fence = fence(&mut store, SHARD);
    store.commit(fence, &changes).unwrap();
    append(&mut store, SHARD, b"group").unwrap();
    let (_, states) = load_all(&mut store);
    drop(store);
    make_older(folder);
    states
}

#[test]
fn a_store_of_the_version_before_is_upgraded_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let states = older(folder.path());
    assert_eq!(backup::check(folder.path(), NOW).unwrap().damage, []);
    for _ in 0..2 {
        let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
        assert_eq!(load_all(&mut store).1, states);
        assert_eq!(store.damage(), []);
        let mut groups = Vec::new();
        let read = store.read_after(&[(SHARD, Position::START)], &mut |_, _, group| {
            groups.push(group.to_vec());
        });
        read.complete().unwrap();
        assert_eq!(groups, [b"group"]);
        commit(&mut store, vec![evicted("cpu", TODAY)]).unwrap();
        assert_eq!(chunks(&store, "cpu", HistoryTier::ByDay), (1, 0));
    }
    let aside = folder.path().join("lizmon.db.replaced-1");
    assert!(aside.exists(), "the old one is there");
    assert!(!folder.path().join("lizmon.db.replaced-2").exists());
}

/// It stops between the two renames, or before the new one is whole.
#[test]
fn an_upgrade_that_was_interrupted_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let states = older(folder.path());
    let file = folder.path().join(FILE);
    let new = folder.path().join("lizmon.db.new");
    std::fs::write(&new, "half of a data").unwrap();
    let copy = std::fs::read(&file).unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    assert_eq!(load_all(&mut store).1, states);
    drop(store);
    // The old one is aside, and the new one not yet in its place.
    std::fs::rename(&file, &new).unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    assert_eq!(load_all(&mut store).1, states);
    assert_eq!(store.damage(), []);
    assert!(!copy.is_empty());
}

#[test]
fn a_damaged_store_of_the_version_before_is_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let states = older(folder.path());
    let database = Connection::open(folder.path().join(FILE)).unwrap();
    let damage = "UPDATE bucket SET stats = zeroblob(36)";
    database.execute(damage, []).unwrap();
    drop(database);
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let (_, found) = load_all(&mut store);
    assert_eq!(found[0].hosts[0].last_epoch, states[0].hosts[0].last_epoch);
    let known: Vec<_> = store.damage().iter().map(ToString::to_string).collect();
    assert_eq!(known.len(), 2, "{known:?}");
    assert!(
        known
            .iter()
            .any(|told| told.contains("an interval of by-hour is lost"))
    );
}
