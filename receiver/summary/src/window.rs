//! The tiers, where their windows begin, and which epochs are accepted.
//!
//! All times are whole seconds since 1970 UTC. An interval holds `start < epoch <= end`.

/// How far ahead of the receiver's clock a sample may be: clocks differ a little, and a minute is no reason to lose it.
pub const AHEAD_SECS_MAX: u64 = 120;

/// One resolution at which samples are summarized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The word in the summary's name.
    pub name: &'static str,
    /// Width of one interval in seconds.
    pub width_secs: u64,
    /// How far back the window reaches, before it is rounded down to a whole interval: seconds.
    pub window_secs: u64,
    /// How many intervals are kept: the window, its partial end, and those that begin ahead of the clock.
    pub kept: usize,
    /// How many intervals are given to a reader, the newest first chosen.
    pub given_max: usize,
}

/// The last hour, minute by minute. The newest 60 are given, as the first lizmon did.
const BY_MINUTE: Tier = Tier::new("by-minute", 60, 3_600, 60);
/// The last day, hour by hour.
const BY_HOUR: Tier = Tier::new("by-hour", 3_600, 86_400, usize::MAX);

/// Every tier, finest first. The index here is the tier's index everywhere.
pub const TIERS: [Tier; 2] = [BY_MINUTE, BY_HOUR];

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

    /// Where the window begins: the first second that no longer counts.
    ///
    /// ```
    /// assert_eq!(lizmon_summary::TIERS[0].window_start(1_465_001_814), 1_464_998_160);
    /// ```
    pub fn window_start(&self, now: u64) -> u64 {
        (now - now % self.width_secs).saturating_sub(self.window_secs)
    }

    /// Which interval holds this epoch, counted from 1970; none holds 0, for it would have to begin before.
    pub(crate) fn interval_of(&self, epoch: u64) -> Option<u64> {
        Some(epoch.checked_sub(1)? / self.width_secs)
    }
}

/// Why an epoch is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochRefusal {
    /// At or before the start of the by-hour window.
    TooOld,
    /// More than [`AHEAD_SECS_MAX`] ahead of the clock.
    InFuture,
}

/// Whether a sample of this epoch is accepted at `now`.
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
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Where the window begins.
    pub start: u64,
    /// Where it ends: the `now` it was asked for.
    pub end: u64,
    /// Width of an interval in seconds.
    pub width_secs: u64,
    /// The intervals that hold samples, oldest first; never empty.
    pub averages: Vec<IntervalAverage>,
}

/// One interval that holds samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntervalAverage {
    /// Just before the first second that counts.
    pub start: u64,
    /// The last second that counts.
    pub end: u64,
    /// How many samples there were: at least one.
    pub count: u64,
    /// Their mean, rounded to two decimals.
    pub avg: f64,
    /// The least of them, as it came.
    pub min: f64,
    /// The greatest of them, as it came.
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
