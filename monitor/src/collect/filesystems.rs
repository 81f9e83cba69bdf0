//! How full the file systems are.
//!
//! ```text
//! mounts   which there are, and which of them are measured
//!   v
//! probe    asks each, on a thread of its own: a server of files that is away may never answer
//! ```

mod mounts;
mod probe;

use std::sync::Arc;
use std::time::Duration;

use self::mounts::Mount;
use self::probe::{Answer, DiskUsage, Probe};
use super::collector::{
    CollectContext, Collector, CollectorSpec, CollectorStart, CollectorStartError, LabelSpec,
};
use super::failure::CollectError;
use super::names;
use super::options::Patterns;
use super::procfs;
use super::readings::Readings;

/// The collector.
pub(super) static FILESYSTEMS: CollectorSpec = CollectorSpec {
    name: "filesystems",
    labels: &[
        LabelSpec {
            label: "disk-used:{mount}",
            unit: "percent",
            source: "`/proc/self/mountinfo`, statvfs(3)",
            meaning: "used / (used + what an unprivileged user can still write), as df(1) shows it",
        },
        LabelSpec {
            label: "disk-inodes:{mount}",
            unit: "percent",
            source: "`/proc/self/mountinfo`, statvfs(3)",
            meaning: "inodes in use; missing where there is no fixed number of them, as of btrfs",
        },
    ],
    labels_max: 32,
    more_labels_a_day: 0,
    start: |start: &CollectorStart<'_>| {
        let probe = Probe::start(Arc::new(probe::ask)).map_err(CollectorStartError::Thread)?;
        Ok(Box::new(Filesystems {
            patterns: start.options.filesystems.clone(),
            probe,
            mounts: Vec::new(),
            asked_at: None,
        }))
    },
};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// How often they are asked: a disk fills up slowly, and a mount has time to be noticed.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long a sample waits for the answers. What comes later is in the next one.
const PATIENCE: Duration = Duration::from_millis(50);
/// An answer is published no longer than this, unless samples are further apart.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(30);

struct Filesystems {
    patterns: Patterns,
    probe: Probe,
    /// What was asked last.
    mounts: Vec<Mount>,
    asked_at: Option<Duration>,
}

impl Collector for Filesystems {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let now = context.monotonic;
        let since = self.asked_at.map(|at| now.saturating_sub(at));
        let mut age_max = ANSWER_AGE_MAX;
        if since.is_none_or(|since| since >= ASK_EVERY) {
            age_max = age_max.max(since.unwrap_or_default() + ASK_EVERY);
            self.mounts = mounts::chosen(&procfs::read_bytes(MOUNTINFO)?, &self.patterns);
            self.asked_at = Some(now);
            let points = self.mounts.iter().map(|mount| mount.point.clone());
            self.probe.ask(points.collect(), now, PATIENCE);
        }
        for mount in &self.mounts {
            match self.probe.answer(&mount.point, now, age_max) {
                Answer::Usage(usage) => push(mount, usage, readings),
                Answer::NotAsked => (),
                Answer::Hangs => readings.note(CollectError::MountHangs {
                    mount: names::shown(&mount.point),
                }),
                Answer::Failed(kind) => readings.note(CollectError::MountFails {
                    mount: names::shown(&mount.point),
                    kind,
                }),
            }
        }
        Ok(())
    }
}

fn push(mount: &Mount, usage: DiskUsage, readings: &mut Readings<'_>) {
    let parts = [
        ("disk-used:", usage.used_percent()),
        ("disk-inodes:", usage.inodes_percent()),
    ];
    for (prefix, percent) in parts {
        if let Some(percent) = percent {
            readings.push_or_note(names::label(prefix, &mount.point), percent);
        }
    }
}
