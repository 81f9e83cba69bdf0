//! Mutual TLS server for the receiver and the issuing service.
//!
//! ```text
//!  TCP ──> accept ──> TLS handshake ──> identity ──> Connection ──> every request
//!            │             │                            │      └──> forwarding: of a proxy's request, the client's
//!      limits, PROXY    trust (watched)              recheck: trusted, not expired, not revoked?
//!      protocol header
//! ```
//!
//! A client certificate is requested but not required. An invalid certificate fails the handshake.
//! A certificate that expires or is revoked while a connection is open is rejected by
//! [`connection::Connection::peer`], which runs for every request.
//!
//! This crate never sends an HTTP response itself, though it helps a response to arrive
//! ([`discard()`]). It signs nothing but its own handshakes and
//! [statements](trust::Trust::sign_statement), and gives its key to nobody.

pub mod accept;
mod activity;
pub mod admission;
pub mod client_quota;
pub mod connection;
mod connection_age;
mod connection_end;
mod connection_slots;
mod discard;
pub mod forwarding;
mod handshake;
mod head_refusal;
mod host;
pub mod identity;
mod jws;
mod known_signatures;
pub mod limits;
pub mod proxies;
mod proxy_protocol;
pub mod quota_use;
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

/// The source of time in epoch seconds: the system clock, or a test.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
