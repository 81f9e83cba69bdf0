//! A summarizer: a process that owns shards of a shared store, and serves nobody.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lizmon_alarms::rules::RulesError;
use lizmon_mtls::Clock;
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::trust::{TrustError, TrustFiles, TrustWriter};
use uuid::Uuid;

use crate::alarms::{Alarms, AlarmsConfig};
use crate::clock::{Clocks, StoreClock};
use crate::journal::JournalError;
use crate::peers::{self, CrlExchange, EXCHANGE_EVERY};
use crate::periodic::{Periodic, PeriodicThread};
use crate::receiver_keys::KeyStatementVerifier;
use crate::store::redis::config::RedisConfig;
use crate::store::signing::GroupKeys;
use crate::store::{self, HistoryRetention, SharedStore, StoreError};
use crate::summarize::group::{GroupMember, GroupRole, GroupWork};
use crate::watch::{HIGH_WATER_PERCENT, Watch, WatchStatus};

/// How often files are checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long a thread that does not come round is taken to hang. It waits for a server two
/// seconds at most, and a round of a thread that has much to catch up with takes a minute or so.
const BUSY_SECS_MAX: u64 = 300;

/// Why a summarizer does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum SummarizerError {
    /// Certificate, key, roots or CRLs.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The shared store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The alarm rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A thread.
    #[error("the thread of the summaries cannot be started")]
    Thread(#[from] io::Error),
    /// What was not committed is in the journal.
    #[error(transparent)]
    Commit(#[from] JournalError),
}

impl SummarizerError {
    /// Whether the store is at fault, and may work in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_pass())
    }
}

/// A summarizer that takes its share of the shards.
pub struct ShardSummarizer {
    summaries: PeriodicThread,
    follower: PeriodicThread,
    watch: PeriodicThread,
    trust: Arc<Mutex<TrustWriter>>,
    alarms: Arc<Alarms>,
    monotonic: Clock,
    alive: Arc<dyn Fn() + Send + Sync>,
}

/// Takes the CRLs that receivers were given, because what a revoked one signed is not counted; and
/// follows the store's clock.
struct StoreFollower {
    store: Box<dyn SharedStore>,
    crls: CrlExchange,
    clocks: Clocks,
    store_clock: Arc<StoreClock>,
    failures: RateLimitedLog,
}

impl ShardSummarizer {
    /// Opens the store, and starts to take a share of its shards.
    pub async fn start(
        trust: TrustFiles,
        servers: RedisConfig,
        retention: HistoryRetention,
        alarms: AlarmsConfig,
        clocks: Clocks,
    ) -> Result<Self, SummarizerError> {
        let (clock, monotonic) = (clocks.wall.clone(), clocks.monotonic.clone());
        let (trust, reader) = TrustWriter::open_as_client(trust, clock.clone())?;
        let own = reader.current().own().spiffe_id.name.to_string();
        let runtime = tokio::runtime::Handle::current();
        let alarms = Arc::new(Alarms::start(&alarms, own, clock.clone(), runtime)?);
        let trust = Arc::new(Mutex::new(trust));
        let keys = GroupKeys {
            signer: None,
            verifier: Arc::new(KeyStatementVerifier::new(reader.clone(), clock)),
        };
        let crls = CrlExchange::new(trust.clone(), reader);
        let judged = alarms.clone();
        let start = move || start_threads(&servers, retention, &keys, crls, &judged, clocks);
        let started = tokio::task::spawn_blocking(start).await;
        let [summaries, follower, watch] = started.map_err(io::Error::other)??;
        Ok(Self {
            summaries,
            follower,
            watch,
            trust,
            alarms,
            monotonic,
            alive: Arc::new(|| ()),
        })
    }

    /// Calls this every second while it runs and none of its threads hangs.
    pub fn telling_alive(self, alive: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { alive, ..self }
    }

    /// Summarizes until `shutdown`; then commits everything, and gives up its shards at once.
    #[expect(clippy::disallowed_methods, reason = "paces background work")]
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), SummarizerError> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                () = self.summaries.ended() => break,
                () = self.follower.ended() => break,
                () = self.watch.ended() => break,
                _ = look.tick() => (),
            }
            reload_files(&self.trust);
            let alarms = self.alarms.clone();
            let reloaded = tokio::task::spawn_blocking(move || alarms.reload_if_changed()).await;
            reloaded.map_err(io::Error::other)?;
            let now = (self.monotonic)();
            let threads = [&self.summaries, &self.follower, &self.watch];
            if threads
                .iter()
                .all(|thread| thread.busy_secs(now) < BUSY_SECS_MAX)
            {
                (self.alive)();
            }
        }
        let stop = || {
            let committed = self.summaries.stop();
            let stopped = self.follower.stop().and(self.watch.stop());
            committed.and(stopped)
        };
        let stopped = tokio::task::spawn_blocking(stop).await;
        stopped.map_err(io::Error::other)??;
        tracing::info!("stopped: everything is committed, and the shards are given up");
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "in a shared store each run of a process has a name that no other has"
)]
fn start_threads(
    servers: &RedisConfig,
    retention: HistoryRetention,
    keys: &GroupKeys,
    crls: CrlExchange,
    alarms: &Alarms,
    clocks: Clocks,
) -> Result<[PeriodicThread; 3], SummarizerError> {
    let role = GroupRole {
        reads: false,
        summarizes: true,
    };
    let open = || store::open_shared(servers.clone(), keys.clone(), Uuid::new_v4());
    let store_clock = Arc::<StoreClock>::default();
    let sample_clocks = store_clock.in_place_of(&clocks);
    let mut follower = StoreFollower {
        store: open()?,
        crls,
        clocks: clocks.clone(),
        store_clock,
        failures: RateLimitedLog::default(),
    };
    // Before the journal is read.
    follower.follow()?;
    let summaries = open()?;
    let count = summaries.shard_count();
    let member = GroupMember::open(summaries, role, Uuid::new_v4(), sample_clocks.read())?
        .judging(alarms.evaluator(count))
        .keeping(retention);
    // It appends nothing: the mark only says in its log when receivers refuse samples.
    let status = Arc::new(WatchStatus::new(HIGH_WATER_PERCENT, count, member.counts()));
    let watch = Watch::new(store::open_watch(servers.clone(), count)?, status);
    Ok([
        PeriodicThread::start(GroupWork::new(member), sample_clocks.clone())?,
        PeriodicThread::start(follower, clocks)?,
        PeriodicThread::start(watch, sample_clocks)?,
    ])
}

impl StoreFollower {
    fn follow(&mut self) -> Result<(), StoreError> {
        peers::measure(&mut *self.store, &self.store_clock, &self.clocks)?;
        let now = (self.clocks.wall)();
        self.crls.exchange(&mut *self.store, now)
    }
}

impl Periodic for StoreFollower {
    const NAME: &'static str = "store-follower";
    const EVERY: Duration = EXCHANGE_EVERY;

    fn act(&mut self, _clocks: &Clocks) {
        if let Err(error) = self.follow() {
            let error = &error as &dyn std::error::Error;
            self.failures.say(|unsaid| {
                tracing::warn!(error, unsaid, "the store's clock and CRLs cannot be read");
            });
        }
    }

    fn finish(self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Takes up new CRLs, roots and certificates.
fn reload_files(trust: &Mutex<TrustWriter>) {
    let reloaded = trust
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .reload_if_changed();
    match reloaded {
        None => (),
        Some(Ok(trust)) => {
            let generation = trust.generation();
            tracing::info!(generation, "certificates and CRLs reloaded");
        }
        Some(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "certificates and CRLs cannot be reloaded: the old ones stay in use"
            );
        }
    }
}
