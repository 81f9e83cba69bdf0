//! How busy each core is.

use std::collections::HashMap;

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
use super::procfs::{self, STAT};
use super::readings::Readings;

/// The collector.
pub(super) static CORES: CollectorSpec = CollectorSpec {
    name: "cores",
    labels: &[LabelSpec {
        label: "cpu:{n}",
        unit: "percent",
        source: "`/proc/stat`",
        meaning: "busy time of this core since the last sample; cores that are offline are missing",
    }],
    labels_max: 64,
    more_labels_a_day: 0,
    start: |_| Ok(Box::<Cores>::default()),
};

/// Ticks of one core since the system was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CoreTicks {
    busy: u64,
    idle: u64,
}

/// Of each core that is online, by its number.
#[derive(Debug, Default)]
struct Cores {
    last: HashMap<u32, CoreTicks>,
}

impl Collector for Cores {
    fn collect(
        &mut self,
        _context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let now = core_ticks(&procfs::read(STAT)?);
        if now.is_empty() {
            return Err(CollectError::Missing {
                path: STAT,
                field: "line of a core",
            });
        }
        for (core, ticks) in &now {
            let before = self.last.get(core);
            if let Some(percent) = before.and_then(|before| busy_percent(*before, *ticks)) {
                readings.push(format!("cpu:{core}"), percent)?;
            }
        }
        self.last = now.into_iter().collect();
        Ok(())
    }
}

/// `None` where the counters have not changed, or were reset. Kernels let `iowait`, and so the idle
/// time, go back a little: that is none.
fn busy_percent(before: CoreTicks, now: CoreTicks) -> Option<f64> {
    let busy = now.busy.checked_sub(before.busy)?;
    let idle = now.idle.saturating_sub(before.idle);
    let total = busy + idle;
    (total > 0).then(|| busy as f64 / total as f64 * 100.0)
}

/// The lines `cpuN`: user nice system idle iowait irq softirq steal, then what is counted in `user`
/// and `nice` already; proc_stat(5). A line that cannot be read is passed over.
fn core_ticks(stat: &str) -> Vec<(u32, CoreTicks)> {
    let core = |line: &str| {
        let (number, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
        let mut ticks = [0_u64; 8];
        let mut count = 0;
        for (slot, word) in ticks.iter_mut().zip(rest.split_ascii_whitespace()) {
            *slot = word.parse().ok()?;
            count += 1;
        }
        let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks;
        let sum = |ticks: &[u64]| {
            ticks
                .iter()
                .fold(0_u64, |sum, ticks| sum.saturating_add(*ticks))
        };
        let ticks = CoreTicks {
            busy: sum(&[user, nice, system, irq, softirq, steal]),
            idle: sum(&[idle, iowait]),
        };
        (count >= 4).then_some((number.parse().ok()?, ticks))
    };
    // They are the first lines, and the others are long.
    let lines = stat.lines().take_while(|line| line.starts_with("cpu"));
    lines.filter_map(core).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ticks(busy: u64, idle: u64) -> CoreTicks {
        CoreTicks { busy, idle }
    }

    #[test]
    fn lines_of_cores() {
        let cases: [(&str, &[(u32, CoreTicks)]); 6] = [
            (
                "cpu  3 0 0 7 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 1 0 0 3 0 0 0 0 0 0\nintr 5\n",
                &[(0, ticks(27, 9)), (1, ticks(1, 3))],
            ),
            // Core 1 is offline.
            (
                "cpu  1 1 1 1\ncpu0 1 1 1 1\ncpu2 1 1 1 1\n",
                &[(0, ticks(3, 1)), (2, ticks(3, 1))],
            ),
            (
                "cpu0 1 2 3\ncpu1 a b c d\ncpu2 1 1 1 1\n",
                &[(2, ticks(3, 1))],
            ),
            ("cpu  1 1 1 1\n", &[]),
            ("cpux 1 1 1 1\n", &[]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(core_ticks(text), expected, "{text:?}");
        }
    }

    #[test]
    fn busy_part_of_the_time_between() {
        let cases = [
            (ticks(100, 100), ticks(150, 150), Some(50.0)),
            (ticks(100, 100), ticks(100, 200), Some(0.0)),
            (ticks(100, 100), ticks(200, 100), Some(100.0)),
            // The idle time went back.
            (ticks(100, 100), ticks(110, 99), Some(100.0)),
            (ticks(100, 100), ticks(100, 100), None),
            // The core was taken offline and came back.
            (ticks(100, 100), ticks(1, 5), None),
        ];
        for (before, now, expected) in cases {
            assert_eq!(busy_percent(before, now), expected, "{before:?} {now:?}");
        }
    }
}
