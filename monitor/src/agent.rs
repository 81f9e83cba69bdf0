//! Acts: samples on every tick, keeps what was sampled, and carries records to each destination. What to do is decided elsewhere.

mod publisher;
mod sampling;
mod stamp;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lizmon_client::{Client, Error};
use lizmon_protocol::name::{NodeName, Role, SpiffeId};
use lizmon_protocol::sample::Epoch;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use self::publisher::Publisher;
use self::sampling::{Sample, SampleLoop, WAITING_MAX, log_notices};
use self::stamp::SampleClock;
use crate::Environment;
use crate::collect::{CPU_INTERVAL_MIN, CollectorStartError, Sampler, SelfStats};
use crate::config::{Config, PublishUrl};
use crate::health::DestinationHealth;
use crate::scheduler::DeliveryScheduler;
use crate::spool::disk::{DiskBackend, OpenError};
use crate::spool::memory::MemoryBackend;
use crate::spool::{
    Event, Limits, MEMORY_BYTES_MAX, Machine, Origin, Spool, SpoolBackend, drop_reason,
};
use crate::tick::Ticker;

/// How long a stop waits for what has been sampled to be delivered.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it is said how things are.
const STATUS_SECS: u64 = 3600;

/// Why a monitor does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentStartError {
    /// The certificate, key or CA is no good.
    #[error(transparent)]
    Client(#[from] Error),
    /// The certificate was made for something else.
    #[error("`{}` is the certificate of {identity}: a monitor needs a node's, from lizctl issue-node {host}", path.display())]
    Role {
        /// The certificate's file.
        path: std::path::PathBuf,
        /// Whose it is.
        identity: Box<SpiffeId>,
        /// Who we are to be.
        host: NodeName,
    },
    /// The certificate was made for another host.
    #[error("`{}` is the certificate of {certified}, not of {host}: give --this-host {certified}, or {host}'s certificate", path.display())]
    Host {
        /// The certificate's file.
        path: std::path::PathBuf,
        /// Whose it is.
        certified: NodeName,
        /// Who we are to be.
        host: NodeName,
    },
    /// A collector cannot be started.
    #[error(transparent)]
    Collector(#[from] CollectorStartError),
    /// The system has no room for a thread to sample on.
    #[error("cannot start a thread to sample on: {0}")]
    Thread(#[source] std::io::Error),
    /// The spool's folder is no good.
    #[error(transparent)]
    Spool(#[from] OpenError),
}

type AnyBackend = Box<dyn SpoolBackend + Send>;

/// A monitor that has checked everything it was given.
pub struct Agent {
    host: NodeName,
    environment: Environment,
    ticker: Ticker,
    sampler: Sampler,
    scheduler: DeliveryScheduler<AnyBackend>,
    clients: Vec<(PublishUrl, Client)>,
    file_check: watch::Sender<()>,
}

impl Agent {
    /// Reads and checks certificate, key and CA, and takes the first reading. Nothing is sent yet.
    pub fn new(config: Config, environment: Environment) -> Result<Self, AgentStartError> {
        let now = (environment.clock)();
        let mut clients = Vec::new();
        for url in config.publish {
            let (base, lists) = (url.base().clone(), config.server_lists.clone());
            let client = Client::lasting(base, &config.credentials, lists, now.as_secs())?;
            check_identity(&client, &config.credentials.cert, &config.host)?;
            clients.push((url, client));
        }
        let scheduler = DeliveryScheduler::new(open_spool(
            config.spool.as_deref(),
            config.spool_bytes_max,
            &config.host,
            &clients,
            &environment,
        )?);
        // Not before: what was read then is to be a moment old when the first sample is sample, and no more.
        let now = (environment.clock)();
        let (sampler, notices) =
            Sampler::start(&config.collect, environment.monotonic.clone(), now)?;
        log_notices(&notices);
        Ok(Self {
            ticker: Ticker::new(config.interval, now + CPU_INTERVAL_MIN),
            sampler,
            scheduler,
            host: config.host,
            environment,
            clients,
            file_check: watch::Sender::new(()),
        })
    }

    /// Whatever is sent into it has certificate, key and CA looked at now, and not only when it is time.
    pub fn file_check(&self) -> watch::Sender<()> {
        self.file_check.clone()
    }

    /// Samples and publishes until `shutdown`, then tries for a short time to deliver what is left. `ready` is called
    /// when the first sample is sample.
    pub async fn run(
        self,
        ready: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), AgentStartError> {
        let stamp = Arc::new(SampleClock::new(&self.environment));
        let shared = Arc::new(Shared {
            stamp: stamp.clone(),
            urls: self.clients.iter().map(|(url, _)| url.clone()).collect(),
            scheduler: Mutex::new(self.scheduler),
            certificate_end: AtomicU64::new(0),
            new_records: watch::Sender::new(()),
            stop: watch::Sender::new(false),
        });
        let mut publishers = JoinSet::new();
        for (destination, (url, client)) in self.clients.into_iter().enumerate() {
            shared.note_certificate(&client);
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
            };
            publishers.spawn(publisher.run());
        }
        let (samples, mut waiting) = mpsc::channel(WAITING_MAX);
        let mut recorder = Recorder {
            clock: self.environment.clock.clone(),
            stats: Arc::default(),
            status_at: None,
            shared: shared.clone(),
        };
        recorder.update_stats((self.environment.clock)().as_secs());
        let sampling = SampleLoop {
            clock: Arc::new(move || stamp.now()),
            ticker: self.ticker,
            sampler: self.sampler,
            self_stats: recorder.stats.clone(),
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
                sample = waiting.recv() => match sample {
                    Some(sample) => {
                        recorder.record(sample);
                        if let Some(ready) = ready.take() {
                            ready();
                        }
                    }
                    // It ends by itself only by a panic.
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
            debug!("stopped with a request on its way");
        }
        shared.close();
        Ok(())
    }
}

/// A disk that is in trouble does not keep us from watching: what waits is in memory until it is well.
fn open_spool(
    folder: Option<&std::path::Path>,
    bytes_max: u64,
    host: &NodeName,
    clients: &[(PublishUrl, Client)],
    environment: &Environment,
) -> Result<Spool<AnyBackend>, OpenError> {
    let urls: Vec<String> = clients.iter().map(|(url, _)| url.to_string()).collect();
    let (keep, limits): (AnyBackend, _) = match folder {
        Some(folder) => (Box::new(DiskBackend::open(folder)?), Limits::new(bytes_max)),
        None => {
            info!(
                "what is not delivered waits in memory: give --spool DIR to have it survive a restart"
            );
            (
                Box::new(MemoryBackend::default()),
                Limits::new(MEMORY_BYTES_MAX),
            )
        }
    };
    let new_producer = environment.new_producer.clone();
    let home = Origin {
        host: host.to_string(),
        machine: Machine::read(),
    };
    Ok(Spool::open_at(Some(home), keep, urls, limits, move || {
        new_producer()
    }))
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

/// A courier ends only when it is told to stop, or by a bug: then so do we, rather than to publish nothing in silence.
fn resume_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// What the sampling side and the couriers have in common.
struct Shared {
    /// What samples are stamped by.
    stamp: Arc<SampleClock>,
    /// By destination, as the spool counts them.
    urls: Vec<PublishUrl>,
    scheduler: Mutex<DeliveryScheduler<AnyBackend>>,
    /// The last second of the certificate that is loaded now: epoch seconds.
    certificate_end: AtomicU64,
    new_records: watch::Sender<()>,
    stop: watch::Sender<bool>,
}

impl Shared {
    fn scheduler(&self) -> MutexGuard<'_, DeliveryScheduler<AnyBackend>> {
        // A panic leaves it whole: a record is appended or not, a number settled or not.
        self.scheduler
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note_certificate(&self, client: &Client) {
        self.certificate_end
            .store(client.certificate_end(), Ordering::Relaxed);
    }

    /// Until the certificate ends; negative once it has.
    fn certificate_days(&self, now: u64) -> f64 {
        const DAY_SECS: f64 = 86_400.0;
        let end = self.certificate_end.load(Ordering::Relaxed);
        (end as f64 - now as f64) / DAY_SECS
    }

    fn log_events(&self) {
        for event in self.scheduler().spool_mut().take_events() {
            match event {
                Event::RecordsDropped { records, why } => {
                    warn!("{records} records are given up: {why}")
                }
                Event::BackendFailed(error) => error!(
                    "the spool takes nothing, and new records wait in memory: {error}; make room, or mend the disk"
                ),
                Event::Unreadable(error) => error!("the spool cannot be read: {error}"),
                Event::BackendRecovered => {
                    info!("the spool works again, and has what waited in memory")
                }
                Event::UnexpectedDuplicates {
                    destination,
                    records,
                } => error!(
                    records,
                    "{destination} knew numbers that were never sent to it: this spool is a copy of another, or came back older than it was. The records are sent again, and new ones have a new producer; end whatever else publishes as this host"
                ),
                Event::SetAside {
                    why,
                    host,
                    records,
                    place,
                } => {
                    let whose = match why {
                        drop_reason::OTHER_HOST => format!("{host}'s"),
                        _ => format!(
                            "filled on another machine by the name of {host}, or this one's machine-id changes with each start: give it one that lasts"
                        ),
                    };
                    error!(
                        reason = why,
                        records,
                        "the spool is {whose}: nothing of it is delivered from here. It is kept in {place}, and new records have a new producer"
                    );
                }
                Event::NewProducer(producer) => warn!(
                    "the spool was damaged: what it holds is delivered, and new records are numbered anew by {producer}"
                ),
            }
        }
    }

    fn log_status(&self, now: u64) {
        let certificate_days = (self.certificate_days(now) * 100.0).round() / 100.0;
        let scheduler = self.scheduler();
        let to_millis = |secs: f64| (secs * 1_000.0).round() / 1_000.0;
        let skew = scheduler.clock_ahead_secs().map(to_millis);
        let dropped_records = scheduler.spool().dropped_records();
        for (destination, url) in self.urls.iter().enumerate() {
            info!(
                delivered = scheduler.delivered_records(destination),
                pending = scheduler.spool().pending(destination),
                dropped = dropped_records,
                clock_ahead_secs = skew,
                clock_corrected_secs = scheduler.correction_secs().map(to_millis),
                certificate_days,
                "watching, and publishing to {url}"
            );
        }
    }

    /// Writes down how far everyone is, and says what is left.
    fn close(&self) {
        let mut scheduler = self.scheduler();
        let closed = scheduler.close();
        if let Err(error) = &closed {
            error!("the spool could not be written before the stop: {error}");
        }
        let is_persistent = closed.is_ok() && scheduler.spool().backend().is_persistent();
        for (destination, url) in self.urls.iter().enumerate() {
            match (scheduler.spool().pending(destination), is_persistent) {
                (0, _) => (),
                (left, true) => info!("{left} records for {url} wait in the spool"),
                (left, false) => {
                    warn!("{left} records were not delivered to {url} before the stop");
                }
            }
        }
    }
}

/// Keeps what was sampled.
struct Recorder {
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// For the next sample.
    stats: Arc<Mutex<SelfStats>>,
    status_at: Option<u64>,
    shared: Arc<Shared>,
}

impl Recorder {
    fn record(&mut self, sample: Sample) {
        let Sample { epoch, values } = sample;
        if let Some(at) = Epoch::new(epoch).filter(|_| !values.is_empty()) {
            let now = (self.clock)();
            let key = self.shared.scheduler().record(at, values, now);
            // After `sampled`: where a log has that alone, the record met a crash.
            debug!(epoch, key = key.map(|key| key.to_string()), "kept");
            self.shared.new_records.send_replace(());
        }
        self.update_stats(epoch);
        self.shared.log_events();
        let last = *self.status_at.get_or_insert(epoch);
        if epoch.abs_diff(last) >= STATUS_SECS {
            self.status_at = Some(epoch);
            self.shared.log_status(epoch);
        }
    }

    fn update_stats(&self, now: u64) {
        let scheduler = self.shared.scheduler();
        let stats = SelfStats {
            clock_ahead_secs: scheduler.clock_ahead_secs(),
            pending_records: scheduler.pending_records_max(),
            dropped_records: scheduler.spool().dropped_records(),
            certificate_days: self.shared.certificate_days(now),
        };
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}
