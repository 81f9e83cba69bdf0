//! Chains of renewals, and which certificates are in use.

use rusqlite::OptionalExtension;

use super::db::LedgerTx;
use super::error::LedgerError;
use super::record::CertState;
use super::sql::{seconds, sql};
use crate::pki::Reason;

/// Leaves that are superseded at ?1 although they have not ended; ?2 is that time less the overlap.
/// Times later than ?1 were written while the clock was ahead, and count as past.
const SUPERSEDED: &str = "
    old.state = 'valid' AND old.not_after >= ?1 AND old.profile NOT IN ('root', 'issuing') AND (
        EXISTS (SELECT 1 FROM certificate AS next JOIN first_use USING (serial)
                WHERE next.renews = old.serial AND (first_use.at <= ?2 OR first_use.at > ?1))
        OR (old.renews IS NOT NULL AND (old.issued_at <= ?2 OR old.issued_at > ?1)
            AND NOT EXISTS (SELECT 1 FROM first_use WHERE first_use.serial = old.serial)
            AND EXISTS (SELECT 1 FROM certificate AS beside LEFT JOIN first_use USING (serial)
                        WHERE beside.renews = old.renews AND beside.serial <> old.serial
                          AND (beside.rowid > old.rowid OR first_use.at IS NOT NULL))))";

impl LedgerTx<'_> {
    /// Whether this certificate, or one that it renews directly or indirectly, is revoked. A thief
    /// of a key may have renewed before the revocation, and must not renew after it. A certificate
    /// that was revoked as superseded does not count.
    pub(crate) fn is_chain_revoked(&self, serial: &str) -> Result<bool, LedgerError> {
        let found: Option<i64> = self.run(|t| {
            t.prepare_cached(
                "WITH RECURSIVE chain (serial) AS (
                     VALUES (?1)
                     UNION
                     SELECT certificate.renews FROM certificate JOIN chain USING (serial) WHERE renews IS NOT NULL
                 )
                 SELECT 1 FROM certificate JOIN chain USING (serial)
                 WHERE state = ?2 AND (serial = ?1 OR coalesce(revoked_reason, 0) <> ?3) LIMIT 1",
            )?
            .query_row(
                (serial, CertState::Revoked.as_str(), Reason::Superseded.code()),
                |row| row.get(0),
            )
            .optional()
        })?;
        Ok(found.is_some())
    }

    /// Records when a certificate was first shown; later times change nothing.
    pub(crate) fn record_first_use(&self, serial: &str, now: u64) -> Result<(), LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "INSERT OR IGNORE INTO first_use (serial, at) SELECT serial, ?2 FROM certificate WHERE serial = ?1",
            )?
            .execute((serial, sql(now)))
        })?;
        Ok(())
    }

    /// The certificates that were shown, by serial, and when first.
    pub(crate) fn first_uses(&self) -> Result<Vec<(String, u64)>, LedgerError> {
        self.run(|t| {
            t.prepare_cached("SELECT serial, at FROM first_use")?
                .query_map([], |row| Ok((row.get(0)?, seconds(row, 1)?)))?
                .collect()
        })
    }

    /// The certificates that a renewal has replaced by `now`: those whose successor was in use at
    /// `before`, and unused renewals that were issued by then.
    pub(crate) fn superseded(&self, now: u64, before: u64) -> Result<Vec<String>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(&format!(
                "SELECT serial FROM certificate AS old WHERE {SUPERSEDED} ORDER BY rowid"
            ))?
            .query_map((sql(now), sql(before)), |row| row.get(0))?
            .collect()
        })
    }
}
