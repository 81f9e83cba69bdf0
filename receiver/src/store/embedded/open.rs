//! Opens the database of a folder, or creates it.

use std::fs::OpenOptions;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::super::shard::Position;
use super::connection::{connect, no_checkpoint_on_close};
use super::error::EmbeddedError;
use super::schema::{self, DatabaseKind};
use super::wal::{self, Wal};
use super::{files, recovery};

/// What is wrong with the files that can be seen without SQLite, which would go on with what is
/// left, and say nothing.
pub(super) fn fault_of_files(folder: &Path) -> Result<Option<String>, EmbeddedError> {
    let file = files::database(folder);
    let name = files::FILE;
    let was_there = files::was_marked(folder);
    match std::fs::symlink_metadata(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(was_there.then(|| format!("{name} is missing, and was here before")));
        }
        Err(error) => return Err(files::failed(&file, "cannot be read")(error)),
        Ok(found) if was_there && found.is_file() && found.len() < wal::PAGE_BYTES as u64 => {
            let words = if found.len() == 0 {
                "empty"
            } else {
                "truncated"
            };
            return Ok(Some(format!("{name} is {words}, and was not before")));
        }
        Ok(_) => (),
    }
    // A folder in its place, or one that may not be read, is named when it is opened.
    let wal = Wal::open(&file).ok().flatten();
    Ok(wal.and_then(|wal| wal.fault()))
}

/// Whether a file that SQLite does not understand is a store of ours.
pub(super) fn is_ours(folder: &Path) -> bool {
    files::was_marked(folder) || recovery::has_our_application_id(&files::database(folder))
}

/// A database that is open, and what it says of itself.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) id: String,
    pub(super) last: Position,
    pub(super) epoch: u64,
    pub(super) is_journal_empty: bool,
}

/// Opens the folder's database, or makes a new one.
#[expect(
    clippy::disallowed_methods,
    reason = "a unique name, compared with none"
)]
pub(super) fn open_file(folder: &Path) -> Result<Opened, EmbeddedError> {
    let file = files::database(folder);
    // Made before SQLite does: its journal files take over this one's mode.
    files::private(&file, OpenOptions::new().read(true).append(true).create(true)).map_err(
        files::failed(&file, "cannot open the database: see that it is a file, and that this user may read and write it and its folder"),
    )?;
    let probe = Connection::open(&file)?;
    no_checkpoint_on_close(&probe)?;
    // Nothing is written to what is not ours.
    let damaged = |what: &str| {
        let (file, what) = (file.clone(), what.to_owned());
        Err(EmbeddedError::Damaged { file, what })
    };
    match schema::kind_of(&probe)? {
        DatabaseKind::Empty if files::was_marked(folder) => {
            return damaged("it is empty, and was not before");
        }
        DatabaseKind::Ours | DatabaseKind::Empty => (),
        DatabaseKind::OtherVersion(found) => {
            let known = schema::VERSION;
            return Err(EmbeddedError::Version { file, found, known });
        }
        DatabaseKind::Foreign => return Err(EmbeddedError::Foreign { file }),
        DatabaseKind::Damaged => return damaged("its version"),
    }
    drop(probe);
    let mut connection = connect(&file)?;
    if schema::kind_of(&connection)? == DatabaseKind::Empty {
        let id = files::marked(folder).unwrap_or_else(|| Uuid::new_v4().to_string());
        schema::make(&mut connection, &id)?;
    }
    let id = connection.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| {
        row.get(0)
    })?;
    let last = connection
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'journal'",
            [],
            |row| row.get::<_, i64>(0),
        )
        .optional()?
        .unwrap_or(0) as u64;
    let is_journal_empty =
        connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM journal)", [], |row| {
            row.get(0)
        })?;
    Ok(Opened {
        epoch: schema::read_epoch(&connection),
        connection,
        id,
        last: Position::new(last),
        is_journal_empty,
    })
}
