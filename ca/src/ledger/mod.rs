//! `ledger.db`: every certificate ever signed, the CRLs with their numbers, join tokens, the audit
//! log.
//!
//! This layer holds all of the SQL and decides nothing: the authority asks, and writes what it
//! decided. A certificate is committed here before its file is written. A crash can leave an entry
//! without a file, never a file without an entry.
//!
//! | module | what it does |
//! | --- | --- |
//! | `schema` | the tables |
//! | `record` | what the tables hold, as plain values |
//! | `db` | opens the file; a transaction on it, `LedgerTx` |
//! | `read_only` | reads the file where nothing can be written |
//! | `certificates`, `generations`, `crls`, `unknown_revoked`, `join_tokens`, `renewals`, `origin` | the queries, by table |
//! | [`audit`], `audit_log` | the audit log: lines and verification; reading and appending |
//! | `snapshot` | all that the audit log is compared with |

pub mod audit;
mod audit_log;
mod certificates;
mod crls;
mod db;
mod error;
mod generations;
mod join_tokens;
mod origin;
mod read_only;
mod record;
mod renewals;
mod schema;
mod snapshot;
mod sql;
mod unknown_revoked;

pub(crate) use self::db::{Ledger, LedgerTx};
pub use self::error::{BUSY_TIMEOUT, LedgerError, LedgerFailure};
pub(crate) use self::join_tokens::JoinTokenRecord;
pub use self::join_tokens::UnusedJoinToken;
pub(crate) use self::origin::LedgerOrigin;
pub(crate) use self::record::issued_by_token;
pub use self::record::{CertState, Entry, Generation, Phase, UnknownRevoked};
