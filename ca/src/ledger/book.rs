//! What is asked of the ledger, and written into it, with its lock held.

use lizmon_protocol::name::{NodeName, Role};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::{CertState, CrlRecord, Entry, Generation, LedgerTx, Phase, RevokedEntry};
use crate::audit::AuditLine;
use crate::crl::Reason;
use crate::error::Error;
use crate::profile::Profile;

/// One holder's certificates. The index knows names without their case; the second comparison is the exact one.
const OF_HOLDER: &str = "profile = ?1 AND name = ?2 COLLATE NOCASE AND name = ?2 COLLATE BINARY";

impl LedgerTx<'_> {
    /// Another spelling of this name that was issued in this role.
    pub(crate) fn case_conflict(
        &self,
        role: Role,
        name: &NodeName,
    ) -> Result<Option<String>, Error> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT name FROM certificate
                 WHERE profile = ?1 AND name = ?2 COLLATE NOCASE AND name <> ?2 COLLATE BINARY LIMIT 1",
            )?
            .query_row((role.as_str(), name.as_str()), |row| row.get(0))
            .optional()
        })
    }

    /// Every live certificate of a holder.
    pub(crate) fn live_certificates(
        &self,
        role: Role,
        name: &NodeName,
        now: u64,
    ) -> Result<Vec<Entry>, Error> {
        let values = [role.as_str().to_owned(), name.to_string()];
        let mut entries = self.entries_where(OF_HOLDER, values)?;
        entries.retain(|entry| entry.is_live(now));
        Ok(entries)
    }

    /// Whether anything was ever issued to a holder.
    pub(crate) fn has_issued_to(&self, role: Role, name: &NodeName) -> Result<bool, Error> {
        self.run(|t| {
            t.prepare_cached(&format!("SELECT 1 FROM certificate WHERE {OF_HOLDER}"))?
                .exists((role.as_str(), name.as_str()))
        })
    }

    /// The CAs that ever were: current ones first, then by phase and age.
    pub(crate) fn generations(&self) -> Result<Vec<Generation>, Error> {
        let rows: Vec<(String, Phase, u64)> = self.run(|t| {
            t.prepare_cached("SELECT serial, phase, since FROM generation ORDER BY rowid")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, seconds(row, 2)?)))?
                .collect()
        })?;
        let mut generations = Vec::new();
        for (serial, phase, since) in rows {
            generations.extend(self.find(&serial)?.map(|entry| Generation {
                entry,
                phase,
                since,
            }));
        }
        generations.sort_by_key(|generation| generation.phase);
        Ok(generations)
    }

    /// Moves a CA into a phase.
    pub(crate) fn set_phase(&self, serial: &str, phase: Phase, now: u64) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "INSERT INTO generation (serial, phase, since) VALUES (?1, ?2, ?3)
                 ON CONFLICT (serial) DO UPDATE SET phase = excluded.phase, since = excluded.since",
                (serial, phase.as_str(), sql(now)),
            )
        })?;
        Ok(())
    }

    /// How long the lists of the issuing CAs live, if somebody chose that.
    pub(crate) fn crl_days(&self) -> Result<Option<u32>, Error> {
        self.run(|t| {
            t.prepare_cached("SELECT value FROM choice WHERE name = 'crl-days'")?
                .query_row([], |row| row.get(0))
                .optional()
        })
    }

    /// Lets them live so long from the next one on.
    pub(crate) fn set_crl_days(&self, days: u32) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "INSERT INTO choice VALUES ('crl-days', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [days],
            )
        })?;
        Ok(())
    }

    /// Whether the CA's files still have to follow the ledger.
    pub(crate) fn is_reconcile_pending(&self) -> Result<bool, Error> {
        self.run(|t| t.prepare_cached("SELECT 1 FROM unsettled")?.exists([]))
    }

    /// Remembers whether the CA's files still have to follow the ledger.
    pub(crate) fn set_reconcile_pending(&self, pending: bool) -> Result<(), Error> {
        let statement = if pending {
            "INSERT OR IGNORE INTO unsettled VALUES (1)"
        } else {
            "DELETE FROM unsettled"
        };
        self.run(|t| t.execute(statement, []))?;
        Ok(())
    }

    /// Withdraws the join tokens of a holder, and says how many could still have been used.
    pub(crate) fn withdraw_tokens(
        &self,
        role: Role,
        name: &NodeName,
        now: u64,
    ) -> Result<usize, Error> {
        self.run(|t| {
            let whose = (role.as_str(), name.as_str(), sql(now));
            let unused = t.query_row(
                "SELECT count(*) FROM join_token WHERE role = ?1 AND name = ?2 AND expires > ?3 AND used_at IS NULL",
                whose,
                |row| row.get::<_, u32>(0),
            )?;
            t.execute(
                "UPDATE join_token SET expires = ?3 WHERE role = ?1 AND name = ?2 AND expires > ?3",
                whose,
            )?;
            Ok(unused as usize)
        })
    }

    /// The audit log.
    pub(crate) fn lines(&self) -> Result<Vec<AuditLine>, Error> {
        self.lines_by("ORDER BY number")
    }

    /// Its newest line.
    pub(crate) fn last_line(&self) -> Result<Option<AuditLine>, Error> {
        Ok(self.lines_by("ORDER BY number DESC LIMIT 1")?.pop())
    }

    fn lines_by(&self, order: &'static str) -> Result<Vec<AuditLine>, Error> {
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

    /// Writes the next line of the audit log.
    pub(crate) fn append(&self, line: &AuditLine) -> Result<(), Error> {
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

    /// Adds a certificate.
    pub(crate) fn add(&self, entry: &Entry) -> Result<(), Error> {
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
    pub(crate) fn find(&self, serial: &str) -> Result<Option<Entry>, Error> {
        Ok(self
            .entries_where("serial = ?1", [serial.to_owned()])?
            .into_iter()
            .next())
    }

    /// Every certificate, in the order they were issued, whatever the clock said meanwhile.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.entries_where("TRUE", [])
    }

    fn entries_where<const N: usize>(
        &self,
        condition: &'static str,
        values: [String; N],
    ) -> Result<Vec<Entry>, Error> {
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

    /// Marks a certificate revoked; false if it was already.
    pub(crate) fn revoke(
        &self,
        serial: &str,
        reason: u8,
        who: &str,
        now: u64,
    ) -> Result<bool, Error> {
        let changed = self.run(|t| {
            t.execute(
                "UPDATE certificate SET state = 'revoked', revoked_at = ?2, revoked_reason = ?3, revoked_by = ?4
                 WHERE serial = ?1 AND state <> 'revoked'",
                (serial, sql(now), reason, who),
            )
        })?;
        Ok(changed == 1)
    }

    /// What a CA's CRL names: revoked, and not ended before `ended_before`, or before `superseded_before` what was only
    /// replaced by a renewal.
    pub(crate) fn revoked(
        &self,
        issuer: &str,
        ended_before: u64,
        superseded_before: u64,
    ) -> Result<Vec<RevokedEntry>, Error> {
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

    /// The newest CRL of each CA, the first CA's first.
    pub(crate) fn crls(&self) -> Result<Vec<CrlRecord>, Error> {
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
    pub(crate) fn put_crl(&self, row: &CrlRecord) -> Result<(), Error> {
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

    /// Runs a statement of a module's own in this transaction.
    pub(crate) fn run<T>(
        &self,
        query: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        query(&self.transaction).map_err(|source| self.ledger.failed(source))
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

impl FromSql for Profile {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}

impl FromSql for Phase {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for CertState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        [Self::Valid, Self::Revoked]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(FromSqlError::InvalidType)
    }
}

pub(crate) fn seconds(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::unsigned_abs)
}

/// SQLite's integers are signed. What is past them was refused long before.
pub(crate) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
