//! Certificates, keys, certificate revocation lists (CRLs) and their files, as every program reads and
//! writes them. Below TLS and HTTP: no socket is opened here, and the time is an argument.
//!
//! ```text
//!  file ──> pem ──> sections ──> anchors: roots, and the certificates that chains are built with
//!                       └──────> list ──> held: the CRLs in force ──┐
//!            a peer's chain ──> path ───────────────────────────────┴──> revoked, unknown, or valid
//!            a peer's leaf ───> identity: role and name
//!  bytes ──> atomic_file ──> file
//! ```

pub mod anchors;
pub mod atomic_file;
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

/// How far apart the clocks of a CA, a receiver and a machine may be, in seconds: what is issued begins so long before it is
/// issued, and what begins up to so long ahead is taken where dates are compared.
pub const CLOCK_SKEW_SECS_MAX: u64 = 300;
