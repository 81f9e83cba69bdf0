//! A thread that does something again and again until it is stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clocks;
use crate::journal::JournalError;
use crate::store::StoreError;

/// What such a thread does.
pub trait Periodic: Send + 'static {
    /// Its name.
    const NAME: &'static str;
    /// How long it waits between two times.
    const EVERY: Duration;

    /// Does it once.
    fn act(&mut self, clocks: &Clocks);

    /// Ends it.
    fn finish(self) -> Result<(), StoreError>;
}

/// The thread, to stop and to wait for.
#[derive(Debug)]
pub struct PeriodicThread {
    thread: JoinHandle<Result<(), StoreError>>,
    stop: SyncSender<Infallible>,
    ended: oneshot::Receiver<Infallible>,
    /// When it last came round, by the monotonic clock.
    round_at: Arc<AtomicU64>,
}

impl PeriodicThread {
    /// Starts it.
    pub fn start<P: Periodic>(mut work: P, clocks: Clocks) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel::<Infallible>(0);
        let (alive, ended) = oneshot::channel::<Infallible>();
        let round_at = Arc::new(AtomicU64::new((clocks.monotonic)()));
        let came_round = round_at.clone();
        let run = move || {
            let _until_the_end = alive;
            loop {
                work.act(&clocks);
                came_round.store((clocks.monotonic)(), Ordering::Relaxed);
                match stopped.recv_timeout(P::EVERY) {
                    Err(RecvTimeoutError::Timeout) => (),
                    Ok(never) => match never {},
                    Err(RecvTimeoutError::Disconnected) => return work.finish(),
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(P::NAME.to_owned())
            .spawn(run)?;
        Ok(Self {
            thread,
            stop,
            ended,
            round_at,
        })
    }

    /// For how many seconds it has not come round: it is busy, or hangs. `now` is monotonic.
    pub fn busy_secs(&self, now: u64) -> u64 {
        now.saturating_sub(self.round_at.load(Ordering::Relaxed))
    }

    /// Returns when the thread is about to end, for any reason.
    pub async fn ended(&mut self) {
        let _closed = (&mut self.ended).await;
    }

    /// Stops the thread, and waits for it.
    pub fn stop(self) -> Result<(), JournalError> {
        drop(self.stop);
        Ok(self.thread.join().map_err(|_| JournalError::Panicked)??)
    }
}
