//! A load whose intervals go to a sink.

use lizmon_summary::Bucket;

use super::*;
use crate::store::{StoredBucket, StoredHost};

type Given = (String, String, usize, Bucket);

#[derive(Default)]
struct Collected(Vec<Given>);

impl IntervalSink for Collected {
    fn take(&mut self, host: &str, label: &str, intervals: &[(usize, Bucket)]) {
        let given = intervals.iter();
        let given = given.map(|(tier, bucket)| (host.into(), label.into(), *tier, *bucket));
        self.0.extend(given);
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn bucket(label: &str, slot: usize) -> StoredBucket {
    StoredBucket {
        label: label.into(),
        tier: 0,
        slot,
        bucket: Bucket {
            start: NOW - NOW % 60 - 60 * slot as u64,
            count: 2,
            sum: 3.0,
            min: 1.0,
            max: 2.0,
        },
    }
}

fn fill(folder: &Path) {
    let mut store = EmbeddedStore::open(folder, NOW).unwrap();
    load_all(&mut store);
    let hosts = ["web1", "web2"].map(|name| StoredHost {
        name: name.into(),
        buckets: (0..3)
            .flat_map(|slot| ["cpu", "mem"].map(|label| bucket(label, slot)))
            .collect(),
        ..StoredHost::default()
    });
    for host in hosts {
        let fence = fence(&mut store, SHARDS.shard_of(&host.name));
        let hosts = vec![host];
        let changes = ShardChanges {
            hosts,
            ..ShardChanges::default()
        };
        store.commit(fence, &changes).unwrap();
    }
}

/// What a load gives, with and without a sink, and how much damage it found.
fn given(folder: &Path) -> (Vec<Given>, usize) {
    let mut store = EmbeddedStore::open(folder, NOW).unwrap();
    let shards: Vec<_> = SHARDS.all().collect();
    let mut sink = Collected::default();
    let states = store.load_into(&shards, NOW, &mut sink).unwrap();
    let hosts = states.iter().flat_map(|state| &state.hosts);
    assert_eq!(hosts.clone().count(), 2);
    assert!(hosts.clone().all(|host| host.buckets.is_empty()));
    let damage = store.damage().len();
    let mut expected = Vec::new();
    for host in load_all(&mut store).1.into_iter().flat_map(|of| of.hosts) {
        let kept = host.buckets.into_iter();
        let kept = kept.map(|of| (host.name.clone(), of.label.into(), of.tier, of.bucket));
        expected.extend(kept);
    }
    let place = |of: &Given| (of.0.clone(), of.1.clone(), of.3.start);
    expected.sort_by_key(place);
    sink.0.sort_by_key(place);
    assert_eq!(sink.0, expected);
    (sink.0, damage)
}

#[test]
fn a_sink_gets_each_interval_once() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let (all, damage) = given(folder.path());
    assert_eq!((all.len(), damage), (12, 0));
}

#[test]
fn what_was_given_of_a_damaged_store_is_void() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let sql = "UPDATE bucket SET stats = zeroblob(36) WHERE series = 2 AND slot = 1";
    assert_eq!(store.connection.execute(sql, []).unwrap(), 1);
    drop(store);
    let (left, damage) = given(folder.path());
    assert_eq!(left.len(), 11);
    assert!(damage > 0);
}
