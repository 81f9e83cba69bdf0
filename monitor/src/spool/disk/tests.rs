mod foreign;
mod kept;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::sync::LazyLock;

use lizmon_protocol::sample::{EncodedSamples, Epoch, parse_sample_set};
use tempfile::TempDir;

use super::checkpoints::LOCK;
use super::*;
use crate::spool::limits::FAILED_RETRY_SECS;
use crate::spool::{DISK_BYTES_MAX, Event, Spool, SpoolLimits, StoredBatch, drop_reason};

const DATABASE: &str = "spool.db";
const LOG: &str = "spool.db-wal";
const RECORDS: u64 = 400;

fn open(folder: &Path, first_producer: u8) -> Spool<DiskBackend> {
    let mut last = first_producer;
    let new_producer = move || {
        last += 1;
        ProducerId::from_bytes([last; 16])
    };
    let disk = DiskBackend::open(folder).unwrap();
    let urls = vec!["https://a:1/api/perf".to_owned()];
    Spool::open(disk, urls, SpoolLimits::new(DISK_BYTES_MAX), new_producer)
}

fn push(spool: &mut Spool<DiskBackend>, epochs: impl IntoIterator<Item = u64>) {
    for epoch in epochs {
        let values = format!(r#"{{"cpu":{epoch},"mem":61.25}}"#);
        let values = parse_sample_set(values.as_bytes()).unwrap();
        let values = EncodedSamples::encode(&values).unwrap();
        let at = Epoch::new(epoch).unwrap();
        spool.push(at, values, epoch).unwrap();
    }
}

/// Everything that a destination gets: producers, numbers and epochs, and how many were reported as
/// lost.
fn drain(spool: &mut Spool<DiskBackend>) -> (Vec<(ProducerId, u64, u64)>, u64) {
    let (mut records, mut lost) = (Vec::new(), 0);
    while let Some(batch) = spool.next_batch(0, 0, 100) {
        take(&batch, &mut records, &mut lost);
        spool.ack(0, &batch);
    }
    (records, lost)
}

fn take(batch: &StoredBatch, records: &mut Vec<(ProducerId, u64, u64)>, lost: &mut u64) {
    for record in &batch.records {
        let values = parse_sample_set(record.values.as_str().as_bytes()).unwrap();
        let value = values.iter().next().unwrap().1.get();
        assert_eq!(value, record.epoch.secs() as f64);
        records.push((batch.producer, record.seq.get(), record.epoch.secs()));
    }
    for dropped in &batch.dropped {
        assert_eq!(dropped.why.as_str(), drop_reason::DAMAGED);
        *lost += dropped.to.get() - dropped.from.get() + 1;
    }
}

/// A copy of a spool's folder while the process runs: what kill -9 leaves.
fn copy(folder: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn a_killed_process_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let mut spool = open(folder.path(), 0);
    push(&mut spool, 1..=RECORDS);
    let first = spool.next_batch(0, 0, 100).unwrap();
    spool.ack(0, &first);
    push(&mut spool, [RECORDS + 1]);
    let killed = copy(folder.path());
    let mut again = open(killed.path(), 50);
    assert_eq!(again.producer(), spool.producer());
    assert_eq!(again.take_events(), []);
    assert_eq!(again.stored_bytes(), spool.stored_bytes());
    let (records, lost) = drain(&mut again);
    let expected = (101..=RECORDS + 1).map(|seq| (spool.producer().unwrap(), seq, seq));
    assert_eq!((records, lost), (expected.collect(), 0));
    push(&mut again, [1000]);
    assert_eq!(
        again.next_batch(0, 1, 0).unwrap().records[0].seq.get(),
        RECORDS + 2
    );
}

#[test]
fn a_restart_changes_nothing() {
    let folder = TempDir::new().unwrap();
    for run in 0..5 {
        let mut spool = open(folder.path(), 10 * run);
        assert_eq!(spool.producer(), Some(ProducerId::from_bytes([1; 16])));
        push(&mut spool, [u64::from(run) + 1]);
        spool.save().unwrap();
    }
    let (records, lost) = drain(&mut open(folder.path(), 90));
    let numbers: Vec<u64> = records.iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!((numbers, lost), (vec![1, 2, 3, 4, 5], 0));
}

/// SQLite undoes the statement that fails, and not those before it.
#[test]
fn a_commit_that_fails_midway_is_undone() {
    let folder = TempDir::new().unwrap();
    let mut spool = open(folder.path(), 0);
    let execute = |spool: &Spool<DiskBackend>, sql: &str| {
        let opened = spool.backend().opened.as_ref().unwrap();
        opened.database.execute_batch(sql).unwrap();
    };
    push(&mut spool, 1..=3);
    let refusal = "CREATE TEMP TRIGGER refusal BEFORE INSERT ON record WHEN new.seq = 4
        BEGIN SELECT RAISE(FAIL, 'refused'); END";
    execute(&spool, refusal);
    push(&mut spool, [4]);
    let failed = spool.take_events();
    assert!(
        matches!(&failed[..], [Event::BackendFailed(_)]),
        "{failed:?}"
    );
    execute(&spool, "DROP TRIGGER refusal");
    push(&mut spool, [5 + FAILED_RETRY_SECS]);
    assert_eq!(spool.take_events(), [Event::BackendRecovered]);
    let (records, lost) = drain(&mut open(copy(folder.path()).path(), 1));
    let epochs: Vec<u64> = records.iter().map(|(_, _, epoch)| *epoch).collect();
    assert_eq!((epochs, lost), (vec![1, 2, 3, 4, 5 + FAILED_RETRY_SECS], 0));
}

#[test]
fn a_folder_is_locked_by_one_process() {
    let folder = TempDir::new().unwrap();
    let stored = open(folder.path(), 0);
    let error = DiskBackend::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)));
    assert!(!error.is_disk_failure());
    assert!(error.to_string().contains("--spool"), "{error}");
    drop(stored);
    DiskBackend::open(folder.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn the_folder_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("a/spool");
    let mut spool = open(&folder, 0);
    push(&mut spool, 1..10);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in [DATABASE, LOG, LOCK] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    // SQLite uses no shared memory.
    assert!(!folder.join("spool.db-shm").exists());
}

#[test]
fn an_unusable_folder_is_named() {
    let parent = TempDir::new().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DiskBackend::open(&file.join("spool")).unwrap_err();
    assert!(!error.is_disk_failure(), "{error}");
    assert!(error.to_string().contains("file/spool"), "{error}");
}

/// A spool with records 1 to [`RECORDS`] after a kill: one for all tests, as each commit is synced.
static SPOOL: LazyLock<(TempDir, ProducerId)> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    let mut spool = open(folder.path(), 0);
    push(&mut spool, 1..=RECORDS / 2);
    // Checkpointed once, so that both the database and its WAL hold records.
    write_back(&spool);
    push(&mut spool, RECORDS / 2 + 1..=RECORDS);
    (copy(folder.path()), spool.producer().unwrap())
});

fn write_back(spool: &Spool<DiskBackend>) {
    let database = &spool.backend().opened.as_ref().unwrap().database;
    database
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
}

/// What a damaged spool must still do: start, give its records once and unchanged, report what it
/// lost, take new records, and assign no number twice. Returns how many records were given and
/// reported as lost.
fn check_damage(damage: impl Fn(&Path), story: &str) -> (u64, u64) {
    let (folder, producer) = &*SPOOL;
    let producer = *producer;
    let killed = copy(folder.path());
    damage(killed.path());

    let mut spool = open(killed.path(), 50);
    push(&mut spool, RECORDS + 1..=RECORDS + 3);
    let (records, lost) = drain(&mut spool);
    let numbers: BTreeSet<_> = records.iter().map(|(who, seq, _)| (*who, *seq)).collect();
    assert_eq!(numbers.len(), records.len(), "{story}: a number came twice");
    let old: Vec<_> = records
        .iter()
        .filter(|(_, _, epoch)| *epoch <= RECORDS)
        .collect();
    for (who, seq, epoch) in &old {
        assert_eq!((*who, seq), (producer, epoch), "{story}: a record changed");
    }
    let new = records.len() - old.len();
    assert_eq!(new, 3, "{story}: new records got lost");
    for (who, seq, _) in records.iter().filter(|(_, _, epoch)| *epoch > RECORDS) {
        let is_old_number = *who == producer && *seq <= RECORDS;
        assert!(!is_old_number, "{story}: a number was given twice");
    }
    drop(spool);
    let mut spool = open(killed.path(), 100);
    push(&mut spool, [RECORDS + 4]);
    let repaired = fs::read_dir(killed.path()).unwrap();
    assert!(repaired.count() <= 3 + 3 * 3, "{story}: too many files");
    (old.len() as u64, lost)
}

/// Each record is given or reported.
fn check_all_reported(damage: impl Fn(&Path), story: &str) {
    let (given, lost) = check_damage(damage, story);
    assert_eq!(given + lost, RECORDS, "{story}: {given} given, {lost} told");
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}

fn cut(file: &Path, bytes: u64) {
    OpenOptions::new()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

fn flip(file: &Path, at: u64, bit: u8) {
    let mut bytes = fs::read(file).unwrap();
    let at = usize::try_from(at).unwrap() % bytes.len();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
}

#[test]
fn an_undamaged_spool_loses_nothing() {
    assert_eq!(check_damage(|_| (), "nothing"), (RECORDS, 0));
}

#[test]
fn truncated_files() {
    for name in [DATABASE, LOG] {
        let places: [fn(u64) -> u64; 11] = [
            |_| 0,
            |_| 1,
            |_| 31,
            |_| 99,
            |_| 100,
            |_| 4095,
            |_| 4096,
            |length| length / 2,
            |length| length / 2 / 4096 * 4096 + 32,
            |length| length - 4096,
            |length| length - 1,
        ];
        for place in places {
            let cut = |folder: &Path| {
                let file = folder.join(name);
                cut(&file, place(length(&file)));
            };
            let at = place(100_000);
            check_all_reported(cut, &format!("{name} cut at {at} of 100000"));
        }
    }
}

#[test]
fn missing_and_overwritten_files() {
    for name in [DATABASE, LOG] {
        check_all_reported(
            |folder| fs::remove_file(folder.join(name)).unwrap(),
            &format!("{name} is gone"),
        );
        check_all_reported(
            |folder| fs::write(folder.join(name), "no database at all\n".repeat(1000)).unwrap(),
            &format!("{name} is text"),
        );
        check_all_reported(
            |folder| fs::write(folder.join(name), vec![0; 50_000]).unwrap(),
            &format!("{name} is zeros"),
        );
    }
    let both = |folder: &Path| {
        fs::remove_file(folder.join(DATABASE)).unwrap();
        fs::remove_file(folder.join(LOG)).unwrap();
    };
    assert_eq!(check_damage(both, "both are gone"), (0, RECORDS));
    // Without the checkpoints, the log is given and closed.
    for text in ["", "lizmon-spool 1", "\u{fffd}\u{fffd}"] {
        let damage = |folder: &Path| fs::write(folder.join(LOCK), text).unwrap();
        assert_eq!(check_damage(damage, "the checkpoints"), (RECORDS, 0));
    }
}

#[test]
fn a_foreign_database_is_set_aside() {
    let damage = |folder: &Path| {
        fs::remove_file(folder.join(DATABASE)).unwrap();
        fs::remove_file(folder.join(LOG)).unwrap();
        let other = Connection::open(folder.join(DATABASE)).unwrap();
        other
            .execute_batch("CREATE TABLE song(title TEXT)")
            .unwrap();
    };
    assert_eq!(check_damage(damage, "another's"), (0, RECORDS));
}

/// At pseudo-random places, the same in each run.
#[test]
fn flipped_bits() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for run in 0..200 {
        let name = [DATABASE, LOG, DATABASE, LOCK][run % 4];
        let (at, bit) = (random(), (random() % 8) as u8);
        let story = format!("{name}, bit {bit} at {at}");
        check_all_reported(|folder| flip(&folder.join(name), at, bit), &story);
    }
}

/// A spool with [`RECORDS`] records, damaged while SQLite has it open, outside of its cache.
fn damaged_while_it_runs(folder: &Path) -> Spool<DiskBackend> {
    let mut spool = open(folder, 0);
    push(&mut spool, 1..=RECORDS);
    write_back(&spool);
    let file = folder.join(DATABASE);
    let mut bytes = fs::read(&file).unwrap();
    for page in bytes.chunks_mut(4096).skip(3) {
        page[..8].fill(0xff);
    }
    fs::write(&file, bytes).unwrap();
    let opened = spool.backend_mut().opened.as_mut();
    opened.unwrap().database.release_memory().unwrap();
    spool
}

#[test]
fn damage_is_repaired_while_it_runs() {
    let folder = TempDir::new().unwrap();
    let mut spool = damaged_while_it_runs(folder.path());
    let (records, lost) = drain(&mut spool);
    assert_eq!(records.len() as u64 + lost, RECORDS);
    assert!(lost > 0);
    push(&mut spool, [RECORDS + 1]);
    assert_eq!(
        spool.next_batch(0, 1, 0).unwrap().records[0].seq.get(),
        RECORDS + 1
    );
    assert!(folder.path().join("spool.db.damaged-1").exists());
}

/// There was no free space for a new database when the old one was found damaged. Nothing was
/// stored until the next start, even when there was space again.
#[test]
fn a_repair_that_fails_is_tried_again() {
    let folder = TempDir::new().unwrap();
    let mut spool = damaged_while_it_runs(folder.path());
    let in_the_way = folder.path().join("spool.db.new");
    fs::create_dir(&in_the_way).unwrap();
    assert_eq!(spool.next_batch(0, 0, 100), None);
    push(&mut spool, [RECORDS + 1]);
    fs::remove_dir(&in_the_way).unwrap();
    push(&mut spool, [RECORDS + 11]);
    let (records, lost) = drain(&mut spool);
    assert_eq!(records.len() as u64 + lost, RECORDS + 2);
    let new = records.iter().filter(|(_, _, epoch)| *epoch > RECORDS);
    assert_eq!(new.count(), 2);
}
