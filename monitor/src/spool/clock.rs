//! Whether a clock has run without a jump for long enough to be trusted.

/// For how long a clock must have run on before it may call a record too old.
const STEADY_SECS: u64 = 600;
/// A clock that moves on by more from one sample to the next was set, or the machine slept.
const JUMP_SECS: u64 = 7200;

/// Since when a clock has run without a jump. A clock that is wrong for a moment, as after a boot,
/// must not make records old.
#[derive(Debug, Default)]
pub(crate) struct ClockSteadiness {
    since: u64,
    last: u64,
}

impl ClockSteadiness {
    /// Whether the clock that reads `now` is steady. To be called with each reading.
    pub(crate) fn is_steady_at(&mut self, now: u64) -> bool {
        if now < self.last || now - self.last > JUMP_SECS {
            self.since = now;
        }
        self.last = now;
        now - self.since >= STEADY_SECS
    }
}
