//! The receiver: accepts samples over mutual TLS, makes them durable, and answers queries with
//! summaries.
//!
//! ```text
//!  mTLS ──> router ──> token ──> authorize ──> ingest ──> journal ──> 204
//!                                   │                        │
//!                                 Permit              summarize ──> store
//!                                                            │
//!  mTLS <── router <──────────────────── query <─────────────┘
//! ```
//!
//! What holds, and where:
//!
//! - A handler needs a [`authorize::Permit`], and only `authorize` makes one.
//! - A sample is durable before its POST is answered: [`journal`] alone answers one.
//! - Summaries change in [`summarize`] alone, and only by what the journal holds, in its order.
//! - The receiver cannot issue a certificate: it links no CA and holds no CA key.
//! - Nothing outside [`store`] and [`config`] knows which store it is.

pub mod body;
mod certificates;
pub mod clock;
pub mod config;
pub mod health;
pub mod metrics;
pub mod router;
pub mod token;

pub mod authorize;
pub mod ingest;
pub mod journal;
pub mod query;
pub mod silence;
pub mod store;
pub mod summarize;

mod crl_fetch;
mod serve;

pub use clock::Clocks;
pub use config::Config;
pub use lizmon_mtls::Clock;
pub use serve::{Receiver, ReceiverError};
