//! Join tokens in the ledger: their hashes, never the tokens themselves.

use lizmon_protocol::name::{Attributes, NodeName, Role};
use rusqlite::{Row, Transaction};

use super::db::LedgerTx;
use super::error::LedgerError;
use super::sql::{seconds, sql};
use crate::pki::San;

/// Hex digits of a token's hash in its short id.
const TOKEN_ID_CHARS: usize = 8;

/// A join token as the ledger stores it.
pub(crate) struct JoinTokenRecord {
    pub(crate) hash: [u8; 32],
    pub(crate) role: Role,
    pub(crate) name: NodeName,
    /// What a server's certificate gets; empty for others.
    pub(crate) sans: Vec<San>,
    /// What a node's or a reader's certificate gets.
    pub(crate) attributes: Attributes,
    pub(crate) created: u64,
    pub(crate) expires: u64,
    pub(crate) used: Option<UsedToken>,
    pub(crate) created_by: String,
}

/// A join token that still lets somebody join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedJoinToken {
    /// The role that it gives.
    pub role: Role,
    /// The name that it gives.
    pub name: NodeName,
    /// When it was made: epoch seconds.
    pub created: u64,
    /// From when on it gives nothing: epoch seconds.
    pub expires: u64,
    /// Who made it.
    pub created_by: String,
}

/// Which key a token was used with, and for which certificate.
pub(crate) struct UsedToken {
    pub(crate) key: Vec<u8>,
    pub(crate) serial: String,
}

impl JoinTokenRecord {
    /// Tells tokens apart, and is no secret.
    pub(crate) fn short_id(&self) -> String {
        short_id(self.hash)
    }

    /// The token without names and attributes, and whether it has limits.
    fn read(row: &Row<'_>, name: &NodeName) -> rusqlite::Result<(Self, bool)> {
        let role: String = row.get(1)?;
        let limited = role.strip_suffix(LIMITED);
        let is_limited = limited.is_some();
        let role = limited.unwrap_or(&role);
        let (key, serial): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(3)?, row.get(4)?);
        let token = Self {
            hash: row.get(0)?,
            role: role.parse().map_err(rusqlite::types::FromSqlError::other)?,
            name: name.clone(),
            sans: Vec::new(),
            attributes: Attributes::default(),
            expires: seconds(row, 2)?,
            used: key.zip(serial).map(|(key, serial)| UsedToken {
                key,
                serial: hex::encode(serial),
            }),
            created_by: row.get(5)?,
            created: seconds(row, 6)?,
        };
        Ok((token, is_limited))
    }
}

impl LedgerTx<'_> {
    /// Stores a new token.
    pub(crate) fn add_token(&self, row: &JoinTokenRecord) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "INSERT INTO join_token (hash, role, name, created, expires, created_by)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (
                    row.hash,
                    stored_role(row),
                    row.name.as_str(),
                    sql(row.created),
                    sql(row.expires),
                    &row.created_by,
                ),
            )
        })?;
        for san in &row.sans {
            self.run(|t| {
                t.execute(
                    "INSERT OR IGNORE INTO join_token_san (hash, san) VALUES (?1, ?2)",
                    (row.hash, san.to_string()),
                )
            })?;
        }
        for attribute in row.attributes.texts() {
            self.run(|t| {
                t.execute(
                    "INSERT INTO join_token_attribute (hash, attribute) VALUES (?1, ?2)",
                    (row.hash, attribute),
                )
            })?;
        }
        Ok(())
    }

    /// Every token for this name, in any role.
    pub(crate) fn tokens(&self, name: &NodeName) -> Result<Vec<JoinTokenRecord>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT hash, role, expires, used_key, certificate_serial, created_by, created
                 FROM join_token
                 WHERE role IN ('node', 'reader', 'operator', 'receiver', 'summarizer', 'proxy', 'gateway', 'reader, limited')
                 AND name = ?1",
            )?
            .query_map([name.as_str()], |row| JoinTokenRecord::read(row, name))?
            .map(|row| with_sans(t, with_attributes(t, row?)?))
            .collect()
        })
    }

    /// The tokens that nobody has used and that have not expired, the next to expire first.
    pub(crate) fn unused_tokens(&self, now: u64) -> Result<Vec<UnusedJoinToken>, LedgerError> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT role, name, created, expires, created_by FROM join_token
                 WHERE used_key IS NULL AND expires > ?1 ORDER BY expires, name",
            )?
            .query_map([sql(now)], |row| {
                let (role, name): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(UnusedJoinToken {
                    role: role.parse().map_err(rusqlite::types::FromSqlError::other)?,
                    name: name.parse().map_err(rusqlite::types::FromSqlError::other)?,
                    created: seconds(row, 2)?,
                    expires: seconds(row, 3)?,
                    created_by: row.get(4)?,
                })
            })?
            .collect()
        })
    }

    /// Records that a token was used.
    pub(crate) fn mark_token_used(
        &self,
        hash: &[u8; 32],
        key: &[u8],
        serial: &[u8],
        now: u64,
    ) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "UPDATE join_token SET used_at = ?2, used_key = ?3, certificate_serial = ?4 WHERE hash = ?1",
                (hash, sql(now), key, serial),
            )
        })?;
        Ok(())
    }

    /// The short id of every token in the ledger, and whether it was used.
    pub(crate) fn token_ids(&self) -> Result<Vec<(String, bool)>, LedgerError> {
        self.run(|t| {
            t.prepare_cached("SELECT hash, used_key IS NOT NULL FROM join_token")?
                .query_map([], |row| Ok((short_id(row.get(0)?), row.get(1)?)))?
                .collect()
        })
    }

    /// Deletes tokens that ended long ago.
    pub(crate) fn delete_tokens(&self, ended_before: u64) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "DELETE FROM join_token_san
                 WHERE hash IN (SELECT hash FROM join_token WHERE expires < ?1)",
                [sql(ended_before)],
            )?;
            t.execute(
                "DELETE FROM join_token_attribute
                 WHERE hash IN (SELECT hash FROM join_token WHERE expires < ?1)",
                [sql(ended_before)],
            )?;
            t.execute(
                "DELETE FROM join_token WHERE expires < ?1",
                [sql(ended_before)],
            )
        })?;
        Ok(())
    }

    /// Withdraws the join tokens of a holder, and returns how many were usable.
    pub(crate) fn withdraw_tokens(
        &self,
        role: Role,
        name: &NodeName,
        now: u64,
    ) -> Result<usize, LedgerError> {
        self.run(|t| {
            let limited = format!("{role}{LIMITED}");
            let holder = (role.as_str(), name.as_str(), sql(now), limited.as_str());
            let unused = t.query_row(
                "SELECT count(*) FROM join_token WHERE role IN (?1, ?4) AND name = ?2 AND expires > ?3 AND used_at IS NULL",
                holder,
                |row| row.get::<_, u32>(0),
            )?;
            t.execute(
                "UPDATE join_token SET expires = ?3 WHERE role IN (?1, ?4) AND name = ?2 AND expires > ?3",
                holder,
            )?;
            Ok(unused as usize)
        })
    }
}

fn with_sans(t: &Transaction<'_>, mut row: JoinTokenRecord) -> rusqlite::Result<JoinTokenRecord> {
    if row.role.is_server() {
        row.sans = t
            // As they were given: a receiver calls itself by the first.
            .prepare_cached("SELECT san FROM join_token_san WHERE hash = ?1 ORDER BY rowid")?
            .query_map([row.hash], |row| {
                let san: String = row.get(0)?;
                Ok(san.parse().map_err(rusqlite::types::FromSqlError::other)?)
            })?
            .collect::<Result<_, _>>()?;
    }
    Ok(row)
}

fn with_attributes(
    t: &Transaction<'_>,
    (mut row, is_limited): (JoinTokenRecord, bool),
) -> rusqlite::Result<JoinTokenRecord> {
    let texts = t
        .prepare_cached("SELECT attribute FROM join_token_attribute WHERE hash = ?1")?
        .query_map([row.hash], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let attributes = Attributes::of_texts(texts.iter().map(String::as_str));
    row.attributes = attributes.map_err(rusqlite::types::FromSqlError::other)?;
    // Without its limits the bearer would get more than the token was made for.
    if is_limited && row.attributes.is_empty() {
        return Err(rusqlite::types::FromSqlError::InvalidType.into());
    }
    Ok(row)
}

/// The role of a reader's token with limits is stored under another name, which a program that does
/// not know the limits does not look for.
const LIMITED: &str = ", limited";

fn stored_role(row: &JoinTokenRecord) -> String {
    match (row.role, row.attributes.is_empty()) {
        (Role::Reader, false) => format!("{}{LIMITED}", row.role),
        _ => row.role.to_string(),
    }
}

fn short_id(hash: [u8; 32]) -> String {
    let mut short_id = hex::encode(hash);
    short_id.truncate(TOKEN_ID_CHARS);
    short_id
}
