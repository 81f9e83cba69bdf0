//! What is read every few seconds on a thread of its own, because that takes long or may hang.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::background::Background;
use super::collector::CollectorStartError;
use super::failure::CollectError;

/// How long a sample waits for a reading that is due; what comes later is in the next sample.
const PATIENCE: Duration = Duration::from_millis(20);

/// What is read, and when.
#[derive(Debug)]
pub(super) struct ReadingPlan {
    /// Names the thread.
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    /// What is not there where nothing can be read at all.
    pub(super) missing: &'static str,
    pub(super) every: Duration,
    /// A reading is of use no longer than this.
    pub(super) age_max: Duration,
}

/// Reads again and again, and knows the last reading.
pub(super) struct PeriodicReading<T> {
    plan: &'static ReadingPlan,
    background: Background<Option<Arc<T>>>,
}

impl<T: Send + Sync + 'static> PeriodicReading<T> {
    /// Nothing is read until the first sample. `None` is read where there is nothing to read.
    pub(super) fn start(
        plan: &'static ReadingPlan,
        mut read: impl FnMut() -> Option<T> + Send + 'static,
    ) -> Result<Self, CollectorStartError> {
        let background = Background::start(plan.name, move |_| read().map(Arc::new));
        Ok(Self {
            plan,
            background: background
                .map_err(|error: io::Error| CollectorStartError::Thread(error))?,
        })
    }

    /// The last reading, a new one if that is due and does not take long.
    pub(super) fn latest(&self, now: Duration) -> Result<Arc<T>, CollectError> {
        let ReadingPlan { path, missing, .. } = *self.plan;
        self.background.ask(now, self.plan.every, PATIENCE);
        let latest = self.background.latest(now);
        let latest = latest.ok_or(CollectError::FirstReading { path })?;
        if latest.age > self.plan.age_max {
            return Err(CollectError::NoAnswer { path });
        }
        let read = latest.result.as_ref().clone();
        read.ok_or(CollectError::Missing {
            path,
            field: missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    static PLAN: ReadingPlan = ReadingPlan {
        name: "test",
        path: "/proc/x",
        missing: "x",
        every: Duration::from_secs(10),
        age_max: Duration::from_secs(60),
    };

    #[test]
    fn a_reading_is_of_use_for_a_while() {
        let path = PLAN.path;
        let (say, said) = channel::<Option<u32>>();
        let periodic = PeriodicReading::start(&PLAN, move || said.recv().unwrap()).unwrap();
        let at = |secs| periodic.latest(Duration::from_secs(secs)).map(|read| *read);
        assert_eq!(at(100), Err(CollectError::FirstReading { path }));
        say.send(Some(7)).unwrap();
        while at(100).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(at(109), Ok(7));
        // It is due, and hangs.
        assert_eq!(at(110), Ok(7));
        assert_eq!(at(160), Ok(7));
        assert_eq!(at(161), Err(CollectError::NoAnswer { path }));
        say.send(None).unwrap();
        let missing = CollectError::Missing { path, field: "x" };
        while at(111) != Err(missing.clone()) {
            std::thread::yield_now();
        }
    }
}
