//! What a ledger cannot know by itself: that it is a copy, which numbers were used elsewhere, which certificates were
//! issued and revoked while another copy of it was in use.

use std::path::Path;

use rusqlite::OptionalExtension;

use super::book::{seconds, sql};
use super::{CrlRecord, LedgerTx, RevokedEntry};
use crate::error::Error;

/// A revoked certificate that is not in the ledger: issued after the backup that the ledger was restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRevoked {
    /// Lower-case hex.
    pub serial: String,
    /// Serial of the CA that signed it.
    pub issuer: String,
    /// Epoch seconds.
    pub revoked_at: u64,
    /// RFC 5280 section 5.3.1.
    pub reason: Option<u8>,
    /// Who revoked it.
    pub revoked_by: String,
}

/// Where the ledger stands.
pub(crate) struct LedgerOrigin {
    pub(crate) file: String,
    pub(crate) copied_at: Option<u64>,
}

impl LedgerOrigin {
    /// What tells a file from every copy of it: its number in its file system and, as numbers come again, its birth.
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
    /// Which file this ledger was when it was last written to; `None` if nobody has said yet.
    pub(crate) fn origin(&self) -> Result<Option<LedgerOrigin>, Error> {
        self.run(|t| {
            t.prepare_cached("SELECT file, copied_at FROM place")?
                .query_row([], |row| {
                    Ok(LedgerOrigin {
                        file: row.get(0)?,
                        copied_at: row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs),
                    })
                })
                .optional()
        })
    }

    /// Remembers which file this ledger is.
    pub(crate) fn set_origin(&self, place: &LedgerOrigin) -> Result<(), Error> {
        self.run(|t| {
            t.execute("DELETE FROM place", [])?;
            t.execute(
                "INSERT INTO place (file, copied_at) VALUES (?1, ?2)",
                (&place.file, place.copied_at.map(sql)),
            )
        })?;
        Ok(())
    }

    /// The number that the next CRL of a CA has to be beyond, whatever the ledger knows; 0 if any will do.
    pub(crate) fn crl_floor(&self, issuer: &str) -> Result<u64, Error> {
        let found = self.run(|t| {
            t.prepare_cached("SELECT number FROM crl_floor WHERE issuer = ?1")?
                .query_row([issuer], |row| seconds(row, 0))
                .optional()
        })?;
        Ok(found.unwrap_or(0))
    }

    /// Raises that number, and never lowers it.
    pub(crate) fn raise_crl_floor(&self, issuer: &str, number: u64) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "INSERT INTO crl_floor (issuer, number) VALUES (?1, ?2)
                 ON CONFLICT (issuer) DO UPDATE SET number = max(number, excluded.number)",
                (issuer, sql(number)),
            )
        })?;
        Ok(())
    }

    /// Remembers whether a CA's list has to be signed again as soon as its key is at hand.
    pub(crate) fn set_needs_resigning(&self, issuer: &str, again: bool) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "UPDATE crl_floor SET sign_again = ?2 WHERE issuer = ?1",
                (issuer, again),
            )
        })?;
        Ok(())
    }

    /// Whether a CA's list has to be signed again, whatever its dates.
    pub(crate) fn needs_resigning(&self, issuer: &str) -> Result<bool, Error> {
        self.run(|t| {
            t.prepare_cached("SELECT 1 FROM crl_floor WHERE issuer = ?1 AND sign_again")?
                .exists([issuer])
        })
    }

    /// Whether the log tells of this very list.
    pub(crate) fn has_logged_crl(&self, crl: &CrlRecord) -> Result<bool, Error> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT 1 FROM audit WHERE what IN ('sign-crl', 'adopt-crl')
                   AND details ->> 'issuer' = ?1 AND details ->> 'number' = ?2 AND details ->> 'next-update' = ?3",
            )?
            .exists((&crl.issuer, sql(crl.number), sql(crl.next_update)))
        })
    }

    /// Revokes a certificate that is not in the ledger; false if it was already.
    pub(crate) fn revoke_unknown(&self, row: &UnknownRevoked) -> Result<bool, Error> {
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
    pub(crate) fn unknown_revoked(&self) -> Result<Vec<UnknownRevoked>, Error> {
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

    /// What a CA's CRL names of those. Their ends are not known: they stay on it for as long as there is one.
    pub(crate) fn unknown_revoked_by(&self, issuer: &str) -> Result<Vec<RevokedEntry>, Error> {
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
