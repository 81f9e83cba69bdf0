//! The newest CRL of each CA, and the numbers that the next ones may have.

use rusqlite::OptionalExtension;

use super::db::LedgerTx;
use super::error::LedgerError;
use super::sql::{seconds, sql};
use crate::pki::crl::CrlRecord;

impl LedgerTx<'_> {
    /// The newest CRL of each CA, the first CA's first.
    pub(crate) fn crls(&self) -> Result<Vec<CrlRecord>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT issuer, number, this_update, next_update, pem FROM crl ORDER BY rowid",
            )?
            .query_map([], |row| {
                Ok(CrlRecord {
                    issuer: row.get(0)?,
                    number: seconds(row, 1)?,
                    this_update: seconds(row, 2)?,
                    next_update: seconds(row, 3)?,
                    pem: row.get(4)?,
                })
            })?
            .collect()
        })
    }

    /// Keeps a new CRL in place of the CA's last one.
    pub(crate) fn put_crl(&self, row: &CrlRecord) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "INSERT INTO crl (issuer, number, this_update, next_update, pem) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (issuer) DO UPDATE SET number = excluded.number, this_update = excluded.this_update,
                     next_update = excluded.next_update, pem = excluded.pem",
                (
                    &row.issuer,
                    sql(row.number),
                    sql(row.this_update),
                    sql(row.next_update),
                    &row.pem,
                ),
            )
        })?;
        Ok(())
    }

    /// The validity of the issuing CAs' CRLs in days, if it is configured.
    pub(crate) fn crl_days(&self) -> Result<Option<u32>, LedgerError> {
        self.run(|t| {
            t.prepare_cached("SELECT value FROM setting WHERE name = 'crl-days'")?
                .query_row([], |row| row.get(0))
                .optional()
        })
    }

    /// Configures it, from the next CRL on.
    pub(crate) fn set_crl_days(&self, days: u32) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "INSERT INTO setting VALUES ('crl-days', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [days],
            )
        })?;
        Ok(())
    }

    /// The number that the next CRL of a CA has to exceed, whatever its last one was; 0 if there is
    /// none.
    pub(crate) fn crl_floor(&self, issuer: &str) -> Result<u64, LedgerError> {
        let found = self.run(|t| {
            t.prepare_cached("SELECT number FROM crl_floor WHERE issuer = ?1")?
                .query_row([issuer], |row| seconds(row, 0))
                .optional()
        })?;
        Ok(found.unwrap_or(0))
    }

    /// Raises that number, and never lowers it.
    pub(crate) fn raise_crl_floor(&self, issuer: &str, number: u64) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "INSERT INTO crl_floor (issuer, number) VALUES (?1, ?2)
                 ON CONFLICT (issuer) DO UPDATE SET number = max(number, excluded.number)",
                (issuer, sql(number)),
            )
        })?;
        Ok(())
    }

    /// Sets whether a CA's CRL has to be signed again as soon as its key is available.
    pub(crate) fn set_needs_resigning(&self, issuer: &str, again: bool) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "UPDATE crl_floor SET sign_again = ?2 WHERE issuer = ?1",
                (issuer, again),
            )
        })?;
        Ok(())
    }

    /// Whether a CA's CRL has to be signed again, whatever its dates.
    pub(crate) fn needs_resigning(&self, issuer: &str) -> Result<bool, LedgerError> {
        self.run(|t| {
            t.prepare_cached("SELECT 1 FROM crl_floor WHERE issuer = ?1 AND sign_again")?
                .exists([issuer])
        })
    }

    /// Whether the audit log records this CRL.
    pub(crate) fn has_logged_crl(&self, crl: &CrlRecord) -> Result<bool, LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT 1 FROM audit WHERE what IN ('sign-crl', 'adopt-crl')
                   AND details ->> 'issuer' = ?1 AND details ->> 'number' = ?2 AND details ->> 'next-update' = ?3",
            )?
            .exists((&crl.issuer, sql(crl.number), sql(crl.next_update)))
        })
    }
}
