//! Brings a store of the version before this one up to date.
//!
//! What is in it goes into a new database, and the old one is set aside, as in a recovery: every
//! database of one version has its tables at the same places, which is what lets `recovery` read
//! one whose first page is damaged. Hours of the old store are in its rings, and go from there to
//! the history like all others.

use std::path::Path;

use rusqlite::Connection;

use super::connection::no_checkpoint_on_close;
use super::error::EmbeddedError;
use super::files;
use super::read::{self, Groups, ScanMode};
use super::recovery::{self, NewDatabase};
use super::schema::{self, DatabaseKind};

/// Upgrades the folder's database, if it is of the version before.
pub(super) fn upgrade(folder: &Path, now: u64) -> Result<(), EmbeddedError> {
    let file = files::database(folder);
    if !file.is_file() {
        return Ok(());
    }
    let database = Connection::open(&file)?;
    no_checkpoint_on_close(&database)?;
    let kind = schema::kind_of(&database);
    if !matches!(
        kind,
        Ok(DatabaseKind::OtherVersion(schema::UPGRADED_VERSION))
    ) {
        return Ok(());
    }
    let mut groups = Groups::new();
    let reading = read::everything(&database, ScanMode::Fast, now, &mut |_, position, row| {
        groups.insert(position, row.to_vec());
    });
    drop(database);
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
    let aside = recovery::upgrade(folder, &new)?;
    let (from, to) = (schema::UPGRADED_VERSION, schema::VERSION);
    tracing::info!(from, to, aside = %aside.display(), "the store is upgraded, the old one is set aside");
    Ok(())
}
