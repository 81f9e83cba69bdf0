//! The monitor: samples this machine on every whole second and publishes over mutual TLS.
//!
//! ```text
//! tick -> sample -> dispatch ─────────────── agent sends -> receiver
//!                   │ spool -> what next?     ^      │
//!                   │  │       publish: what  └──────┤
//!                   │  │       does it mean? <───────┘ outcome
//!                   │  └── a place of its own for each destination
//!                   └── Keep: disk, memory, or a test's
//! ```
//!
//! What holds:
//!
//! - A record is in the spool before it is sent, and keeps its number until it is delivered: however often it is sent, it counts once.
//! - A record is delivered, or it is given up, counted, and reported to the receiver that misses it.
//! - A destination that is away holds back no other, and costs no more than the spool may hold.
//! - [`tick`], [`spool`], [`dispatch`], [`publish`], [`skew`] and [`report`] have no clock and open no socket; [`agent`] acts and decides
//!   nothing. The only files are [`spool::disk`]'s.
//! - The monitor never links the CA, and a certificate that is not a node's, or another node's, is not used.
//!
//! # Driving it without a clock, a disk or a network
//!
//! [`dispatch::Dispatch`] is all of the monitor but the measuring and the sending. Time and chance are arguments, what it would send it
//! hands out, and it keeps things where it is told to. So a simulation can be clock, disk and network:
//!
//! ```
//! use std::time::Duration;
//! use lizmon_monitor::dispatch::{Dispatch, Done, Next};
//! use lizmon_monitor::spool::memory::{Crash, Memory};
//! use lizmon_monitor::spool::{DISK_BYTES_MAX, Limits, Spool};
//! use lizmon_protocol::sample::{Epoch, ProducerId, parse_sample_set};
//!
//! // Whoever drives it says which producers there are, and where records are kept.
//! let start = |keep: Memory, id: u8| {
//!     let urls = vec!["https://r1:8443/api/perf".to_owned()];
//!     let new_producer = move || ProducerId::from_bytes([id; 16]);
//!     Dispatch::new(Spool::open(keep, urls, Limits::new(DISK_BYTES_MAX), new_producer))
//! };
//! let mut monitor = start(Memory::default(), 1);
//! let now = Duration::from_secs(1_465_001_814);
//! let values = parse_sample_set(br#"{"cpu": 4.98}"#).unwrap();
//! monitor.sampled(Epoch::new(now.as_secs()).unwrap(), &values, now);
//!
//! // The process dies before anything is sent, and the next one finds the record.
//! let keep = monitor.into_keep().crash(Crash::Killed, false);
//! let mut monitor = start(keep, 2);
//! let Next::Send(lot) = monitor.next(0, now) else { panic!("a record waits") };
//! assert_eq!(lot.records[0].seq.get(), 1);
//!
//! // The network loses the answer, or delivers it; chance is 0.5.
//! let done = monitor.done(0, &lot, Ok(()), now, 0.5);
//! assert_eq!(done, Done::Delivered(1));
//! assert_eq!(monitor.next(0, now), Next::Idle);
//! ```
//!
//! [`spool::memory::Memory`] fails, forgets and comes back older than it was when it is told to.

pub mod agent;
pub mod collect;
pub mod config;
pub mod dispatch;
pub mod publish;
pub mod report;
pub mod skew;
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
    /// The time since some moment, asleep or awake. It does not step.
    pub monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// A number from 0 to 1, another each time, so that a fleet does not come back in step.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Another name each time for who numbers records: unlike any other monitor's, and any earlier run's.
    pub new_producer: Arc<dyn Fn() -> ProducerId + Send + Sync>,
}
