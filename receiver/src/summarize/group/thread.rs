//! The thread of a group's member.

use std::convert::Infallible;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::GroupMember;
use crate::clock::Clocks;
use crate::journal::JournalError;
use crate::store::StoreError;

/// How often the journals are read on.
const READ_EVERY: Duration = Duration::from_millis(50);
/// After how many readings leases, shares and commits are due: a second.
const READINGS_BETWEEN: u32 = 20;

/// The thread of a [`GroupMember`], to stop and to wait for.
#[derive(Debug)]
pub struct GroupThread {
    thread: JoinHandle<Result<(), StoreError>>,
    stop: SyncSender<Infallible>,
    ended: oneshot::Receiver<Infallible>,
}

impl GroupThread {
    /// Starts it. It ends, with everything committed and every shard given up, when it is stopped.
    pub fn start(member: GroupMember, clocks: Clocks) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel::<Infallible>(0);
        let (alive, ended) = oneshot::channel::<Infallible>();
        let run = move || {
            let _until_the_end = alive;
            let mut member = member;
            let mut readings = 0;
            loop {
                member.read_on((clocks.wall)());
                if readings % READINGS_BETWEEN == 0 {
                    member.maintain(clocks.read());
                }
                readings = readings.wrapping_add(1);
                match stopped.recv_timeout(READ_EVERY) {
                    Err(RecvTimeoutError::Timeout) => (),
                    Ok(never) => match never {},
                    Err(RecvTimeoutError::Disconnected) => return member.finish(),
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("summaries".to_owned())
            .spawn(run)?;
        Ok(Self {
            thread,
            stop,
            ended,
        })
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
