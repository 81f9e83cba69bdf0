//! From the journal to the summaries: opens the store, and starts the threads that use it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lizmon_mtls::quota_use::HolderQuotas;
use lizmon_mtls::trust::TrustReader;
use uuid::Uuid;

use crate::alarms::Alarms;
use crate::clock::{Clocks, StoreClock};
use crate::history::Histories;
use crate::journal::{Journal, JournalError, JournalThreads};
use crate::peers::{CrlExchange, PeerKeys, Peers};
use crate::periodic::PeriodicThread;
use crate::store::redis::config::RedisConfig;
use crate::store::signing::GroupKeys;
use crate::store::{self, HistoryRetention, LockedFolder, StoreError};
use crate::summarize::group::{GroupMember, GroupRole, GroupWork};
use crate::summarize::{Summarizer, SummaryTable};
use crate::watch::{Watch, WatchStatus};

/// Journal and summaries of a receiver.
pub(super) struct Pipeline {
    pub(super) journal: Journal,
    pub(super) table: Arc<SummaryTable>,
    pub(super) histories: Histories,
    /// What samples and windows go by.
    pub(super) clocks: Clocks,
    pub(super) threads: PipelineThreads,
}

/// What has to be waited for at the end.
pub(super) struct PipelineThreads {
    journal: JournalThreads,
    /// Where the store is shared: what else runs.
    shared: Vec<PeriodicThread>,
    /// It stays locked where the store is not in it.
    _folder: Option<LockedFolder>,
}

/// Why there is no pipeline.
#[derive(Debug, thiserror::Error)]
pub(super) enum PipelineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// A store that other processes use as well.
pub(super) struct SharedPipeline {
    pub(super) servers: RedisConfig,
    pub(super) keys: PeerKeys,
    pub(super) crls: CrlExchange,
    pub(super) quotas: HolderQuotas,
    pub(super) trust: TrustReader,
    /// Judges hosts.
    pub(super) alarms: Arc<Alarms>,
    /// Whether this process owns a share of the shards.
    pub(super) summarizes: bool,
    /// When servers are too full for more samples: percent of their memory.
    pub(super) high_water: u8,
    /// How long the history is kept.
    pub(super) retention: HistoryRetention,
}

impl Pipeline {
    /// Opens the store in this folder, reads everything there is, and starts. Blocks meanwhile.
    pub(super) fn start(
        folder: LockedFolder,
        alarms: &Alarms,
        retention: HistoryRetention,
        gather_window: Duration,
        clocks: Clocks,
    ) -> Result<Self, PipelineError> {
        let now = (clocks.wall)();
        let mut store = store::open(folder, now)?;
        let summarizer = Summarizer::open(&mut *store, now)?.keeping(retention);
        let histories = Histories::new(store.history()?, retention);
        let table = summarizer.table();
        let alarms = alarms.evaluator(store.shard_count());
        let (journal, threads) =
            Journal::start_judging(store, summarizer, alarms, gather_window, clocks.clone())?;
        Ok(Self {
            journal,
            table,
            histories,
            clocks,
            threads: PipelineThreads {
                journal: threads,
                shared: Vec::new(),
                _folder: None,
            },
        })
    }

    /// The same with a shared store; the folder has the keys alone.
    #[expect(
        clippy::disallowed_methods,
        reason = "in a shared store each run of a process has names that no other has"
    )]
    pub(super) fn start_shared(
        folder: LockedFolder,
        shared: SharedPipeline,
        gather_window: Duration,
        clocks: Clocks,
    ) -> Result<Self, PipelineError> {
        let SharedPipeline {
            servers,
            keys,
            crls,
            quotas,
            trust,
            alarms,
            summarizes,
            high_water,
            retention,
        } = shared;
        let store_clock = Arc::<StoreClock>::default();
        let own_clocks = clocks;
        let clocks = store_clock.in_place_of(&own_clocks);
        let group_keys = GroupKeys {
            signer: Some(keys.own.clone()),
            verifier: keys.verifier.clone(),
        };
        let open = || store::open_shared(servers.clone(), group_keys.clone(), Uuid::new_v4());
        // First: the journal is read with all CRLs in force, and by the time that everything is
        // read others know our keys.
        let id = Uuid::new_v4();
        let both = (own_clocks.clone(), store_clock);
        let peers = Peers::open(open()?, crls, keys, quotas, id, trust, both)?;
        let role = GroupRole {
            reads: true,
            summarizes,
        };
        let member = GroupMember::open(open()?, role, Uuid::new_v4(), clocks.read())?;
        let member = member.judging(alarms.evaluator(open()?.shard_count()));
        let member = member.keeping(retention);
        let table = member.table();
        let appending = open()?;
        let histories = Histories::new(appending.history()?, retention);
        let count = appending.shard_count();
        let status = Arc::new(WatchStatus::new(high_water, count, member.counts()));
        let mut watch = Watch::new(store::open_watch(servers.clone(), count)?, status.clone());
        // Before the first sample: servers may be full.
        let at = clocks.read();
        watch.look(at.wall, at.monotonic)?;
        let mut stores = vec![appending];
        for _ in 1..status.placement().servers() {
            stores.push(open()?);
        }
        let peers = PeriodicThread::start(peers, own_clocks)?;
        let summaries = PeriodicThread::start(GroupWork::new(member), clocks.clone())?;
        let (journal, threads) =
            Journal::start_shared(stores, &table, status, gather_window, clocks.clone())?;
        let watch = PeriodicThread::start(watch.shown_in(journal.status()), clocks.clone())?;
        Ok(Self {
            journal,
            table,
            histories,
            clocks,
            threads: PipelineThreads {
                journal: threads,
                shared: vec![summaries, peers, watch],
                _folder: Some(folder),
            },
        })
    }
}

impl PipelineThreads {
    /// Returns when one of them is about to end, for any reason.
    pub(super) async fn ended(&mut self) {
        let shared = self.shared.iter_mut();
        let any_of_them = shared.map(|thread| Box::pin(thread.ended()));
        tokio::select! {
            () = self.journal.ended() => (),
            () = first(any_of_them.collect()) => (),
        }
    }

    /// Waits for the journal, which ends when its last handle is dropped, then stops the rest.
    pub(super) fn join(self) -> Result<(), JournalError> {
        let mut ended = self.journal.join();
        for thread in self.shared {
            let stopped = thread.stop();
            ended = ended.and(stopped);
        }
        ended
    }
}

/// Returns when any of them does; never if there are none.
async fn first(mut any: Vec<Pin<Box<impl Future<Output = ()>>>>) {
    std::future::poll_fn(|context| {
        let is_over = any
            .iter_mut()
            .any(|one| one.as_mut().poll(context).is_ready());
        if is_over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
