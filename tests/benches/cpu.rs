//! The CPU time of a process.

use anyhow::{Context as _, Result};

/// User and system time so far, in seconds: proc(5), fields 14 and 15.
pub(crate) fn secs(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("its stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: u64 = [fields[11], fields[12]]
        .iter()
        .map(|field| field.parse::<u64>())
        .sum::<Result<_, _>>()
        .context("ticks")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
