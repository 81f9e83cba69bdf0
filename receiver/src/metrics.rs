//! The receiver's OpenMetrics: tokens and refusals, expiry of certificates, connections, the store,
//! and each series' newest minute.
//!
//! Events that any client can cause are counted here and logged at a limited rate.

mod alarms;
mod gauges;
mod series;
mod shared_store;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use lizmon_mtls::Clock;
use lizmon_mtls::accept::{MtlsAcceptor, OpenConnections};
use lizmon_mtls::identity::Identity;
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::rejected_connections::{RejectedConnections, RejectionCause};
use lizmon_mtls::revocation::CrlNumber;
use lizmon_mtls::trust::{Trust, TrustPart, TrustReader};
use lizmon_protocol::sample::BatchAnswer;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use tokio::sync::{AcquireError, Semaphore};

use self::alarms::AlarmStates;
use self::gauges::gauges;
use self::series::NewestMinutes;
use crate::alarms::Alarms;
use crate::authorize::{Permit, ReadMetrics};
use crate::clock::ClockStatus;
use crate::health::HealthPolicy;
use crate::journal::Journal;
use crate::store::status::StoreStatus;
use crate::summarize::SummaryTable;

/// OpenMetrics 1.0, section on protocol negotiation.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Tokens are minted all the time: only some of them are logged.
const MINTED_LINES_AT_ONCE: NonZeroU32 = NonZeroU32::new(10).unwrap();
const MINTED_LINE_EVERY: Duration = Duration::from_secs(60);

/// How many scrapes are answered at a time: for a large fleet an answer takes a second of one core.
const SCRAPES_MAX: usize = 4;
/// How long one may take: scrapers give up sooner, and a slow reader must not keep its turn.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long another one waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// Left in a response for the middleware that counts: what was refused.
#[derive(Debug, Clone)]
pub struct RefusedRequest {
    /// Whether it was a request for a token.
    pub is_token: bool,
    /// The stable code.
    pub code: &'static str,
    /// The detail of this case.
    pub detail: Option<String>,
}

/// No turn became free in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("too many scrapes at a time")]
pub struct TooManyScrapes;

type Reason = [(&'static str, &'static str); 1];
type PointsLabels = [(&'static str, &'static str); 2];

/// How points come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointsProtocol {
    /// Prometheus' remote write.
    RemoteWrite,
    /// OTLP/HTTP.
    Otlp,
}

impl PointsProtocol {
    const fn as_str(self) -> &'static str {
        match self {
            Self::RemoteWrite => "remote_write",
            Self::Otlp => "otlp",
        }
    }
}

/// Counters, and collectors of current values.
pub struct Metrics {
    /// What the receiver itself is like, for every reader.
    of_receiver: Arc<Registry>,
    /// What all clients together do here, for readers that are not limited to some hosts: with few
    /// hosts such a sum tells of one.
    of_all_clients: Arc<Registry>,
    alarms: Arc<Alarms>,
    summaries: Arc<SummaryTable>,
    sample_clock: Clock,
    turns: Arc<Semaphore>,
    minted: Counter,
    tokens_refused: Family<Reason, Counter>,
    requests_refused: Family<Reason, Counter>,
    points: Family<PointsLabels, Counter>,
    minted_log: RateLimitedLog,
    refused_log: RateLimitedLog,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The metrics of a receiver with these parts.
    pub fn new(
        trust: TrustReader,
        door: &MtlsAcceptor,
        summaries: Arc<SummaryTable>,
        journal: &Journal,
        health: HealthPolicy,
        alarms: &Arc<Alarms>,
        (clock, sample_clock): (Clock, Clock),
    ) -> Self {
        let (mut of_receiver, mut registry) = (registry(), registry());
        let (minted, tokens_refused, requests_refused) =
            (Counter::default(), Family::default(), Family::default());
        registry.register("tokens_minted", "Tokens minted", minted.clone());
        registry.register(
            "tokens_refused",
            "Refused token requests, by RFC 6749 error code",
            Family::clone(&tokens_refused),
        );
        registry.register(
            "requests_refused",
            "Refused requests other than token requests, by problem code",
            Family::clone(&requests_refused),
        );
        let points = Family::default();
        registry.register(
            "points",
            "Points by protocol: accepted, duplicate, left_out because they are not good, or passed_over because there is no place for them",
            Family::clone(&points),
        );
        let (store, clock_status) = (journal.status(), journal.clock_status().clone());
        store.register(&mut registry);
        clock_status.register(&mut of_receiver);
        alarms::register(&mut of_receiver, &mut registry, alarms);
        if let Some(watch) = journal.watch() {
            shared_store::register(&mut registry, watch.clone());
        }
        registry.register_collector(Box::new(Connections {
            rejected: door.rejected(),
            open: door.open_connections(),
        }));
        of_receiver.register_collector(Box::new(CurrentValues {
            trust,
            store,
            clock_status,
            health,
            alarms: alarms.clone(),
            clock,
        }));
        Self {
            of_receiver: Arc::new(of_receiver),
            of_all_clients: Arc::new(registry),
            alarms: alarms.clone(),
            summaries,
            sample_clock,
            turns: Arc::new(Semaphore::new(SCRAPES_MAX)),
            minted,
            tokens_refused,
            requests_refused,
            points,
            minted_log: RateLimitedLog::new(MINTED_LINES_AT_ONCE, MINTED_LINE_EVERY),
            refused_log: RateLimitedLog::default(),
        }
    }

    /// A token was minted for this holder.
    pub fn token_minted(&self, holder: &Identity) {
        self.minted.inc();
        self.minted_log
            .say(|unsaid| tracing::info!(holder = %holder.spiffe_id, unsaid, "token minted"));
    }

    /// Points were taken.
    pub fn points(&self, protocol: PointsProtocol, answer: BatchAnswer) {
        self.count_points(protocol, "accepted", answer.accepted);
        self.count_points(protocol, "duplicate", answer.duplicate);
    }

    /// Points of requests that were taken otherwise are not good.
    pub fn points_left_out(&self, protocol: PointsProtocol, count: u64) {
        self.count_points(protocol, "left_out", count);
    }

    /// Parts of requests that were taken are kept nowhere.
    pub fn points_passed_over(&self, protocol: PointsProtocol, count: u64) {
        self.count_points(protocol, "passed_over", count);
    }

    fn count_points(&self, protocol: PointsProtocol, outcome: &'static str, count: u64) {
        if count > 0 {
            let labels = [("protocol", protocol.as_str()), ("outcome", outcome)];
            self.points.get_or_create(&labels).inc_by(count);
        }
    }

    /// A request was refused; `is_denial` if because of its sender, not its contents.
    pub fn refused(
        &self,
        refused: &RefusedRequest,
        is_denial: bool,
        address: IpAddr,
        who: Option<&Identity>,
    ) {
        if refused.is_token {
            let error = [("error", refused.code)];
            self.tokens_refused.get_or_create(&error).inc();
        } else {
            let code = [("code", refused.code)];
            self.requests_refused.get_or_create(&code).inc();
        }
        if is_denial {
            self.refused_log.say(|unsaid| {
                let who = who.map(|who| who.spiffe_id.to_string());
                tracing::warn!(
                    %address,
                    who,
                    code = refused.code,
                    detail = refused.detail,
                    unsaid,
                    "refused"
                );
            });
        }
    }

    /// The metrics that the holder may read, sent while they are encoded. It has turns of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant or a flag"
    )]
    pub async fn text(
        &self,
        permit: Permit<ReadMetrics>,
        of_holder: &Arc<Semaphore>,
    ) -> Result<Body, TooManyScrapes> {
        let turns = async {
            // The holder's own turn first: waiting for it blocks no other holder.
            let own = of_holder.clone().acquire_owned().await?;
            Ok::<_, AcquireError>([own, self.turns.clone().acquire_owned().await?])
        };
        let Ok(Ok(turns)) = tokio::time::timeout(TURN_WAIT, turns).await else {
            return Err(TooManyScrapes);
        };
        let of_all_clients = match permit.scope().is_limited() {
            false => Some(self.of_all_clients.clone()),
            true => None,
        };
        let (of_receiver, of_hosts) = (self.of_receiver.clone(), self.of_hosts(permit));
        Ok(stream::body(turns, SCRAPE_TIME_MAX, move |mut out| {
            text::encode_registry(&mut out, &of_receiver)?;
            if let Some(of_all_clients) = of_all_clients {
                text::encode_registry(&mut out, &of_all_clients)?;
            }
            text::encode_registry(&mut out, &of_hosts)?;
            text::encode_eof(&mut out)
        }))
    }

    /// What is told of hosts: of those in the permit's scope.
    fn of_hosts(&self, permit: Permit<ReadMetrics>) -> Registry {
        let permit = Arc::new(permit);
        let mut registry = registry();
        registry.register_collector(Box::new(AlarmStates {
            alarms: self.alarms.clone(),
            summaries: self.summaries.clone(),
            permit: permit.clone(),
        }));
        registry.register_collector(Box::new(NewestMinutes {
            summaries: self.summaries.clone(),
            clock: self.sample_clock.clone(),
            permit,
        }));
        registry
    }
}

fn registry() -> Registry {
    Registry::with_prefix("lizmon")
}

/// Values that are looked up for each scrape.
struct CurrentValues {
    trust: TrustReader,
    store: Arc<StoreStatus>,
    clock_status: Arc<ClockStatus>,
    health: HealthPolicy,
    alarms: Arc<Alarms>,
    clock: Clock,
}

impl fmt::Debug for CurrentValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CurrentValues({:?})", self.trust)
    }
}

impl Collector for CurrentValues {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let trust = self.trust.current();
        let ends = trust.loaded().map(|loaded| {
            let labels = [
                ("part", loaded.part.to_owned()),
                ("subject", loaded.subject),
            ];
            (labels, loaded.not_after)
        });
        gauges(
            &mut encoder,
            "certificate_not_after",
            "Expiry time of each loaded certificate, in seconds since 1970",
            Some(&Unit::Seconds),
            ends,
        )?;
        encode_crls(&mut encoder, &trust)?;
        let count = |part: TrustPart| {
            let mut trust_warnings = self.health.trust_warnings(&trust);
            let of_part = trust_warnings
                .by_ref()
                .filter(|warning| warning.part == part);
            ([("part", part.as_str().to_owned())], of_part.count() as u64)
        };
        gauges(
            &mut encoder,
            "trust_not_in_use",
            "Trust files, and CRLs and PEM sections in them, that are not in use as they are",
            None,
            TrustPart::ALL.map(count),
        )?;
        let now = (self.clock)();
        let of_trust = self.health.warnings(&trust, now).len();
        let of_clock = usize::from(self.clock_status.warning().is_some());
        let of_store = self.store.warnings(now).len();
        let of_alarms = self.alarms.warnings(now).len();
        let warnings = (of_trust + of_clock + of_store + of_alarms) as u64;
        gauges::<0>(
            &mut encoder,
            "health_warnings",
            "Warnings that /healthz gives",
            None,
            [([], warnings)],
        )?;
        let loads = ConstCounter::new(trust.generation());
        loads.encode(encoder.encode_descriptor(
            "trust_loads",
            "Loads of certificates and CRLs, pushed CRLs included",
            None,
            MetricType::Counter,
        )?)
    }
}

/// Connections, by what has become of them.
#[derive(Debug)]
struct Connections {
    rejected: Arc<RejectedConnections>,
    open: OpenConnections,
}

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let open = self.open.counts();
        gauges(
            &mut encoder,
            "connections_open",
            "Open connections, by state of authentication",
            None,
            open.map(|(state, count)| ([("state", state.to_owned())], count as u64)),
        )?;
        let mut family = encoder.encode_descriptor(
            "connections_rejected",
            "Connections that ended before their first request, by cause",
            None,
            MetricType::Counter,
        )?;
        for cause in RejectionCause::ALL {
            let count = ConstCounter::new(self.rejected.count(cause));
            count.encode(family.encode_family(&[("cause", cause.as_str())])?)?;
        }
        Ok(())
    }
}

/// One series for each issuer, however many CRLs it has.
fn encode_crls(encoder: &mut DescriptorEncoder<'_>, trust: &Trust) -> Result<(), fmt::Error> {
    struct OfIssuer {
        next_update: u64,
        number: Option<CrlNumber>,
        count: u64,
    }
    let mut issuers: BTreeMap<&str, OfIssuer> = BTreeMap::new();
    for list in trust.crls() {
        let of = issuers.entry(&list.issuer).or_insert(OfIssuer {
            next_update: u64::MAX,
            number: None,
            count: 0,
        });
        of.count += 1;
        of.number = list.number.clone().max(of.number.take());
        if !list.is_concurrent {
            of.next_update = of.next_update.min(list.next_update);
        }
    }
    let each = |value: fn(&OfIssuer) -> Option<u64>| {
        let issuers = issuers.iter();
        issuers
            .filter_map(|(issuer, of)| Some(([("issuer", (*issuer).to_owned())], value(of)?)))
            .collect::<Vec<_>>()
    };
    gauges(
        encoder,
        "crl_next_update",
        "nextUpdate of the issuer's CRL, in seconds since 1970",
        Some(&Unit::Seconds),
        each(|of| Some(of.next_update)),
    )?;
    gauges(
        encoder,
        "crl_number",
        "Number of the issuer's CRL in force, the highest if there are several",
        None,
        each(|of| of.number.as_ref().map(CrlNumber::saturating_u64)),
    )?;
    gauges(
        encoder,
        "crls_in_force",
        "CRLs of the issuer in force: several if number and date disagree on which is newer",
        None,
        each(|of| Some(of.count)),
    )
}
