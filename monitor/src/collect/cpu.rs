//! How busy the processor is.

use std::time::Duration;

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
#[cfg(target_os = "linux")]
use super::procfs::{self, CpuCheck};
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

/// The processor's counters need this long between two readings. A little more than the minimum of
/// sysinfo, where that reads them, which it measures by another clock: before that, it repeats its
/// last result.
pub const CPU_INTERVAL_MIN: Duration =
    sysinfo::MINIMUM_CPU_UPDATE_INTERVAL.saturating_add(Duration::from_millis(20));

struct Cpu {
    #[cfg(target_os = "linux")]
    check: CpuCheck,
    #[cfg(not(target_os = "linux"))]
    system: sysinfo::System,
    /// When the last reading was taken, by the caller's clock.
    read_at: Option<Duration>,
}

impl Cpu {
    fn new() -> Result<Self, sysinfo::Error> {
        Ok(Self {
            #[cfg(target_os = "linux")]
            check: CpuCheck::default(),
            #[cfg(not(target_os = "linux"))]
            system: sysinfo::System::new()?,
            read_at: None,
        })
    }

    #[cfg(target_os = "linux")]
    fn busy_percent(&mut self) -> Result<f64, CollectError> {
        let stat = procfs::read(procfs::STAT);
        self.check
            .busy_percent(stat.and_then(|stat| procfs::cpu_ticks(&stat)))
    }

    #[cfg(not(target_os = "linux"))]
    fn busy_percent(&mut self) -> Result<f64, CollectError> {
        self.system.refresh_cpu_usage();
        Ok(f64::from(self.system.global_cpu_usage()))
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
        let percent = self.busy_percent()?;
        match percent.is_finite() {
            true => readings.push(LABEL, percent.clamp(0.0, 100.0)),
            false => Err(CollectError::NoNumber),
        }
    }
}
