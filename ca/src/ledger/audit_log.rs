//! Reads and appends to the audit log.

use super::audit::{AuditEvent, AuditLine};
use super::db::LedgerTx;
use super::error::LedgerError;
use super::sql::{seconds, sql};

impl LedgerTx<'_> {
    /// The audit log.
    pub(crate) fn lines(&self) -> Result<Vec<AuditLine>, LedgerError> {
        self.lines_by("ORDER BY number")
    }

    /// Appends a line in this transaction.
    pub(crate) fn record(&self, event: &AuditEvent<'_>, now: u64) -> Result<(), LedgerError> {
        let last = self.last_line()?;
        self.append(&AuditLine::after(last.as_ref(), event, now))
    }

    fn last_line(&self) -> Result<Option<AuditLine>, LedgerError> {
        Ok(self.lines_by("ORDER BY number DESC LIMIT 1")?.pop())
    }

    fn append(&self, line: &AuditLine) -> Result<(), LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "INSERT INTO audit (number, time, who, what, details, previous, hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                sql(line.number),
                sql(line.time),
                &line.who,
                &line.what,
                &line.details,
                &line.previous,
                &line.hash,
            ))
        })?;
        Ok(())
    }

    fn lines_by(&self, order: &'static str) -> Result<Vec<AuditLine>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(&format!(
                "SELECT number, time, who, what, details, previous, hash FROM audit {order}"
            ))?
            .query_map([], |row| {
                Ok(AuditLine {
                    number: seconds(row, 0)?,
                    time: seconds(row, 1)?,
                    who: row.get(2)?,
                    what: row.get(3)?,
                    details: row.get(4)?,
                    previous: row.get(5)?,
                    hash: row.get(6)?,
                })
            })?
            .collect()
        })
    }
}
