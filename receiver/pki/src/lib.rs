//! Reads, checks and writes certificates, keys, certificate revocation lists (CRLs) and their
//! files, for every program. This crate is below TLS and HTTP: it opens no socket, and takes the
//! time as an argument.
//!
//! ```text
//!  file ──> pem ──> sections ──> anchors: roots, and intermediates for building chains
//!                       └──────> crl ──> crls_in_force ───────────┐
//!            a peer's chain ──> path ─────────────────────────────┴──> valid, revoked or unknown
//!            a peer's leaf ───> identity: role and name
//!  bytes ──> atomic_file ──> file
//! ```

pub mod anchors;
pub mod atomic_file;
pub mod attributes;
pub mod authority;
pub mod certificate_files;
pub mod credentials;
pub mod crl;
pub mod crls_in_force;
pub mod date;
pub mod error_chain;
mod fault;
pub mod file_stamp;
pub mod identity;
pub mod own_chain;
pub mod path;
pub mod pem;
pub mod provider;
pub mod renewal_schedule;
pub mod server_crls;
mod signature;
#[cfg(test)]
mod testing;
mod usage;

/// The maximum clock difference between a CA, a receiver and a machine, in seconds. Validity starts
/// this long before the time of issue. Where dates are compared, a start date up to this far in the
/// future is accepted.
pub const CLOCK_SKEW_SECS_MAX: u64 = 300;
