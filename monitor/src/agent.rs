//! Acts: samples on every tick, keeps what was sampled, and carries records to each destination. What to do is decided elsewhere.

mod courier;
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

use self::courier::Courier;
use self::sampling::{Sampling, Taken, WAITING_MAX, log_notices};
use self::stamp::StampClock;
use crate::Edges;
use crate::collect::{CPU_INTERVAL_MIN, CollectorStartError, Sampler, SelfStats};
use crate::config::{Config, PublishUrl};
use crate::dispatch::Dispatch;
use crate::report::Health;
use crate::spool::disk::{Disk, OpenError};
use crate::spool::memory::Memory;
use crate::spool::{Event, Home, Keep, Limits, MEMORY_BYTES_MAX, Machine, Spool, why};
use crate::tick::Ticker;

/// How long a stop waits for what has been sampled to be delivered.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it is said how things are.
const STATUS_SECS: u64 = 3600;

/// Why a monitor does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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

type AnyKeep = Box<dyn Keep + Send>;

/// A monitor that has checked everything it was given.
pub struct Agent {
    host: NodeName,
    edges: Edges,
    ticker: Ticker,
    sampler: Sampler,
    dispatch: Dispatch<AnyKeep>,
    clients: Vec<(PublishUrl, Client)>,
    file_look: watch::Sender<()>,
}

impl Agent {
    /// Reads and checks certificate, key and CA, and takes the first reading. Nothing is sent yet.
    pub fn new(config: Config, edges: Edges) -> Result<Self, StartError> {
        let now = (edges.clock)();
        let mut clients = Vec::new();
        for url in config.publish {
            let (base, lists) = (url.base().clone(), config.server_lists.clone());
            let client = Client::lasting(base, &config.credentials, lists, now.as_secs())?;
            check_identity(&client, &config.credentials.cert, &config.host)?;
            clients.push((url, client));
        }
        let dispatch = Dispatch::new(open_spool(
            config.spool.as_deref(),
            config.spool_bytes_max,
            &config.host,
            &clients,
            &edges,
        )?);
        // Not before: what was read then is to be a moment old when the first sample is taken, and no more.
        let now = (edges.clock)();
        let (sampler, notices) = Sampler::start(&config.collect, edges.monotonic.clone(), now)?;
        log_notices(&notices);
        Ok(Self {
            ticker: Ticker::new(config.interval, now + CPU_INTERVAL_MIN),
            sampler,
            dispatch,
            host: config.host,
            edges,
            clients,
            file_look: watch::Sender::new(()),
        })
    }

    /// Whatever is sent into it has certificate, key and CA looked at now, and not only when it is time.
    pub fn file_look(&self) -> watch::Sender<()> {
        self.file_look.clone()
    }

    /// Samples and publishes until `shutdown`, then tries for a short time to deliver what is left. `ready` is called
    /// when the first sample is taken.
    pub async fn run(
        self,
        ready: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), StartError> {
        let stamp = Arc::new(StampClock::new(&self.edges));
        let shared = Arc::new(Shared {
            stamp: stamp.clone(),
            urls: self.clients.iter().map(|(url, _)| url.clone()).collect(),
            dispatch: Mutex::new(self.dispatch),
            certificate_end: AtomicU64::new(0),
            news: watch::Sender::new(()),
            stop: watch::Sender::new(false),
        });
        let mut couriers = JoinSet::new();
        for (destination, (url, client)) in self.clients.into_iter().enumerate() {
            shared.note_certificate(&client);
            let courier = Courier {
                destination,
                url,
                client,
                host: self.host.clone(),
                edges: self.edges.clone(),
                shared: shared.clone(),
                news: shared.news.subscribe(),
                stop: shared.stop.subscribe(),
                file_look: self.file_look.subscribe(),
                health: Health::default(),
                looked_at_files: (self.edges.clock)().as_secs(),
                reload_complaint: String::new(),
                put_off_said_at: None,
            };
            couriers.spawn(courier.run());
        }
        let (taken, mut waiting) = mpsc::channel(WAITING_MAX);
        let mut keeper = Keeper {
            clock: self.edges.clock.clone(),
            own: Arc::default(),
            status_at: None,
            shared: shared.clone(),
        };
        keeper.note_own((self.edges.clock)().as_secs());
        let sampling = Sampling {
            clock: Arc::new(move || stamp.now()),
            ticker: self.ticker,
            sampler: self.sampler,
            own: keeper.own.clone(),
            taken,
            missed: 0,
        };
        let thread = sampling.start().map_err(StartError::Thread)?;
        let mut ready = Some(ready);
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = couriers.join_next() => resume_panic(ended),
                taken = waiting.recv() => match taken {
                    Some(taken) => {
                        keeper.keep(taken);
                        if let Some(ready) = ready.take() {
                            ready();
                        }
                    }
                    // It ends by itself only by a panic.
                    None => break,
                },
            }
        }
        thread.end();
        while let Ok(taken) = waiting.try_recv() {
            keeper.keep(taken);
        }
        shared.dispatch().hurry();
        shared.stop.send_replace(true);
        let all_ended = async {
            while let Some(ended) = couriers.join_next().await {
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
    edges: &Edges,
) -> Result<Spool<AnyKeep>, OpenError> {
    let urls: Vec<String> = clients.iter().map(|(url, _)| url.to_string()).collect();
    let (keep, limits): (AnyKeep, _) = match folder {
        Some(folder) => (Box::new(Disk::open(folder)?), Limits::new(bytes_max)),
        None => {
            info!(
                "what is not delivered waits in memory: give --spool DIR to have it survive a restart"
            );
            (Box::new(Memory::default()), Limits::new(MEMORY_BYTES_MAX))
        }
    };
    let new_producer = edges.new_producer.clone();
    let home = Home {
        host: host.to_string(),
        machine: Machine::this(),
    };
    Ok(Spool::open_at(Some(home), keep, urls, limits, move || {
        new_producer()
    }))
}

fn check_identity(
    client: &Client,
    path: &std::path::Path,
    host: &NodeName,
) -> Result<(), StartError> {
    let identity = client.identity();
    if identity.role != Role::Node {
        return Err(StartError::Role {
            path: path.to_owned(),
            identity: Box::new(identity.clone()),
            host: host.clone(),
        });
    }
    if identity.name != *host {
        return Err(StartError::Host {
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
    stamp: Arc<StampClock>,
    /// By destination, as the spool counts them.
    urls: Vec<PublishUrl>,
    dispatch: Mutex<Dispatch<AnyKeep>>,
    /// The last second of the certificate that was taken up last: epoch seconds.
    certificate_end: AtomicU64,
    news: watch::Sender<()>,
    stop: watch::Sender<bool>,
}

impl Shared {
    fn dispatch(&self) -> MutexGuard<'_, Dispatch<AnyKeep>> {
        // A panic leaves it whole: a record is appended or not, a number settled or not.
        self.dispatch.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn say_events(&self) {
        for event in self.dispatch().spool_mut().take_events() {
            match event {
                Event::GivenUp { records, why } => warn!("{records} records are given up: {why}"),
                Event::Trouble(error) => error!(
                    "the spool takes nothing, and new records wait in memory: {error}; make room, or mend the disk"
                ),
                Event::Unreadable(error) => error!("the spool cannot be read: {error}"),
                Event::Mended => info!("the spool works again, and has what waited in memory"),
                Event::KnownNumbers {
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
                        why::OTHER_HOST => format!("{host}'s"),
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

    fn say_status(&self, now: u64) {
        let certificate_days = (self.certificate_days(now) * 100.0).round() / 100.0;
        let dispatch = self.dispatch();
        let to_millis = |secs: f64| (secs * 1_000.0).round() / 1_000.0;
        let skew = dispatch.clock_ahead_secs().map(to_millis);
        let given_up = dispatch.spool().given_up();
        for (destination, url) in self.urls.iter().enumerate() {
            info!(
                delivered = dispatch.delivered_records(destination),
                pending = dispatch.spool().pending(destination),
                given_up,
                clock_ahead_secs = skew,
                clock_corrected_secs = dispatch.corrected_secs().map(to_millis),
                certificate_days,
                "watching, and publishing to {url}"
            );
        }
    }

    /// Writes down how far everyone is, and says what is left.
    fn close(&self) {
        let mut dispatch = self.dispatch();
        let closed = dispatch.close();
        if let Err(error) = &closed {
            error!("the spool could not be written before the stop: {error}");
        }
        let is_lasting = closed.is_ok() && dispatch.spool().keep().is_lasting();
        for (destination, url) in self.urls.iter().enumerate() {
            match (dispatch.spool().pending(destination), is_lasting) {
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
struct Keeper {
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// For the next sample.
    own: Arc<Mutex<SelfStats>>,
    status_at: Option<u64>,
    shared: Arc<Shared>,
}

impl Keeper {
    fn keep(&mut self, taken: Taken) {
        let Taken { epoch, values } = taken;
        if let Some(at) = Epoch::new(epoch).filter(|_| !values.is_empty()) {
            let now = (self.clock)();
            let key = self.shared.dispatch().sampled(at, &values, now);
            // After `sampled`: where a log has that alone, the record met a crash.
            debug!(epoch, key = key.map(|key| key.to_string()), "kept");
            self.shared.news.send_replace(());
        }
        self.note_own(epoch);
        self.shared.say_events();
        let last = *self.status_at.get_or_insert(epoch);
        if epoch.abs_diff(last) >= STATUS_SECS {
            self.status_at = Some(epoch);
            self.shared.say_status(epoch);
        }
    }

    fn note_own(&self, now: u64) {
        let dispatch = self.shared.dispatch();
        let own = SelfStats {
            clock_ahead_secs: dispatch.clock_ahead_secs(),
            pending_records: dispatch.pending_max(),
            dropped_records: dispatch.spool().given_up(),
            certificate_days: self.shared.certificate_days(now),
        };
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }
}
