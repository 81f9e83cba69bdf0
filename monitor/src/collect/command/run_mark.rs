//! Finds what a command has started, wherever it went.
//!
//! setsid(2) takes a process out of the command's process group, and when its parent ends nothing
//! leads to it any more. Its environment does: it is inherited, and stays with the process through
//! fork(2) and setsid(2). So each run puts a variable of its own there. A cgroup would be surer, and
//! needs rights that the monitor does not have; a subreaper (prctl(2)) is one for the whole process,
//! and does not tell which command an orphan is of.
//!
//! Not found is what leaves the group and clears its environment as well, and what runs as another
//! user, which could not be killed either.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const VARIABLE: &str = "LIZMON_COMMAND_RUN";
/// A process may start another one while those before it are killed: it is looked again, but not
/// without end.
const SWEEPS_MAX: usize = 16;

/// The variable of one run of a command.
pub(super) struct RunMark(String);

impl RunMark {
    /// Of no other run on this machine: not of another monitor's, nor of an earlier one's.
    pub(super) fn new(monotonic: Duration) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let (process, nanos) = (std::process::id(), monotonic.as_nanos());
        Self(format!("{process}-{nanos}-{run}"))
    }

    pub(super) fn put_on(&self, command: &mut Command) {
        command.env(VARIABLE, &self.0);
    }

    /// Kills every process that has it.
    pub(super) fn kill_all(&self) {
        let mut killed = HashSet::new();
        for _ in 0..SWEEPS_MAX {
            if self.kill_new(&mut killed) == 0 {
                return;
            }
        }
    }

    /// Kills those that are not killed yet, and counts them.
    fn kill_new(&self, killed: &mut HashSet<Pid>) -> usize {
        let Ok(entries) = fs::read_dir("/proc") else {
            return 0;
        };
        let before = killed.len();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let numbers = names.filter_map(|name| Pid::from_raw(name.parse().ok()?));
        for process in numbers.filter(|process| self.is_on(*process)) {
            // Its number may be another's by now: the descriptor stays with one process, which is
            // looked at again.
            if let Ok(descriptor) = pidfd_open(process, PidfdFlags::empty())
                && self.is_on(process)
                && pidfd_send_signal(&descriptor, Signal::KILL).is_ok()
            {
                killed.insert(process);
            }
        }
        killed.len() - before
    }

    /// Of another user's process nobody can tell, and it is none of ours.
    fn is_on(&self, process: Pid) -> bool {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let is_mark = |entry: &[u8]| {
            let value = entry.strip_prefix(VARIABLE.as_bytes());
            value.and_then(|value| value.strip_prefix(b"=")) == Some(self.0.as_bytes())
        };
        environment.split(|byte| *byte == 0).any(is_mark)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Stdio};

    use super::*;

    fn sleeping(mark: &RunMark) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        mark.put_on(&mut command);
        command.spawn().unwrap()
    }

    /// Also of one that was taken at the same moment by the clock.
    #[test]
    fn a_run_ends_no_other() {
        let [one, other] = [Duration::ZERO; 2].map(RunMark::new);
        let mut of_one = sleeping(&one);
        let mut of_other = sleeping(&other);
        let mut killed = HashSet::new();
        assert_eq!(one.kill_new(&mut killed), 1);
        assert_eq!(killed, HashSet::from([Pid::from_child(&of_one)]));
        assert!(!of_one.wait().unwrap().success());
        other.kill_all();
        assert!(!of_other.wait().unwrap().success());
    }
}
