//! Reading a ledger where nothing can be written.
//!
//! In WAL mode SQLite writes beside the file even to read it. On a read-only or full medium, and
//! for a user who may not write there, a copy is read instead. Where no copy can be made either,
//! the file itself is read as immutable.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempDir;

/// How often copying starts over because another process wrote meanwhile.
const COPY_ATTEMPTS_MAX: usize = 10;
/// Where a copy is made if the folder for temporary files cannot be used: in memory.
const MEMORY: &str = "/dev/shm";

/// How a ledger is read that cannot be written.
#[derive(Debug)]
pub(super) enum ReadOnlyMode {
    /// From a copy, which is removed when the ledger is closed.
    Copy(#[expect(dead_code, reason = "kept for as long as the copy is read")] TempDir),
    /// In its place, as a file that does not change.
    InPlace,
}

/// Copies the file where a copy can be made; the first error if nowhere.
pub(super) fn copy(path: &Path) -> io::Result<(TempDir, PathBuf)> {
    let temporary = std::env::temp_dir();
    copy_into(path, &temporary)
        .or_else(|first| copy_into(path, Path::new(MEMORY)).map_err(|_| first))
}

/// Whether SQLite's log beside the file holds what the file does not.
pub(super) fn has_log(path: &Path) -> bool {
    fs::metadata(sibling(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// The URI by which SQLite opens the file as immutable.
pub(super) fn immutable_uri(file: &Path) -> String {
    let path: String = file
        .to_string_lossy()
        .chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3f".to_owned(),
            '#' => "%23".to_owned(),
            other => other.to_string(),
        })
        .collect();
    format!("file:{path}?immutable=1")
}

/// Copies the file and the log beside it, both as they were at one moment.
fn copy_into(path: &Path, folder: &Path) -> io::Result<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new()
        .prefix("lizmon-")
        .tempdir_in(folder)?;
    let copy = folder.path().join("ledger.db");
    let log = sibling(path, "-wal");
    for _ in 0..COPY_ATTEMPTS_MAX {
        let before = (stamp(path)?, stamp(&log).ok());
        fs::write(&copy, fs::read(path)?)?;
        match fs::read(&log) {
            Ok(bytes) => fs::write(sibling(&copy, "-wal"), bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if before == (stamp(path)?, stamp(&log).ok()) {
            return Ok((folder, copy));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "another process keeps writing it",
    ))
}

pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn stamp(path: &Path) -> io::Result<(u64, Option<SystemTime>)> {
    let metadata: Metadata = fs::metadata(path)?;
    Ok((metadata.len(), metadata.modified().ok()))
}
