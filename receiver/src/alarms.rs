//! Alarms: the hosts of the shards that this process commits are judged by rules, and what they
//! come to is told.
//!
//! ```text
//!  summaries ──> observe ──> judge ──> alarms of the host ──> commit ──> channels
//!                                            ^                              │
//!                                            └────────── accepted ──────────┘
//! ```
//!
//! - A notice is told only after the commit that has it. It is kept until each channel has accepted
//!   it, so that a crash or another owner of the shard tells it again, with the same identifier.
//! - An interval is judged once, soon after it has closed, from what is there then. What arrives
//!   later raises no alarm for the past.
//! - Hosts are judged while the receiver sees them, and from then on: [`lizmon_alarms::sight`].
//! - Where alarms are judged nothing waits for a channel, and nothing reads a file.

mod evaluator;
mod in_force;
mod matcher;
mod observe;
mod shard;
mod shown;

pub use self::evaluator::AlarmEvaluator;
pub use self::in_force::{Alarms, AlarmsConfig};
pub use self::shown::{list, of_scope, order};

#[cfg(test)]
mod tests;
