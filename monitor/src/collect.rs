//! What this machine is doing: the only place that asks the operating system.
//!
//! ```text
//! --collect cpu,mem -> registry: which collectors there are
//!                        │
//!            sampler: runs each one asked for ── collector: cpu, mem, self_stats
//!                        │                                   └ procfs: are the counters sound?
//!                        └ failure: what to log of one that fails
//! ```
//!
//! A collector appends label and value pairs to a record, and may make up labels while it runs,
//! such as one for each disk. When one fails, the values that it appended before stay in the
//! record, and all other collectors' values do. To add one: write a file here, and add its
//! [`CollectorSpec`] to [`COLLECTORS`] and its labels to the table in `docs/monitor.md`.

mod collector;
mod cpu;
mod failure;
mod mem;
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "there is no /proc to check against")
)]
mod procfs;
mod registry;
mod sampler;
mod self_stats;

pub use collector::{
    CollectContext, Collector, CollectorSpec, CollectorStartError, LabelSpec, Readings, SelfStats,
};
pub use cpu::{CPU, CPU_INTERVAL_MIN};
pub use failure::{CHANGE_SECS, CollectError, FailureNotice, REMIND_SECS};
pub use mem::MEM;
pub use registry::{COLLECTORS, find};
pub use sampler::{COLLECT_TIME_MAX, Collected, Notice, Notices, Sampler};
