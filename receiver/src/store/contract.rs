//! What every store must do, checked the same way for all of them.

use lizmon_summary::Bucket;

use super::{HostState, KeptBucket, KeptProducer, Removed, SHARDS, ShardChanges, Store};
use crate::clock::KeptClock;

const NOW: u64 = 1_465_001_814;

/// Runs the whole suite. `open` opens the same store again and again, each time after the last one was dropped.
pub(crate) fn check<S: Store>(open: &mut dyn FnMut() -> S) {
    the_journal_keeps_order_and_survives(open);
    state_and_cursor_change_together(open);
    rings_replace_and_ends_remove(open);
    a_whole_host_replaces_what_was_there(open);
    the_clock_is_kept(open);
    the_journal_is_dropped_when_nobody_needs_it(open);
    a_new_one_takes_its_place(open);
}

fn journal(store: &mut impl Store, after: u64) -> Vec<(u64, Vec<u8>)> {
    let mut groups = Vec::new();
    store
        .read_after(after, &mut |position, group| {
            groups.push((position, group.to_vec()))
        })
        .unwrap();
    groups
}

fn the_journal_keeps_order_and_survives<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    assert!(journal(&mut store, 0).is_empty());
    let first = store.append(b"one").unwrap();
    let second = store.append(b"").unwrap();
    assert!(0 < first && first < second);
    drop(store);
    let mut store = open();
    assert_eq!(
        journal(&mut store, 0),
        [(first, b"one".to_vec()), (second, Vec::new())]
    );
    assert_eq!(journal(&mut store, first), [(second, Vec::new())]);
    assert!(journal(&mut store, second).is_empty());
}

fn bucket(label: &str, slot: usize, start: u64, sum: f64) -> KeptBucket {
    KeptBucket {
        label: label.into(),
        tier: 0,
        slot,
        bucket: Bucket {
            start,
            count: 1,
            sum,
            min: sum,
            max: sum,
        },
    }
}

fn host(name: &str, buckets: Vec<KeptBucket>) -> HostState {
    let producer = KeptProducer {
        producer: "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b".parse().unwrap(),
        ranges: vec![(1, 7), (9, (1 << 53) - 1)],
        dropped: vec![(8, 8, "too old".into())],
        duplicate: 3,
        last_taken: 5,
    };
    HostState {
        name: name.into(),
        last_epoch: 5,
        certificate_end: 9,
        removed: Removed { samples: 3, at: 8 },
        buckets,
        is_whole: false,
        producers: vec![producer],
    }
}

fn sorted(mut host: HostState) -> HostState {
    host.buckets
        .sort_by(|a, b| (&a.label, a.tier, a.slot).cmp(&(&b.label, b.tier, b.slot)));
    host
}

fn load<S: Store>(store: &mut S) -> (Vec<u64>, Vec<HostState>) {
    let state = store.load(NOW).unwrap();
    (state.cursors, state.hosts.into_iter().map(sorted).collect())
}

fn state_and_cursor_change_together<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    assert_eq!(load(&mut store), (vec![0; usize::from(SHARDS)], vec![]));
    // A sum of -0.0 is the one that a number column would lose.
    let web1 = host(
        "web1",
        vec![bucket("cpu", 0, 60, -0.0), bucket("disk:/", 1, 60, 1e290)],
    );
    store
        .commit(&ShardChanges {
            shard: 3,
            cursor: 1,
            hosts: vec![web1.clone()],
            ..ShardChanges::default()
        })
        .unwrap();
    drop(store);
    let mut store = open();
    let (cursors, hosts) = load(&mut store);
    assert_eq!(
        cursors
            .iter()
            .enumerate()
            .filter(|(_, cursor)| **cursor != 0)
            .collect::<Vec<_>>(),
        [(3, &1)]
    );
    assert_eq!(hosts, [web1]);
    assert!(hosts[0].buckets[0].bucket.sum.is_sign_negative());
    assert_eq!(
        journal(&mut store, 0).len(),
        2,
        "other shards may still need it"
    );
}

fn rings_replace_and_ends_remove<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    let changed = HostState {
        producers: vec![],
        ..host(
            "web1",
            vec![bucket("cpu", 0, 3840, 2.0), bucket("cpu", 1, 120, 3.0)],
        )
    };
    let ended_series = vec![("web1".to_owned(), "disk:/".into())];
    store
        .commit(&ShardChanges {
            shard: 3,
            cursor: 2,
            hosts: vec![changed.clone()],
            ended_series,
            ..ShardChanges::default()
        })
        .unwrap();
    drop(store);
    let mut store = open();
    assert_eq!(load(&mut store).1, [changed]);
    let ended_hosts = vec!["web1".to_owned(), "never-heard-of".to_owned()];
    store
        .commit(&ShardChanges {
            shard: 3,
            cursor: 2,
            ended_hosts,
            ..ShardChanges::default()
        })
        .unwrap();
    drop(store);
    assert!(load(&mut open()).1.is_empty());
}

fn a_whole_host_replaces_what_was_there<S: Store>(open: &mut dyn FnMut() -> S) {
    let commit = |store: &mut S, host: &HostState| {
        let hosts = vec![host.clone()];
        let changes = ShardChanges {
            shard: 3,
            cursor: 2,
            hosts,
            ..ShardChanges::default()
        };
        store.commit(&changes).unwrap();
    };
    let mut store = open();
    let first = vec![bucket("cpu", 0, 3840, 2.0), bucket("mem", 1, 120, 3.0)];
    commit(&mut store, &host("web1", first));
    let left = HostState {
        is_whole: true,
        ..host("web1", vec![bucket("cpu", 2, 60, 1.0)])
    };
    commit(&mut store, &left);
    drop(store);
    let mut store = open();
    let expected = HostState {
        is_whole: false,
        ..left
    };
    assert_eq!(load(&mut store).1, [expected]);
    let ended_hosts = vec!["web1".to_owned()];
    let ends = ShardChanges {
        shard: 3,
        cursor: 2,
        ended_hosts,
        ..ShardChanges::default()
    };
    store.commit(&ends).unwrap();
}

fn the_clock_is_kept<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    assert_eq!(store.load(NOW).unwrap().clock, None);
    let clock = KeptClock {
        boot: [7; 16],
        offset: -5,
        since: 1,
        floor: 1_465_001_814,
        floor_at: 3,
    };
    for clock in [Some(clock), None] {
        let changes = ShardChanges {
            shard: 3,
            cursor: 2,
            clock,
            ..ShardChanges::default()
        };
        store.commit(&changes).unwrap();
    }
    drop(store);
    assert_eq!(open().load(NOW).unwrap().clock, Some(clock));
}

fn the_journal_is_dropped_when_nobody_needs_it<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    let needs_none_up_to = |drop_through| ShardChanges {
        shard: 5,
        cursor: 2,
        drop_through,
        ..ShardChanges::default()
    };
    store.commit(&needs_none_up_to(1)).unwrap();
    assert_eq!(journal(&mut store, 0), [(2, Vec::new())]);
    store.commit(&needs_none_up_to(2)).unwrap();
    assert!(journal(&mut store, 0).is_empty());
    drop(store);
    let mut store = open();
    assert_eq!(
        store.append(b"three").unwrap(),
        3,
        "positions are never used twice"
    );
}

fn a_new_one_takes_its_place<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    store.probe().unwrap();
    store.look().unwrap();
    let web1 = host("web1", vec![bucket("cpu", 0, 60, 1.5)]);
    let state = super::State {
        cursors: vec![3; usize::from(SHARDS)],
        hosts: vec![web1],
        clock: None,
    };
    store.replace(&state, "a test", NOW).unwrap();
    let has_it = |mut store: S| {
        assert_eq!(store.load(NOW).unwrap(), state);
        assert!(journal(&mut store, 0).is_empty());
    };
    has_it(store);
    has_it(open());
    assert_eq!(open().append(b"four").unwrap(), 4);
}
