//! A load whose series go to a sink.

use lizmon_summary::Series;

use super::super::read::BATCH_BYTES;
use super::*;
use crate::store::{StoredHost, StoredSeries};

type Given = (String, String, Series);

#[derive(Default)]
struct Collected(Vec<Given>);

impl SeriesSink for Collected {
    fn take(&mut self, host: &str, label: &str, series: Series) {
        self.0.push((host.into(), label.into(), series));
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Of each host: enough for several batches, which are decoded by several threads.
const SERIES: usize = 300;

/// An hour of minutes.
fn series(label: usize) -> StoredSeries {
    let mut series = Series::new();
    (0..60).for_each(|ago| series.apply(NOW - 60 * ago, (ago as f64 + label as f64) / 7.0));
    StoredSeries {
        label: format!("label {label}").into(),
        series,
    }
}

fn fill(folder: &Path) {
    let mut store = EmbeddedStore::open(folder, NOW).unwrap();
    load_all(&mut store);
    let hosts = ["web1", "web2"].map(|name| StoredHost {
        name: name.into(),
        series: (0..SERIES).map(series).collect(),
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
        let series = host.series.into_iter();
        expected.extend(series.map(|of| (host.name.clone(), of.label.into(), of.series)));
    }
    let place = |of: &Given| (of.0.clone(), of.1.clone());
    expected.sort_by_key(place);
    sink.0.sort_by_key(place);
    assert_eq!(sink.0, expected);
    (sink.0, damage)
}

#[test]
fn a_sink_gets_each_series_once() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let (all, damage) = given(folder.path());
    assert_eq!((all.len(), damage), (2 * SERIES, 0));
    let bytes = all.iter().map(|(.., series)| series.encode().len());
    assert!(bytes.sum::<usize>() > 8 * BATCH_BYTES);
}

#[test]
fn what_was_given_of_a_damaged_store_is_void() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let sql = "UPDATE series SET body = zeroblob(36) WHERE id IN (2, 299)";
    assert_eq!(store.connection.execute(sql, []).unwrap(), 2);
    drop(store);
    let (left, damage) = given(folder.path());
    assert_eq!(left.len(), 2 * SERIES - 2);
    assert!(damage >= 2);
}
