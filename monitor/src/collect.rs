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

#[cfg(target_os = "linux")]
mod background;
#[cfg(target_os = "linux")]
mod cgroups;
mod collector;
#[cfg(target_os = "linux")]
mod command;
#[cfg(target_os = "linux")]
mod cores;
mod cpu;
#[cfg(target_os = "linux")]
mod disks;
mod failure;
#[cfg(target_os = "linux")]
mod filesystems;
#[cfg(target_os = "linux")]
mod load;
mod mem;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod network;
mod options;
#[cfg(target_os = "linux")]
mod own;
#[cfg(target_os = "linux")]
mod periodic;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod procfs;
#[cfg(target_os = "linux")]
mod rates;
mod readings;
mod registry;
mod sampler;
mod self_stats;
#[cfg(target_os = "linux")]
mod swap;
#[cfg(target_os = "linux")]
mod temperatures;
#[cfg(target_os = "linux")]
mod units;
#[cfg(target_os = "linux")]
mod uptime;

pub use collector::{
    CollectContext, Collector, CollectorSpec, CollectorStart, CollectorStartError, LabelSpec,
    SelfStats,
};
#[cfg(target_os = "linux")]
pub use command::CommandFailure;
pub use cpu::{CPU, CPU_INTERVAL_MIN};
pub use failure::{CHANGE_SECS, CollectError, FailureNotice, REMIND_SECS};
pub use mem::MEM;
pub use options::{
    CollectOptions, EmptyPattern, LabelsMax, OwnCommand, OwnCommandError, OwnOptions, Pattern,
    Patterns,
};
pub use readings::Readings;
pub use registry::{COLLECTORS, DEFAULT_COLLECTORS, find};
pub use sampler::{COLLECT_TIME_MAX, Collected, Notice, Notices, Sampler};
