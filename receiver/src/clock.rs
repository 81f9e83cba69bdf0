//! Whether this machine's clock can be trusted. Pure: readings of the clocks are arguments.
//!
//! The wall clock is steady when it has advanced with the monotonic clock for a while, without a
//! step. A step, or a boot of the machine, starts that while again: a machine without a battery
//! boots in another year, and a virtual machine resumes at the time when it was suspended. What is
//! known of the clock is stored, so a restart of the process alone changes nothing.
//!
//! | steady for | what is allowed |
//! | --- | --- |
//! | less than [`STEADY_SECS`] | counting samples that evict nothing and that queries find afterwards |
//! | [`STEADY_SECS`] | moving windows; removing samples that lie ahead of the clock |
//! | [`BEHIND_SECS`] | the same, if the clock is behind an earlier steady clock |
//! | [`EXPIRY_SECS`] | removing hosts, series, producers and history that have ended by [`EndingClock`] |

mod ending_clock;
mod status;
mod steps;
mod store_clock;

use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::Clock;

pub use self::ending_clock::EndingClock;
pub use self::status::ClockStatus;
pub use self::steps::{
    AHEAD_REMOVED_SECS, BEHIND_SECS, ClockReading, ClockVerdict, EXPIRY_SECS, STEADY_SECS,
    STEP_SECS, StepDetector, StoredClock,
};
pub use self::store_clock::StoreClock;

/// The time since 1970.
pub type FineClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The sources of time.
#[derive(Clone)]
pub struct Clocks {
    /// Epoch seconds. It may step.
    pub wall: Clock,
    /// The same to the millisecond or better, for clients that compare clocks.
    pub fine: FineClock,
    /// Seconds since the machine's start, asleep or awake. It does not step.
    pub monotonic: Clock,
    /// Identifier of this boot of the machine, where it is known.
    pub boot: Option<[u8; 16]>,
}

impl Clocks {
    /// One clock for both: it has no steps.
    pub fn of_one(clock: Clock) -> Self {
        let fine = clock.clone();
        Self {
            wall: clock.clone(),
            fine: Arc::new(move || Duration::from_secs(fine())),
            monotonic: clock,
            boot: None,
        }
    }

    /// Reads all of them.
    pub fn read(&self) -> ClockReading {
        ClockReading {
            wall: (self.wall)(),
            monotonic: (self.monotonic)(),
            boot: self.boot,
        }
    }
}

impl std::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clocks").finish_non_exhaustive()
    }
}
