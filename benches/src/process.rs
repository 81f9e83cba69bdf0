//! What a process uses, of `/proc`. CPU time in steps of a clock tick: [`crate::cpu`].

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// Resident memory, in KiB.
pub fn rss_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("{path}: has it ended?"))?;
    field(&status, "VmRSS:").context("VmRSS")
}

/// What the threads of a process have used, those included that have ended since they were last
/// looked at. Finer than clock ticks.
#[derive(Debug)]
pub struct Threads {
    pid: u32,
    seen: BTreeMap<String, Used>,
}

/// What a thread has used, or several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// CPU time in nanoseconds: proc_pid_schedstat(5).
    pub cpu_nanos: u64,
    /// How often it has waited for something: a wake-up followed.
    pub waits: u64,
}

impl Threads {
    /// Those of this process.
    pub fn of(pid: u32) -> Self {
        Self {
            pid,
            seen: BTreeMap::new(),
        }
    }

    /// Looks at them: what they have used since they were started.
    pub fn look(&mut self) -> Result<Used> {
        let folder = format!("/proc/{}/task", self.pid);
        let tasks = fs::read_dir(&folder).with_context(|| format!("{folder}: has it ended?"))?;
        for task in tasks {
            let task = task.context("a thread")?;
            // A thread may end while it is looked at.
            let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
            let (Some(times), Some(status)) = (read("schedstat"), read("status")) else {
                continue;
            };
            let used = Used {
                cpu_nanos: field(&times, "").context("schedstat")?,
                waits: field(&status, "voluntary_ctxt_switches:").context("its waits")?,
            };
            let name = task.file_name().to_string_lossy().into_owned();
            self.seen.insert(name, used);
        }
        let sum = |part: fn(&Used) -> u64| self.seen.values().map(part).sum();
        Ok(Used {
            cpu_nanos: sum(|used| used.cpu_nanos),
            waits: sum(|used| used.waits),
        })
    }
}

/// The number at the start of the first line that begins with this name.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        let pid = std::process::id();
        let mut threads = Threads::of(pid);
        let before = threads.look().unwrap();
        let ended = std::thread::spawn(|| (0..2_000_000_u64).fold(0, u64::wrapping_add));
        ended.join().unwrap();
        let after = threads.look().unwrap();
        assert!(after.cpu_nanos > before.cpu_nanos, "{before:?} {after:?}");
        assert!(after.waits > before.waits, "{before:?} {after:?}");
        assert!(rss_kib(pid).unwrap() > 100);
    }
}
