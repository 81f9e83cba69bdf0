//! How old connections get: about as old as configured, and not all of them equally old.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much younger or older than configured a connection gets at most. Clients that came at one
/// moment, such as after an outage, leave over a fifth of the age.
const SPREAD: f64 = 0.1;
/// The golden ratio's fraction of 2^64. Multiples of it, modulo 2^64, are spread evenly, however
/// many there are.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The ages of successive connections.
#[derive(Debug)]
pub(crate) struct ConnectionAges {
    age: Duration,
    opened: AtomicU64,
}

impl ConnectionAges {
    pub(crate) fn new(age: Duration) -> Self {
        Self {
            age,
            opened: AtomicU64::new(0),
        }
    }

    /// The age of the next connection.
    pub(crate) fn next(&self) -> Duration {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed);
        // From 0 to 1.
        let place = opened.wrapping_mul(GOLDEN) as f64 / u64::MAX as f64;
        let secs = self.age.as_secs_f64() * (1.0 - SPREAD + 2.0 * SPREAD * place);
        Duration::try_from_secs_f64(secs).unwrap_or(self.age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_opened_at_once_do_not_end_at_once() {
        let ages = ConnectionAges::new(Duration::from_secs(3_600));
        for crowd in [100, 10_000] {
            let mut seconds: Vec<_> = (0..crowd).map(|_| ages.next().as_secs_f64()).collect();
            seconds.sort_by(f64::total_cmp);
            let (first, last) = (seconds[0], seconds[crowd - 1]);
            assert!(first >= 3_240.0 && last <= 3_960.0, "{first} to {last}");
            let gaps = seconds.windows(2).map(|pair| pair[1] - pair[0]);
            let widest = gaps.fold(0.0, f64::max);
            // The mean gap is 720 s divided by their number.
            assert!(widest < 3.0 * 720.0 / crowd as f64, "{crowd}: {widest}");
        }
    }

    #[test]
    fn the_longest_age_is_an_age() {
        let ages = ConnectionAges::new(Duration::MAX);
        assert!((0..100).all(|_| ages.next() >= Duration::MAX / 2));
    }
}
