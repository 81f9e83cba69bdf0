//! The monitor: samples this machine on every whole second and publishes over mutual TLS.
//!
//! ```text
//! tick -> sample -> spool -> publish decides -> agent sends -> receiver
//!                     │           ^                 │
//!                     │           └──── outcome ────┤
//!                     └── a place of its own for each destination
//! ```
//!
//! What holds:
//!
//! - A record keeps its number until it is delivered, so however often it is sent, it counts once.
//! - A destination that is away holds back no other, and costs no more than the spool may hold.
//! - [`tick`], [`spool`], [`publish`] and [`report`] do no I/O and have no clock; [`agent`] acts and decides nothing.
//! - The monitor never links the CA, and a certificate that is not a node's, or another node's, is not used.

pub mod agent;
pub mod config;
pub mod publish;
pub mod report;
pub mod sample;
pub mod spool;
pub mod tick;

use std::sync::Arc;
use std::time::Duration;

use lizmon_protocol::sample::ProducerId;

pub use agent::{Agent, StartError};
pub use config::{Config, Flags};

/// What enters from outside the program: time and randomness.
#[derive(Clone)]
pub struct Edges {
    /// The time since 1970 UTC. It may step.
    pub clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// A number from 0 to 1, another each time, so that a fleet does not come back in step.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Who numbers the records: unlike any other monitor's, and any earlier run's.
    pub producer: ProducerId,
}
