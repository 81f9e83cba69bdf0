//! What this end shows and whom it trusts: certificate, key, roots and CRLs, watched and swapped whole.
//!
//! A [`Trust`] never changes. A reload checks what it read before anyone sees it, and makes a new one with a TLS
//! configuration and a ticket key of its own: no session of an older trust can be resumed.

mod contents;
mod crl_file;
mod crl_sources;
mod current;
mod error;
mod files;
mod own_pair;
mod server_pair;
mod warning;
mod writer;

pub use self::current::{AUTHORITY_EXPIRY_WARNING_SECS, LoadedCertificate, Trust, TrustReader};
pub use self::error::TrustError;
pub use self::files::TrustFiles;
pub use self::warning::{TrustPart, TrustWarning};
pub use self::writer::{CrlUpdate, TrustWriter};
pub use crate::refusal::PeerRefusal;
pub use lizmon_pki::path::Fault;

#[cfg(test)]
mod tests;
