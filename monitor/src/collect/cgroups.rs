//! What the units of systemd and the containers of this machine use: cgroup v2.
//!
//! Their files are readable by everybody: no root, and no socket of a container engine.

mod tree;

use std::fs;
use std::path::Path;
use std::time::Duration;

use self::tree::Cgroup;
use super::collector::{CollectContext, Collector, CollectorSpec, CollectorStart, LabelSpec};
use super::failure::CollectError;
use super::options::Patterns;
use super::periodic::{PeriodicReading, ReadingPlan};
use super::rates::Rates;
use super::readings::Readings;

/// The collector.
pub(super) static CGROUPS: CollectorSpec = CollectorSpec {
    name: "cgroups",
    labels: &[
        LabelSpec {
            label: "cgroup-cpu:{unit}",
            unit: "percent of one core",
            source: "`cpu.stat` of cgroup v2",
            meaning: "processor time of a service, scope or container, with all below it",
        },
        LabelSpec {
            label: "cgroup-mem:{unit}",
            unit: "bytes",
            source: "`memory.current` of cgroup v2",
            meaning: "memory of the same, with its caches",
        },
    ],
    labels_max: 40,
    more_labels_a_day: 0,
    start: |start: &CollectorStart<'_>| {
        Ok(Box::new(Cgroups {
            patterns: start.options.cgroups.clone(),
            found: PeriodicReading::start(&PLAN, tree::find)?,
            rates: Rates::default(),
        }))
    },
};

const MOUNT: &str = "/sys/fs/cgroup";

static PLAN: ReadingPlan = ReadingPlan {
    name: "cgroups",
    path: MOUNT,
    missing: "file system of cgroup v2",
    // There may be thousands of folders.
    every: Duration::from_secs(15),
    // What was found is measured, if the search hangs or samples are far apart.
    age_max: Duration::from_secs(2 * 3_600),
};

struct Cgroups {
    patterns: Patterns,
    found: PeriodicReading<Vec<Cgroup>>,
    rates: Rates<1>,
}

impl Collector for Cgroups {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let found = self.found.latest(context.monotonic)?;
        self.rates.begin(context.monotonic)?;
        for cgroup in found.iter() {
            if self.patterns.takes(&cgroup.name, || true) {
                self.measure(cgroup, readings);
            }
        }
        Ok(())
    }
}

impl Cgroups {
    /// One that is gone by now is passed over, and a label that it has no place for costs nothing.
    fn measure(&mut self, cgroup: &Cgroup, readings: &mut Readings<'_>) {
        if readings.admits(&cgroup.cpu)
            && let Some(micros) = read(&cgroup.folder.join("cpu.stat"))
                .as_deref()
                .and_then(usage_usec)
            && let Some([Some(micros)]) = self.rates.per_second(cgroup.name.as_bytes(), [micros])
        {
            readings.push_or_note(Ok(cgroup.cpu.clone()), micros / 10_000.0);
        }
        if readings.admits(&cgroup.mem)
            && let Some(bytes) = read(&cgroup.folder.join("memory.current"))
            && let Ok(bytes) = bytes.trim().parse::<u64>()
        {
            readings.push_or_note(Ok(cgroup.mem.clone()), bytes as f64);
        }
    }
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// `usage_usec 12345`: `Documentation/admin-guide/cgroup-v2.rst` of the kernel.
fn usage_usec(cpu_stat: &str) -> Option<u64> {
    let value = cpu_stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    value?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time() {
        let cases = [
            (
                "usage_usec 5081\nuser_usec 0\nsystem_usec 5081\n",
                Some(5_081),
            ),
            ("user_usec 1\nusage_usec 2", Some(2)),
            ("usage_usec\n", None),
            ("usage_usec -1\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(usage_usec(text), expected, "{text:?}");
        }
    }
}
