//! Brings a store of a version before this one up to date.
//!
//! One of the last version has the same tables, and is only marked as one of this. What is in an
//! earlier one goes into a new database, and the old one is set aside, as in a recovery: every
//! database of one version has its tables at the same places, which is what lets `recovery` read
//! one whose first page is damaged.

use std::path::Path;

use rusqlite::Connection;

use super::connection::no_checkpoint_on_close;
use super::error::EmbeddedError;
use super::files;
use super::read::{self, Groups, ScanMode};
use super::recovery::{self, NewDatabase};
use super::reshard;
use super::schema::{self, DatabaseKind, SchemaVersion};

/// Upgrades the folder's database, if it is of a version before that can be.
pub(super) fn upgrade(folder: &Path, now: u64) -> Result<(), EmbeddedError> {
    let file = files::database(folder);
    if !file.is_file() {
        return Ok(());
    }
    let mut database = Connection::open(&file)?;
    no_checkpoint_on_close(&database)?;
    let Ok(DatabaseKind::OtherVersion(from)) = schema::kind_of(&database) else {
        return Ok(());
    };
    let version = SchemaVersion::of(&database);
    if version.is_marked_anew() {
        schema::mark_anew(&mut database)?;
        let to = schema::VERSION;
        tracing::info!(
            from,
            to,
            "the store is upgraded: earlier programs cannot open it"
        );
        return Ok(());
    }
    if !version.is_rewritten() {
        return Ok(());
    }
    let mut groups = Groups::new();
    let reading = read::everything(&database, ScanMode::Fast, now, &mut |_, position, row| {
        groups.insert(position, row.to_vec());
    });
    drop(database);
    reshard::rows(&mut groups);
    if let Some(damage) = reading.damage.first() {
        return recovery::recover(folder, &damage.to_string(), now);
    }
    let id = files::marked(folder).or(reading.id);
    let Some(id) = id else {
        return recovery::recover(folder, "its identifier", now);
    };
    let new = NewDatabase {
        id: &id,
        snapshot: &reading.snapshot,
        evicted: &[],
        groups: &groups,
        last: reading.last,
        epoch: reading.epoch,
        damage: &reading.known,
    };
    let aside = recovery::upgrade(folder, &new, version, now)?;
    let to = schema::VERSION;
    tracing::info!(from, to, aside = %aside.display(), "the store is upgraded, the old one is set aside");
    Ok(())
}
