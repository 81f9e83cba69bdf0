//! The clock of a store that several processes share. Windows go by it, so that all of them agree,
//! and a process whose own clock is a little wrong refuses no sample that others take. Certificates
//! and tokens are judged by the process' own clock: whoever runs the store must not make them
//! valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::Clocks;

/// A measurement that took longer says too little.
const MEASURED_IN_MAX: Duration = Duration::from_millis(500);

/// By how much the store's clock is ahead of this machine's.
#[derive(Debug, Default)]
pub struct StoreClock {
    ahead_millis: AtomicI64,
}

impl StoreClock {
    /// The store's clock said `store` at some moment between these two of this machine's.
    pub fn measure(&self, before: Duration, store: Duration, after: Duration) {
        if after.saturating_sub(before) > MEASURED_IN_MAX {
            return;
        }
        let between = millis(before).midpoint(millis(after));
        let ahead = millis(store).saturating_sub(between);
        self.ahead_millis.store(ahead, Ordering::Relaxed);
    }

    /// By how much it is ahead, as it was measured last: milliseconds.
    pub fn ahead_millis(&self) -> i64 {
        self.ahead_millis.load(Ordering::Relaxed)
    }

    /// These clocks, with the store's time in place of this machine's.
    pub fn in_place_of(self: &Arc<Self>, clocks: &Clocks) -> Clocks {
        let (this, fine) = (self.clone(), clocks.fine.clone());
        let fine = Arc::new(move || {
            let now = millis(fine()).saturating_add(this.ahead_millis());
            Duration::from_millis(u64::try_from(now).unwrap_or(0))
        });
        Clocks {
            fine: fine.clone(),
            wall: Arc::new(move || fine().as_secs()),
            ..clocks.clone()
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(NOW * 1_000 + millis)
    }

    #[test]
    fn windows_go_by_the_stores_clock() {
        let own = Clocks::of_one(Arc::new(|| NOW));
        let clock = Arc::new(StoreClock::default());
        let shifted = clock.in_place_of(&own);
        assert_eq!((shifted.wall)(), NOW);
        clock.measure(at(0), at(90_250), at(100));
        assert_eq!((shifted.fine)(), at(90_200));
        assert_eq!(((shifted.wall)(), (own.wall)()), (NOW + 90, NOW));
        clock.measure(at(0), at(0) - Duration::from_secs(30), at(0));
        assert_eq!((shifted.wall)(), NOW - 30);
        assert_eq!(shifted.read().monotonic, NOW);
        // It was on the way for too long.
        clock.measure(at(0), at(5_000), at(501));
        assert_eq!((shifted.wall)(), NOW - 30);
    }
}
