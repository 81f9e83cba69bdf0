//! What the web page shows: turns what the receiver knows into the structs of [`lizmon_page`].
//!
//! ```text
//!  summaries ──> fleet: each host's troubles, made once a second at most ──> overview
//!            └─> series: plots, sparks ──> overview, host
//!  delivery sets ──> delivery        certificates, CRLs ──> trust        board ──> alarms
//! ```
//!
//! A lock is held for one shard, or one host, at a time.

mod alarms;
mod cover;
mod delivery;
mod fleet;
mod host;
mod live;
mod overview;
mod series;
mod sources;
mod trust;

pub(crate) use self::alarms::alarms;
pub(crate) use self::delivery::delivery;
pub(crate) use self::fleet::FleetCache;
pub(crate) use self::host::{NoHostPage, host};
pub(crate) use self::live::LiveCursor;
pub(crate) use self::overview::overview;
pub(crate) use self::sources::PageSources;
pub(crate) use self::trust::trust;
