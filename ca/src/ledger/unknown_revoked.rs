//! Revoked certificates that are not in the ledger.

use super::db::LedgerTx;
use super::error::LedgerError;
use super::record::UnknownRevoked;
use super::sql::{seconds, sql};
use crate::pki::crl::RevokedEntry;

impl LedgerTx<'_> {
    /// Revokes a certificate that is not in the ledger; false if it was already.
    pub(crate) fn revoke_unknown(&self, row: &UnknownRevoked) -> Result<bool, LedgerError> {
        let added = self.run(|t| {
            t.execute(
                "INSERT OR IGNORE INTO unknown_revoked (issuer, serial, revoked_at, revoked_reason, revoked_by)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (
                    &row.issuer,
                    &row.serial,
                    sql(row.revoked_at),
                    row.reason,
                    &row.revoked_by,
                ),
            )
        })?;
        Ok(added == 1)
    }

    /// Every certificate that is revoked and not in the ledger.
    pub(crate) fn unknown_revoked(&self) -> Result<Vec<UnknownRevoked>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT serial, issuer, revoked_at, revoked_reason, revoked_by FROM unknown_revoked
                 ORDER BY revoked_at, serial",
            )?
            .query_map([], |row| {
                Ok(UnknownRevoked {
                    serial: row.get(0)?,
                    issuer: row.get(1)?,
                    revoked_at: seconds(row, 2)?,
                    reason: row.get(3)?,
                    revoked_by: row.get(4)?,
                })
            })?
            .collect()
        })
    }

    /// Those that a CA's CRL lists. Their ends are unknown, so they stay on it.
    pub(crate) fn unknown_revoked_by(
        &self,
        issuer: &str,
    ) -> Result<Vec<RevokedEntry>, LedgerError> {
        let all = self.unknown_revoked()?.into_iter();
        let of_issuer = all.filter(|row| row.issuer == issuer);
        Ok(of_issuer
            .map(|row| RevokedEntry {
                serial: row.serial,
                revoked_at: row.revoked_at,
                reason: row.reason,
            })
            .collect())
    }
}
