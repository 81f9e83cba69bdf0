//! The mutual-TLS front door, for the receiver and the issuing service.
//!
//! ```text
//!  TCP ──> accept ──> TLS handshake ──> identity ──> Connection ──> every request's extensions
//!            │             │                            │
//!         limits        trust (watched)              recheck: still trusted, not ended, not revoked?
//! ```
//!
//! A client certificate is asked for, not demanded; a bad one ends the handshake. What ends or is revoked while a
//! connection is open is found by [`connection::Connection::peer`], which every request asks again.
//!
//! This crate never answers HTTP, though it helps an answer to arrive ([`discard()`]), and never signs anything but its
//! own handshakes.

pub mod accept;
pub mod client_quota;
pub mod connection;
mod connection_slots;
mod discard;
mod handshake;
mod host;
pub mod identity;
pub mod limits;
pub mod rate_limited_log;
mod refusal;
pub mod rejected_connections;
pub mod revocation;
pub mod server;
pub mod service;
pub mod stream;
pub mod trust;
mod unauthenticated_slots;
mod version;

use std::sync::Arc;

pub use discard::discard;
pub use host::{HostError, check_host};
pub use version::{TlsMin, TlsMinError};

/// Where the time comes from: epoch seconds, from the edge of the process or from a test.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
