use super::connection::{WAL_BYTES_KEPT, write_ahead};
use super::files::FILE;
use super::*;
use crate::store::contract::{append, fence, load_all};
use crate::store::error::ErrorKind;
use crate::store::shard::Shard;

const NOW: u64 = 1_465_001_814;
const SHARD: Shard = Shard::new(0);

#[test]
fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    crate::store::contract::check(&mut || EmbeddedStore::open(folder.path(), NOW).unwrap());
}

#[test]
fn one_process_has_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let refused = EmbeddedStore::open(folder.path(), NOW).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    store
        .connection
        .execute("UPDATE meta SET value = 99 WHERE key = 'version'", [])
        .unwrap();
    drop(store);
    let refused = EmbeddedStore::open(folder.path(), NOW).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Incompatible);
    assert!(refused.to_string().contains("the store has version 99"));
}

/// A database in memory has no WAL mode.
#[test]
fn a_database_without_wal_mode_is_refused() {
    let connection = Connection::open_in_memory().unwrap();
    let error = write_ahead(&connection, Path::new("data/lizmon.db")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data/lizmon.db: SQLite's WAL mode is not available here, the journal mode stays `memory`: put --data on a local file system"
    );
}

#[test]
fn a_file_that_is_not_a_database_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    std::fs::write(&file, "my shopping list ".repeat(100)).unwrap();
    let error = EmbeddedStore::open(folder.path(), NOW)
        .unwrap_err()
        .to_string();
    let named = format!(
        "cannot open {}: it is not a lizmon database",
        file.display()
    );
    assert!(error.starts_with(&named), "{error}");
}

/// How large the database is, without its WAL.
fn bytes(folder: &Path) -> u64 {
    std::fs::metadata(folder.join(FILE)).unwrap().len()
}

/// Fills a store with 64 MiB of journal that is not needed any more; what it takes up when that is
/// said.
fn fill_and_empty(store: &mut EmbeddedStore, folder: &Path) -> u64 {
    let group = vec![7; 1 << 20];
    for _ in 0..64 {
        append(store, SHARD, &group).unwrap();
    }
    let done = ShardChanges {
        cursor: Position::new(64),
        ..ShardChanges::default()
    };
    let fence = fence(store, SHARD);
    store.commit(fence, &done).unwrap();
    bytes(folder)
}

#[test]
fn what_is_not_needed_is_given_back_a_little_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let full = fill_and_empty(&mut store, folder.path());
    assert!(full > 64 << 20, "{full}");
    let pages = |store: &EmbeddedStore| pragma(&store.connection, "page_count").unwrap();
    let mut steps = 0;
    loop {
        let before = pages(&store);
        store.reclaim().unwrap();
        let given_back = before - pages(&store);
        // One more may be a page that says where the others are.
        assert!(
            (0..=RECLAIMED_PAGES_MAX + 1).contains(&given_back),
            "{given_back}"
        );
        if given_back == 0 {
            break;
        }
        steps += 1;
    }
    assert!(steps > 30, "{steps}");
    let left = bytes(folder.path());
    let kept = FREE_PAGES_KEPT as u64 * 4096 + (1 << 20);
    assert!(left < kept, "{left} of {full} bytes");
    let next = append(&mut store, SHARD, b"next").unwrap();
    assert_eq!(next, Position::new(65));
}

#[test]
fn what_is_written_ahead_is_cut_off_after_a_large_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(folder.path(), NOW).unwrap();
    let log = folder.path().join("lizmon.db-wal");
    let bytes = || std::fs::metadata(&log).unwrap().len();
    append(&mut store, SHARD, &vec![7; 32 << 20]).unwrap();
    assert!(bytes() > 32 << 20, "{}", bytes());
    append(&mut store, SHARD, b"next").unwrap();
    assert!(bytes() <= WAL_BYTES_KEPT as u64, "{}", bytes());
}

#[cfg(unix)]
#[test]
fn the_files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let mut store = EmbeddedStore::open(&folder, NOW).unwrap();
    append(&mut store, SHARD, b"group").unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            entry.path()
        );
    }
    assert_eq!(
        std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

mod damage;
mod history;
mod load;
mod upgrade;
