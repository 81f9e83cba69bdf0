//! How much memory is in use.

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
#[cfg(target_os = "linux")]
use super::procfs;
use super::readings::Readings;

/// The collector.
pub static MEM: CollectorSpec = CollectorSpec {
    name: "mem",
    labels: &[LabelSpec {
        label: LABEL,
        unit: "percent",
        source: "`/proc/meminfo`",
        meaning: "(total - available) / total; caches that can be reclaimed are available",
    }],
    labels_max: 1,
    more_labels_a_day: 0,
    start: |_| Ok(Box::new(Memory::new()?)),
};

const LABEL: &str = "mem";

struct Memory {
    #[cfg(not(target_os = "linux"))]
    system: sysinfo::System,
}

impl Memory {
    fn new() -> Result<Self, sysinfo::Error> {
        Ok(Self {
            #[cfg(not(target_os = "linux"))]
            system: sysinfo::System::new()?,
        })
    }

    #[cfg(target_os = "linux")]
    fn total_and_available(&mut self) -> Result<(u64, u64), CollectError> {
        procfs::memory_kib(&procfs::read(procfs::MEMINFO)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn total_and_available(&mut self) -> Result<(u64, u64), CollectError> {
        let memory = sysinfo::MemoryRefreshKind::nothing().with_ram();
        self.system.refresh_memory_specifics(memory);
        Ok((self.system.total_memory(), self.system.available_memory()))
    }
}

impl Collector for Memory {
    fn collect(
        &mut self,
        _context: &CollectContext,
        readings: &mut Readings,
    ) -> Result<(), CollectError> {
        let (total, available) = self.total_and_available()?;
        let percent = used_percent(total, available).ok_or(CollectError::NoNumber)?;
        readings.push(LABEL, percent)
    }
}

/// None where the total is not known. 2^53 bytes are 8 PiB: no machine's memory is rounded.
fn used_percent(total: u64, available: u64) -> Option<f64> {
    (total > 0).then(|| total.saturating_sub(available) as f64 / total as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_memory() {
        let cases = [
            (1000, 388, Some(61.2)),
            (1000, 1000, Some(0.0)),
            (1000, 0, Some(100.0)),
            (1000, 2000, Some(0.0)),
            (0, 0, None),
        ];
        for (total, available, expected) in cases {
            let percent = used_percent(total, available);
            let percent = percent.map(|percent| (percent * 100.0).round() / 100.0);
            assert_eq!(percent, expected, "{available} of {total}");
        }
    }
}
