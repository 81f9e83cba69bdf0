//! What is known of a destination's losses.

use super::pause::Pause;

/// When one destination was asked what it has, and what it answered.
#[derive(Debug, Default)]
pub(super) struct DeliveryCheck {
    /// It answered the last request.
    pub(super) is_connected: bool,
    /// It may have lost records since it was last asked: at the start, after a failure, and after
    /// its restart. Until it has answered, nothing that is kept gets older.
    pub(super) is_due: bool,
    /// It was restarted since it was last asked: it is told what it has lost for good.
    pub(super) is_restarted: bool,
    /// The minute, in the monitor's own division of the time, in which it was last asked.
    pub(super) asked_in: Option<u64>,
    /// It is not asked before this is over.
    pub(super) pause: Option<Pause>,
    /// How often in a row it did not answer.
    pub(super) failures: u32,
    /// Nothing is sent again before this is over.
    pub(super) repair_pause: Option<Pause>,
    /// Of the last repair, how many records it had.
    pub(super) duplicates: u64,
    /// How often in a row it had all of a repair.
    pub(super) false_reports: u32,
    /// Records since the start.
    pub(super) repaired: u64,
}

impl DeliveryCheck {
    /// That of a destination that was not asked yet.
    pub(super) fn new(is_due: bool) -> Self {
        Self {
            is_due,
            ..Self::default()
        }
    }

    pub(super) fn restarted(&mut self) {
        self.is_due = true;
        self.is_restarted = true;
    }

    pub(super) fn connected(&mut self) {
        self.is_connected = true;
    }

    /// `keeps`: whether anything could be sent again.
    pub(super) fn failed(&mut self, keeps: bool) {
        self.is_connected = false;
        self.is_due |= keeps;
    }

    /// Whether it could be lost, unnoticed, what was acknowledged a while ago.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }
}
