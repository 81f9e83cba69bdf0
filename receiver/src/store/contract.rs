//! What every store must do, checked the same way for all of them.

mod history;
mod sharing;

use lizmon_summary::{Bucket, Point, PointKind, Series};

use super::document::{DocumentKind, StoredDocument};
use super::engine::Store;
use super::error::{ErrorKind, StoreError};
use super::shard::{Fence, Position, Shard};
use super::state::{
    RemovedSamples, ShardChanges, ShardState, StoredHost, StoredProducer, StoredSeries,
};
use crate::clock::StoredClock;

pub(crate) use self::sharing::check_sharing;

const NOW: u64 = 1_465_001_814;
/// That of web247.
const SHARD: Shard = Shard::new(0);
/// That of db377.
const OTHER: Shard = Shard::new(22);

/// Runs the whole suite. `open` opens the same store again and again, each time after the last one
/// was dropped.
pub(crate) fn check<S: Store>(open: &mut dyn FnMut() -> S) {
    check_shared(open);
    a_new_one_takes_its_place(open);
}

/// The same for a store that servers keep: it is not rebuilt from memory.
pub(crate) fn check_shared<S: Store>(open: &mut dyn FnMut() -> S) {
    hosts_have_their_shards(open);
    the_journal_keeps_order_and_survives(open);
    state_and_cursor_change_together(open);
    rings_replace_and_ends_remove(open);
    a_whole_host_replaces_what_was_there(open);
    the_last_point_is_kept(open);
    the_clock_is_kept(open);
    history::is_kept(open);
    documents_are_replaced_and_removed(open);
    the_journal_is_pruned_behind_the_cursor(open);
    shards_are_independent(open);
    an_old_fence_changes_nothing(open);
}

/// Appends one group.
pub(crate) fn append<S: Store>(
    store: &mut S,
    shard: Shard,
    group: &[u8],
) -> Result<Position, StoreError> {
    let mut appended = store.append(&[(shard, group)]);
    assert_eq!(appended.len(), 1);
    appended.remove(0)
}

/// Acquires one shard.
pub(crate) fn fence<S: Store>(store: &mut S, shard: Shard) -> Fence {
    let fences = store.acquire(&[shard]).unwrap();
    assert_eq!(fences.len(), 1);
    assert_eq!(fences[0].shard(), shard);
    fences[0]
}

/// Acquires all shards and loads them.
pub(crate) fn load_all<S: Store>(store: &mut S) -> (Vec<Fence>, Vec<ShardState>) {
    let shards: Vec<_> = store.shard_count().all().collect();
    let fences = store.acquire(&shards).unwrap();
    assert_eq!(fences.len(), shards.len());
    let states = store.load(&shards, NOW).unwrap();
    (fences, states)
}

/// Commits changes; a cursor never goes back.
fn commit<S: Store>(store: &mut S, shard: Shard, changes: &ShardChanges) {
    let fence = fence(store, shard);
    let cursor = store.load(&[shard], NOW).unwrap()[0].cursor;
    let changes = ShardChanges {
        cursor: changes.cursor.max(cursor),
        ..changes.clone()
    };
    store.commit(fence, &changes).unwrap();
}

fn journal(store: &mut impl Store, shard: Shard, after: Position) -> Vec<(Position, Vec<u8>)> {
    let mut groups = Vec::new();
    store
        .read_after(&[(shard, after)], &mut |of, position, group| {
            assert_eq!(of, shard);
            groups.push((position, group.to_vec()));
        })
        .complete()
        .unwrap();
    groups
}

fn hosts_have_their_shards<S: Store>(open: &mut dyn FnMut() -> S) {
    let count = open().shard_count();
    assert_eq!(count, open().shard_count());
    let shards = ["web247", "db377"].map(|host| count.shard_of(host));
    assert_eq!(shards, [SHARD, OTHER]);
}

fn the_journal_keeps_order_and_survives<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    assert!(journal(&mut store, SHARD, Position::START).is_empty());
    assert!(store.append(&[]).is_empty());
    let first = append(&mut store, SHARD, b"one").unwrap();
    let second = append(&mut store, SHARD, b"").unwrap();
    assert!(Position::START < first && first < second);
    drop(store);
    let mut store = open();
    assert_eq!(
        journal(&mut store, SHARD, Position::START),
        [(first, b"one".to_vec()), (second, Vec::new())]
    );
    assert_eq!(journal(&mut store, SHARD, first), [(second, Vec::new())]);
    assert!(journal(&mut store, SHARD, second).is_empty());
    assert!(journal(&mut store, OTHER, Position::START).is_empty());
}

/// A series of minutes, each with one sample, which have all changed.
fn series(label: &str, minutes: &[(u64, f64)]) -> StoredSeries {
    let mut series = Series::new();
    for (start, sum) in minutes {
        let bucket = Bucket {
            start: *start,
            count: 1,
            sum: *sum,
            min: *sum,
            max: *sum,
        };
        series.restore(0, bucket).unwrap();
    }
    series.mark_all();
    StoredSeries {
        label: label.into(),
        series,
    }
}

fn host(name: &str, series: Vec<StoredSeries>) -> StoredHost {
    let producer = StoredProducer {
        producer: "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b".parse().unwrap(),
        ranges: vec![(1, 7), (9, (1 << 53) - 1)],
        dropped: vec![(8, 8, "too old".into())],
        duplicate: 3,
        repaired: 2,
        last_taken: 5,
    };
    StoredHost {
        name: name.into(),
        last_epoch: 5,
        certificate_end: 9,
        removed: RemovedSamples { samples: 3, at: 8 },
        series,
        is_whole: false,
        producers: vec![producer],
        documents: vec![document(DocumentKind::Facts, name.as_bytes())],
    }
}

fn document(kind: DocumentKind, body: &[u8]) -> StoredDocument {
    StoredDocument {
        kind,
        body: body.into(),
    }
}

fn sorted(mut host: StoredHost) -> StoredHost {
    host.series
        .sort_by(|one, other| one.label.cmp(&other.label));
    host
}

/// The host as it is loaded: nothing of it has changed.
fn loaded(host: &StoredHost) -> StoredHost {
    let mut host = host.clone();
    for stored in &mut host.series {
        stored.series.clear_dirty();
    }
    host
}

/// The cursors that are not at the start, and all hosts.
fn load<S: Store>(store: &mut S) -> (Vec<(Shard, Position)>, Vec<StoredHost>) {
    let (_, states) = load_all(store);
    let cursors = states.iter().map(|state| (state.shard, state.cursor));
    let cursors = cursors.filter(|(_, cursor)| *cursor != Position::START);
    let cursors = cursors.collect();
    let hosts = states.into_iter().flat_map(|state| state.hosts);
    (cursors, hosts.map(sorted).collect())
}

/// The position of the group that is called so.
fn position_of<S: Store>(store: &mut S, shard: Shard, name: &[u8]) -> Position {
    let groups = journal(store, shard, Position::START);
    let found = groups.iter().find(|(_, group)| group == name);
    found.unwrap().0
}

fn state_and_cursor_change_together<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    assert_eq!(load(&mut store), (vec![], vec![]));
    // A sum of -0.0 is the one that a number column would lose.
    let web247 = host(
        "web247",
        vec![
            series("cpu", &[(60, -0.0)]),
            series("disk:/", &[(60, 1e290)]),
        ],
    );
    let cursor = position_of(&mut store, SHARD, b"one");
    let changes = ShardChanges {
        cursor,
        hosts: vec![web247.clone()],
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &changes);
    drop(store);
    let mut store = open();
    let (cursors, hosts) = load(&mut store);
    assert_eq!(cursors, [(SHARD, cursor)]);
    assert_eq!(hosts, [loaded(&web247)]);
    let (_, first, _) = hosts[0].series[0].series.intervals().next().unwrap();
    assert!(first.sum.is_sign_negative());
    let left = journal(&mut store, SHARD, cursor);
    assert_eq!(left.len(), 1, "what the cursor has not passed stays");
}

fn rings_replace_and_ends_remove<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    let changed = StoredHost {
        producers: vec![],
        ..host("web247", vec![series("cpu", &[(120, 3.0), (3840, 2.0)])])
    };
    let ended_series = vec![("web247".to_owned(), "disk:/".into())];
    let changes = ShardChanges {
        hosts: vec![changed.clone()],
        ended_series,
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &changes);
    drop(store);
    let mut store = open();
    assert_eq!(load(&mut store).1, [loaded(&changed)]);
    let ended_hosts = vec!["web247".to_owned(), "never-seen".to_owned()];
    let changes = ShardChanges {
        ended_hosts,
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &changes);
    drop(store);
    assert!(load(&mut open()).1.is_empty());
}

fn a_whole_host_replaces_what_was_there<S: Store>(open: &mut dyn FnMut() -> S) {
    let commit_host = |store: &mut S, host: &StoredHost| {
        let hosts = vec![host.clone()];
        let changes = ShardChanges {
            hosts,
            ..ShardChanges::default()
        };
        commit(store, SHARD, &changes);
    };
    let mut store = open();
    let first = vec![series("cpu", &[(3840, 2.0)]), series("mem", &[(120, 3.0)])];
    commit_host(&mut store, &host("web247", first));
    let left = StoredHost {
        is_whole: true,
        ..host("web247", vec![series("cpu", &[(60, 1.0)])])
    };
    commit_host(&mut store, &left);
    drop(store);
    let mut store = open();
    let expected = StoredHost {
        is_whole: false,
        ..left
    };
    assert_eq!(load(&mut store).1, [loaded(&expected)]);
    let ended_hosts = vec!["web247".to_owned()];
    let ends = ShardChanges {
        ended_hosts,
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &ends);
}

fn the_last_point_is_kept<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    let mut counter = Series::new();
    let mut next = |millis, value| {
        let kind = PointKind::Counter;
        let point = Point {
            millis,
            value,
            kind,
        };
        counter.apply_point(point, &mut |_| ());
        let stored = StoredSeries {
            label: "requests_total{code=\"200\"}".into(),
            series: counter.clone(),
        };
        counter.clear_dirty();
        stored
    };
    // One that has only begun, the same with a rate, and all of it again.
    for (whole, series) in [
        (false, next(NOW * 1_000, -0.0)),
        (false, next(NOW * 1_000 + 15_123, 1e290)),
        (true, next(NOW * 1_000 + 30_123, 7.0)),
    ] {
        let changed = StoredHost {
            is_whole: whole,
            ..host("web247", vec![series])
        };
        let changes = ShardChanges {
            hosts: vec![changed.clone()],
            ..ShardChanges::default()
        };
        commit(&mut store, SHARD, &changes);
        drop(store);
        store = open();
        let expected = StoredHost {
            is_whole: false,
            ..loaded(&changed)
        };
        assert_eq!(load(&mut store).1, [expected]);
    }
    let ends = ShardChanges {
        ended_hosts: vec!["web247".to_owned()],
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &ends);
}

fn the_clock_is_kept<S: Store>(open: &mut dyn FnMut() -> S) {
    let clock_of = |store: &mut S| store.load(&[SHARD], NOW).unwrap()[0].clock;
    let mut store = open();
    assert_eq!(clock_of(&mut store), None);
    let clock = StoredClock {
        boot: [7; 16],
        offset: -5,
        since: 1,
        floor: 1_465_001_814,
        floor_at: 3,
    };
    for clock in [Some(clock), None] {
        let changes = ShardChanges {
            clock,
            ..ShardChanges::default()
        };
        commit(&mut store, SHARD, &changes);
    }
    drop(store);
    assert_eq!(clock_of(&mut open()), Some(clock));
}

/// Commits documents of web247 and of its shard, and gives those that are stored then.
fn commit_documents<S: Store>(
    open: &mut dyn FnMut() -> S,
    of_host: &[StoredDocument],
    of_shard: &[StoredDocument],
) -> (Vec<StoredDocument>, Vec<StoredDocument>) {
    let web247 = StoredHost {
        documents: of_host.to_vec(),
        ..host("web247", vec![])
    };
    let changes = ShardChanges {
        hosts: vec![web247],
        documents: of_shard.to_vec(),
        ..ShardChanges::default()
    };
    commit(&mut open(), SHARD, &changes);
    let (_, states) = load_all(&mut open());
    let of_shard = states[SHARD.index()].documents.clone();
    let others = states.iter().filter(|state| state.shard != SHARD);
    assert_eq!(others.map(|state| state.documents.len()).sum::<usize>(), 0);
    let hosts = states.into_iter().flat_map(|state| state.hosts);
    (hosts.flat_map(|host| host.documents).collect(), of_shard)
}

fn documents_are_replaced_and_removed<S: Store>(open: &mut dyn FnMut() -> S) {
    use DocumentKind::{Alarms, Facts, Silence};
    let facts = document(Facts, "{\"os\":\"🦎\"}".as_bytes());
    let both = [facts, document(Silence, b"2h")];
    let alarms = [document(Alarms, &[0, 255, b'/', b'\n'])];
    let expected = (both.to_vec(), alarms.to_vec());
    assert_eq!(commit_documents(open, &both, &alarms), expected);
    assert_eq!(commit_documents(open, &[], &[]), expected, "they stay");
    let other = document(Silence, b"4h");
    let changed = [document(Facts, b""), other.clone()];
    let left = commit_documents(open, &changed, &[document(Alarms, b"")]);
    assert_eq!(left, (vec![other], vec![]));
    let ends = ShardChanges {
        ended_hosts: vec!["web247".to_owned()],
        ..ShardChanges::default()
    };
    commit(&mut open(), SHARD, &ends);
    let again = commit_documents(open, &[], &[]);
    assert_eq!(again, (vec![], vec![]), "they end with their host");
    commit(&mut open(), SHARD, &ends);
}

/// Drops what is left in the journal of this shard.
fn empty<S: Store>(store: &mut S, shard: Shard) -> Position {
    let groups = journal(store, shard, Position::START);
    let cursor = groups.last().map_or(Position::START, |(last, _)| *last);
    let changes = ShardChanges {
        cursor,
        ..ShardChanges::default()
    };
    commit(store, shard, &changes);
    cursor
}

fn the_journal_is_pruned_behind_the_cursor<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    load_all(&mut store);
    let last = empty(&mut store, SHARD);
    assert!(journal(&mut store, SHARD, last).is_empty());
    assert!(journal(&mut store, SHARD, Position::START).is_empty());
    drop(store);
    let mut store = open();
    let next = append(&mut store, SHARD, b"three").unwrap();
    assert!(next > last, "positions are never used twice");
    load_all(&mut store);
    empty(&mut store, SHARD);
}

fn shards_are_independent<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    load_all(&mut store);
    let groups: [(Shard, &[u8]); 2] = [(OTHER, b"other"), (SHARD, b"own")];
    let appended = store.append(&groups);
    let own_first = *appended[1].as_ref().unwrap();
    let own_last = append(&mut store, SHARD, b"last").unwrap();
    let cursor = ShardChanges {
        cursor: own_last,
        hosts: vec![host("web247", vec![])],
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &cursor);
    drop(store);
    let mut store = open();
    let states = store.load(&[OTHER, SHARD], NOW).unwrap();
    let shards: Vec<_> = states.iter().map(|state| state.shard).collect();
    assert_eq!(shards, [OTHER, SHARD]);
    assert_eq!((states[0].hosts.len(), states[1].hosts.len()), (0, 1));
    assert_eq!(states[1].cursor, own_last);
    let mut read = Vec::new();
    let after = [(OTHER, states[0].cursor), (SHARD, own_first)];
    store
        .read_after(&after, &mut |shard, _, group| {
            read.push((shard, group.to_vec()));
        })
        .complete()
        .unwrap();
    // The second is behind its shard's cursor: a store may have dropped it, or not yet.
    read.retain(|(_, group)| group != b"last");
    assert_eq!(read, [(OTHER, b"other".to_vec())]);
    let last = empty(&mut store, OTHER);
    assert!(journal(&mut store, OTHER, last).is_empty());
    let ends = ShardChanges {
        cursor: own_last,
        ended_hosts: vec!["web247".to_owned()],
        ..ShardChanges::default()
    };
    commit(&mut store, SHARD, &ends);
}

fn an_old_fence_changes_nothing<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    let old = fence(&mut store, SHARD);
    let new = fence(&mut store, SHARD);
    assert!(old.epoch() < new.epoch());
    let changes = ShardChanges {
        hosts: vec![host("web247", vec![])],
        ..ShardChanges::default()
    };
    let refused = |result: Result<(), StoreError>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Fenced);
    };
    refused(store.commit(old, &changes));
    assert!(store.load(&[SHARD], NOW).unwrap()[0].hosts.is_empty());
    commit(&mut store, OTHER, &ShardChanges::default());
    let cursor = store.load(&[SHARD], NOW).unwrap()[0].cursor;
    let unchanged = ShardChanges {
        cursor,
        ..ShardChanges::default()
    };
    store.commit(new, &unchanged).unwrap();
    drop(store);
    // Another process takes over.
    let mut store = open();
    let newest = fence(&mut store, SHARD);
    assert!(new.epoch() < newest.epoch());
    refused(store.commit(new, &changes));
    assert!(store.load(&[SHARD], NOW).unwrap()[0].hosts.is_empty());
}

fn a_new_one_takes_its_place<S: Store>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    store.probe().unwrap();
    store.check().unwrap();
    let (fences, mut states) = load_all(&mut store);
    append(&mut store, OTHER, b"damaged").unwrap();
    for state in &mut states {
        state.cursor = Position::new(1_000);
        state.clock = None;
        if state.shard == SHARD {
            state.hosts = vec![loaded(&host("web247", vec![series("cpu", &[(60, 1.5)])]))];
        }
    }
    store
        .rebuild(&fences, states.clone(), "a test", NOW)
        .unwrap();
    let has_it = |mut store: S| {
        assert_eq!(load_all(&mut store).1, states);
        assert!(journal(&mut store, OTHER, Position::START).is_empty());
    };
    has_it(store);
    has_it(open());
    let next = append(&mut open(), OTHER, b"next").unwrap();
    assert!(next > Position::new(1_000), "behind every cursor");
}
