//! When journals that another thread reads on were read last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{Shard, ShardCount};

/// How long a query waits for its shard to be read on. After that the answer says how late it is.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// The readings of all shards, by number.
#[derive(Debug)]
pub(super) struct JournalReads {
    /// The number of the last reading that has begun.
    begun: AtomicU64,
    /// By shard, the number of the last reading that went well.
    done: Vec<AtomicU64>,
    ended: watch::Sender<()>,
}

impl JournalReads {
    pub(super) fn new(count: ShardCount) -> Self {
        Self {
            begun: AtomicU64::new(0),
            done: count.all().map(|_| AtomicU64::new(0)).collect(),
            ended: watch::Sender::new(()),
        }
    }

    /// A reading begins: it reads what is appended by now.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// The last reading that began has ended. It went well but for some shards.
    pub(super) fn end(&self, failed: &dyn Fn(Shard) -> bool) {
        let number = self.begun.load(Ordering::SeqCst);
        for (shard, done) in (0..).map(Shard::new).zip(&self.done) {
            if !failed(shard) {
                done.store(number, Ordering::SeqCst);
            }
        }
        self.ended.send_replace(());
    }

    /// Returns once what was appended to this shard before now was read, or after a while.
    #[expect(clippy::disallowed_methods, reason = "limits how long a query waits")]
    pub(super) async fn read_now(&self, shard: Shard) {
        let mut ended = self.ended.subscribe();
        let next = self.begun.load(Ordering::SeqCst) + 1;
        let is_read = || {
            let done = self.done.get(shard.index());
            done.is_none_or(|done| done.load(Ordering::SeqCst) >= next)
        };
        let read = async { while !is_read() && ended.changed().await.is_ok() {} };
        let _in_time = tokio::time::timeout(WAIT_MAX, read).await;
    }
}
