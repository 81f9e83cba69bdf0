//! Work that may take long, on a thread of its own: samples do not wait for it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// How long an end waits for work that was told to end: a command is killed then.
const END_WITHIN: Duration = Duration::from_millis(500);

/// Does the work again and again, and knows the last result.
pub(super) struct Background<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    has_ended: AtomicBool,
}

struct State<T> {
    /// When it was asked for last, and whether that is under way.
    asked_at: Option<Duration>,
    is_open: bool,
    /// The thread does nothing any more.
    has_left: bool,
    /// The last result, and when it was asked for.
    latest: Option<(Arc<T>, Duration)>,
}

/// Told to the work, so that it can end early.
pub(super) struct Stop<'s>(&'s AtomicBool);

impl Stop<'_> {
    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn at(told: &AtomicBool) -> Stop<'_> {
        Stop(told)
    }
}

/// The result that there is.
pub(super) struct Latest<T> {
    pub(super) result: Arc<T>,
    pub(super) age: Duration,
}

impl<T: Send + Sync + 'static> Background<T> {
    /// Nothing is done until it is asked for.
    pub(super) fn start(
        name: &str,
        mut work: impl FnMut(&Stop<'_>) -> T + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                asked_at: None,
                is_open: false,
                has_left: false,
                latest: None,
            }),
            changed: Condvar::new(),
            has_ended: AtomicBool::new(false),
        });
        let worker = shared.clone();
        Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.run(&mut work))?;
        Ok(Self { shared })
    }

    /// Has the work done if `every` has passed since it was asked for, and it is not under way.
    /// Waits for the result for a short time; what comes later is there at the next call.
    pub(super) fn ask(&self, now: Duration, every: Duration, patience: Duration) {
        let mut state = self.shared.lock();
        let is_due = |at: Duration| now.saturating_sub(at) >= every;
        if state.is_open || !state.asked_at.is_none_or(is_due) {
            return;
        }
        state.asked_at = Some(now);
        state.is_open = true;
        self.shared.changed.notify_all();
        let is_open = |state: &mut State<T>| state.is_open;
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, patience, is_open);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The last result. `None` before the first.
    pub(super) fn latest(&self, now: Duration) -> Option<Latest<T>> {
        let state = self.shared.lock();
        let (result, at) = state.latest.as_ref()?;
        Some(Latest {
            result: result.clone(),
            age: now.saturating_sub(*at),
        })
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        let state = self.shared.lock();
        self.shared.has_ended.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        let works = |state: &mut State<T>| !state.has_left;
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, END_WITHIN, works);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, work: &mut dyn FnMut(&Stop<'_>) -> T) {
        let mut state = self.lock();
        loop {
            let has_ended = || self.has_ended.load(Ordering::Relaxed);
            let is_idle = |state: &mut State<T>| !state.is_open && !has_ended();
            let waited = self.changed.wait_while(state, is_idle);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            if has_ended() {
                state.has_left = true;
                return self.changed.notify_all();
            }
            let at = state.asked_at.unwrap_or_default();
            drop(state);
            let result = Arc::new(work(&Stop(&self.has_ended)));
            state = self.lock();
            state.latest = Some((result, at));
            state.is_open = false;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Far more than it takes: a wait ends with the result.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn samples_do_not_wait_for_what_hangs() {
        let (release, hung) = channel::<u32>();
        let background = Background::start("test", move |_| hung.recv().unwrap()).unwrap();
        let secs = Duration::from_secs;
        background.ask(secs(10), secs(5), Duration::ZERO);
        assert!(background.latest(secs(10)).is_none());
        // It is under way, and not asked for twice.
        background.ask(secs(20), secs(5), PATIENCE);
        release.send(1).unwrap();
        release.send(2).unwrap();
        while background.latest(secs(20)).is_none() {
            std::thread::yield_now();
        }
        let latest = background.latest(secs(20)).unwrap();
        assert_eq!((*latest.result, latest.age), (1, secs(10)));
        background.ask(secs(20), secs(5), PATIENCE);
        let latest = background.latest(secs(21)).unwrap();
        assert_eq!((*latest.result, latest.age), (2, secs(1)));
        // It is not due.
        background.ask(secs(24), secs(5), PATIENCE);
        assert_eq!(*background.latest(secs(24)).unwrap().result, 2);
    }

    #[test]
    fn the_work_is_told_to_end() {
        let (began, begun) = channel();
        let (ended, end) = channel();
        let background = Background::start("test", move |stop| {
            began.send(()).unwrap();
            while !stop.is_told() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        });
        let background = background.unwrap();
        background.ask(Duration::ZERO, Duration::ZERO, Duration::ZERO);
        begun.recv().unwrap();
        drop(background);
        end.recv().unwrap();
    }
}
