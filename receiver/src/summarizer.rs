//! A summarizer: a process that owns shards of a shared store, and serves nobody.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::trust::{TrustError, TrustFiles, TrustWriter};
use uuid::Uuid;

use crate::clock::Clocks;
use crate::journal::JournalError;
use crate::receiver_keys::KeyStatementVerifier;
use crate::store::redis::config::RedisConfig;
use crate::store::signing::GroupKeys;
use crate::store::{self, StoreError};
use crate::summarize::group::{GroupMember, GroupRole, GroupThread};

/// How often files are checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a summarizer does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum SummarizerError {
    /// Certificate, key, roots or CRLs.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The shared store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread.
    #[error("the thread of the summaries cannot be started")]
    Thread(#[from] io::Error),
    /// What was not committed is in the journal.
    #[error(transparent)]
    Commit(#[from] JournalError),
}

/// A summarizer that takes its share of the shards.
pub struct ShardSummarizer {
    thread: GroupThread,
    trust: TrustWriter,
}

impl ShardSummarizer {
    /// Opens the store, and starts to take a share of its shards.
    pub async fn start(
        trust: TrustFiles,
        servers: RedisConfig,
        clocks: Clocks,
    ) -> Result<Self, SummarizerError> {
        let clock = clocks.wall.clone();
        let (trust, reader) = TrustWriter::open_as_client(trust, clock.clone())?;
        let keys = GroupKeys {
            signer: None,
            verifier: Arc::new(KeyStatementVerifier::new(reader, clock)),
        };
        let start = move || start_thread(servers, keys, clocks);
        let started = tokio::task::spawn_blocking(start).await;
        Ok(Self {
            thread: started.map_err(io::Error::other)??,
            trust,
        })
    }

    /// Summarizes until `shutdown`; then commits everything, and gives up its shards at once.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), SummarizerError> {
        tokio::select! {
            () = shutdown => (),
            () = self.thread.ended() => (),
            () = follow_files(&mut self.trust) => (),
        }
        let stopped = tokio::task::spawn_blocking(|| self.thread.stop()).await;
        stopped.map_err(io::Error::other)??;
        tracing::info!("stopped: everything is committed, and the shards are given up");
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "in a shared store each run of a process has a name that no other has"
)]
fn start_thread(
    servers: RedisConfig,
    keys: GroupKeys,
    clocks: Clocks,
) -> Result<GroupThread, SummarizerError> {
    let role = GroupRole {
        reads: false,
        summarizes: true,
    };
    let summaries = store::open_shared(servers, keys, Uuid::new_v4())?;
    let member = GroupMember::open(summaries, role, Uuid::new_v4(), clocks.read())?;
    Ok(GroupThread::start(member, clocks)?)
}

/// Takes up new CRLs, roots and certificates. Never returns.
#[expect(clippy::disallowed_methods, reason = "paces background work")]
async fn follow_files(trust: &mut TrustWriter) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        match trust.reload_if_changed() {
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
}
