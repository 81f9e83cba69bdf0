//! What enters from outside the program: time and randomness.

use std::sync::Arc;
use std::time::Duration;

use lizmon_protocol::sample::ProducerId;

/// A clock that can be read from any thread.
pub type TimeSource = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What enters from outside the program: time and randomness.
#[derive(Clone)]
pub struct Environment {
    /// The time since 1970 UTC. It may step.
    pub clock: TimeSource,
    /// The time since some moment, asleep or awake. It does not step.
    pub monotonic: TimeSource,
    /// A random number from 0 to 1, so that the monitors of a fleet do not act at the same moment.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// A new producer, different from those of all other monitors and all earlier runs.
    pub new_producer: Arc<dyn Fn() -> ProducerId + Send + Sync>,
}
