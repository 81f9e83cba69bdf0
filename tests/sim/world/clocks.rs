//! What the clocks of monitors and receivers show.

use std::time::Duration;

use lizmon_receiver::clock::ClockReading;

use super::{START_SECS, World};

impl World {
    pub(super) fn secs(&self) -> u64 {
        START_SECS + self.now_ms / 1_000
    }

    /// What a receiver's clocks read.
    pub(super) fn reading(&self, receiver: usize) -> ClockReading {
        ClockReading {
            wall: self.receiver_time(receiver).as_secs(),
            monotonic: self.now_ms / 1_000,
            boot: Some([1; 16]),
        }
    }

    pub(super) fn receiver_time(&self, receiver: usize) -> Duration {
        let right = START_SECS * 1_000 + self.now_ms;
        let wrong = self.receivers[receiver].clock_wrong_ms;
        Duration::from_millis(right.saturating_add_signed(wrong))
    }

    /// The time that a monitor stamps samples with.
    pub(super) fn stamp_time(&self, monitor: usize) -> Duration {
        match self.hosts[monitor].stamped_wrong_ms {
            Some(wrong) => {
                let right = START_SECS * 1_000 + self.now_ms;
                Duration::from_millis(right.saturating_add_signed(wrong))
            }
            None => self.monitor_time(monitor),
        }
    }

    pub(super) fn monitor_time(&self, monitor: usize) -> Duration {
        let right = START_SECS * 1_000 + self.now_ms;
        let wrong = self.hosts[monitor].clock_wrong_ms;
        Duration::from_millis(right.saturating_add_signed(wrong))
    }
}
