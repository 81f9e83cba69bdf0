//! From the journal to the summaries: opens the store, and starts the threads that use it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Clocks;
use crate::journal::{Journal, JournalError, JournalThread};
use crate::store::redis::config::RedisConfig;
use crate::store::signing::GroupKeys;
use crate::store::{self, LockedFolder, StoreError};
use crate::summarize::group::{GroupMember, GroupRole, GroupThread};
use crate::summarize::{Summarizer, SummaryTable};

/// Journal and summaries of a receiver.
pub(super) struct Pipeline {
    pub(super) journal: Journal,
    pub(super) table: Arc<SummaryTable>,
    pub(super) threads: PipelineThreads,
}

/// What has to be waited for at the end.
pub(super) struct PipelineThreads {
    journal: JournalThread,
    /// Where the store is shared: the thread of the summaries; and the folder stays locked.
    shared: Option<(GroupThread, LockedFolder)>,
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
    pub(super) keys: GroupKeys,
    /// Whether this process owns a share of the shards.
    pub(super) summarizes: bool,
}

impl Pipeline {
    /// Opens the store in this folder, reads everything there is, and starts. Blocks meanwhile.
    pub(super) fn start(
        folder: LockedFolder,
        gather_window: Duration,
        clocks: Clocks,
    ) -> Result<Self, PipelineError> {
        let now = (clocks.wall)();
        let mut store = store::open(folder, now)?;
        let summarizer = Summarizer::open(&mut *store, now)?;
        let table = summarizer.table();
        let (journal, thread) = Journal::start(store, summarizer, gather_window, clocks)?;
        Ok(Self {
            journal,
            table,
            threads: PipelineThreads {
                journal: thread,
                shared: None,
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
            summarizes,
        } = shared;
        let open = || store::open_shared(servers.clone(), keys.clone(), Uuid::new_v4());
        let role = GroupRole {
            reads: true,
            summarizes,
        };
        let member = GroupMember::open(open()?, role, Uuid::new_v4(), clocks.read())?;
        let table = member.table();
        let appending = open()?;
        let summaries = GroupThread::start(member, clocks.clone())?;
        let (journal, thread) =
            Journal::start_shared(appending, table.clone(), gather_window, clocks)?;
        Ok(Self {
            journal,
            table,
            threads: PipelineThreads {
                journal: thread,
                shared: Some((summaries, folder)),
            },
        })
    }
}

impl PipelineThreads {
    /// Returns when one of them is about to end, for any reason.
    pub(super) async fn ended(&mut self) {
        match &mut self.shared {
            None => self.journal.ended().await,
            Some((summaries, _)) => tokio::select! {
                () = self.journal.ended() => (),
                () = summaries.ended() => (),
            },
        }
    }

    /// Waits for the journal, which ends when its last handle is dropped, then stops the rest.
    pub(super) fn join(self) -> Result<(), JournalError> {
        let journal = self.journal.join();
        let summaries = self
            .shared
            .map_or(Ok(()), |(thread, _folder)| thread.stop());
        journal.and(summaries)
    }
}
