//! The numbers of lizmon: no I/O, no clock, no dependencies.
//!
//! ```text
//! sample (epoch, value) -> Series::apply -> a ring of intervals per tier -> Series::window(tier, now) -> Window
//!                                  |
//!                                  +-> Series::dirty -> whoever keeps it -> Series::restore
//! number of a record -> DeliverySet::insert -> is it new?
//! ```
//!
//! Applying a sample never asks what time it is: the same samples in the same order make the same series, today or in a
//! replay. Only [`accepts`] and reading take a `now`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`window`] | the tiers, where their windows begin, and which epochs are accepted |
//! | [`aggregate`] | count, sum, least and greatest of one interval; rounding |
//! | [`series`] | one label of one host: a ring of intervals per tier |
//! | [`delivery`] | which numbers of a producer have arrived |
//! | [`dropped`] | which numbers a producer gave up, and why |

pub mod aggregate;
pub mod delivery;
pub mod dropped;
pub mod series;
pub mod window;

pub use aggregate::{Aggregate, round_to_cents};
pub use delivery::DeliverySet;
pub use dropped::DroppedSet;
pub use series::{Bucket, Series};
pub use window::{AHEAD_SECS_MAX, EpochRefusal, IntervalAverage, TIERS, Tier, Window, accepts};
