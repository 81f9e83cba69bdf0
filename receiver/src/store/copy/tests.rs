//! Copies between folders, and to and from a real server.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lizmon_engines::{EngineCluster, EngineNode, EngineSettings};
use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Dropped, Epoch, SampleSet, Seq, Value};
use lizmon_summary::{Bucket, Series};

use super::*;
use crate::store::history::{EvictedHour, StoredChunk};
use crate::store::record::{Group, Submission};
use crate::store::redis::no_keys;
use crate::store::{ErrorKind, LockedFolder, Position, open};

const NOW: u64 = 1_465_001_814;
const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

/// Unlike all others, as a process has it.
#[expect(clippy::disallowed_methods, reason = "each copy is another process")]
fn new_id() -> Uuid {
    Uuid::new_v4()
}

/// A group of one host: numbered, with a hole that was dropped, and one sample without a number.
fn group(host: &str, first: u64) -> Vec<u8> {
    let name = host.parse().unwrap();
    let label = |text| Label::new(text).unwrap();
    let value = |number| Value::new(number).unwrap();
    let values = SampleSet::new(vec![
        (label("cpu"), value(0.1 + first as f64)),
        (label("zero"), value(-0.0)),
    ]);
    let epoch = |number| Epoch::new(NOW - 3_600 + 60 * number).unwrap();
    let records: Vec<_> = [first, first + 1, first + 3]
        .map(|number| (Seq::new(number), epoch(number), &values))
        .into();
    let dropped = Dropped {
        from: Seq::new(first + 2).unwrap(),
        to: Seq::new(first + 2).unwrap(),
        why: label("too old"),
    };
    let numbered = Submission::new(&name, NOW * 2, Some(PRODUCER.parse().unwrap()), NOW)
        .with_records_and_dropped(records.into_iter(), &[dropped]);
    let unnumbered = Submission::new(&name, NOW * 2, None, NOW)
        .with_records([(None, epoch(first), &values)].into_iter());
    let mut group = Group::default();
    group.push(&numbered);
    group.push(&unnumbered);
    group.seal().to_vec()
}

fn append(store: &mut dyn Store, hosts: &[&str], first: u64) {
    for host in hosts {
        let shard = store.shard_count().shard_of(host);
        let group = group(host, first);
        store.append(&[(shard, &group)]).remove(0).unwrap();
    }
}

/// Tries until no other test keeps a folder locked: between fork and exec a server that it starts
/// has copies of all open files.
fn until_free<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_in_use: impl Fn(&E) -> bool,
) -> Result<T, E> {
    loop {
        match attempt() {
            Err(error) if is_in_use(&error) => std::thread::yield_now(),
            done => return done,
        }
    }
}

fn lock(folder: &Path) -> LockedFolder {
    let is_in_use = |error: &StoreError| error.kind() == ErrorKind::InUse;
    until_free(|| LockedFolder::lock(folder), is_in_use).unwrap()
}

fn is_in_use(error: &CopyError) -> bool {
    matches!(error, CopyError::Store(error) if error.kind() == ErrorKind::InUse)
}

/// A folder with committed state, and a journal after it.
fn filled(folder: &Path, hosts: &[&str]) -> StorePlace {
    let mut store = open(lock(folder), NOW).unwrap();
    append(&mut *store, hosts, 1);
    let mut summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    while summarizer
        .commit_oldest(&mut *store, u64::MAX, None, 1)
        .unwrap()
        > 0
    {}
    append(&mut *store, &hosts[1..], 11);
    StorePlace::Folder(folder.to_owned())
}

fn evicted(host: &str, start: u64) -> EvictedHour {
    EvictedHour {
        host: host.into(),
        label: "disk:/".into(),
        bucket: Bucket {
            start,
            count: 7,
            sum: -0.0,
            min: -0.0,
            max: 0.0,
        },
    }
}

/// Adds hours of two hosts, of which one has no state, to the history of a folder.
fn add_history(folder: &Path) {
    let mut store = open(lock(folder), NOW).unwrap();
    let count = store.shard_count();
    let shards: Vec<_> = count.all().collect();
    let fences = store.acquire(&shards).unwrap();
    store.load(&shards, NOW).unwrap();
    let today = NOW - NOW % 86_400;
    for host in ["web1", "gone"] {
        let fence = fences[count.shard_of(host).index()];
        let evicted = (1..40).map(|day| evicted(host, today - day * 86_400));
        let changes = ShardChanges {
            evicted: evicted.collect(),
            ..ShardChanges::default()
        };
        store.commit(fence, &changes).unwrap();
    }
}

/// Every chunk of the history.
fn all_history(place: &StorePlace) -> Vec<StoredChunk> {
    let open = || Source::open(place, new_id(), NOW, &mut |_, _, _| ());
    let mut source = until_free(open, is_in_use).unwrap();
    let shards: Vec<_> = source.store.shard_count().all().collect();
    let mut chunks = Vec::new();
    let each = &mut |chunk| {
        chunks.push(chunk);
        Ok(())
    };
    source.store.all_chunks(&shards, each).unwrap();
    chunks.sort();
    chunks
}

fn all_hosts(place: &StorePlace) -> Vec<StoredHost> {
    let open = || Source::open(place, new_id(), NOW, &mut |_, _, _| ());
    let source = until_free(open, is_in_use).unwrap();
    let count = source.store.shard_count();
    let hosts = count.all();
    let hosts = hosts.flat_map(|shard| source.summaries.hosts_of(count, shard));
    let mut hosts = in_order(hosts.collect());
    // What was counted of a journal has changed; a copy has all of it committed.
    for stored in hosts.iter_mut().flat_map(|host| &mut host.series) {
        stored.series.clear_dirty();
    }
    hosts
}

fn run(from: &StorePlace, to: &StorePlace) -> Result<CopyTotals, CopyError> {
    run_with(from, to, &mut |_, _, _| ())
}

fn run_with(
    from: &StorePlace,
    to: &StorePlace,
    progress: &mut dyn FnMut(CopyStep, usize, usize),
) -> Result<CopyTotals, CopyError> {
    until_free(|| copy(from, to, new_id(), NOW, progress), is_in_use)
}

fn servers(node: &EngineNode) -> StorePlace {
    let url = node.url().parse().unwrap();
    StorePlace::Servers(Box::new(RedisConfig::new(url)))
}

#[track_caller]
fn refused(copied: Result<CopyTotals, CopyError>, words: &str) {
    let error = copied.unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
}

const HOSTS: [&str; 3] = ["web1", "web2", "db1"];

#[test]
fn what_is_copied_there_and_back_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = filled(&at("first"), &HOSTS);
    add_history(&at("first"));
    let server = EngineNode::start(&EngineSettings::redis());
    let shared = servers(&server);
    let mut steps = Vec::new();
    let mut note = |step, done, all| steps.push((step, done, all));
    let totals = run_with(&first, &shared, &mut note).unwrap();
    assert_eq!((totals.hosts, totals.series, totals.producers), (3, 6, 3));
    assert_eq!(totals.groups, 2, "those that were not committed");
    assert!(totals.damage.is_empty(), "{totals:?}");
    let all = |step, shards| steps.contains(&(step, shards, shards));
    assert!(all(CopyStep::Read, 1_024), "{steps:?}");
    assert!(
        all(CopyStep::Write, 64) && all(CopyStep::Verify, 64),
        "{steps:?}"
    );
    assert_eq!(totals.history, 2 * 2 * 39, "hours and days");
    let history = all_history(&first);
    assert_eq!(history.len(), 2 * (39 + 2));
    assert_eq!(history, all_history(&shared));
    let hosts = all_hosts(&first);
    assert_eq!(hosts, all_hosts(&shared));
    let web2 = hosts.iter().find(|host| host.name == "web2").unwrap();
    let StoredProducer {
        ranges, dropped, ..
    } = &web2.producers[0];
    assert_eq!(ranges[..], [(1, 2), (4, 4), (11, 12), (14, 14)]);
    assert_eq!(dropped.len(), 2);
    let back = StorePlace::Folder(at("back"));
    let again = run(&shared, &back).unwrap();
    assert_eq!(
        again,
        CopyTotals {
            groups: 0,
            ..totals
        }
    );
    assert_eq!(hosts, all_hosts(&back));
    assert_eq!(history, all_history(&back));
    // What is in the journal of a shared store only a summarizer may count.
    server.cli(&["XADD", "lizmon:{0}:journal", "0-*", "g", "x"]);
    let late = StorePlace::Folder(at("late"));
    refused(run(&shared, &late), "not committed yet, 1 of them");
    // A receiver takes it up where it is: its journal is empty, and begins at the start.
    let mut store = open(lock(&at("back")), NOW).unwrap();
    append(&mut *store, &["web1"], 1);
    let summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    assert_eq!(summarizer.appends(), 1, "what is appended now is counted");
    let shard = store.shard_count().shard_of("web1");
    assert!(store.load(&[shard], NOW).unwrap()[0].cursor == Position::START);
}

/// An hour left its ring when the last samples came, and the commit that would have added it to the
/// history did not.
#[test]
fn what_left_its_ring_in_the_journal_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = filled(&at("first"), &HOSTS);
    let mut store = open(lock(&at("first")), NOW).unwrap();
    let host = "web1".parse().unwrap();
    let values = SampleSet::new(vec![(Label::new("cpu").unwrap(), Value::new(1.0).unwrap())]);
    let later = Epoch::new(NOW + 27 * 3_600).unwrap();
    let submission = Submission::new(&host, NOW * 2, None, NOW)
        .with_records([(None, later, &values)].into_iter());
    let mut group = Group::default();
    group.push(&submission);
    let shard = store.shard_count().shard_of("web1");
    store.append(&[(shard, group.seal())]).remove(0).unwrap();
    drop(store);
    assert_eq!(all_history(&first), []);
    let second = StorePlace::Folder(at("second"));
    run(&first, &second).unwrap();
    let copied = all_history(&second);
    let tiers: BTreeSet<_> = copied.iter().map(|chunk| chunk.tier.as_str()).collect();
    assert_eq!(tiers, BTreeSet::from(["by-hour", "by-day"]));
    assert!(copied.iter().all(|chunk| *chunk.label == *"cpu"));
}

#[test]
fn nothing_is_copied_over_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (first, second) = (filled(&at("first"), &HOSTS), filled(&at("second"), &HOSTS));
    refused(run(&first, &second), "holds a store already");
    refused(run(&first, &first), "both source and target");
    let missing = StorePlace::Folder(at("missing"));
    refused(run(&missing, &second), "there is no store in this folder");
    assert!(!at("missing").exists());
    let server = EngineNode::start(&EngineSettings::redis());
    let shared = servers(&server);
    refused(run(&shared, &missing), "there is no lizmon store");
    run(&first, &shared).unwrap();
    refused(run(&second, &shared), "holds a store already");
    // What is left of one is one.
    server.cli(&["DEL", "lizmon:{store}"]);
    refused(
        run(&second, &shared),
        "is left of a store whose own key is gone",
    );
    let _used = lock(&at("first"));
    let copied = copy(&first, &missing, new_id(), NOW, &mut |_, _, _| ());
    refused(copied, "using this folder");
}

/// Whoever opens the target meanwhile, or after an interruption, is refused by name.
#[test]
fn an_interrupted_copy_is_refused_and_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = filled(&at("first"), &HOSTS);
    let other = filled(&at("other"), &["web1", "cache1", "db1"]);
    let server = EngineNode::start(&EngineSettings::redis());
    for to in [servers(&server), StorePlace::Folder(at("copy"))] {
        let open = || -> StoreError {
            match &to {
                StorePlace::Folder(folder) => open(lock(folder), NOW).map(drop).unwrap_err(),
                StorePlace::Servers(servers) => {
                    RedisStore::open((**servers).clone(), new_id(), no_keys())
                        .map(drop)
                        .unwrap_err()
                }
            }
        };
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            run_with(&other, &to, &mut |step, done, all| {
                assert!(step != CopyStep::Verify || done < all, "interrupted");
            })
        }));
        interrupted.unwrap_err();
        let error = open();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let why = error.to_string();
        assert!(why.contains("a copy into it was interrupted"), "{why}");
        let totals = run(&first, &to).unwrap();
        assert_eq!(totals.hosts, 3);
        assert_eq!(
            all_hosts(&first),
            all_hosts(&to),
            "nothing is left of the other"
        );
    }
}

#[test]
fn every_difference_is_found() {
    let minute = |start: u64, min: f64| {
        let bucket = Bucket {
            start,
            count: 2,
            sum: 1.0,
            min,
            max: 1.0,
        };
        let mut series = Series::new();
        series.restore(0, bucket).unwrap();
        StoredSeries {
            label: "cpu".into(),
            series,
        }
    };
    let producer = StoredProducer {
        producer: PRODUCER.parse().unwrap(),
        ranges: vec![(1, 7)],
        dropped: vec![(8, 8, "too old".into())],
        duplicate: 3,
        repaired: 2,
        last_taken: 5,
    };
    let host = StoredHost {
        name: "web1".to_owned(),
        last_epoch: 5,
        series: vec![minute(60, 0.0)],
        producers: vec![producer.clone()],
        ..StoredHost::default()
    };
    let check = |target: Vec<StoredHost>, expected: Option<&str>| {
        let compared = compare(vec![host.clone()], target.clone());
        match (compared, expected) {
            (Ok(()), None) => (),
            (Err(CopyError::Differs { what, .. }), Some(expected)) => assert_eq!(what, expected),
            (compared, _) => panic!("{compared:?}: {target:?}"),
        }
    };
    let with = |edit: fn(&mut StoredHost)| {
        let mut host = host.clone();
        edit(&mut host);
        vec![host]
    };
    check(vec![host.clone()], None);
    check(Vec::new(), Some("the existence"));
    check(
        vec![host.clone(), StoredHost::default()],
        Some("the existence"),
    );
    check(with(|host| host.name.push('x')), Some("the existence"));
    check(with(|host| host.last_epoch += 1), Some("the properties"));
    check(
        with(|host| host.removed.samples += 1),
        Some("the properties"),
    );
    check(
        with(|host| host.producers[0].ranges[0].1 += 1),
        Some("the delivery sets"),
    );
    check(
        with(|host| host.producers[0].dropped.clear()),
        Some("the delivery sets"),
    );
    let series = |series: Vec<StoredSeries>| StoredHost {
        series,
        ..host.clone()
    };
    let other = StoredSeries {
        label: "mem".into(),
        ..minute(60, 0.0)
    };
    for differs in [
        vec![],
        vec![other],
        vec![minute(120, 0.0)],
        vec![minute(60, -0.0)],
    ] {
        check(vec![series(differs)], Some("the intervals"));
    }
}

#[test]
fn a_cluster_gets_each_shard_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let first = filled(&folder.path().join("first"), &HOSTS);
    let cluster = EngineCluster::start(&EngineSettings::valkey(), 3, 1);
    let shared = servers(&cluster.nodes()[0]);
    assert_eq!(run(&first, &shared).unwrap().hosts, 3);
    assert_eq!(all_hosts(&first), all_hosts(&servers(&cluster.nodes()[1])));
    refused(run(&first, &shared), "holds a store already");
}
