//! A load whose intervals go to a sink.

use lizmon_summary::Bucket;

use super::*;
use crate::store::{StoredHost, StoredInterval, StoredSeries};

type Given = (String, String, usize, Bucket);

#[derive(Default)]
struct Collected(Vec<Given>);

impl IntervalSink for Collected {
    fn take(&mut self, host: &str, label: &str, intervals: &[StoredInterval]) {
        self.0.extend(given_of(host, label, intervals));
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn given_of(host: &str, label: &str, intervals: &[StoredInterval]) -> Vec<Given> {
    let given = intervals.iter();
    given
        .map(|of| (host.into(), label.into(), of.tier, of.bucket))
        .collect()
}

/// The last three minutes.
fn series(label: &str) -> StoredSeries {
    let interval = |ago: u64| StoredInterval {
        tier: 0,
        bucket: Bucket {
            start: NOW - NOW % 60 - 60 * ago,
            count: 2,
            sum: 3.0,
            min: 1.0,
            max: 2.0,
        },
        is_changed: true,
    };
    StoredSeries {
        label: label.into(),
        intervals: (0..3).rev().map(interval).collect(),
    }
}

fn fill(folder: &Path) {
    let mut store = EmbeddedStore::open(folder, NOW).unwrap();
    load_all(&mut store);
    let hosts = ["web1", "web2"].map(|name| StoredHost {
        name: name.into(),
        series: ["cpu", "mem"].map(series).to_vec(),
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
    assert!(hosts.clone().all(|host| host.series.is_empty()));
    let damage = store.damage().len();
    let mut expected = Vec::new();
    for host in load_all(&mut store).1.into_iter().flat_map(|of| of.hosts) {
        for of in host.series {
            expected.extend(given_of(&host.name, &of.label, &of.intervals));
        }
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
    let sql = "UPDATE series SET body = zeroblob(36) WHERE id = 2";
    assert_eq!(store.connection.execute(sql, []).unwrap(), 1);
    drop(store);
    let (left, damage) = given(folder.path());
    assert_eq!(left.len(), 9);
    assert!(damage > 0);
}
