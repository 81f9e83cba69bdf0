//! Samples on every tick, records what was sampled, and publishes to each destination. It acts;
//! what to do is decided elsewhere.

mod facts_teller;
mod publisher;
mod recorder;
mod sampling;
mod shared;
mod stamp;
mod timer;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lizmon_client::{Client, Credentials, Error};
use lizmon_pki::server_crls::ServerCrls;
use lizmon_protocol::name::{NodeName, Role, SpiffeId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use self::facts_teller::FactsTeller;
use self::publisher::Publisher;
use self::recorder::Recorder;
use self::sampling::{SampleLoop, WAITING_MAX, log_notices};
use self::shared::{AnyBackend, Shared};
use self::stamp::SampleClock;
use crate::collect::{CPU_INTERVAL_MIN, CollectorStartError, Sampler};
use crate::config::{Config, PublishUrl, SpoolConfig};
use crate::environment::Environment;
use crate::health::DestinationHealth;
use crate::scheduler::DeliveryScheduler;
use crate::spool::disk::{DiskBackend, OpenError};
use crate::spool::memory::MemoryBackend;
use crate::spool::{MEMORY_BYTES_MAX, Machine, Origin, Spool, SpoolLimits};
use crate::tick::Ticker;

/// It is told that the monitor works with each sample, and where there is none for so long: with a
/// sample a second no timer wakes it up for that.
const ALIVE_WITHIN: Duration = Duration::from_millis(1_500);
/// How long a stop waits for pending records to be delivered.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a monitor does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentStartError {
    /// The certificate, key or CA cannot be used.
    #[error(transparent)]
    Client(#[from] Error),
    /// The certificate is not a node's.
    #[error("`{}` is the certificate of {identity}: a monitor needs a node's, from lizctl issue-node {host}", path.display())]
    Role {
        /// The certificate's file.
        path: std::path::PathBuf,
        /// Its identity.
        identity: Box<SpiffeId>,
        /// The name of this host.
        host: NodeName,
    },
    /// The certificate is another host's.
    #[error("`{}` is the certificate of {certified}, not of {host}: give --this-host {certified}, or {host}'s certificate", path.display())]
    Host {
        /// The certificate's file.
        path: std::path::PathBuf,
        /// The host that it is for.
        certified: NodeName,
        /// The name of this host.
        host: NodeName,
    },
    /// A collector cannot be started.
    #[error(transparent)]
    Collector(#[from] CollectorStartError),
    /// The system starts no thread.
    #[error("cannot start a thread to sample on: {0}")]
    Thread(#[source] std::io::Error),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] OpenError),
}

/// A monitor that has checked everything it was given.
pub struct Agent {
    host: NodeName,
    environment: Environment,
    ticker: Ticker,
    sampler: Sampler,
    scheduler: DeliveryScheduler<AnyBackend>,
    clients: Vec<(PublishUrl, Client)>,
    credentials: Credentials,
    server_crls: ServerCrls,
    file_check: watch::Sender<()>,
    alive: Arc<dyn Fn() + Send + Sync>,
}

impl Agent {
    /// Reads and checks certificate, key and CA, and takes the first reading. Nothing is sent yet.
    pub fn new(config: Config, environment: Environment) -> Result<Self, AgentStartError> {
        let now = (environment.clock)();
        let mut clients = Vec::new();
        for url in config.publish {
            let (base, server_crls) = (url.base().clone(), config.server_crls.clone());
            let client = Client::lasting(base, &config.credentials, server_crls, now.as_secs())?;
            check_identity(&client, &config.credentials.cert, &config.host)?;
            clients.push((url, client));
        }
        let scheduler = DeliveryScheduler::new(open_spool(
            &config.spool,
            &config.host,
            &clients,
            &environment,
        )?)
        .spread(&config.host);
        // As late as possible: the first sample shows what was since then, and that should be a
        // short time.
        let now = (environment.clock)();
        let (sampler, notices) = Sampler::start(
            &config.collect,
            &config.collect_options,
            environment.monotonic.clone(),
            now,
        )?;
        log_notices(&notices);
        Ok(Self {
            ticker: Ticker::new(config.interval, now + CPU_INTERVAL_MIN),
            sampler,
            scheduler,
            host: config.host,
            environment,
            clients,
            credentials: config.credentials,
            server_crls: config.server_crls,
            file_check: watch::Sender::new(()),
            alive: Arc::new(|| ()),
        })
    }

    /// Calls this every second or two while it runs.
    pub fn telling_alive(self, alive: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { alive, ..self }
    }

    /// A message to it makes the monitor check the files of certificate, key and CA at once.
    pub fn file_check(&self) -> watch::Sender<()> {
        self.file_check.clone()
    }

    /// Samples and publishes until `shutdown`, then tries for a short time to deliver what is left.
    /// `ready` is called when the first sample is recorded.
    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant or a flag"
    )]
    pub async fn run(
        self,
        ready: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), AgentStartError> {
        let sample_clock = Arc::new(SampleClock::new(&self.environment));
        let urls = self.clients.iter().map(|(url, _)| url.clone()).collect();
        let shared = Arc::new(Shared::new(sample_clock.clone(), urls, self.scheduler));
        let mut publishers = JoinSet::new();
        // Dropped, and so ended, with this function.
        let mut tellers = JoinSet::new();
        for (destination, (url, client)) in self.clients.into_iter().enumerate() {
            shared.set_certificate(&client);
            let teller = FactsTeller {
                url: url.clone(),
                host: self.host.clone(),
                credentials: self.credentials.clone(),
                server_crls: self.server_crls.clone(),
                environment: self.environment.clone(),
            };
            tellers.spawn(teller.run());
            let publisher = Publisher {
                destination,
                url,
                client,
                host: self.host.clone(),
                environment: self.environment.clone(),
                shared: shared.clone(),
                new_records: shared.new_records.subscribe(),
                stop: shared.stop.subscribe(),
                file_check: self.file_check.subscribe(),
                health: DestinationHealth::default(),
                files_checked_at: (self.environment.clock)().as_secs(),
                last_reload_error: String::new(),
                deferred_logged_at: None,
                repaired: 0,
            };
            publishers.spawn(publisher.run());
        }
        let (samples, mut waiting) = mpsc::channel(WAITING_MAX);
        let mut recorder = Recorder::new(self.environment.clock.clone(), shared.clone());
        let sampling = SampleLoop {
            clock: Arc::new(move || sample_clock.now()),
            ticker: self.ticker,
            sampler: self.sampler,
            self_stats: recorder.stats(),
            samples,
            missed: 0,
        };
        let thread = sampling.start().map_err(AgentStartError::Thread)?;
        let mut ready = Some(ready);
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = publishers.join_next() => resume_panic(ended),
                // Begun anew with each sample.
                () = sleep(ALIVE_WITHIN) => (self.alive)(),
                sample = waiting.recv() => match sample {
                    Some(sample) => {
                        recorder.record(sample);
                        (self.alive)();
                        if let Some(ready) = ready.take() {
                            ready();
                        }
                    }
                    // The thread ends by itself only by a panic.
                    None => break,
                },
            }
        }
        thread.stop();
        while let Ok(sample) = waiting.try_recv() {
            recorder.record(sample);
        }
        shared.scheduler().flush();
        shared.stop.send_replace(true);
        let all_ended = async {
            while let Some(ended) = publishers.join_next().await {
                resume_panic(ended);
            }
        };
        if timeout(FLUSH_TIMEOUT, all_ended).await.is_err() {
            debug!("stopped while a request was under way");
        }
        shared.close();
        Ok(())
    }
}

/// A disk that fails does not stop the monitor: until it works, records wait in memory.
fn open_spool(
    config: &SpoolConfig,
    host: &NodeName,
    clients: &[(PublishUrl, Client)],
    environment: &Environment,
) -> Result<Spool<AnyBackend>, OpenError> {
    let urls: Vec<String> = clients.iter().map(|(url, _)| url.to_string()).collect();
    let (backend, limits): (AnyBackend, _) = match &config.folder {
        Some(folder) => (
            Box::new(DiskBackend::open(folder)?),
            SpoolLimits::new(config.bytes_max),
        ),
        None => {
            info!(
                "undelivered records wait in memory: give --spool DIR to keep them over a restart"
            );
            (
                Box::new(MemoryBackend::default()),
                SpoolLimits::new(MEMORY_BYTES_MAX),
            )
        }
    };
    let new_producer = environment.new_producer.clone();
    let origin = Origin {
        host: host.to_string(),
        machine: Machine::read(),
    };
    Ok(Spool::open_at(
        Some(origin),
        backend,
        urls,
        limits.keeping(config.keep_acknowledged.as_secs()),
        move || new_producer(),
    ))
}

fn check_identity(
    client: &Client,
    path: &std::path::Path,
    host: &NodeName,
) -> Result<(), AgentStartError> {
    let identity = client.identity();
    if identity.role != Role::Node {
        return Err(AgentStartError::Role {
            path: path.to_owned(),
            identity: Box::new(identity.clone()),
            host: host.clone(),
        });
    }
    if identity.name != *host {
        return Err(AgentStartError::Host {
            path: path.to_owned(),
            certified: identity.name.clone(),
            host: host.clone(),
        });
    }
    Ok(())
}

/// A publisher ends only when it is told to stop, or by a bug. In the latter case the monitor ends
/// as well, rather than publish nothing and stay silent.
fn resume_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
