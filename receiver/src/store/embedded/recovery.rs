//! Recovers a damaged database: what can be read goes into a new one, and the old one is set aside
//! unchanged.
//!
//! ```text
//!  lizmon.db, -wal ──copy──> view ──read──> lizmon.db.new ──rename──> lizmon.db
//!        └───────────────────────rename──────────────────────────────> lizmon.db.damaged-1
//! ```
//!
//! The copy gets the header and schema that every database of ours has, because those are known.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Transaction, params};
use uuid::Uuid;

use super::super::damage::Damage;
use super::super::history::EvictedHour;
use super::super::shard::Position;
use super::super::state::ShardChanges;
use super::connection::{connect, connect_read_only};
use super::error::EmbeddedError;
use super::read::{self, Groups, ScanMode, ScanResult, Snapshot};
use super::schema::{SHARDS, SchemaVersion};
use super::wal::{Frames, PAGE_BYTES, Wal};
use super::{files, history, reshard, rows, schema};

/// Offsets in the file's header: journal mode, number of pages, list of free pages.
const JOURNAL_MODE_AT: u64 = 18;
const PAGES_AT: u64 = 28;
const UNUSED_AT: u64 = 32;
/// The copy from which is read.
const VIEW: &str = "lizmon.db.view";

/// What a new database holds.
pub(super) struct NewDatabase<'a> {
    pub(super) id: &'a str,
    pub(super) snapshot: &'a Snapshot,
    /// Hours that are in no ring, nor in the history yet.
    pub(super) evicted: &'a [EvictedHour],
    pub(super) groups: &'a Groups,
    /// The last position of the journal that was ever used.
    pub(super) last: Position,
    /// The greatest fencing epoch that was ever used.
    pub(super) epoch: u64,
    pub(super) damage: &'a [Damage],
}

/// Makes a new database of what can be read of the folder's one, and sets the old one aside.
/// `fault` is what is wrong.
#[expect(
    clippy::disallowed_methods,
    reason = "a unique name, compared with none"
)]
pub(super) fn recover(folder: &Path, fault: &str, now: u64) -> Result<(), EmbeddedError> {
    let file = files::database(folder);
    tracing::error!(file = %file.display(), fault, "the database is damaged: recovering what can be read");
    let (reading, mut groups) = read_all(folder, now)?;
    let id = files::marked(folder).or(reading.id);
    let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
    reshard::rows(&mut groups);
    let mut damage = vec![summary(fault, &reading.damage, now)];
    damage.extend(reading.damage);
    tell(&damage);
    damage.extend(reading.known);
    let new = NewDatabase {
        id: &id,
        snapshot: &reading.snapshot,
        evicted: &[],
        groups: &groups,
        last: reading.last,
        epoch: reading.epoch,
        damage: &damage,
    };
    let aside = replace(folder, &new, now)?;
    let hosts = reading.snapshot.hosts.len();
    tracing::warn!(hosts, aside = %aside.display(), "the database is recovered, the damaged one is set aside");
    Ok(())
}

/// A summary of the recovery.
pub(super) fn summary(fault: &str, lost: &[Damage], now: u64) -> Damage {
    let lost = match lost.len() {
        0 => "nothing is lost".to_owned(),
        1 => "one thing is lost".to_owned(),
        many => format!("{many} things are lost"),
    };
    let file = files::FILE;
    Damage::of_store(
        now,
        format!("{file} was damaged and is set aside as {file}.damaged-1 ({fault}): {lost}"),
    )
}

/// How many lines are logged; all of them are in the database.
const LINES_MAX: usize = 100;

fn tell(damage: &[Damage]) {
    for lost in damage.iter().take(LINES_MAX) {
        tracing::error!("{lost}");
    }
    if let Some(more) = damage.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        tracing::error!(more, "and more; `liz-receiver check` lists all of it");
    }
}

/// Replaces the database by a new one with these contents and with the history of the old one, as
/// far as that can be read. Returns where the old one is set aside.
pub(super) fn replace(
    folder: &Path,
    new: &NewDatabase<'_>,
    now: u64,
) -> Result<PathBuf, EmbeddedError> {
    put_in_place(folder, new, Some((&view(folder)?, now)), "damaged")
}

/// Replaces a database of a version before.
pub(super) fn upgrade(
    folder: &Path,
    new: &NewDatabase<'_>,
    from: SchemaVersion,
    now: u64,
) -> Result<PathBuf, EmbeddedError> {
    match from.has_documents() {
        true => put_in_place(folder, new, Some((&view(folder)?, now)), "replaced"),
        false => put_in_place(folder, new, None, "replaced"),
    }
}

/// What SQLite reads of the folder's database.
fn view(folder: &Path) -> Result<View, EmbeddedError> {
    let file = files::database(folder);
    let failed = files::failed(&file, "cannot be read");
    let log = Wal::open(&file).map_err(&failed)?;
    let template = template(folder)?;
    View::make(folder, log.as_ref(), Frames::Read, &template).map_err(&failed)
}

fn put_in_place(
    folder: &Path,
    new: &NewDatabase<'_>,
    history: Option<(&View, u64)>,
    why: &str,
) -> Result<PathBuf, EmbeddedError> {
    let file = files::new_database(folder);
    files::remove_all(&file);
    fill(&file, new, history)?;
    let unsynced = files::failed(&file, "cannot be synced");
    files::sync(&file).map_err(unsynced)?;
    let aside = files::replace(folder, why)?;
    files::mark(folder, new.id)?;
    Ok(aside)
}

fn fill(
    file: &Path,
    new: &NewDatabase<'_>,
    history: Option<(&View, u64)>,
) -> Result<(), EmbeddedError> {
    let mut database = connect(file)?;
    schema::make(&mut database, new.id)?;
    let transaction = database.transaction()?;
    for host in &new.snapshot.hosts {
        rows::save_host(&transaction, host)?;
    }
    for (shard, cursor) in SHARDS.all().zip(&new.snapshot.cursors) {
        rows::save_cursor(&transaction, shard, *cursor)?;
    }
    for (shard, document) in &new.snapshot.documents {
        let document = std::slice::from_ref(document);
        rows::save_documents(&transaction, "", *shard, document)?;
    }
    if let Some(clock) = &new.snapshot.clock {
        rows::save_clock(&transaction, clock)?;
    }
    for (position, group) in new.groups {
        rows::save_row(&transaction, *position, group)?;
    }
    for damage in new.damage {
        rows::save_damage(&transaction, damage)?;
    }
    if let Some((view, now)) = history {
        let lost = view.copy_history(&transaction, now)?;
        tell(&lost);
        for damage in &lost {
            rows::save_damage(&transaction, damage)?;
        }
    }
    let evicted = ShardChanges {
        evicted: new.evicted.to_vec(),
        ..ShardChanges::default()
    };
    history::save(&transaction, file, &evicted)?;
    transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'journal'", [])?;
    transaction.execute(
        "INSERT INTO sqlite_sequence(name, seq) VALUES ('journal', ?1)",
        params![new.last.get() as i64],
    )?;
    // Missing rows of the journal up to here have been reported.
    transaction.execute(
        "INSERT INTO meta VALUES ('told_through', ?1)",
        params![new.last.get() as i64],
    )?;
    schema::save_epoch(&transaction, new.epoch)?;
    transaction.commit()?;
    database
        .close()
        .map_err(|(_, error)| EmbeddedError::Database(error))
}

/// What can be read of the damaged files. State and cursors belong together, so they come from
/// complete transactions alone; of the journal every intact row counts.
fn read_all(folder: &Path, now: u64) -> Result<(ScanResult, Groups), EmbeddedError> {
    let file = files::database(folder);
    let failed = files::failed(&file, "cannot be read");
    let log = Wal::open(&file).map_err(&failed)?;
    let template = template(folder)?;
    let mut groups = Groups::new();
    let torn = log.as_ref().filter(|log| log.fault().is_some());
    let mut last = Position::START;
    if let Some(log) = torn {
        let view = View::make(folder, Some(log), Frames::Whole, &template).map_err(&failed)?;
        last = view.read(now, &mut groups).last;
        last = last.max(groups.keys().last().copied().unwrap_or_default());
    }
    let view = View::make(folder, log.as_ref(), Frames::Read, &template).map_err(&failed)?;
    let mut reading = view.read(now, &mut groups);
    if torn.is_some() {
        let missing = (reading.last.get() + 1..=last.get())
            .filter(|position| !groups.contains_key(&Position::new(*position)));
        let what = format!(
            "the end of the WAL could be read in part: {} journal groups are known to be lost, and the last ones may be, and the samples acknowledged with them; `lizctl audit HOST` shows their numbers as missing",
            missing.count()
        );
        reading.damage.push(Damage::of_store(now, what));
    }
    reading.last = reading.last.max(last);
    Ok((reading, groups))
}

/// The first page of a new database: header and schema.
fn template(folder: &Path) -> Result<Vec<u8>, EmbeddedError> {
    let new = files::new_database(folder);
    files::remove_all(&new);
    let mut database = connect(&new)?;
    schema::make(&mut database, "")?;
    database
        .close()
        .map_err(|(_, error)| EmbeddedError::Database(error))?;
    let failed = files::failed(&new, "cannot be read");
    let mut page = vec![0; PAGE_BYTES];
    File::open(&new)
        .and_then(|mut file| file.read_exact(&mut page))
        .map_err(failed)?;
    files::remove_all(&new);
    Ok(page)
}

/// A temporary copy of the database as of one moment.
struct View(PathBuf);

impl View {
    fn make(folder: &Path, log: Option<&Wal>, frames: Frames, template: &[u8]) -> io::Result<Self> {
        let view = Self(folder.join(VIEW));
        files::remove_all(&view.0);
        files::private(&view.0, OpenOptions::new().create(true).append(true))?;
        match fs::copy(files::database(folder), &view.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        if let Some(log) = log {
            log.apply(frames, &view.0)?;
        }
        let mut copy = OpenOptions::new().write(true).open(&view.0)?;
        let pages = copy.metadata()?.len().div_ceil(PAGE_BYTES as u64).max(1);
        copy.write_all(template)?;
        let write = |copy: &mut File, at, bytes: &[u8]| {
            copy.seek(SeekFrom::Start(at))?;
            copy.write_all(bytes)
        };
        // Not in WAL mode, because there is no WAL beside it, and without free pages, which reading
        // does not need.
        write(&mut copy, JOURNAL_MODE_AT, &[1, 1])?;
        write(&mut copy, PAGES_AT, &(pages as u32).to_be_bytes())?;
        write(&mut copy, UNUSED_AT, &[0; 8])?;
        copy.set_len(pages * PAGE_BYTES as u64)?;
        Ok(view)
    }

    fn read(&self, now: u64, groups: &mut Groups) -> ScanResult {
        let each = &mut |_cursors: &[Position], position, group: &[u8]| {
            groups.entry(position).or_insert_with(|| group.to_vec());
        };
        match connect_read_only(&self.0) {
            Ok(database) => read::everything(&database, ScanMode::Thorough, now, each),
            Err(_) => ScanResult::default(),
        }
    }
}

impl View {
    /// Copies the history, as far as it can be read. What cannot is returned.
    fn copy_history(&self, to: &Transaction<'_>, now: u64) -> Result<Vec<Damage>, EmbeddedError> {
        let Ok(database) = connect_read_only(&self.0) else {
            let what = "the history cannot be read, and is lost";
            return Ok(vec![Damage::of_store(now, what)]);
        };
        let mut copied = Ok(());
        let lost = read::history(&database, ScanMode::Thorough, now, &mut |chunk| {
            if copied.is_ok() {
                copied = history::save_chunk(to, &chunk);
            }
        });
        copied.map(|()| lost)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        files::remove_all(&self.0);
    }
}

/// Whether the file's header has our application identifier, even if SQLite cannot read it.
pub(super) fn has_our_application_id(file: &Path) -> bool {
    let mut head = [0; 100];
    let is_read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    is_read.is_ok() && head[schema::APPLICATION_AT] == schema::APPLICATION.to_be_bytes()
}
