//! How busy the processor is.

use std::time::Duration;

use sysinfo::System;

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
#[cfg(target_os = "linux")]
use super::procfs;
use super::procfs::CpuCheck;
use super::readings::Readings;

/// The collector.
pub static CPU: CollectorSpec = CollectorSpec {
    name: "cpu",
    labels: &[LabelSpec {
        label: LABEL,
        unit: "percent",
        source: "`/proc/stat`",
        meaning: "all cores' busy time since the last sample; waiting for a disk is not busy",
    }],
    labels_max: 1,
    more_labels_a_day: 0,
    start: |_| Ok(Box::new(Cpu::new()?)),
};

const LABEL: &str = "cpu";

/// The processor's counters need this long between two readings. A little more than sysinfo's own
/// minimum, which it measures by another clock: before that, it repeats its last result.
pub const CPU_INTERVAL_MIN: Duration =
    sysinfo::MINIMUM_CPU_UPDATE_INTERVAL.saturating_add(Duration::from_millis(20));

struct Cpu {
    system: System,
    check: CpuCheck,
    /// When the last reading was taken, by the caller's clock.
    read_at: Option<Duration>,
}

impl Cpu {
    fn new() -> Result<Self, sysinfo::Error> {
        Ok(Self {
            system: System::new()?,
            check: CpuCheck::default(),
            read_at: None,
        })
    }
}

impl Collector for Cpu {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings,
    ) -> Result<(), CollectError> {
        // A clock that was set back does not tell how long ago the last reading was.
        let is_early = |read_at: Duration| context.now.abs_diff(read_at) < CPU_INTERVAL_MIN;
        if self.read_at.is_some_and(is_early) {
            return Err(CollectError::TooSoon);
        }
        self.read_at = Some(context.now);
        self.system.refresh_cpu_usage();
        #[cfg(target_os = "linux")]
        self.check
            .check(procfs::read(procfs::STAT).and_then(|stat| procfs::cpu_ticks(&stat)))?;
        let percent = f64::from(self.system.global_cpu_usage());
        match percent.is_finite() {
            true => readings.push(LABEL, percent.clamp(0.0, 100.0)),
            false => Err(CollectError::NoNumber),
        }
    }
}
