//! Stores of versions before are opened with all that is in them.

use lizmon_protocol::history::HistoryTier;
use lizmon_protocol::sample::{Epoch, parse_sample_set};
use lizmon_summary::{Series, TIERS};

use super::super::bucket_key::BucketKey;
use super::super::{rows, schema, series_body};
use super::history::{TODAY, chunks, commit, evicted};
use super::*;
use crate::store::record::{Group, Submission, read_group};
use crate::store::{StoredHost, StoredSeries};

/// Two hosts that were in one shard, and are not any more, and that shard.
const HOSTS: [&str; 2] = ["web247", "web1"];

/// Makes the store one of this version, as it was written then.
fn make_older(folder: &Path, version: i64) {
    let mut database = Connection::open(folder.join(FILE)).unwrap();
    let transaction = database.transaction().unwrap();
    let read = "SELECT series.id, name, label, body FROM series JOIN host ON host.id = host";
    let mut statement = transaction.prepare(read).unwrap();
    let mut found = statement.query([]).unwrap();
    while let Some(row) = found.next().unwrap() {
        let (host, label): (String, String) = (row.get(1).unwrap(), row.get(2).unwrap());
        let body: Vec<u8> = row.get(3).unwrap();
        let series = series_body::decode(&host, &label, &body).unwrap();
        for (tier, bucket, _) in series.intervals() {
            let slot = TIERS[tier].slot_of(bucket.start);
            let key = BucketKey {
                host: &host,
                label: &label,
                tier,
                slot,
            };
            let (id, start) = (row.get::<_, i64>(0).unwrap(), bucket.start as i64);
            let (tier, slot) = (tier as i64, slot as i64);
            transaction
                .execute(
                    "INSERT INTO bucket VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![id, tier, slot, start, key.encode(&bucket)],
                )
                .unwrap();
        }
    }
    drop(found);
    drop(statement);
    let shards = schema::EARLIER_SHARDS.get();
    transaction
        .execute_batch(&format!(
            "ALTER TABLE series DROP COLUMN body;
             DELETE FROM shard WHERE id >= {shards}; DELETE FROM shard_again WHERE id >= {shards};
             UPDATE meta SET value = {shards} WHERE key = 'shards';
             UPDATE meta SET value = {version} WHERE key = 'version'; PRAGMA user_version = {version};"
        ))
        .unwrap();
    if version == 4 {
        let tables = "DROP TABLE document; DROP TABLE history; DROP TABLE history_series;";
        transaction.execute_batch(tables).unwrap();
    }
    rows::save_cursor(&transaction, SHARD, Position::new(1)).unwrap();
    transaction.commit().unwrap();
}

/// A group of both, as it was written to the one shard that they were in.
fn group(epoch: u64) -> Vec<u8> {
    let mut group = Group::default();
    for host in HOSTS {
        let values = parse_sample_set(br#"{"cpu":4.98}"#).unwrap();
        let record = (None, Epoch::new(epoch).unwrap(), &values);
        let submission = Submission::new(&host.parse().unwrap(), NOW + 9, None, NOW);
        group.push(&submission.with_records([record].into_iter()));
    }
    group.seal().to_vec()
}

/// What is in the older store: one group is counted, one is not.
fn older(folder: &Path, version: i64) -> Vec<StoredHost> {
    let mut store = EmbeddedStore::open(folder, NOW).unwrap();
    load_all(&mut store);
    let mut series = Series::new();
    (0..3).for_each(|hour| series.apply(TODAY - hour * 3_600, 1.5));
    series.clear_dirty();
    let host = |name: &str| StoredHost {
        name: name.into(),
        last_epoch: NOW,
        certificate_end: NOW + 9,
        series: vec![StoredSeries {
            label: "cpu".into(),
            series: series.clone(),
        }],
        ..StoredHost::default()
    };
    let hosts = HOSTS.map(host);
    for host in &hosts {
        let changes = ShardChanges {
            hosts: vec![host.clone()],
            ..ShardChanges::default()
        };
        let fence = fence(&mut store, SHARDS.shard_of(&host.name));
        store.commit(fence, &changes).unwrap();
    }
    for nth in 1..=2 {
        append(&mut store, SHARD, &group(NOW + nth)).unwrap();
    }
    commit(&mut store, vec![evicted("cpu", TODAY - 86_400)]).unwrap();
    drop(store);
    make_older(folder, version);
    hosts.to_vec()
}

fn hosts_of(store: &mut EmbeddedStore) -> Vec<StoredHost> {
    let mut hosts = Vec::new();
    for state in load_all(store).1 {
        for host in &state.hosts {
            assert_eq!(state.shard, SHARDS.shard_of(&host.name));
            assert_eq!(state.cursor, Position::new(1), "{}", host.name);
        }
        hosts.extend(state.hosts);
    }
    hosts.sort_by_key(|host| HOSTS.iter().position(|name| *name == host.name));
    hosts
}

/// Host and epoch of what is not counted yet.
fn uncounted(store: &mut EmbeddedStore) -> Vec<(String, u64)> {
    let after: Vec<_> = SHARDS
        .all()
        .map(|shard| (shard, Position::new(1)))
        .collect();
    let mut uncounted = Vec::new();
    let read = store.read_after(&after, &mut |shard, position, group| {
        assert_eq!(position, Position::new(2));
        for submission in read_group(group).unwrap() {
            assert_eq!(shard, SHARDS.shard_of(submission.host));
            let epochs = submission.records().map(|record| record.epoch);
            uncounted.extend(epochs.map(|epoch| (submission.host.to_owned(), epoch)));
        }
    });
    read.complete().unwrap();
    uncounted
}

#[test]
fn a_store_of_a_version_before_is_upgraded_with_all_that_is_in_it() {
    for version in [4, 7] {
        let folder = tempfile::tempdir().unwrap();
        let hosts = older(folder.path(), version);
        assert_eq!(backup::check(folder.path(), NOW).unwrap().damage, []);
        for _ in 0..2 {
            let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
            assert_eq!(hosts_of(&mut store), hosts, "version {version}");
            assert_eq!(store.damage(), []);
            let expected = HOSTS.map(|host| (host.to_owned(), NOW + 2));
            assert_eq!(uncounted(&mut store), expected, "version {version}");
            let history = usize::from(version == 7);
            let days = chunks(&store, "cpu", HistoryTier::ByDay);
            assert_eq!(days, (history, 0), "version {version}");
        }
        let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
        let next = append(&mut store, SHARD, b"next").unwrap();
        assert!(next > Position::new(2));
        let aside = folder.path().join("lizmon.db.replaced-1");
        assert!(aside.exists(), "the old one is there");
        assert!(!folder.path().join("lizmon.db.replaced-2").exists());
    }
}

/// It stops between the two renames, or before the new one is whole.
#[test]
fn an_upgrade_that_was_interrupted_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = older(folder.path(), 7);
    let file = folder.path().join(FILE);
    let new = folder.path().join("lizmon.db.new");
    std::fs::write(&new, "half of a data").unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    assert_eq!(hosts_of(&mut store), hosts);
    drop(store);
    // The old one is aside, and the new one not yet in its place.
    std::fs::rename(&file, &new).unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    assert_eq!(hosts_of(&mut store), hosts);
    assert_eq!(store.damage(), []);
}

#[test]
fn a_damaged_store_of_a_version_before_is_recovered() {
    for version in [4, 7] {
        let folder = tempfile::tempdir().unwrap();
        let hosts = older(folder.path(), version);
        let database = Connection::open(folder.path().join(FILE)).unwrap();
        let damage = "UPDATE bucket SET stats = zeroblob(36) WHERE series = 1 AND slot % 2 = 0";
        assert!(database.execute(damage, []).unwrap() > 0);
        drop(database);
        let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
        let found = hosts_of(&mut store);
        assert_eq!(found[1], hosts[1]);
        let intervals = |hosts: &[StoredHost]| -> Vec<_> {
            let intervals = hosts[0].series[0].series.intervals();
            intervals.map(|(tier, bucket, _)| (tier, bucket)).collect()
        };
        let (left, all) = (intervals(&found), intervals(&hosts));
        assert!(left.len() < all.len() && left.iter().all(|one| all.contains(one)));
        let known: Vec<_> = store.damage().iter().map(ToString::to_string).collect();
        assert_eq!(known.len(), 1 + all.len() - left.len(), "{known:?}");
        let words = "an interval of by-hour is lost";
        assert!(known.iter().any(|told| told.contains(words)), "{known:?}");
        let expected = HOSTS.map(|host| (host.to_owned(), NOW + 2));
        assert_eq!(uncounted(&mut store), expected, "version {version}");
    }
}

/// The head and the list of tables are those of today then; the tables are where they were.
#[test]
fn a_store_of_the_version_before_without_its_first_page_is_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = older(folder.path(), 7);
    let file = folder.path().join(FILE);
    let database = Connection::open(&file).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    database.query_row(checkpoint, [], |_| Ok(())).unwrap();
    drop(database);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..4096].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    assert_eq!(hosts_of(&mut store), hosts);
    let expected = HOSTS.map(|host| (host.to_owned(), NOW + 2));
    assert_eq!(uncounted(&mut store), expected);
    assert!(store.damage()[0].what.contains("nothing is lost"));
}

/// It has the tables of today, and is only marked.
#[test]
fn a_store_of_the_version_without_points_is_upgraded_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let first = append(&mut store, SHARD, &group(NOW)).unwrap();
    commit(&mut store, vec![evicted("cpu", TODAY - 86_400)]).unwrap();
    let (hosts, clock) = (hosts_and_cursor(&mut store), first);
    drop(store);
    let file = folder.path().join(FILE);
    let as_before = || {
        let database = Connection::open(&file).unwrap();
        let sql = "UPDATE meta SET value = 8 WHERE key = 'version'; PRAGMA user_version = 8;";
        database.execute_batch(sql).unwrap();
    };
    as_before();
    assert_eq!(backup::check(folder.path(), NOW).unwrap().damage, []);
    for _ in 0..2 {
        let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
        assert_eq!(
            (hosts_and_cursor(&mut store), first),
            (hosts.clone(), clock)
        );
        assert_eq!(store.damage(), []);
        assert_eq!(chunks(&store, "cpu", HistoryTier::ByDay), (1, 0));
    }
    let version = |sql: &str| -> i64 {
        let database = Connection::open(&file).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(version("PRAGMA user_version"), schema::VERSION);
    assert_eq!(
        version("SELECT value FROM meta WHERE key = 'version'"),
        schema::VERSION
    );
    assert!(!folder.path().join("lizmon.db.replaced-1").exists());
    // Its first page is lost: that of today takes its place, and it is upgraded all the same.
    as_before();
    let database = Connection::open(&file).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    database.query_row(checkpoint, [], |_| Ok(())).unwrap();
    drop(database);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..4096].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    assert_eq!(hosts_and_cursor(&mut store), hosts);
    assert!(store.damage()[0].what.contains("nothing is lost"));
}

fn hosts_and_cursor(store: &mut EmbeddedStore) -> Vec<(Position, Vec<StoredHost>)> {
    let states = load_all(store).1.into_iter();
    states.map(|state| (state.cursor, state.hosts)).collect()
}
