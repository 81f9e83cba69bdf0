//! `liz-ca`: enrolment and renewal over the network, RFC 7030, through the same front door as a receiver's.
//!
//! ```text
//! FrontDoor (TLS, client certificate asked for, CRLs) --> router --> rates --> handle (ledger, keys; off the event loop)
//! ```
//!
//! Anyone may fetch the CA's certificates and the revocation lists. A certificate is given for a join token, or to the
//! holder of the current one.

mod handle;
mod rates;
mod refusal;
mod router;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lizmon_mtls::accept::FrontDoor;
use lizmon_mtls::bounded_log::BoundedLog;
use lizmon_mtls::limits::Limits;
use lizmon_mtls::server::{self, HttpLimits};
use lizmon_mtls::trust::{Trust, TrustError, TrustFiles, TrustReader, TrustWriter};
use lizmon_mtls::{Clock, TlsMin};

pub use self::handle::ServiceCertificate;
use self::handle::{AuthorityHandle, MAINTENANCE_INTERVAL};
pub use self::rates::RateLimits;
use self::rates::Rates;
use self::router::ServiceState;
pub use self::router::{CaRoute, routes};
use crate::error::Error;
use crate::passphrase::Unlock;

/// How often the files of trust are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said that a CA should be replaced.
const WARN_INTERVAL: Duration = Duration::from_secs(86_400);
/// Longest wait for a request's body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 streams of one connection at a time.
const HTTP2_STREAMS_MAX: u32 = 16;
/// Largest request head: a name and a token are less than a hundredth of it.
const HEAD_BYTES_MAX: u32 = 32 << 10;

/// What the service is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The CA's folder.
    pub certs: PathBuf,
    /// How the issuing CA's key is come by.
    pub unlock: Unlock,
    /// What it shows.
    pub own: ServiceCertificate,
    /// Longest wait for a request's body.
    pub body_timeout: Duration,
    /// The oldest version of TLS it speaks.
    pub tls_min: TlsMin,
    /// The front door's limits.
    pub limits: Limits,
    /// How often anyone may try.
    pub rates: RateLimits,
}

impl Config {
    /// A configuration with every default.
    pub fn new(certs: PathBuf, own: ServiceCertificate) -> Self {
        Self {
            certs,
            unlock: Unlock::default(),
            own,
            body_timeout: BODY_TIMEOUT,
            tls_min: TlsMin::default(),
            limits: Limits::default(),
            rates: RateLimits::default(),
        }
    }
}

/// Why the service does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The CA cannot be opened, or gives us no certificate.
    #[error(transparent)]
    Ca(#[from] Error),
    /// Certificate, key, root or revocation lists.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The socket or a thread.
    #[error("liz-ca cannot listen")]
    Listen(#[from] io::Error),
}

/// The service, with everything it needs, listening.
pub struct Service {
    listener: TcpListener,
    address: SocketAddr,
    url: String,
    app: Arc<ServiceState>,
    door: FrontDoor,
    trust: TrustWriter,
    limits: Limits,
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
    /// Opens the CA, sees to a certificate to show, and loads whom to trust. When this returns, the service is ready:
    /// connections wait in the listener until [`Service::run`] takes them.
    pub async fn start(
        listener: TcpListener,
        config: Config,
        clock: Clock,
    ) -> Result<Self, ServiceError> {
        let address = listener.local_addr()?;
        let (certs, own, unlock) = (config.certs.clone(), config.own, config.unlock);
        let now = clock();
        let (handle, shown) = blocking(move || {
            let handle = AuthorityHandle::open(&certs, own, unlock, now)?;
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
        let app = ServiceState {
            handle: Arc::new(handle),
            trust: reader.clone(),
            rates: Rates::new(&config.rates),
            refusals: BoundedLog::default(),
            joined: Mutex::default(),
            body_timeout: config.body_timeout,
            clock,
        };
        Ok(Self {
            listener,
            address,
            url: format!("https://{name}:{}", address.port()),
            app: Arc::new(app),
            door: FrontDoor::new(reader, config.limits.clone()),
            trust,
            limits: config.limits,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// By which URL it is reached: the first name of its certificate.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whom it trusts.
    pub fn trust(&self) -> TrustReader {
        self.app.trust.clone()
    }

    /// Serves until `shutdown`; then takes no more connections and finishes what has begun.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServiceError> {
        let http = HttpLimits {
            first_request_timeout: self.limits.first_request_timeout,
            idle_timeout: self.limits.idle_timeout,
            head_bytes_max: HEAD_BYTES_MAX,
            http2_streams_max: HTTP2_STREAMS_MAX,
        };
        let routes = router::router(self.app.clone());
        let served = tokio::select! {
            served = server::serve(self.listener, self.door, http, routes, shutdown) => served,
            () = maintenance(self.trust, self.app) => Ok(()),
        };
        tracing::info!("stopped");
        Ok(served?)
    }
}

/// Reloads trust when its files change, signs revocation lists again that are due, and renews our own certificate.
async fn maintenance(mut trust: TrustWriter, app: Arc<ServiceState>) {
    let mut reload = tokio::time::interval(RELOAD_INTERVAL);
    let mut maintenance = tokio::time::interval(MAINTENANCE_INTERVAL);
    let mut complain = tokio::time::interval(WARN_INTERVAL);
    loop {
        tokio::select! {
            _ = reload.tick() => match trust.reload_if_changed() {
                None => (),
                Some(Ok(trust)) => {
                    tracing::info!(generation = trust.generation(), "certificates and revocation lists reloaded");
                    warn_of_text(&trust);
                    // In a rotation our own certificate has to follow.
                    run_maintenance(&app).await;
                }
                Some(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "kept the certificates and revocation lists as they were");
                }
            },
            _ = maintenance.tick() => {
                app.rates.remove_idle();
                run_maintenance(&app).await;
            }
            _ = complain.tick() => {
                if let Some(warning) = app.handle.ending((app.clock)()) {
                    tracing::warn!("{warning}");
                }
            }
        }
    }
}

fn warn_of_text(trust: &Trust) {
    for text in trust.text_passed_over() {
        tracing::warn!("{text}");
    }
}

async fn run_maintenance(app: &ServiceState) {
    let (handle, now) = (app.handle.clone(), (app.clock)());
    let done = blocking(move || handle.maintenance(now)).await;
    let failed = match &done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error as &dyn std::error::Error,
        Err(error) => error,
    };
    tracing::error!(error = failed, "the CA's upkeep failed: it is tried again");
}

/// The ledger and the keys are worked with beside the event loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
}
