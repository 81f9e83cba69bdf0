//! Our certificate and key, the trusted roots, and the CRLs. The files are watched, and a reload
//! replaces the trust as a whole.
//!
//! A [`Trust`] never changes. A reload validates what it read before it takes effect, and creates a
//! new `Trust` with its own TLS configuration and ticket key. A session of an older trust cannot be
//! resumed.

mod contents;
mod crl_file;
mod crl_sources;
mod current;
mod error;
mod exported_crl;
mod files;
mod own_pair;
mod server_pair;
mod statement;
mod warning;
mod writer;

pub use self::current::{AUTHORITY_EXPIRY_WARNING_SECS, LoadedCertificate, Trust, TrustReader};
pub use self::error::TrustError;
pub use self::exported_crl::ExportedCrl;
pub use self::files::TrustFiles;
pub use self::statement::{
    STATEMENT_BYTES_MAX, STATEMENT_CERTIFICATES_MAX, StatementError, StatementRefusal,
    VerifiedStatement,
};
pub use self::warning::{TrustPart, TrustWarning};
pub use self::writer::{CrlUpdate, TrustWriter};
pub use crate::refusal::PeerRefusal;
pub use lizmon_pki::path::Fault;

#[cfg(test)]
mod tests;
