//! The files of a database: made private, moved and removed together.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::open_error::OpenError;

/// What SQLite appends to a database's name for its files: the database itself, its write-ahead
/// log, and that one's index.
const SUFFIXES: [&str; 3] = ["", WAL, "-shm"];
const WAL: &str = "-wal";

pub(super) fn make_folder(folder: &Path) -> Result<(), OpenError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(|source| OpenError::Folder {
        path: folder.to_owned(),
        source,
    })
}

/// Only the owner may read what was measured.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options
}

/// Whether the database has a write-ahead log that is not empty.
pub(super) fn has_wal(database: &Path) -> bool {
    let wal = fs::metadata(with_suffix(database, WAL));
    wal.is_ok_and(|wal| wal.len() > 0)
}

pub(super) fn rename_all(from: &Path, to: &Path) -> io::Result<()> {
    for suffix in SUFFIXES {
        match fs::rename(with_suffix(from, suffix), with_suffix(to, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
    }
    Ok(())
}

pub(super) fn remove_all(database: &Path) {
    for suffix in SUFFIXES {
        // One that is not there need not be removed; one that cannot be removed fails when its name
        // is used.
        let _removed = fs::remove_file(with_suffix(database, suffix));
    }
}

fn with_suffix(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
