//! What this machine is doing: the only place that asks the operating system.
//!
//! | label | meaning |
//! | --- | --- |
//! | `cpu` | busy percent of all cores since the last sample; waiting for a disk is not busy |
//! | `mem` | `(total - available) / total` in percent; caches that can be given up are available |
//! | `clock-skew` | seconds that this machine's clock is ahead of its receivers'; negative behind them |
//! | `spool-records` | records that wait for the receiver that is furthest behind |
//! | `spool-dropped` | records given up since the monitor was started |
//! | `certificate-days` | days until its certificate ends; negative once it has |

use std::time::Duration;

use clap::ValueEnum;
use lizmon_protocol::name::{Label, NameError};
use lizmon_protocol::sample::{SampleSet, Value};
use sysinfo::{MemoryRefreshKind, System};

/// The processor's counters need this long between two readings to tell anything.
pub const APART_MIN: Duration = sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;

/// One thing that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Metric {
    /// Busy percent of all cores.
    Cpu,
    /// Percent of memory in use.
    Mem,
    /// Seconds this machine's clock is ahead of its receivers'.
    ClockSkew,
    /// Records that wait for the receiver that is furthest behind.
    SpoolRecords,
    /// Records given up since the start.
    SpoolDropped,
    /// Days until the certificate ends.
    CertificateDays,
}

/// What the monitor knows about itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Own {
    /// For [`Metric::ClockSkew`], once a receiver has answered.
    pub clock_ahead_secs: Option<f64>,
    /// For [`Metric::SpoolRecords`].
    pub pending: u64,
    /// For [`Metric::SpoolDropped`].
    pub given_up: u64,
    /// For [`Metric::CertificateDays`].
    pub certificate_days: f64,
}

impl Metric {
    /// The label it is published under.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Mem => "mem",
            Self::ClockSkew => "clock-skew",
            Self::SpoolRecords => "spool-records",
            Self::SpoolDropped => "spool-dropped",
            Self::CertificateDays => "certificate-days",
        }
    }
}

/// Why nothing can be measured.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The operating system is one that sysinfo does not know, or it lets us read nothing.
    #[error("this machine's load cannot be read: {0:?}")]
    System(sysinfo::Error),
    /// A label of ours is none; cannot happen while the names above are what they are.
    #[error(transparent)]
    Label(#[from] NameError),
}

/// Reads what it was asked for, and nothing else: everything sysinfo knows costs 11 ms, these 0.1 ms.
pub struct Sampler {
    system: System,
    metrics: Vec<(Metric, Label<'static>)>,
}

impl Sampler {
    /// Takes the first reading, which the first sample is measured against: leave at least [`APART_MIN`] until then.
    pub fn new(metrics: &[Metric]) -> Result<Self, SampleError> {
        let named = |metric: &Metric| Ok((*metric, Label::new(metric.label())?));
        let mut sampler = Self {
            system: System::new().map_err(SampleError::System)?,
            metrics: metrics
                .iter()
                .map(named)
                .collect::<Result<_, NameError>>()?,
        };
        sampler.refresh();
        Ok(sampler)
    }

    /// What has been since the last time. What cannot be read now is left out.
    pub fn sample(&mut self, own: Own) -> SampleSet<'static> {
        self.refresh();
        let values = self.metrics.iter().filter_map(|(metric, label)| {
            let value = match metric {
                Metric::Cpu => Some(f64::from(self.system.global_cpu_usage()).clamp(0.0, 100.0)),
                Metric::Mem => {
                    used_percent(self.system.total_memory(), self.system.available_memory())
                }
                Metric::ClockSkew => own.clock_ahead_secs,
                Metric::SpoolRecords => Some(own.pending as f64),
                Metric::SpoolDropped => Some(own.given_up as f64),
                Metric::CertificateDays => Some(own.certificate_days),
            };
            let value = value.filter(|value| value.is_finite())?;
            Some((label.clone(), Value::new(two_decimals(value))?))
        });
        SampleSet::new(values.collect())
    }

    fn refresh(&mut self) {
        for (metric, _) in &self.metrics {
            match metric {
                Metric::Cpu => self.system.refresh_cpu_usage(),
                Metric::Mem => self
                    .system
                    .refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram()),
                Metric::ClockSkew
                | Metric::SpoolRecords
                | Metric::SpoolDropped
                | Metric::CertificateDays => (),
            }
        }
    }
}

/// None where the total is not known. 2^53 bytes are 8 PiB: no machine's memory is rounded.
fn used_percent(total: u64, available: u64) -> Option<f64> {
    (total > 0).then(|| total.saturating_sub(available) as f64 / total as f64 * 100.0)
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
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
            assert_eq!(
                used_percent(total, available).map(two_decimals),
                expected,
                "{available} of {total}"
            );
        }
    }

    #[test]
    fn two_decimals_and_no_more() {
        for (value, expected) in [(4.983, 4.98), (4.987, 4.99), (0.0, 0.0), (99.999, 100.0)] {
            assert_eq!(two_decimals(value), expected);
        }
    }

    #[test]
    fn what_the_monitor_knows_about_itself() {
        let own = Own {
            clock_ahead_secs: Some(-1.5),
            pending: 3,
            given_up: 2,
            certificate_days: -0.251,
        };
        let cases = [
            (Metric::ClockSkew, "clock-skew", -1.5),
            (Metric::SpoolRecords, "spool-records", 3.0),
            (Metric::SpoolDropped, "spool-dropped", 2.0),
            (Metric::CertificateDays, "certificate-days", -0.25),
        ];
        for (metric, label, expected) in cases {
            let set = Sampler::new(&[metric]).unwrap().sample(own);
            let got: Vec<_> = set
                .iter()
                .map(|(label, value)| (label.as_str(), value.get()))
                .collect();
            assert_eq!(got, [(label, expected)]);
        }
    }

    #[test]
    fn only_what_was_asked_for_is_measured() {
        for metrics in [
            &[Metric::Mem][..],
            &[Metric::Cpu],
            &[Metric::Mem, Metric::Cpu],
        ] {
            let set = Sampler::new(metrics).unwrap().sample(Own::default());
            let labels: Vec<_> = set.iter().map(|(label, _)| label.as_str()).collect();
            let expected: Vec<_> = metrics.iter().map(|metric| metric.label()).collect();
            assert_eq!(labels, expected);
            assert!(
                set.iter()
                    .all(|(_, value)| (0.0..=100.0).contains(&value.get()))
            );
        }
    }
}
