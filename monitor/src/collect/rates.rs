//! Rates of counters that only rise, unless something was reset.

use std::collections::HashMap;
use std::time::Duration;

use super::failure::CollectError;

/// Two readings within a shorter time give no rate: the clock's own errors would show.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// No machine is as fast: 8 Tbit/s. A counter that rises faster was set, not counted.
const RATE_MAX: f64 = 1e12;

/// The last readings of `N` counters of each of several things.
#[derive(Debug, Default)]
pub(super) struct Rates<const N: usize> {
    last: HashMap<Box<[u8]>, Reading<N>>,
    read_at: Option<Duration>,
    elapsed_secs: f64,
    round: u64,
}

#[derive(Debug)]
struct Reading<const N: usize> {
    counters: [u64; N],
    /// What a counter was before it fell, if that was in this reading.
    fell_from: [Option<u64>; N],
    round: u64,
}

impl<const N: usize> Rates<N> {
    /// Begins a reading of all of them, by the monotonic clock.
    pub(super) fn begin(&mut self, now: Duration) -> Result<(), CollectError> {
        let elapsed = self.read_at.map(|read_at| now.saturating_sub(read_at));
        if elapsed.is_some_and(|elapsed| elapsed < INTERVAL_MIN) {
            return Err(CollectError::TooSoon);
        }
        self.elapsed_secs = elapsed.unwrap_or_default().as_secs_f64();
        self.read_at = Some(now);
        self.round += 1;
        // What was not there in the last round is gone: if it comes back, it begins anew.
        let round = self.round;
        self.last.retain(|_, reading| reading.round + 1 == round);
        Ok(())
    }

    /// By how much each counter has risen in a second. None where there is no reading of the last
    /// round, or the counter has fallen or leapt: it was reset, wrapped at 32 bits, or the thing is
    /// another of the same name.
    pub(super) fn per_second(
        &mut self,
        name: &[u8],
        counters: [u64; N],
    ) -> Option<[Option<f64>; N]> {
        let round = self.round;
        let new = Reading {
            counters,
            fell_from: [None; N],
            round,
        };
        let Some(last) = self.last.get_mut(name) else {
            self.last.insert(name.into(), new);
            return None;
        };
        let before = std::mem::replace(last, new);
        // A second line of the same name says nothing of the time between two readings.
        if before.round == round {
            return None;
        }
        let mut rates = [None; N];
        for (at, rate) in rates.iter_mut().enumerate() {
            let (was, now) = (before.counters[at], counters[at]);
            let Some(rise) = now.checked_sub(was) else {
                last.fell_from[at] = Some(was);
                continue;
            };
            // It was 0 for a moment, as some drivers show it: it has not risen by all that it has.
            let is_back = before.fell_from[at].is_some_and(|fell_from| now >= fell_from);
            let per_second = rise as f64 / self.elapsed_secs;
            *rate = (!is_back && per_second <= RATE_MAX).then_some(per_second);
        }
        Some(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// From bug reports of other monitors: counters of 32 bits that wrap, interfaces and disks that
    /// are reset or replaced, drivers that report garbage once.
    #[test]
    fn no_rate_is_negative_or_absurd() {
        let mut rates = Rates::<1>::default();
        let steps = [
            (0, 100, None),
            (1_000, 300, Some(Some(200.0))),
            (3_000, 300, Some(Some(0.0))),
            (3_500, 400, Some(Some(200.0))),
            // It was reset, or wrapped.
            (4_500, 10, Some(None)),
            (5_500, 20, Some(Some(10.0))),
            (6_500, u64::MAX, Some(None)),
            (7_500, 30, Some(None)),
            (8_500, 31, Some(Some(1.0))),
            // It was 0 for a moment.
            (9_500, 0, Some(None)),
            (10_500, 41, Some(None)),
            (11_500, 42, Some(Some(1.0))),
        ];
        for (at, counter, expected) in steps {
            rates.begin(ms(at)).unwrap();
            let rate = rates.per_second(b"eth0", [counter]);
            assert_eq!(rate, expected.map(|rate| [rate]), "{at}");
        }
        assert_eq!(rates.begin(ms(11_550)), Err(CollectError::TooSoon));
        rates.begin(ms(12_500)).unwrap();
        assert_eq!(rates.per_second(b"eth0", [43]), Some([Some(1.0)]));
    }

    #[test]
    fn what_was_away_begins_anew() {
        let mut rates = Rates::<1>::default();
        for (at, is_there, expected) in [
            (1_000, true, None),
            (2_000, true, Some([Some(1.0)])),
            (3_000, false, None),
            (4_000, true, None),
            (5_000, true, Some([Some(1.0)])),
        ] {
            rates.begin(ms(at)).unwrap();
            let rate = is_there.then(|| rates.per_second(b"sdb", [at / 1_000]));
            assert_eq!(rate.flatten(), expected, "{at}");
        }
    }

    #[test]
    fn of_two_lines_of_one_name_the_second_counts_for_the_next_time() {
        let mut rates = Rates::<1>::default();
        rates.begin(ms(1_000)).unwrap();
        assert_eq!(rates.per_second(b"a", [1]), None);
        assert_eq!(rates.per_second(b"a", [500]), None);
    }
}
