//! Starts the service and runs it with its maintenance until it is told to stop.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lizmon_mtls::Clock;
use lizmon_mtls::accept::MtlsAcceptor;
use lizmon_mtls::limits::Limits;
use lizmon_mtls::proxies::{Proxies, ProxyRole};
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::server::{self, HttpLimits};
use lizmon_mtls::trust::{Trust, TrustError, TrustFiles, TrustReader, TrustWriter};

use super::config::Config;
use super::handle::{AuthorityHandle, MAINTENANCE_INTERVAL};
use super::handlers::{ServiceState, blocking};
use super::rate_limits::RateLimiters;
use super::router::answerer;
use crate::authority::Error;

/// How often the trust files are checked for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// How often the log warns of a CA that should be replaced.
const WARN_INTERVAL: Duration = Duration::from_secs(86_400);
/// Concurrent HTTP/2 streams of one connection.
const HTTP2_STREAMS_MAX: u32 = 16;
/// Largest request head: a name and a token are less than a hundredth of it.
const HEAD_BYTES_MAX: u32 = 32 << 10;

/// Why the service does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The CA cannot be opened, or issues us no certificate.
    #[error(transparent)]
    Ca(#[from] Error),
    /// Certificate, key, root or CRLs cannot be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The socket or a thread failed.
    #[error("liz-ca cannot listen")]
    Listen(#[from] io::Error),
}

/// The service, listening.
pub struct Service {
    listener: TcpListener,
    address: SocketAddr,
    url: String,
    state: Arc<ServiceState>,
    door: MtlsAcceptor,
    trust: TrustWriter,
    limits: Limits,
    alive: Arc<dyn Fn() + Send + Sync>,
}

/// Starts the service and runs it until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    clock: Clock,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServiceError> {
    Service::start(listener, config, clock)
        .await?
        .run(shutdown)
        .await
}

impl Service {
    /// Opens the CA, makes sure of a certificate to show, and loads the trust files. When this
    /// returns, the service is ready: connections wait in the listener until [`Service::run`]
    /// accepts them.
    pub async fn start(
        listener: TcpListener,
        config: Config,
        clock: Clock,
    ) -> Result<Self, ServiceError> {
        let address = listener.local_addr()?;
        let (certs, certificate, unlock) =
            (config.certs.clone(), config.certificate, config.unlock);
        let now = clock();
        let (handle, shown) = blocking(move || {
            let handle = AuthorityHandle::open(&certs, certificate, unlock, now)?;
            let shown = handle.ensure_service_certificate(now)?;
            Ok::<_, Error>((handle, shown))
        })
        .await??;
        let files = TrustFiles {
            cert: shown.certificate,
            key: shown.key,
            ca: config.certs.join("root.crt"),
            crl: config.certs.join("crl.pem"),
        };
        let (trust, reader) = TrustWriter::open(files, clock.clone(), config.tls_min)?;
        warn_of_text(&reader.current());
        let name = reader.current().server_name();
        let name = name.unwrap_or_else(|| address.ip().to_string());
        let state = ServiceState {
            handle: Arc::new(handle),
            trust: reader.clone(),
            rates: RateLimiters::new(&config.rates),
            refusals: RateLimitedLog::default(),
            joined: Mutex::default(),
            body_timeout: config.body_timeout,
            clock,
        };
        Ok(Self {
            listener,
            address,
            url: format!("https://{name}:{}", address.port()),
            door: MtlsAcceptor::new(
                reader,
                config.limits.clone(),
                Proxies {
                    protocol_from: config.proxy_protocol,
                    role: ProxyRole::Client,
                },
                state.clock.clone(),
            ),
            state: Arc::new(state),
            trust,
            limits: config.limits,
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

    /// Its URL, with the first name of its certificate.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it trusts.
    pub fn trust(&self) -> TrustReader {
        self.state.trust.clone()
    }

    /// Serves until `shutdown`; then accepts no more connections and finishes the requests in
    /// progress.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServiceError> {
        let http = HttpLimits {
            first_request_timeout: self.limits.first_request_timeout,
            head_bytes_max: HEAD_BYTES_MAX,
            http2_streams_max: HTTP2_STREAMS_MAX,
        };
        let routes = answerer(self.state.clone());
        let served = tokio::select! {
            served = server::serve(self.listener, self.door, http, routes, shutdown) => served,
            () = maintenance(self.trust, self.state.clone()) => Ok(()),
            () = tell_alive(&self.state, &*self.alive) => Ok(()),
        };
        tracing::info!("stopped");
        Ok(served?)
    }
}

/// Tells each second that the service works: in the task that accepts connections, and with the
/// lock that requests take. Never returns.
#[expect(clippy::disallowed_methods, reason = "paces background work")]
async fn tell_alive(state: &ServiceState, alive: &(dyn Fn() + Send + Sync)) {
    let mut every = tokio::time::interval(RELOAD_INTERVAL);
    loop {
        every.tick().await;
        let _no_lock_is_stuck = state.handle.expiry((state.clock)());
        alive();
    }
}

/// Reloads the trust files when they change, signs CRLs that are due, and renews our own
/// certificate.
#[expect(clippy::disallowed_methods, reason = "paces background work")]
async fn maintenance(mut trust: TrustWriter, state: Arc<ServiceState>) {
    let mut reload = tokio::time::interval(RELOAD_INTERVAL);
    let mut maintain = tokio::time::interval(MAINTENANCE_INTERVAL);
    let mut warn = tokio::time::interval(WARN_INTERVAL);
    loop {
        tokio::select! {
            _ = reload.tick() => match trust.reload_if_changed() {
                None => (),
                Some(Ok(trust)) => {
                    tracing::info!(generation = trust.generation(), "certificates and CRLs reloaded");
                    warn_of_text(&trust);
                    // After a rotation our own certificate has to be issued again.
                    run_maintenance(&state).await;
                }
                Some(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot reload certificates and CRLs: keeping the last ones");
                }
            },
            _ = maintain.tick() => {
                state.rates.remove_idle();
                run_maintenance(&state).await;
            }
            _ = warn.tick() => {
                if let Some(warning) = state.handle.expiry((state.clock)()) {
                    tracing::warn!("{warning}");
                }
            }
        }
    }
}

fn warn_of_text(trust: &Trust) {
    for text in trust.ignored_text() {
        tracing::warn!("{text}");
    }
}

async fn run_maintenance(state: &ServiceState) {
    let (handle, now) = (state.handle.clone(), (state.clock)());
    let done = blocking(move || handle.maintenance(now)).await;
    let failed = match &done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error as &dyn std::error::Error,
        Err(error) => error,
    };
    tracing::error!(error = failed, "maintenance of the CA failed: will retry");
}
