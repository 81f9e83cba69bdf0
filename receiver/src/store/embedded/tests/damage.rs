//! The disk flips bits, loses pages, cuts files off: the start goes on with all that can be read,
//! says what is lost, and no number is ever another than it was.

use std::collections::BTreeMap;
use std::fs;

use lizmon_summary::{Bucket, Series};

use super::*;
use crate::clock::StoredClock;
use crate::store::{
    DocumentKind, RemovedSamples, StoredDocument, StoredHost, StoredProducer, StoredSeries,
};

const HOSTS: usize = 12;
const LABELS: [&str; 3] = ["cpu", "mem", "disk:/"];
const CLOCK: StoredClock = StoredClock {
    boot: [3; 16],
    offset: -1_000,
    since: 7,
    floor: NOW - 5,
    floor_at: 1_002,
};
const SHARD_DOCUMENT: &[u8] = b"{\"blind\":1}";
const FILES: [&str; 2] = ["lizmon.db", "lizmon.db-wal"];

fn host(at: usize) -> StoredHost {
    let start = NOW - NOW % 3_600;
    let series = LABELS.into_iter().map(|label| {
        let mut series = Series::new();
        for nth in 0..24_u64 {
            let (tier, begin) = match nth {
                0..16 => (0, start - (16 - nth) * 60),
                _ => (1, start - (24 - nth) * 3_600),
            };
            let value = at as f64 + nth as f64 / 7.0;
            let bucket = Bucket {
                start: begin,
                count: 2,
                sum: 2.0 * value,
                min: value - 1.0,
                max: value + 1.0,
            };
            series.restore(tier, bucket).unwrap();
        }
        StoredSeries {
            label: label.into(),
            series,
        }
    });
    StoredHost {
        name: format!("web{at}"),
        last_epoch: NOW - at as u64,
        certificate_end: NOW + 1_000,
        removed: RemovedSamples {
            samples: at as u64 + 1,
            at: NOW,
        },
        is_whole: false,
        series: series.collect(),
        producers: vec![StoredProducer {
            producer: lizmon_protocol::sample::ProducerId::from_bytes([at as u8 + 1; 16]),
            ranges: vec![(1, 500), (502, 900 + at as u64)],
            dropped: vec![(501, 501, "too old".into())],
            duplicate: at as u64,
            repaired: at as u64 / 2,
            last_taken: NOW,
        }],
        documents: vec![StoredDocument {
            kind: DocumentKind::Facts,
            body: format!("{{\"cores\":{at}}}").into_bytes().into(),
        }],
    }
}

type Journal = BTreeMap<(Shard, Position), Vec<u8>>;

/// A store of some forty pages, half of them in the WAL; its files as a crash leaves them.
struct Original {
    files: Vec<(&'static str, Vec<u8>)>,
    states: Vec<ShardState>,
    groups: Journal,
}

fn original() -> Original {
    let folder = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let mut groups = Journal::new();
    for at in 0..HOSTS {
        let shard = SHARDS.shard_of(&format!("web{at}"));
        let changes = ShardChanges {
            hosts: vec![host(at)],
            clock: Some(CLOCK),
            documents: vec![StoredDocument {
                kind: DocumentKind::Alarms,
                body: SHARD_DOCUMENT.into(),
            }],
            ..ShardChanges::default()
        };
        let fence = fence(&mut store, shard);
        store.commit(fence, &changes).unwrap();
        if at == HOSTS / 2 {
            store
                .connection
                .pragma(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))
                .unwrap();
        }
        let group = vec![at as u8; 200 * at];
        let position = append(&mut store, shard, &group).unwrap();
        groups.insert((shard, position), group);
    }
    let (_, states) = load_all(&mut store);
    assert_eq!(store.damage(), []);
    let files = FILES.map(|name| (name, fs::read(folder.path().join(name)).unwrap()));
    let marker = (
        files::MARKER,
        fs::read(folder.path().join(files::MARKER)).unwrap(),
    );
    Original {
        files: files.into_iter().chain([marker]).collect(),
        states,
        groups,
    }
}

type Places = BTreeMap<Box<str>, Series>;

fn places(host: &StoredHost) -> Places {
    let series = host.series.iter();
    series
        .map(|stored| (stored.label.clone(), stored.series.clone()))
        .collect()
}

impl Original {
    fn write(&self, folder: &Path) {
        for (name, bytes) in &self.files {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    /// Opens what `damage` has left of the files, and compares.
    fn check(&self, story: &str, damage: impl FnOnce(&Path)) -> Vec<Damage> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        damage(folder.path());
        let mut store = EmbeddedStore::open(folder.path(), NOW)
            .unwrap_or_else(|error| panic!("{story}: {}", error.in_full()));
        let shards: Vec<_> = SHARDS.all().collect();
        store.acquire(&shards).unwrap();
        let states = store
            .load(&shards, NOW)
            .unwrap_or_else(|error| panic!("{story}: {}", error.in_full()));
        let told = store.damage().to_vec();
        self.compare(story, &states, &told);
        let mut groups = Journal::new();
        let all: Vec<_> = SHARDS.all().map(|shard| (shard, Position::START)).collect();
        store
            .read_after(&all, &mut |shard, position, group| {
                groups.insert((shard, position), group.to_vec());
            })
            .complete()
            .unwrap();
        for (position, group) in &self.groups {
            match groups.get(position) {
                Some(found) => assert_eq!(found, group, "{story}: group {position:?}"),
                None => assert!(
                    told.iter().any(|told| told.what.contains("journal")),
                    "{story}: group {position:?}: {told:?}"
                ),
            }
        }
        assert!(
            groups
                .keys()
                .all(|position| self.groups.contains_key(position)),
            "{story}"
        );
        // It works, and the next start finds nothing new.
        store.check().unwrap();
        let next = append(&mut store, SHARD, b"next").unwrap();
        let last = groups.keys().map(|(_, position)| *position).max();
        assert!(next > last.unwrap_or_default(), "{story}");
        drop(store);
        let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
        assert_eq!(load_all(&mut store).1, states, "{story}");
        assert_eq!(store.damage(), told, "{story}");
        told
    }

    fn compare(&self, story: &str, states: &[ShardState], told: &[Damage]) {
        let of_store = told
            .iter()
            .any(|told| told.host.is_none() && told.what.contains("lost"));
        let tells =
            |host: &str| of_store || told.iter().any(|told| told.host.as_deref() == Some(host));
        let all: Vec<_> = states.iter().flat_map(|state| &state.hosts).collect();
        for original in self.states.iter().flat_map(|state| &state.hosts) {
            let name = original.name.as_str();
            let Some(host) = all.iter().find(|host| host.name == name) else {
                assert!(tells(name), "{story}: {name} is gone: {told:?}");
                continue;
            };
            let (before, after) = (places(original), places(host));
            for (place, kept) in &after {
                assert_eq!(before.get(place), Some(kept), "{story}: {name}");
            }
            let is_whole = before.len() == after.len()
                && host.producers == original.producers
                && host.removed == original.removed
                && host.documents == original.documents
                && host.last_epoch == original.last_epoch
                && host.certificate_end == original.certificate_end;
            assert!(is_whole || tells(name), "{story}: {name}: {told:?}");
            assert!(
                host.producers.is_empty() || host.producers == original.producers,
                "{story}: {name}"
            );
            assert!(
                host.removed == RemovedSamples::default() || host.removed == original.removed,
                "{story}: {name}"
            );
            assert!(
                host.documents.is_empty() || host.documents == original.documents,
                "{story}: {name}"
            );
        }
        for (original, state) in self.states.iter().zip(states) {
            let is_kept = original.documents == state.documents;
            let is_told = state.documents.is_empty() && of_store;
            assert!(is_kept || is_told, "{story}: {told:?}");
        }
        match states[0].clock {
            Some(clock) => assert_eq!(clock, CLOCK, "{story}"),
            None => assert!(of_store, "{story}: {told:?}"),
        }
        assert!(all.len() <= HOSTS, "{story}");
        assert_eq!(states.len(), SHARDS.get(), "{story}");
    }
}

/// How many hosts something of which is told to be lost.
fn hosts_named(told: &[Damage]) -> usize {
    let names: std::collections::BTreeSet<_> =
        told.iter().filter_map(|told| told.host.as_ref()).collect();
    names.len()
}

#[test]
fn every_page_in_turn() {
    let original = original();
    for (name, bytes) in &original.files[..2] {
        for at in (0..bytes.len()).step_by(4096) {
            let filled = if at % 8192 == 0 { 0_u8 } else { 0xa5 };
            let story = format!("{name} from {at} filled with {filled}");
            let told = original.check(&story, |folder| {
                let mut bytes = bytes.clone();
                let end = bytes.len().min(at + 4096);
                bytes[at..end].fill(filled);
                fs::write(folder.join(name), bytes).unwrap();
            });
            // A page holds the intervals of a few hosts.
            assert!(hosts_named(&told) <= 4, "{story}: {told:?}");
        }
    }
}

/// The first page holds the head and the list of tables, which are known. Nothing that is written
/// ahead has it here.
#[test]
fn the_first_page_alone_loses_nothing() {
    let original = original();
    for filled in [0, 0xa5] {
        let told = original.check(&format!("filled with {filled}"), |folder| {
            let file = folder.join(FILE);
            let database = rusqlite::Connection::open(&file).unwrap();
            let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
            database.query_row(checkpoint, [], |_| Ok(())).unwrap();
            drop(database);
            let mut bytes = fs::read(&file).unwrap();
            bytes[..4096].fill(filled);
            fs::write(&file, bytes).unwrap();
        });
        let whole = "nothing is lost";
        assert!(told[0].what.contains(whole), "{told:?}");
    }
}

#[test]
fn flipped_bits() {
    let original = original();
    let mut random = fastrand::Rng::with_seed(8);
    for (name, bytes) in &original.files[..2] {
        for _ in 0..80 {
            let (at, bit) = (random.usize(..bytes.len()), random.u8(..8));
            let story = format!("bit {bit} of byte {at} of {name}");
            original.check(&story, |folder| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                fs::write(folder.join(name), bytes).unwrap();
            });
        }
    }
    // The head, where each byte means something.
    for at in (0..100).step_by(3) {
        original.check(&format!("byte {at} of the head"), |folder| {
            let mut bytes = original.files[0].1.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(folder.join(FILE), bytes).unwrap();
        });
    }
}

#[test]
fn files_that_are_cut_off_emptied_or_gone() {
    let original = original();
    let db = &original.files[0].1;
    for left in [
        0,
        1,
        99,
        100,
        4095,
        4096,
        5000,
        8192,
        40_000,
        db.len() - 1,
        db.len() / 2,
    ] {
        let told = original.check(&format!("{left} bytes left"), |folder| {
            fs::write(folder.join(FILE), &db[..left.min(db.len())]).unwrap();
        });
        assert!(
            left > 0 || told[0].what.contains("is empty, and was not before"),
            "{told:?}"
        );
    }
    let told = original.check("gone", |folder| fs::remove_file(folder.join(FILE)).unwrap());
    assert!(
        told[0].what.contains("is missing, and was here before"),
        "{told:?}"
    );
    let told = original.check("all gone", |folder| {
        fs::remove_file(folder.join(FILE)).unwrap();
        fs::remove_file(folder.join("lizmon.db-wal")).unwrap();
    });
    assert!(
        told[0].what.contains("is missing, and was here before"),
        "{told:?}"
    );
    let told = original.check("something else", |folder| {
        fs::write(folder.join(FILE), "my shopping list ".repeat(1000)).unwrap();
    });
    assert!(!told.is_empty());
}

/// A value that fits its row as well, but was never written, is not believed; the rest of the store
/// stays as it was.
#[test]
fn what_was_never_written_is_known_by_its_checksum() {
    let original = original();
    let cases = [
        (
            "UPDATE removed SET samples = samples + 4 WHERE host = 3",
            "web2: the number of samples removed",
        ),
        (
            "UPDATE removed SET at = at + 4 WHERE host = 1",
            "web0: the number of samples removed",
        ),
        (
            "UPDATE removed SET sum = 'x' WHERE host = 1",
            "web0: the number of samples removed",
        ),
        (
            "UPDATE removed SET host = 99 WHERE host = 1",
            "of some unknown hosts",
        ),
        (
            "UPDATE document SET body = x'7b7d' WHERE host = 'web3'",
            "web3: what is known of the machine is lost",
        ),
        (
            "UPDATE document SET host = 'web99' WHERE host = 'web3'",
            "of a shard or an unknown host, what is known of the machine is lost",
        ),
        (
            "UPDATE document SET kind = 2 WHERE host = 'web3'",
            "web3: a silence is lost",
        ),
        (
            "UPDATE document SET shard = 99 WHERE host = '' AND shard = (SELECT min(shard) FROM document WHERE host = '')",
            "of a shard or an unknown host, the state of alarms is lost",
        ),
        (
            "UPDATE clock SET floor = floor + 86400",
            "the last known time is lost",
        ),
        (
            "UPDATE clock SET wall_offset = 0",
            "the last known time is lost",
        ),
        (
            "UPDATE clock SET boot = x'00'",
            "the last known time is lost",
        ),
    ];
    for (change, words) in cases {
        let told = original.check(change, |folder| {
            let database = Connection::open(folder.join(FILE)).unwrap();
            database.pragma_update(None, "foreign_keys", "OFF").unwrap();
            assert_eq!(database.execute(change, []).unwrap(), 1, "{change}");
        });
        let named = |told: &&Damage| told.to_string().starts_with(words);
        assert_eq!(told.iter().filter(named).count(), 1, "{change}: {told:?}");
        assert_eq!(told.len(), 2, "{change}: {told:?}");
    }
}

/// Something else is damaged.
#[test]
fn what_a_wrong_clock_did_is_carried_over() {
    let original = original();
    let change = "UPDATE series SET body = substr(body, 2) WHERE id = 1";
    let folder = tempfile::tempdir().unwrap();
    original.write(folder.path());
    let database = Connection::open(folder.path().join(FILE)).unwrap();
    assert_eq!(database.execute(change, []).unwrap(), 1);
    drop(database);
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let (_, states) = load_all(&mut store);
    assert_eq!(store.damage().len(), 2);
    assert_eq!(states[0].clock, Some(CLOCK));
    let of = |states: &[ShardState]| -> Vec<_> {
        states
            .iter()
            .flat_map(|state| state.hosts.clone())
            .collect()
    };
    for (found, before) in of(&states).iter().zip(&of(&original.states)) {
        assert_eq!(found.removed, before.removed, "{}", found.name);
    }
}

/// Nothing that is damaged is thrown away.
#[test]
fn what_is_damaged_is_set_aside_as_it_is() {
    let original = original();
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=4_usize {
        for name in FILES {
            let _gone = fs::remove_file(folder.path().join(name));
        }
        original.write(folder.path());
        let damaged = vec![round as u8; 9_000];
        fs::write(folder.path().join(FILE), &damaged).unwrap();
        let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
        load_all(&mut store);
        drop(store);
        for number in 1..=3_usize {
            let aside = fs::read(folder.path().join(format!("{FILE}.damaged-{number}")));
            let expected = (round + 1).checked_sub(number).filter(|round| *round > 0);
            assert_eq!(
                aside.ok().map(|bytes| bytes[0]),
                expected.map(|round| round as u8),
                "{round}"
            );
        }
    }
}

/// What the new store cannot do without: all tables are on the first page, where recovery.rs finds
/// them.
#[test]
fn the_list_of_tables_fits_on_the_first_page() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let roots = |connection: &Connection| -> Vec<(String, i64)> {
        let mut statement = connection
            .prepare("SELECT name, rootpage FROM sqlite_schema ORDER BY rowid")
            .unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    };
    let before = roots(&store.connection);
    let bytes: i64 = store.connection.query_row(
        "SELECT sum(length(name) + length(tbl_name) + coalesce(length(sql), 0) + 30) FROM sqlite_schema", [], |row| row.get(0),
    ).unwrap();
    assert!(bytes < 3_900, "{bytes}");
    // A copy that SQLite makes has them at the same places.
    let copy = folder.path().join("copy.db");
    store
        .connection
        .execute("VACUUM INTO ?1", [copy.to_string_lossy()])
        .unwrap();
    assert_eq!(roots(&Connection::open(&copy).unwrap()), before);
}
