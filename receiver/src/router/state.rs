//! What the handlers work with.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use lizmon_mtls::Clock;
use lizmon_mtls::trust::{TrustReader, TrustWriter};
use lizmon_protocol::name::{NodeName, SpiffeId};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::alarms::Alarms;
use crate::body::BodyReader;
use crate::certificates::{CertificateRegistry, HolderCertificates};
use crate::clock::FineClock;
use crate::health::HealthPolicy;
use crate::history::Histories;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::summarize::{SaidKinds, SummaryTable};
use crate::token::Tokens;
use crate::view::FleetCache;

/// What the handlers work with.
pub struct ReceiverState {
    /// The present trust.
    pub trust: TrustReader,
    /// Changes the trust.
    pub trust_writer: Arc<Mutex<TrustWriter>>,
    /// Mints and verifies.
    pub tokens: Arc<Tokens>,
    /// Reads bodies.
    pub bodies: BodyReader,
    /// Makes durable.
    pub journal: Journal,
    /// Judges hosts, and tells.
    pub alarms: Arc<Alarms>,
    /// The summaries.
    pub table: Arc<SummaryTable>,
    /// What is kept longer than they are.
    pub history: Arc<Histories>,
    /// By which certificates hosts report.
    pub(crate) holders: HolderCertificates,
    /// Which certificates were seen.
    pub(crate) seen: CertificateRegistry,
    /// What is wrong with each host, as pages say it.
    pub(crate) fleet: FleetCache,
    /// When it was last written down that somebody reports a host.
    pub(crate) noted_reporters: Cache<(NodeName, SpiffeId), u64>,
    /// By gateway, what its metadata has said.
    pub(crate) gateway_kinds: Cache<NodeName, Arc<SaidKinds>>,
    /// By gateway and host, the digest of what of it is known to be kept with the host.
    pub(crate) kept_kinds: Cache<(NodeName, NodeName), u64>,
    /// Permits for event streams.
    pub(crate) event_streams: Arc<Semaphore>,
    /// Counts.
    pub metrics: Metrics,
    /// Says what needs attention.
    pub health: HealthPolicy,
    /// The time by which certificates, tokens and CRLs are judged.
    pub clock: Clock,
    /// The time that samples and windows go by: the store's, if several processes share it.
    pub sample_clock: Clock,
    /// The same to the millisecond.
    pub fine_clock: FineClock,
    /// Identifies this run of the receiver: when it started, in milliseconds.
    pub run: u64,
}

pub(super) type SharedState = State<Arc<ReceiverState>>;
