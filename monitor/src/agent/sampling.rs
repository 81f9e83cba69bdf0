//! Samples on each tick, on a thread of its own, so that a slow disk delays no sample.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use lizmon_protocol::sample::EncodedSamples;
use tokio::sync::mpsc;
use tracing::{debug, error, info, trace, warn};

use crate::collect::{Collected, FailureNotice, Notice, Sampler, SelfStats};
use crate::tick::{Tick, Ticker};

/// Most samples that wait to be recorded: ten minutes of one a second. If a disk blocks for longer,
/// samples are discarded.
pub(super) const WAITING_MAX: usize = 600;

/// One sample, not recorded yet.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) epoch: u64,
    pub(super) values: EncodedSamples,
}

/// Takes the samples.
pub(super) struct SampleLoop {
    pub(super) clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    pub(super) ticker: Ticker,
    pub(super) sampler: Sampler,
    /// What the monitor knows about itself, as of its last record.
    pub(super) self_stats: Arc<Mutex<SelfStats>>,
    pub(super) samples: mpsc::Sender<Sample>,
    /// Samples that were discarded since that was logged last.
    pub(super) missed: u64,
}

impl SampleLoop {
    pub(super) fn start(self) -> io::Result<SampleThread> {
        let (stop, stopped) = channel();
        let thread = Builder::new()
            .name("sample".to_owned())
            .spawn(move || self.run(&stopped))?;
        Ok(SampleThread { thread, stop })
    }

    fn run(mut self, stopped: &Receiver<Infallible>) {
        loop {
            let wait = self.tick();
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return self.log_missed(),
                Ok(never) => match never {},
            }
        }
    }

    /// Takes a sample if it is due. Returns how long to wait until the next call.
    fn tick(&mut self) -> Duration {
        let now = (self.clock)();
        match self.ticker.at(now) {
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
                self.take(epoch, now);
            }
        }
        Duration::ZERO
    }

    fn take(&mut self, epoch: u64, now: Duration) {
        let stats = *self
            .self_stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Collected {
            values,
            notices,
            took,
        } = self.sampler.sample(stats, now);
        log_notices(&notices);
        for (collector, took) in took {
            trace!(collector, ?took, "collected");
        }
        let values = match EncodedSamples::encode(&values) {
            Ok(values) => values,
            Err(error) => {
                error!(epoch, "cannot encode a sample: {error}");
                return;
            }
        };
        debug!(epoch, values = %values.as_str(), "sampled");
        // Where the receiving end is closed, the monitor is being stopped.
        match self.samples.try_send(Sample { epoch, values }) {
            Ok(()) => self.log_missed(),
            Err(_) => self.missed += 1,
        }
    }

    fn log_missed(&mut self) {
        if self.missed > 0 {
            warn!(
                "{} samples were discarded: the disk did not answer for too long",
                self.missed
            );
            self.missed = 0;
        }
    }
}

/// A collector that fails is logged when that begins, now and then, and when it works again.
pub(super) fn log_notices(notices: &[(&'static str, Notice)]) {
    for (collector, notice) in notices {
        match notice {
            Notice::Failure(FailureNotice::Failing(why)) if why.is_partial() => {
                warn!("`{collector}` is measured only in part: {why}");
            }
            Notice::Failure(FailureNotice::Failing(why)) => {
                warn!("`{collector}` is not measured, and so not published: {why}");
            }
            Notice::Failure(FailureNotice::StillFailing { why, samples }) if why.is_partial() => {
                warn!("`{collector}` is still measured only in part, in {samples} samples: {why}");
            }
            Notice::Failure(FailureNotice::StillFailing { why, samples }) => {
                warn!(
                    "`{collector}` is still not measured, and missing in {samples} samples: {why}"
                );
            }
            Notice::Failure(FailureNotice::Recovered { samples }) => {
                info!("`{collector}` is measured again; it is missing in {samples} samples");
            }
            Notice::Slow(took) => warn!(
                "`{collector}` took {} ms, and delayed the whole sample",
                took.as_millis()
            ),
        }
    }
}

/// The sampling thread.
pub(super) struct SampleThread {
    thread: JoinHandle<()>,
    stop: Sender<Infallible>,
}

impl SampleThread {
    /// Stops it, and propagates its panic.
    pub(super) fn stop(self) {
        drop(self.stop);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::collect::{CollectOptions, MEM};

    const START: u64 = 1_465_001_814;

    /// Its clock advances by a second with each reading.
    fn sampling(waiting_max: usize) -> (SampleLoop, mpsc::Receiver<Sample>) {
        let (samples, waiting) = mpsc::channel(waiting_max);
        let now = AtomicU64::new(START);
        let monotonic = Arc::new(|| Duration::ZERO);
        let sampling = SampleLoop {
            clock: Arc::new(move || Duration::from_secs(now.fetch_add(1, Ordering::Relaxed))),
            ticker: Ticker::new(NonZeroU32::MIN, Duration::from_secs(START - 1)),
            sampler: Sampler::start(
                &[&MEM],
                &CollectOptions::default(),
                monotonic,
                Duration::from_secs(START),
            )
            .unwrap()
            .0,
            self_stats: Arc::default(),
            samples,
            missed: 0,
        };
        (sampling, waiting)
    }

    fn epochs(waiting: &mut mpsc::Receiver<Sample>) -> Vec<u64> {
        std::iter::from_fn(|| waiting.try_recv().ok())
            .map(|samples| samples.epoch - START)
            .collect()
    }

    /// While a disk was slow to write a record, no sample was taken.
    #[test]
    fn sampling_does_not_wait_for_the_spool() {
        let (mut sampling, mut waiting) = sampling(3);
        for _ in 0..5 {
            assert_eq!(sampling.tick(), Duration::ZERO);
        }
        assert_eq!(sampling.missed, 2);
        assert_eq!(epochs(&mut waiting), [0, 1, 2]);
        sampling.tick();
        assert_eq!(epochs(&mut waiting), [5]);
        assert_eq!(sampling.missed, 0);
    }

    #[test]
    fn the_thread_stops_on_request() {
        let (sampling, mut waiting) = sampling(1);
        let thread = sampling.start().unwrap();
        assert_eq!(waiting.blocking_recv().unwrap().epoch, START);
        thread.stop();
    }

    #[test]
    #[should_panic(expected = "the clock broke")]
    fn a_panic_of_the_thread_is_propagated() {
        let (mut sampling, _waiting) = sampling(1);
        sampling.clock = Arc::new(|| panic!("the clock broke"));
        sampling.start().unwrap().stop();
    }
}
