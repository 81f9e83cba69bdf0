//! The tiers, the start of their windows, and which epochs are accepted.
//!
//! All times are whole seconds since 1970 UTC. An interval holds `start < epoch <= end`.

/// How far a sample may be ahead of the receiver's clock. Clocks differ a little, and a sample
/// should not be lost for a minute's difference.
pub const AHEAD_SECS_MAX: u64 = 120;

/// A resolution at which samples are summarized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The tier's part of a summary's name.
    pub name: &'static str,
    /// The width of an interval in seconds.
    pub width_secs: u64,
    /// The length of the window in seconds, before its start is rounded down to a whole interval.
    pub window_secs: u64,
    /// The number of intervals in a ring: the window, the partial interval at its end, and those
    /// ahead of the clock.
    pub kept: usize,
    /// The maximum number of intervals that a reader gets. The newest ones have priority.
    pub given_max: usize,
}

/// The last hour by minute. A reader gets the newest 60 intervals, as in the first lizmon.
const BY_MINUTE: Tier = Tier::new("by-minute", 60, 3_600, 60);
/// The last day by hour.
const BY_HOUR: Tier = Tier::new("by-hour", 3_600, 86_400, usize::MAX);

/// All tiers, the finest first. Functions that take a tier take its index in this array.
pub const TIERS: [Tier; 2] = [BY_MINUTE, BY_HOUR];

/// The index of by-hour in [`TIERS`].
pub const BY_HOUR_TIER: usize = 1;

impl Tier {
    const fn new(name: &'static str, width_secs: u64, window_secs: u64, given_max: usize) -> Self {
        let kept = window_secs / width_secs + 1 + AHEAD_SECS_MAX.div_ceil(width_secs);
        Self {
            name,
            width_secs,
            window_secs,
            kept: kept as usize,
            given_max,
        }
    }

    /// The start of the window, which is exclusive: a sample at this second is not in the window.
    ///
    /// ```
    /// assert_eq!(lizmon_summary::TIERS[0].window_start(1_465_001_814), 1_464_998_160);
    /// ```
    pub fn window_start(&self, now: u64) -> u64 {
        (now - now % self.width_secs).saturating_sub(self.window_secs)
    }

    /// The slot in a ring of the interval that starts at `start`: no two intervals that are kept at
    /// the same time have the same.
    ///
    /// ```
    /// assert_eq!(lizmon_summary::TIERS[0].slot_of(64 * 60), 1);
    /// ```
    pub fn slot_of(&self, start: u64) -> usize {
        self.slot_of_interval(start / self.width_secs)
    }

    pub(crate) fn slot_of_interval(&self, interval: u64) -> usize {
        (interval % self.kept as u64) as usize
    }

    /// The number of the interval that includes this epoch, counted from 1970. `None` for epoch 0,
    /// because its interval would start before 1970.
    pub(crate) fn interval_of(&self, epoch: u64) -> Option<u64> {
        Some(epoch.checked_sub(1)? / self.width_secs)
    }
}

/// The intervals of one epoch. A record has one epoch for all its values: see
/// [`Series::apply_in`](crate::Series::apply_in).
#[derive(Debug, Clone, Copy)]
pub struct EpochIntervals(pub(crate) [Option<EpochInterval>; TIERS.len()]);

/// The interval of an epoch in one tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpochInterval {
    /// Its number, counted from 1970.
    pub(crate) number: u64,
    /// The bit of its slot.
    pub(crate) bit: u64,
}

impl EpochIntervals {
    /// Of epoch 0 there are none.
    pub fn of(epoch: u64) -> Self {
        Self(TIERS.map(|tier| {
            let number = tier.interval_of(epoch)?;
            let bit = 1 << tier.slot_of_interval(number);
            Some(EpochInterval { number, bit })
        }))
    }
}

/// Why an epoch is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochRefusal {
    /// The epoch is at or before the start of the by-hour window.
    TooOld,
    /// The epoch is more than [`AHEAD_SECS_MAX`] ahead of the clock.
    InFuture,
}

/// Checks whether a sample of this epoch is accepted at `now`.
///
/// ```
/// use lizmon_summary::{EpochRefusal, accepts};
/// let now = 1_465_001_814;
/// assert_eq!(accepts(now + 120, now), Ok(()));
/// assert_eq!(accepts(now + 121, now), Err(EpochRefusal::InFuture));
/// assert_eq!(accepts(1_464_912_000, now), Err(EpochRefusal::TooOld));
/// ```
pub fn accepts(epoch: u64, now: u64) -> Result<(), EpochRefusal> {
    if epoch <= BY_HOUR.window_start(now) {
        Err(EpochRefusal::TooOld)
    } else if epoch > now.saturating_add(AHEAD_SECS_MAX) {
        Err(EpochRefusal::InFuture)
    } else {
        Ok(())
    }
}

/// One series in one tier, as a reader gets it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// The start of the window.
    pub start: u64,
    /// The end of the window: the `now` of the call.
    pub end: u64,
    /// The width of an interval in seconds.
    pub width_secs: u64,
    /// The intervals with samples, oldest first; never empty.
    pub averages: Vec<IntervalAverage>,
}

/// One interval with samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntervalAverage {
    /// The exclusive start of the interval.
    pub start: u64,
    /// The inclusive end of the interval.
    pub end: u64,
    /// The number of samples, at least one.
    pub count: u64,
    /// The mean, rounded to two decimals.
    pub avg: f64,
    /// The minimum, not rounded.
    pub min: f64,
    /// The maximum, not rounded.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_the_promised_ones() {
        let told = TIERS.map(|tier| (tier.name, tier.width_secs, tier.window_secs, tier.kept));
        assert_eq!(
            told,
            [("by-minute", 60, 3_600, 63), ("by-hour", 3_600, 86_400, 26)]
        );
        assert_eq!(TIERS.map(|tier| tier.given_max), [60, usize::MAX]);
    }

    #[test]
    fn windows_begin_on_whole_intervals() {
        for (now, by_minute, by_hour) in [
            (1_465_001_814, 1_464_998_160, 1_464_912_000),
            (1_465_001_760, 1_464_998_160, 1_464_912_000),
            (1_465_001_759, 1_464_998_100, 1_464_912_000),
            (1_465_002_000, 1_464_998_400, 1_464_915_600),
            (3_660, 60, 0),
            (0, 0, 0),
        ] {
            assert_eq!(TIERS.map(|t| t.window_start(now)), [by_minute, by_hour]);
        }
    }

    #[test]
    fn acceptance_at_its_edges() {
        let now = 1_465_001_814;
        for (epoch, now, expected) in [
            (1_464_912_000, now, Err(EpochRefusal::TooOld)),
            (1_464_912_001, now, Ok(())),
            (now, now, Ok(())),
            (now + 120, now, Ok(())),
            (now + 121, now, Err(EpochRefusal::InFuture)),
            (0, now, Err(EpochRefusal::TooOld)),
            (0, 0, Err(EpochRefusal::TooOld)),
            (1, 0, Ok(())),
            (u64::MAX, now, Err(EpochRefusal::InFuture)),
            (u64::MAX, u64::MAX, Ok(())),
        ] {
            assert_eq!(accepts(epoch, now), expected, "{epoch} at {now}");
        }
    }
}
