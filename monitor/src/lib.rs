//! The monitor: samples this machine on every whole second and publishes over mutual TLS.
//!
//! ```text
//! tick         when to sample: on whole seconds, each at most once
//!   v
//! collect      what this machine is doing, one collector per subject
//!   v
//! spool        numbers the record and stores it: on disk, in memory, or in a test's backend
//!   v
//! scheduler    what is sent next to which destination
//!   v
//! agent        sends it ── mutual TLS ──> receiver
//!   v
//! retry, skew  what the answer means for the records, and for the clock that stamps samples
//!   v
//! spool        the destination is done with the record, or it waits to be sent again
//! ```
//!
//! Beside it, facts tells each receiver once a day what this machine is, over a connection of its
//! own.
//!
//! What holds:
//!
//! - A record is in the spool before it is sent, and keeps its number until it is delivered:
//!   however often it is sent, it counts once.
//! - A record is delivered, or it is dropped, counted, and reported to the receiver that misses it.
//! - A destination that is away delays no other, and costs no more than the spool may hold.
//! - What a receiver has acknowledged and lost it gets again, for as long as it is kept here.
//! - [`tick`], [`offset`], [`spool`], [`scheduler`], [`retry`], [`skew`] and [`health`] have no clock
//!   and open no socket, and [`spool`] alone of them touches files: [`spool::disk`] has its folder,
//!   and [`spool::Machine`] reads the machine's identifiers. [`agent`] acts and decides nothing.
//! - The monitor never links the CA, and it uses no certificate but that of its own node.
//!
//! To add a collector: `docs/architecture.md`, "Where do I add …".
//!
//! # Driving it without a clock, a disk or a network
//!
//! [`scheduler::DeliveryScheduler`] is all of the monitor but measuring and sending. Time and
//! chance are arguments, it returns what is to be sent, and it stores records where it is told to.
//! So a simulation can be clock, disk and network:
//!
//! ```
//! use std::time::Duration;
//! use lizmon_monitor::scheduler::{DeliveryScheduler, NextStep, Outcome};
//! use lizmon_monitor::spool::memory::{Crash, MemoryBackend};
//! use lizmon_monitor::spool::{DISK_BYTES_MAX, SpoolLimits, Spool};
//! use lizmon_protocol::sample::{EncodedSamples, Epoch, ProducerId, parse_sample_set};
//!
//! // The caller decides which producers there are, and where records are stored.
//! let start = |backend: MemoryBackend, id: u8| {
//!     let urls = vec!["https://r1:8443/api/perf".to_owned()];
//!     let new_producer = move || ProducerId::from_bytes([id; 16]);
//!     let limits = SpoolLimits::new(DISK_BYTES_MAX);
//!     DeliveryScheduler::new(Spool::open(backend, urls, limits, new_producer))
//! };
//! let mut monitor = start(MemoryBackend::default(), 1);
//! let now = Duration::from_secs(1_465_001_814);
//! let values = parse_sample_set(br#"{"cpu": 4.98}"#).unwrap();
//! let values = EncodedSamples::encode(&values).unwrap();
//! monitor.record(Epoch::new(now.as_secs()).unwrap(), values, now);
//!
//! // The process dies before anything is sent, and the next one finds the record.
//! let backend = monitor.into_backend().crash(Crash::Killed, false);
//! let mut monitor = start(backend, 2);
//! let NextStep::Send(batch) = monitor.next_step(0, now) else { panic!("a record waits") };
//! assert_eq!(batch.records[0].seq.get(), 1);
//!
//! // The network loses the answer, or delivers it; chance is 0.5.
//! let outcome = monitor.on_result(0, &batch, Ok(()), now, 0.5);
//! assert_eq!(outcome, Outcome::Delivered(1));
//! assert_eq!(monitor.next_step(0, now), NextStep::Idle);
//! ```
//!
//! [`spool::memory::MemoryBackend`] fails, loses data and rolls back when it is told to.

pub mod agent;
pub mod collect;
pub mod config;
mod environment;
pub mod facts;
pub mod health;
pub mod offset;
pub mod retry;
pub mod scheduler;
pub mod skew;
pub mod spool;
pub mod tick;

pub use agent::{Agent, AgentStartError};
pub use config::{Config, MonitorFlags};
pub use environment::{Environment, TimeSource};
