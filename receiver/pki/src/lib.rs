//! What every program reads of certificates, keys and revocation lists, read the same by all of them. Pure: bytes in, values
//! out; no file is opened here, and the time is an argument.
//!
//! ```text
//!  bytes of a file ──> pem ──> sections ──> anchors: roots, and what chains are built with
//!                                   └─────> list ──> held: whose lists are in force ──┐
//!                                                     a peer's chain ──> path ────────┴──> revoked, unknown, or good
//! ```

pub mod anchors;
pub mod authority;
mod fault;
pub mod held;
pub mod list;
pub mod path;
pub mod pem;
mod signature;

/// How far apart the clocks of a CA, a receiver and a machine may be, in seconds: what is issued begins so long before it is
/// issued, and what begins up to so long ahead is taken where dates are compared.
pub const CLOCK_SKEW_SECS_MAX: u64 = 300;
