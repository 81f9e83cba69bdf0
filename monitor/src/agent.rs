//! Acts: samples on every tick, and carries records to each destination. What to do is decided elsewhere.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lizmon_client::{Client, Error};
use lizmon_protocol::name::{NodeName, Role, SpiffeId};
use lizmon_protocol::sample::{Batch, Epoch, IdempotencyKey, Record, Seq};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::Edges;
use crate::config::{Config, PublishUrl};
use crate::publish::{Decision, Dropped, Pace, advice};
use crate::report::{Bad, Good, Health};
use crate::sample::{APART_MIN, SampleError, Sampler};
use crate::spool::Spool;
use crate::tick::{Tick, Ticker};

/// How often the files of certificate, key and CA are looked at.
const RELOAD_SECS: u64 = 10;
/// How long a stop waits for what has been sampled to be delivered.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// There is nothing to measure with.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

/// A monitor that has checked everything it was given.
pub struct Agent {
    host: NodeName,
    edges: Edges,
    ticker: Ticker,
    sampler: Sampler,
    spool: Spool,
    clients: Vec<(PublishUrl, Client)>,
}

impl Agent {
    /// Reads and checks certificate, key and CA, and takes the first reading. Nothing is sent yet.
    pub fn new(config: Config, edges: Edges) -> Result<Self, StartError> {
        let now = (edges.clock)();
        let mut clients = Vec::new();
        for url in config.publish {
            let client = Client::new(url.base().clone(), &config.credentials, now.as_secs())?;
            check_identity(&client, &config.credentials.cert, &config.host)?;
            clients.push((url, client));
        }
        Ok(Self {
            ticker: Ticker::new(config.interval, now + APART_MIN),
            sampler: Sampler::new(&config.collect)?,
            spool: Spool::new(edges.producer, clients.len(), config.spool_records_max),
            host: config.host,
            edges,
            clients,
        })
    }

    /// Samples and publishes until `shutdown`, then tries for a short time to deliver what is left. `ready` is called
    /// when the first sample is taken.
    pub async fn run(self, ready: impl FnOnce(), shutdown: impl Future<Output = ()>) {
        let shared = Arc::new(Shared {
            urls: self.clients.iter().map(|(url, _)| url.clone()).collect(),
            spool: Mutex::new(self.spool),
            news: watch::Sender::new(()),
            stop: watch::Sender::new(false),
        });
        let mut couriers = JoinSet::new();
        for (destination, (url, client)) in self.clients.into_iter().enumerate() {
            let courier = Courier {
                destination,
                url,
                client,
                host: self.host.clone(),
                edges: self.edges.clone(),
                shared: shared.clone(),
                news: shared.news.subscribe(),
                stop: shared.stop.subscribe(),
                pace: Pace::default(),
                health: Health::default(),
                looked_at_files: (self.edges.clock)().as_secs(),
                reload_complaint: String::new(),
            };
            couriers.spawn(courier.run());
        }
        let mut watch = Watch {
            clock: self.edges.clock,
            ticker: self.ticker,
            sampler: self.sampler,
            shared: shared.clone(),
        };
        let mut ready = Some(ready);
        let mut shutdown = pin!(shutdown);
        loop {
            let wait = watch.sample_if_due(|| {
                if let Some(ready) = ready.take() {
                    ready();
                }
            });
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = couriers.join_next() => resume_panic(ended),
                () = sleep(wait) => (),
            }
        }
        shared.stop.send_replace(true);
        let all_ended = async {
            while let Some(ended) = couriers.join_next().await {
                resume_panic(ended);
            }
        };
        if timeout(FLUSH_TIMEOUT, all_ended).await.is_err() {
            debug!("stopped with a request on its way");
        }
        shared.say_what_is_left();
    }
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
    /// By destination, as the spool counts them.
    urls: Vec<PublishUrl>,
    spool: Mutex<Spool>,
    news: watch::Sender<()>,
    stop: watch::Sender<bool>,
}

impl Shared {
    fn spool(&self) -> MutexGuard<'_, Spool> {
        // A panic leaves the spool whole: each of its methods ends what it began or changes nothing.
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say_what_is_left(&self) {
        let spool = self.spool();
        for (destination, url) in self.urls.iter().enumerate() {
            let left = spool.pending(destination);
            if left > 0 {
                warn!("{left} records were not delivered to {url} before the stop");
            }
        }
    }
}

/// The sampling side.
struct Watch {
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    ticker: Ticker,
    sampler: Sampler,
    shared: Arc<Shared>,
}

impl Watch {
    /// Takes a sample if the time has come; how long to wait until the next look.
    fn sample_if_due(&mut self, sampled: impl FnOnce()) -> Duration {
        match self.ticker.at((self.clock)()) {
            Tick::Wait(wait) => return wait,
            Tick::SteppedBack(secs) => {
                warn!("the clock was set back by {secs} s: going on from there");
            }
            Tick::Sample { epoch, skipped } => {
                if skipped > 0 {
                    warn!(
                        "{skipped} ticks went by without a sample: this machine slept, was overloaded, or its clock was set forward"
                    );
                }
                self.take(epoch);
                sampled();
            }
        }
        Duration::ZERO
    }

    fn take(&mut self, epoch: u64) {
        let values = self.sampler.sample();
        let Some(epoch) = Epoch::new(epoch).filter(|_| !values.is_empty()) else {
            return;
        };
        self.shared.spool().push(epoch, values);
        self.shared.news.send_replace(());
    }
}

/// Carries records to one destination.
struct Courier {
    destination: usize,
    url: PublishUrl,
    client: Client,
    host: NodeName,
    edges: Edges,
    shared: Arc<Shared>,
    news: watch::Receiver<()>,
    stop: watch::Receiver<bool>,
    pace: Pace,
    health: Health,
    looked_at_files: u64,
    reload_complaint: String,
}

impl Courier {
    async fn run(mut self) {
        loop {
            self.reload_if_due();
            self.news.mark_unchanged();
            let lot = self
                .shared
                .spool()
                .read(self.destination, self.pace.lot_records_max());
            if lot.lost > 0 {
                warn!(
                    "{} records for {} are lost: it was away for too long",
                    lot.lost, self.url
                );
            }
            let seqs: Vec<Seq> = lot.records.iter().map(|record| record.seq).collect();
            let Some(last) = seqs.last() else {
                if *self.stop.borrow() {
                    return;
                }
                self.wait_for_news().await;
                continue;
            };
            match self.send(lot.records).await {
                Ok(()) => {
                    self.shared.spool().settle(self.destination, *last);
                    self.pace.delivered();
                    self.say_delivered(seqs.len());
                }
                Err(error) => {
                    let chance = (self.edges.chance)();
                    match self.pace.failed(&error, seqs.len(), chance) {
                        Decision::RenewToken => {
                            debug!("{error}: asking for a new token");
                        }
                        Decision::Split => {
                            debug!("{error}: sending {} at once", self.pace.lot_records_max());
                        }
                        Decision::Drop(dropped) => self.give_up(&seqs, &dropped),
                        Decision::Retry(wait) => {
                            self.say_failed(&error, wait);
                            if *self.stop.borrow() {
                                return;
                            }
                            self.rest(wait).await;
                        }
                    }
                }
            }
        }
    }

    /// One record by itself goes as the first lizmon's did, several as a batch; their numbers say if they came before.
    async fn send(&self, mut records: Vec<Record<'static>>) -> Result<(), Error> {
        let now = self.now();
        let producer = self.edges.producer;
        if records.len() == 1
            && let Some(record) = records.pop()
        {
            let key = IdempotencyKey {
                producer,
                seq: record.seq,
            };
            return self
                .client
                .publish(&self.host, record.epoch, &record.values, Some(key), now)
                .await;
        }
        let batch = Batch { producer, records, dropped: Vec::new() };
        let answer = self.client.publish_batch(&self.host, &batch, now).await?;
        debug!(
            "{} took {} records and knew {}",
            self.url, answer.accepted, answer.duplicate
        );
        Ok(())
    }

    async fn wait_for_news(&mut self) {
        // Neither sender goes before the last courier: both are shared with us.
        tokio::select! {
            _ = self.news.changed() => (),
            _ = self.stop.wait_for(|stop| *stop) => (),
        }
    }

    /// Waits, but not for long once new files or the stop make another attempt worth while.
    async fn rest(&mut self, wait: Duration) {
        let look_every = Duration::from_secs(RELOAD_SECS);
        let mut left = wait;
        while !left.is_zero() {
            let step = left.min(look_every);
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return,
                () = sleep(step) => (),
            }
            left -= step;
            if self.reload_if_due() {
                return;
            }
        }
    }

    /// Takes new files if there are any. A complaint is made once for as long as it stays the same.
    fn reload_if_due(&mut self) -> bool {
        let now = self.now();
        if now.abs_diff(self.looked_at_files) < RELOAD_SECS {
            return false;
        }
        self.looked_at_files = now;
        match self.client.reload(now) {
            Ok(false) => false,
            Ok(true) => {
                self.reload_complaint.clear();
                info!("took up new certificate files for {}", self.url);
                true
            }
            Err(error) => {
                let complaint = error.to_string();
                if complaint != self.reload_complaint {
                    error!("keeping the certificate files read before: {complaint}");
                    self.reload_complaint = complaint;
                }
                false
            }
        }
    }

    fn give_up(&self, seqs: &[Seq], dropped: &[Dropped]) {
        let named = dropped.iter().filter_map(|dropped| seqs.get(dropped.at));
        self.shared
            .spool()
            .give_up(self.destination, named.copied());
        let example = dropped.first().map_or("", |dropped| &dropped.why);
        warn!(
            "{} will not take {} of {} records, and they are given up: {example}",
            self.url,
            dropped.len(),
            seqs.len()
        );
    }

    fn say_delivered(&mut self, records: usize) {
        let pending = self.shared.spool().pending(self.destination);
        let now = self.now();
        let url = &self.url;
        match self.health.delivered(records as u64, pending, now) {
            Good::First => info!("Publish was successful to {url}"),
            Good::Steady | Good::CatchingUp => debug!("Publish was successful to {url}"),
            Good::Recovered { away_secs, records } => info!(
                "Publish was successful to {url} again after {away_secs} s: all {records} records that waited are delivered"
            ),
        }
    }

    fn say_failed(&mut self, error: &Error, wait: Duration) {
        let text = match advice(error) {
            Some(advice) => format!("{error}: {advice}"),
            None => error.to_string(),
        };
        let kept = self.shared.spool().pending(self.destination);
        match self.health.failed(&text, self.now()) {
            // Where only a person can help, it is an error; what may pass by itself is a warning.
            Bad::Begins if error.is_refusal_of_us() || advice(error).is_some() => {
                error!(
                    "Publish to {} failed, its records are kept: {text}",
                    self.url
                );
            }
            Bad::Begins => {
                warn!(
                    "Publish to {} failed, its records are kept: {text}",
                    self.url
                );
            }
            Bad::Lasts { away_secs } => warn!(
                "Publish to {} has failed for {away_secs} s, {kept} records are kept: {text}",
                self.url
            ),
            Bad::Known => debug!("Publish to {} failed, again in {wait:?}: {text}", self.url),
        }
    }

    fn now(&self) -> u64 {
        (self.edges.clock)().as_secs()
    }
}
