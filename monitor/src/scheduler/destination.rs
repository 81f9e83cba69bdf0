//! The state of one destination.

use std::time::Duration;

use super::check::DeliveryCheck;
use super::pause::Pause;
use crate::retry::Backoff;
use crate::skew::ClockSkew;

/// Where the difference of two clocks has changed by more than this, the receiver may accept other
/// records.
const SKEW_CHANGE_SECS: f64 = 30.0;

/// The state of one destination.
#[derive(Debug, Default)]
pub(super) struct DestinationState {
    pub(super) backoff: Backoff,
    /// Nothing is sent before this is over.
    pub(super) pause: Option<Pause>,
    /// Only the newest records are sent before this is over.
    pub(super) backlog_pause: Option<Pause>,
    pub(super) deferred: Option<Deferral>,
    /// Which start of the receiver answered last.
    pub(super) run: u64,
    pub(super) check: DeliveryCheck,
    /// When the newest records are sent, at the monitor's moment within the second. None are new.
    pub(super) newest_due: Option<Duration>,
    pub(super) is_failing: bool,
    /// Reports of what was dropped are sent without records: together they were refused.
    pub(super) sends_reports_alone: bool,
    pub(super) skew: ClockSkew,
    /// Records since the start.
    pub(super) delivered: u64,
}

impl DestinationState {
    /// `keeps`: whether acknowledged records are kept, so that it may miss some from the start.
    pub(super) fn new(keeps: bool) -> Self {
        Self {
            check: DeliveryCheck::new(keeps),
            ..Self::default()
        }
    }
}

/// Records that a destination refuses for now, because its clock and ours differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deferral {
    pub(super) pause: Pause,
    /// How far our clock was ahead of the destination's.
    pub(super) ahead_secs: Option<f64>,
}

impl Deferral {
    /// Whether the records are to be sent again, now that our clock is so far ahead.
    pub(super) fn has_ended(self, ahead_secs: Option<f64>, now: Duration) -> bool {
        let has_changed = match (self.ahead_secs, ahead_secs) {
            (Some(then), Some(now)) => (then - now).abs() > SKEW_CHANGE_SECS,
            (then, now) => then.is_some() != now.is_some(),
        };
        has_changed || self.pause.left(now).is_none()
    }
}
