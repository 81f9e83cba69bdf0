//! Starts, runs and stops a receiver.

mod pipeline;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lizmon_alarms::rules::RulesError;
use lizmon_mtls::Clock;
use lizmon_mtls::accept::MtlsAcceptor;
use lizmon_mtls::server::{self, HttpLimits};
use lizmon_mtls::trust::{StatementError, Trust, TrustError, TrustReader, TrustWriter};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use self::pipeline::{Pipeline, PipelineError, PipelineThreads, SharedPipeline};
use crate::alarms::Alarms;
use crate::body::BodyReader;
use crate::certificates::{CertificateRegistry, HolderCertificates};
use crate::clock::Clocks;
use crate::config::{Config, CrlFetch};
use crate::crl_fetch;
use crate::health::HealthPolicy;
use crate::journal::JournalError;
use crate::metrics::Metrics;
use crate::peers::{CrlExchange, EXCHANGE_EVERY, PeerKeys};
use crate::receiver_keys::{KeyStatementVerifier, ReceiverKeys};
use crate::router::{self, Front, ReceiverState};
use crate::store::{LockedFolder, StoreError};
use crate::token::{TokenKeyError, Tokens};
use crate::view::FleetCache;

/// File in the data folder for CRLs that an operator pushed or that were fetched.
const STORED_CRL: &str = "crl.pem";
/// How often files are checked for changes and token keys for their age.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often new warnings are logged, and what has failed is tried again.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// After how long a warning that still holds is logged again.
const REMIND_AGAIN_SECS: u64 = 3600;
/// HTTP/2 streams of one connection at a time.
const HTTP2_STREAMS_MAX: u32 = 128;
/// Of how many hosts it is remembered that a gateway was written down, and what its metadata says; of
/// more it is again.
const NOTED_REPORTERS_MAX: usize = 16_384;
/// Of how many gateways metadata is remembered.
const GATEWAYS_MAX: usize = 64;
/// Event streams at a time: each looks at its hosts once a second.
const EVENT_STREAMS_MAX: usize = 512;
/// Largest request head.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// Why a receiver does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// Certificate, key, roots or CRLs.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token keys.
    #[error(transparent)]
    Keys(#[from] TokenKeyError),
    /// Other receivers could not check our keys.
    #[error("the certificate's key cannot sign what other receivers must trust")]
    Statement(#[from] StatementError),
    /// The certificate has no name that clients could connect to.
    #[error(
        "{cert}: the certificate has no DNS name or address: issue one with `lizctl issue-receiver NAME --san NAME-OR-ADDRESS`"
    )]
    NoServerName {
        /// Which file.
        cert: String,
    },
    /// The socket or a thread.
    #[error("the receiver cannot listen")]
    Listen(#[from] io::Error),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The alarm rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

/// A receiver that has everything it needs, and listens.
pub struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<ReceiverState>,
    door: MtlsAcceptor,
    threads: PipelineThreads,
    crl_fetch: Option<CrlFetch>,
    first_request_timeout: Duration,
    clock: Clock,
    alive: Arc<dyn Fn() + Send + Sync>,
}

impl ReceiverError {
    /// Whether the store is at fault, and may work in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_pass())
    }
}

impl From<PipelineError> for ReceiverError {
    fn from(error: PipelineError) -> Self {
        match error {
            PipelineError::Store(error) => Self::Store(error),
            PipelineError::Thread(error) => Self::Listen(error),
        }
    }
}

impl Receiver {
    /// Opens the store, replays the journal, and loads certificates and CRLs. When this returns,
    /// the receiver is ready: connections wait in the listener until [`Receiver::run`] accepts
    /// them.
    pub async fn start(
        listener: TcpListener,
        config: Config,
        clocks: Clocks,
    ) -> Result<Self, ReceiverError> {
        let clock = clocks.wall.clone();
        let address = listener.local_addr()?;
        let (trust, reader) = TrustWriter::open_with_crl_file(
            config.trust.clone(),
            config.data.join(STORED_CRL),
            clock.clone(),
            config.tls_min,
        )?;
        let no_name = || ReceiverError::NoServerName {
            cert: config.trust.cert.display().to_string(),
        };
        let own_name = reader.current().server_name().ok_or_else(no_name)?;
        let own_url = format!("https://{own_name}:{}", address.port());
        // Before anything in it is read: what is there belongs to one process.
        let folder = LockedFolder::lock(&config.data)?;
        let parts = Parts {
            trust: Arc::new(Mutex::new(trust)),
            tokens: Arc::new(open_tokens(&config, own_url, clock())?),
            door: MtlsAcceptor::new(
                reader.clone(),
                config.limits.clone(),
                config.proxies.clone(),
                clock.clone(),
            ),
            reader,
        };
        let own = parts.reader.current().own().spiffe_id.name.to_string();
        let runtime = tokio::runtime::Handle::current();
        let alarms = Arc::new(Alarms::start(&config.alarms, own, clock.clone(), runtime)?);
        let pipeline = start_pipeline(folder, &config, &parts, alarms.clone(), clocks).await?;
        let health = HealthPolicy {
            crl_grace: config.crl_grace.as_secs(),
            fetches_crls: config.crl_fetch.is_some(),
        };
        let Parts {
            trust,
            reader,
            tokens,
            door,
        } = parts;
        pipeline.table.limit_host_series(config.host_series_max);
        let sample_clock = pipeline.clocks.wall;
        let fine_clock = pipeline.clocks.fine;
        let app = ReceiverState {
            metrics: Metrics::new(
                reader.clone(),
                &door,
                pipeline.table.clone(),
                &pipeline.journal,
                health,
                &alarms,
                (clock.clone(), sample_clock.clone()),
            ),
            trust: reader.clone(),
            trust_writer: trust,
            tokens,
            bodies: BodyReader::new(config.body_timeout),
            journal: pipeline.journal,
            alarms,
            table: pipeline.table,
            history: Arc::new(pipeline.histories),
            health,
            holders: HolderCertificates::default(),
            seen: CertificateRegistry::open(&config.data, clock()),
            fleet: FleetCache::default(),
            noted_reporters: Cache::new(NOTED_REPORTERS_MAX),
            gateway_kinds: Cache::new(GATEWAYS_MAX),
            kept_kinds: Cache::new(NOTED_REPORTERS_MAX),
            event_streams: Arc::new(Semaphore::new(EVENT_STREAMS_MAX)),
            clock: clock.clone(),
            sample_clock,
            run: u64::try_from(fine_clock().as_millis()).unwrap_or(u64::MAX),
            fine_clock,
        };
        note(&app, &reader.current(), clock());
        Ok(Self {
            listener,
            address,
            app: Arc::new(app),
            first_request_timeout: config.limits.first_request_timeout,
            door,
            threads: pipeline.threads,
            crl_fetch: config.crl_fetch,
            clock,
            alive: Arc::new(|| ()),
        })
    }

    /// Calls this every second while it serves.
    pub fn telling_alive(self, alive: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { alive, ..self }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The issuer of its tokens.
    pub fn issuer(&self) -> &str {
        self.app.tokens.issuer()
    }

    /// Serves until `shutdown`; then accepts no more connections, finishes open requests, and
    /// commits everything.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ReceiverError> {
        let http = HttpLimits {
            first_request_timeout: self.first_request_timeout,
            head_bytes_max: HEAD_BYTES_MAX,
            http2_streams_max: HTTP2_STREAMS_MAX,
        };
        let routes = Front::new(self.app.clone());
        let serving = server::serve(self.listener, self.door, http, routes, shutdown);
        let maintenance = maintain(self.app.clone(), self.clock.clone());
        let living = tell_alive(self.app.clone(), self.alive);
        let fetching = crl_fetch::run(self.app.clone(), self.crl_fetch, self.clock);
        let served = tokio::select! {
            served = serving => served,
            () = maintenance => Ok(()),
            () = fetching => Ok(()),
            () = living => Ok(()),
            // Without it every POST would be refused: it is better to end and be restarted.
            () = self.threads.ended() => Ok(()),
        };
        let app = self.app;
        let saved = tokio::task::spawn_blocking(move || save_certificates(&app));
        let _joined = saved.await;
        // The journal's thread ends when the last request has dropped its handle on it.
        tokio::task::spawn_blocking(|| self.threads.join())
            .await
            .map_err(io::Error::other)??;
        tracing::info!("stopped: everything is committed");
        Ok(served?)
    }
}

/// What a receiver has before it has a store.
struct Parts {
    trust: Arc<Mutex<TrustWriter>>,
    reader: TrustReader,
    tokens: Arc<Tokens>,
    door: MtlsAcceptor,
}

fn open_tokens(config: &Config, own_url: String, now: u64) -> Result<Tokens, TokenKeyError> {
    let issuer = config.issuer.clone().unwrap_or_else(|| own_url.clone());
    let audience = config.audience.clone().unwrap_or(own_url);
    Tokens::open(
        &config.data,
        issuer,
        audience,
        config.token_ttl,
        config.token_key_life,
        now,
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "others read our keys at times of theirs"
)]
async fn start_pipeline(
    folder: LockedFolder,
    config: &Config,
    parts: &Parts,
    alarms: Arc<Alarms>,
    clocks: Clocks,
) -> Result<Pipeline, ReceiverError> {
    let (window, retention) = (config.gather_window, config.retention);
    let Some(store) = config.shared.clone() else {
        let start = move || Pipeline::start(folder, &alarms, retention, window, clocks);
        let started = tokio::task::spawn_blocking(start).await;
        return Ok(started.map_err(io::Error::other)??);
    };
    let shared = SharedPipeline {
        servers: store.redis,
        keys: peer_keys(&parts.reader, &parts.tokens, &clocks.wall)?,
        crls: CrlExchange::new(parts.trust.clone(), parts.reader.clone()),
        quotas: parts.door.holder_quotas(),
        trust: parts.reader.clone(),
        alarms,
        summarizes: store.summarizes,
        high_water: store.high_water,
        retention,
    };
    let start = move || Pipeline::start_shared(folder, shared, window, clocks);
    let started = tokio::task::spawn_blocking(start).await;
    // Until our keys are known to the other receivers.
    tokio::time::sleep(2 * EXCHANGE_EVERY).await;
    Ok(started.map_err(io::Error::other)??)
}

/// Groups are signed with the token keys, and checked against the receivers' certificates.
fn peer_keys(
    trust: &TrustReader,
    tokens: &Arc<Tokens>,
    clock: &Clock,
) -> Result<PeerKeys, ReceiverError> {
    let verifier = Arc::new(KeyStatementVerifier::new(trust.clone(), clock.clone()));
    let own = ReceiverKeys::open(tokens.clone(), verifier.clone())?;
    Ok(PeerKeys {
        own: Arc::new(own),
        verifier,
        tokens: tokens.clone(),
    })
}

/// Tells each second that the receiver works. It runs in the task that accepts connections, and
/// takes the locks that requests take; it needs no disk, because a new process could not use one
/// that hangs either. Never returns.
#[expect(clippy::disallowed_methods, reason = "paces background work")]
async fn tell_alive(app: Arc<ReceiverState>, alive: Arc<dyn Fn() + Send + Sync>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        let _no_lock_is_stuck = router::health_warnings(&app);
        alive();
    }
}

/// Reloads trust when its files change and rotates token keys when they are due. Never returns.
#[expect(clippy::disallowed_methods, reason = "paces background work")]
async fn maintain(app: Arc<ReceiverState>, clock: Clock) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut remind = tokio::time::interval(REMIND_EVERY);
    let mut rotation_failed = false;
    let mut logged = LoggedWarnings::default();
    logged.log(app.health.warnings(&app.trust.current(), clock()), clock());
    loop {
        tokio::select! {
            _ = look.tick() => {
                reload_if_changed(&app, &clock, &mut logged).await;
                look_at_alarms(&app, clock()).await;
                if !rotation_failed && let Err(error) = rotate_token_keys(&app.tokens, clock()).await {
                    tracing::error!(error = &error as &dyn std::error::Error, "token keys cannot be rotated");
                    rotation_failed = true;
                }
            }
            _ = remind.tick() => {
                rotation_failed = false;
                logged.log(app.health.warnings(&app.trust.current(), clock()), clock());
                let app = app.clone();
                let saved = tokio::task::spawn_blocking(move || save_certificates(&app));
                let _joined = saved.await;
            }
        }
    }
}

/// A new key is on the disk before it signs: that is waited for on no thread that serves requests.
async fn rotate_token_keys(tokens: &Arc<Tokens>, now: u64) -> Result<(), TokenKeyError> {
    let tokens = tokens.clone();
    let rotated = tokio::task::spawn_blocking(move || tokens.rotate(now)).await;
    // It has panicked, and said so.
    rotated.unwrap_or(Ok(()))
}

/// Takes up changed alarm rules, and tells the evaluator whether anything can come from hosts.
async fn look_at_alarms(app: &Arc<ReceiverState>, now: u64) {
    let refused = app.health.refused_for(&app.trust.current(), now);
    app.alarms.set_refuses_everyone(refused.is_some());
    let app = app.clone();
    let reloaded = tokio::task::spawn_blocking(move || app.alarms.reload_if_changed()).await;
    let _joined = reloaded;
}

/// A failure loses little: certificates are seen again when their holders reconnect.
fn save_certificates(app: &ReceiverState) {
    if let Err(error) = app.seen.save() {
        tracing::warn!(%error, "cannot save the certificate registry: trying again in a minute");
    }
}

async fn reload_if_changed(app: &Arc<ReceiverState>, clock: &Clock, logged: &mut LoggedWarnings) {
    match reload_trust(app.clone()).await {
        None => (),
        Some(Ok(trust)) => {
            let generation = trust.generation();
            match app.health.trust_warnings(&trust).count() {
                0 => tracing::info!(generation, "certificates and CRLs reloaded"),
                not_in_use => tracing::warn!(
                    generation,
                    not_in_use,
                    "certificates and CRLs reloaded, but parts of the files are not in use"
                ),
            }
            note(app, &trust, clock());
            if let Err(refusal) = trust.verify_own(clock()) {
                tracing::error!(%refusal, "clients will reject the server certificate: issue a new one");
            }
            logged.log(app.health.warnings(&trust, clock()), clock());
        }
        Some(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "cannot reload certificates and CRLs: the previous ones stay in use"
            );
        }
    }
}

/// Logs how the files were understood, and records our own certificate.
fn note(app: &ReceiverState, trust: &Trust, now: u64) {
    app.seen.note(trust.own(), trust.own_certificate(), now);
    for note in trust.notes() {
        tracing::info!("{note}");
    }
    for text in trust.ignored_text() {
        tracing::warn!("{text}");
    }
}

/// Which warnings were logged, and when.
#[derive(Default)]
struct LoggedWarnings {
    warnings: Vec<String>,
    /// Epoch seconds.
    at: u64,
}

impl LoggedWarnings {
    /// Logs new warnings, and all of them again after an hour.
    fn log(&mut self, warnings: Vec<String>, now: u64) {
        let is_due = now.saturating_sub(self.at) >= REMIND_AGAIN_SECS;
        for warning in &warnings {
            if is_due || !self.warnings.contains(warning) {
                tracing::warn!("{warning}");
            }
        }
        if is_due {
            self.at = now;
        }
        self.warnings = warnings;
    }
}

/// Runs on a blocking thread: a long CRL takes a while to read, and a push holds the lock for as
/// long.
async fn reload_trust(app: Arc<ReceiverState>) -> Option<Result<Arc<Trust>, TrustError>> {
    let reload = move || {
        app.trust_writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reload_if_changed()
    };
    tokio::task::spawn_blocking(reload).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    const NOW: u64 = 1_465_001_814;
    const KEY_LIFE: Duration = Duration::from_secs(86_400);

    /// On a slow disk, requests on the same thread waited until a new key was on it.
    #[test]
    fn no_worker_waits_for_a_new_token_key() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = "https://rx1".to_owned();
        let (data, ttl) = (folder.path(), Duration::from_secs(300));
        let tokens = Tokens::open(data, url.clone(), url, ttl, KEY_LIFE, NOW).unwrap();
        let tokens = Arc::new(tokens);
        runtime.block_on(async {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let mut rotated = pin!(rotate_token_keys(&tokens, NOW + KEY_LIFE.as_secs()));
            let begun = poll_fn(|cx| Poll::Ready(rotated.as_mut().poll(cx))).await;
            assert!(begun.is_pending());
            assert_eq!(tokens.own_keys().len(), 1);
            drop(release);
            busy.await.unwrap().unwrap_err();
            rotated.await.unwrap();
            assert_eq!(tokens.own_keys().len(), 2);
        });
    }
}
