//! Which file the ledger is, so that a copy of it is recognised.

use std::path::Path;

use rusqlite::OptionalExtension;

use super::db::LedgerTx;
use super::error::LedgerError;
use super::sql::sql;

/// Which file a ledger is.
pub(crate) struct LedgerOrigin {
    pub(crate) file: String,
    pub(crate) copied_at: Option<u64>,
}

impl LedgerOrigin {
    /// What tells a file from every copy of it: its inode number and, as these are reused, its time
    /// of creation.
    pub(crate) fn of(path: &Path) -> Option<String> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let number = 0;
        let born = metadata.created().ok();
        let born = born.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Some(format!("{number}:{}", born.unwrap_or_default().as_nanos()))
    }
}

impl LedgerTx<'_> {
    /// Which file this ledger was when it was last written; `None` in a new one.
    pub(crate) fn origin(&self) -> Result<Option<LedgerOrigin>, LedgerError> {
        self.run(|t| {
            t.prepare_cached("SELECT file, copied_at FROM origin")?
                .query_row([], |row| {
                    Ok(LedgerOrigin {
                        file: row.get(0)?,
                        copied_at: row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs),
                    })
                })
                .optional()
        })
    }

    /// Stores which file this ledger is.
    pub(crate) fn set_origin(&self, place: &LedgerOrigin) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute("DELETE FROM origin", [])?;
            t.execute(
                "INSERT INTO origin (file, copied_at) VALUES (?1, ?2)",
                (&place.file, place.copied_at.map(sql)),
            )
        })?;
        Ok(())
    }
}
