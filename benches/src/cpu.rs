//! The CPU time of a process.

use anyhow::{Context as _, Result};

/// User and system time so far, in seconds: proc(5), fields 14 and 15.
pub fn secs(pid: u32) -> Result<f64> {
    secs_in(pid, [11, 12])
}

/// The same of the children that have ended and were waited for: fields 16 and 17.
pub fn secs_of_children(pid: u32) -> Result<f64> {
    secs_in(pid, [13, 14])
}

fn secs_in(pid: u32, columns: [usize; 2]) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("its stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .context("its fields")?
        .split_whitespace()
        .collect();
    let ticks: u64 = columns
        .iter()
        .map(|column| fields[*column].parse::<u64>())
        .sum::<Result<_, _>>()
        .context("ticks")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
