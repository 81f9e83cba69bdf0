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
