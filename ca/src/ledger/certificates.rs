//! Certificates in the ledger.

use lizmon_protocol::name::{NodeName, Role};
use rusqlite::{OptionalExtension, Row};

use super::db::LedgerTx;
use super::error::LedgerError;
use super::record::Entry;
use super::sql::{seconds, sql};
use crate::pki::Reason;
use crate::pki::crl::RevokedEntry;

/// The certificates of one holder. The index ignores case; the second comparison is exact.
const OF_HOLDER: &str = "profile = ?1 AND name = ?2 COLLATE NOCASE AND name = ?2 COLLATE BINARY";

impl LedgerTx<'_> {
    /// Adds a certificate.
    pub(crate) fn add(&self, entry: &Entry) -> Result<(), LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "INSERT INTO certificate (serial, profile, name, issuer, key_sha256, not_before, not_after,
                                          issued_at, issued_by, state, renews, pem)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(rusqlite::params![
                entry.serial,
                entry.profile.as_str(),
                entry.name,
                entry.issuer,
                entry.key_sha256,
                sql(entry.not_before),
                sql(entry.not_after),
                sql(entry.issued_at),
                entry.issued_by,
                entry.state.as_str(),
                entry.renews,
                entry.pem,
            ])
        })?;
        Ok(())
    }

    /// One certificate.
    pub(crate) fn find(&self, serial: &str) -> Result<Option<Entry>, LedgerError> {
        Ok(self
            .entries_where("serial = ?1", [serial.to_owned()])?
            .into_iter()
            .next())
    }

    /// Every certificate, in the order of issue, whatever the clock said.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        self.entries_where("TRUE", [])
    }

    /// A name of this role that differs from this one only by case.
    pub(crate) fn case_conflict(
        &self,
        role: Role,
        name: &NodeName,
    ) -> Result<Option<String>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT name FROM certificate
                 WHERE profile = ?1 AND name = ?2 COLLATE NOCASE AND name <> ?2 COLLATE BINARY LIMIT 1",
            )?
            .query_row((role.as_str(), name.as_str()), |row| row.get(0))
            .optional()
        })
    }

    /// The certificates of a holder that are neither revoked nor expired.
    pub(crate) fn live_certificates(
        &self,
        role: Role,
        name: &NodeName,
        now: u64,
    ) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = self.certificates(role, name)?;
        entries.retain(|entry| entry.is_live(now));
        Ok(entries)
    }

    /// All certificates of a holder, whether they are live or not.
    pub(crate) fn certificates(
        &self,
        role: Role,
        name: &NodeName,
    ) -> Result<Vec<Entry>, LedgerError> {
        let values = [role.as_str().to_owned(), name.to_string()];
        self.entries_where(OF_HOLDER, values)
    }

    /// Whether anything was ever issued to a holder.
    pub(crate) fn has_issued_to(&self, role: Role, name: &NodeName) -> Result<bool, LedgerError> {
        self.run(|t| {
            t.prepare_cached(&format!("SELECT 1 FROM certificate WHERE {OF_HOLDER}"))?
                .exists((role.as_str(), name.as_str()))
        })
    }

    /// Marks a certificate revoked; false if it was already.
    pub(crate) fn revoke(
        &self,
        serial: &str,
        reason: u8,
        who: &str,
        now: u64,
    ) -> Result<bool, LedgerError> {
        let changed = self.run(|t| {
            t.execute(
                "UPDATE certificate SET state = 'revoked', revoked_at = ?2, revoked_reason = ?3, revoked_by = ?4
                 WHERE serial = ?1 AND state <> 'revoked'",
                (serial, sql(now), reason, who),
            )
        })?;
        Ok(changed == 1)
    }

    /// What a CA's CRL lists: revoked certificates that have not ended before `ended_before`, or,
    /// if a renewal replaced them, before `superseded_before`.
    pub(crate) fn revoked(
        &self,
        issuer: &str,
        ended_before: u64,
        superseded_before: u64,
    ) -> Result<Vec<RevokedEntry>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT serial, revoked_at, revoked_reason FROM certificate
                 WHERE issuer = ?1 AND state = 'revoked' AND not_after >= ?2
                   AND (revoked_reason IS NOT ?3 OR not_after >= ?4)
                 ORDER BY revoked_at, serial",
            )?
            .query_map(
                (
                    issuer,
                    sql(ended_before),
                    Reason::Superseded.code(),
                    sql(superseded_before),
                ),
                |row| {
                    Ok(RevokedEntry {
                        serial: row.get(0)?,
                        revoked_at: seconds(row, 1)?,
                        reason: row.get(2)?,
                    })
                },
            )?
            .collect()
        })
    }

    fn entries_where<const N: usize>(
        &self,
        condition: &'static str,
        values: [String; N],
    ) -> Result<Vec<Entry>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(&format!(
                "SELECT serial, profile, name, issuer, key_sha256, not_before, not_after, issued_at, issued_by,
                        state, revoked_at, revoked_reason, revoked_by, renews, pem
                 FROM certificate WHERE {condition} ORDER BY rowid"
            ))?
            .query_map(rusqlite::params_from_iter(values), read_entry)?
            .collect()
        })
    }
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        serial: row.get(0)?,
        profile: row.get(1)?,
        name: row.get(2)?,
        issuer: row.get(3)?,
        key_sha256: row.get(4)?,
        not_before: seconds(row, 5)?,
        not_after: seconds(row, 6)?,
        issued_at: seconds(row, 7)?,
        issued_by: row.get(8)?,
        state: row.get(9)?,
        revoked_at: row.get::<_, Option<i64>>(10)?.map(i64::unsigned_abs),
        revoked_reason: row.get(11)?,
        revoked_by: row.get(12)?,
        renews: row.get(13)?,
        pem: row.get(14)?,
    })
}
