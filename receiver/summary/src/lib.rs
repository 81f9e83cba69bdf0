//! The arithmetic of lizmon: no I/O, no clock, no dependencies.
//!
//! ```text
//! sample (epoch, value) -> Series::apply -> a ring of intervals per tier -> Series::window(tier, now) -> Window
//!                                  |
//!                                  +-> Series::encode -> a store -> Series::decode
//! number of a record -> DeliverySet::insert -> is it new?
//! ```
//!
//! Adding a sample does not depend on the current time: the same samples in the same order give the
//! same series, also in a replay. Only [`accepts`] and the read functions take `now`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`window`] | the tiers, the start of their windows, and which epochs are accepted |
//! | [`aggregate`] | count, sum, minimum and maximum of one interval; rounding |
//! | [`series`] | one label of one host: a ring of intervals per tier |
//! | [`delivery`] | the sequence numbers of a producer that have arrived |
//! | [`point`] | points that are numbered by their times; counters as rates |
//! | [`packing`] | numbers in as few bytes as they need |
//! | [`dropped`] | the numbers that a producer dropped, and why |

pub mod aggregate;
pub mod delivery;
pub mod dropped;
pub mod packing;
pub mod point;
pub mod series;
pub mod window;

pub use aggregate::{Aggregate, round_to_cents};
pub use delivery::DeliverySet;
pub use dropped::DroppedSet;
pub use point::{Point, PointKind, PointOutcome};
pub use series::{Bucket, Series};
pub use window::{
    AHEAD_SECS_MAX, BY_HOUR_TIER, EpochIntervals, EpochRefusal, IntervalAverage, TIERS, Tier,
    Window, accepts,
};
