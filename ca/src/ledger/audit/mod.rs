//! The audit log: one line for each action of the CA, chained by hashes.
//!
//! A line is written in the transaction of its action, so that neither exists without the other.
//! Its hash is SHA-256 over
//!
//! ```text
//! "lizmon-audit-1" number time len(who) who len(what) what len(details) details previous
//! ```
//!
//! with number and time as 8 bytes and each length as 4, all big-endian. `details` is the JSON text
//! as the ledger stores it; `previous` is the 32-byte hash of the previous line, zeros before the
//! first. A chain cannot show by itself that its end was cut off. So it is compared with the rest
//! of the ledger, and with an [`AuditHead`] that was kept elsewhere.

mod line;
mod verify;

pub use self::line::{AuditAction, AuditEvent, AuditHead, AuditHeadError, AuditLine};
pub use self::verify::AuditError;
pub(crate) use self::verify::verify;
