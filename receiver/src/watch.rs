//! Watches a shared store while it is used: refuses samples before its servers would, and says how
//! far its shards are behind.
//!
//! ```text
//!  servers ── look (4 a second) ──> StoreReading ──> HighWater ──> journal: which requests it takes
//!                                        ├─────────> Placement ──> journal: which thread appends
//!                                        └─────────> WatchStatus ──> health, metrics, log
//! ```
//!
//! A server that has no memory left refuses everything that needs some. What would help it are
//! commits, which trim the journals, and for which summarizers read them. So receivers leave it
//! some room: above the high-water mark they answer 503, and every sample stays with its sender.
//!
//! The journal's thread asks no server for that: it compares what the servers said last, and what
//! it appended since, with the mark.

mod high_water;
mod placement;
mod progress;
mod status;
mod thread;

pub use self::high_water::HighWater;
pub use self::placement::Placement;
pub use self::status::WatchStatus;
pub(crate) use self::status::{StoreFigures, WatchedShard};
pub use self::thread::Watch;

/// The mark if `--store-high-water` does not say: percent of a server's memory. What is left is for
/// commits and for what is being read.
pub const HIGH_WATER_PERCENT: u8 = 85;
