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
//! | `unmeasured` | values that were asked for and could not be measured, since the monitor was started |

#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "there is no /proc to judge by")
)]
mod proc;
pub mod unmeasured;

use std::time::Duration;

use clap::ValueEnum;
use lizmon_protocol::name::{Label, NameError};
use lizmon_protocol::sample::{SampleSet, Value};
use sysinfo::{MemoryRefreshKind, System};

use self::proc::CpuJudge;
use self::unmeasured::{Told, Unmeasured, Word};

/// The processor's counters need this long between two readings to tell anything. A little more than sysinfo's own time,
/// which it takes by another clock: before that it repeats what it said.
pub const APART_MIN: Duration =
    sysinfo::MINIMUM_CPU_UPDATE_INTERVAL.saturating_add(Duration::from_millis(20));

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
    /// Values that could not be measured, since the start.
    Unmeasured,
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
            Self::Unmeasured => "unmeasured",
        }
    }
}

/// Why nothing can be measured.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The operating system is one that sysinfo does not know, or it lets us read nothing.
    #[error("this machine's load cannot be read: {0}")]
    System(sysinfo::Error),
    /// A label of ours is none; cannot happen while the names above are what they are.
    #[error(transparent)]
    Label(#[from] NameError),
}

/// Reads what it was asked for, and nothing else: everything sysinfo knows costs 11 ms, these 0.1 ms.
pub struct Sampler {
    system: System,
    metrics: Vec<Asked>,
    cpu_judge: CpuJudge,
    /// When the last reading was taken, by the caller's clock.
    read_at: Duration,
    unmeasured: u64,
}

/// One metric that was asked for.
struct Asked {
    metric: Metric,
    label: Label<'static>,
    told: Told,
}

/// What has been since the last time.
#[derive(Debug, PartialEq)]
pub struct Sample {
    /// What was measured.
    pub values: SampleSet<'static>,
    /// What a person should know of what was not.
    pub words: Vec<(Metric, Word)>,
}

impl Sampler {
    /// Takes the first reading, which the first sample is measured against: leave at least [`APART_MIN`] until then. With it, which
    /// metrics cannot be read as things are.
    pub fn new(
        metrics: &[Metric],
        now: Duration,
    ) -> Result<(Self, Vec<(Metric, Word)>), SampleError> {
        let asked = |metric: &Metric| {
            Ok(Asked {
                metric: *metric,
                label: Label::new(metric.label())?,
                told: Told::default(),
            })
        };
        let mut sampler = Self {
            system: System::new().map_err(SampleError::System)?,
            metrics: metrics
                .iter()
                .map(asked)
                .collect::<Result<_, NameError>>()?,
            cpu_judge: CpuJudge::default(),
            read_at: now,
            unmeasured: 0,
        };
        let mut words = Vec::new();
        for at in 0..sampler.metrics.len() {
            let metric = sampler.metrics[at].metric;
            match sampler.measure(metric, Own::default()) {
                // There was nothing before it.
                Ok(_) | Err(Unmeasured::ReadOnce { .. }) => (),
                Err(why) => {
                    let word = sampler.metrics[at].told.missed(why, now.as_secs());
                    words.extend(word.map(|word| (metric, word)));
                }
            }
        }
        Ok((sampler, words))
    }

    /// What has been since the last time. What cannot be measured now is left out, counted, and told of now and then.
    pub fn sample(&mut self, own: Own, now: Duration) -> Sample {
        // A clock that was set back says nothing of how long ago that was.
        let is_early = now.abs_diff(self.read_at) < APART_MIN;
        if !is_early {
            self.read_at = now;
        }
        let mut values = Vec::with_capacity(self.metrics.len());
        let mut words = Vec::new();
        for at in 0..self.metrics.len() {
            let metric = self.metrics[at].metric;
            let measured = match metric {
                Metric::Cpu if is_early => Err(Unmeasured::TooSoon),
                metric => self.measure(metric, own),
            };
            let asked = &mut self.metrics[at];
            let value = measured.and_then(|value| {
                let value = value.map(|value| Value::new(two_decimals(value)));
                value.map_or(Ok(None), |value| {
                    value.map(Some).ok_or(Unmeasured::NoNumber)
                })
            });
            let word = match value {
                Ok(value) => {
                    values.extend(value.map(|value| (asked.label.clone(), value)));
                    asked.told.measured()
                }
                Err(why) => {
                    self.unmeasured += 1;
                    asked.told.missed(why, now.as_secs())
                }
            };
            words.extend(word.map(|word| (metric, word)));
        }
        Sample {
            values: SampleSet::new(values),
            words,
        }
    }

    /// None where there is nothing to measure yet.
    fn measure(&mut self, metric: Metric, own: Own) -> Result<Option<f64>, Unmeasured> {
        match metric {
            Metric::Cpu => self.cpu().map(Some),
            Metric::Mem => self.memory().map(Some),
            Metric::ClockSkew => Ok(own.clock_ahead_secs),
            Metric::SpoolRecords => Ok(Some(own.pending as f64)),
            Metric::SpoolDropped => Ok(Some(own.given_up as f64)),
            Metric::CertificateDays => Ok(Some(own.certificate_days)),
            Metric::Unmeasured => Ok(Some(self.unmeasured as f64)),
        }
    }

    fn cpu(&mut self) -> Result<f64, Unmeasured> {
        self.system.refresh_cpu_usage();
        #[cfg(target_os = "linux")]
        self.cpu_judge
            .judge(proc::read(proc::STAT).and_then(|stat| proc::ticks(&stat)))?;
        let percent = f64::from(self.system.global_cpu_usage());
        match percent.is_finite() {
            true => Ok(percent.clamp(0.0, 100.0)),
            false => Err(Unmeasured::NoNumber),
        }
    }

    fn memory(&mut self) -> Result<f64, Unmeasured> {
        self.system
            .refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        #[cfg(target_os = "linux")]
        proc::judge_memory(&proc::read(proc::MEMINFO)?)?;
        used_percent(self.system.total_memory(), self.system.available_memory())
            .ok_or(Unmeasured::NoNumber)
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
        let start = Duration::from_secs(1_465_001_814);
        let cases = [
            (Metric::ClockSkew, "clock-skew", -1.5),
            (Metric::SpoolRecords, "spool-records", 3.0),
            (Metric::SpoolDropped, "spool-dropped", 2.0),
            (Metric::CertificateDays, "certificate-days", -0.25),
            (Metric::Unmeasured, "unmeasured", 0.0),
        ];
        for (metric, label, expected) in cases {
            let (mut sampler, words) = Sampler::new(&[metric], start).unwrap();
            assert_eq!(words, []);
            let set = sampler.sample(own, start + APART_MIN).values;
            let got: Vec<_> = set
                .iter()
                .map(|(label, value)| (label.as_str(), value.get()))
                .collect();
            assert_eq!(got, [(label, expected)]);
        }
    }

    #[test]
    fn only_what_was_asked_for_is_measured() {
        let start = Duration::from_secs(1_465_001_814);
        for metrics in [
            &[Metric::Mem][..],
            &[Metric::Cpu],
            &[Metric::Mem, Metric::Cpu],
        ] {
            let (mut sampler, words) = Sampler::new(metrics, start).unwrap();
            assert_eq!(words, []);
            // So that the counters have gone on.
            std::thread::sleep(APART_MIN);
            let sample = sampler.sample(Own::default(), start + APART_MIN);
            let labels: Vec<_> = sample
                .values
                .iter()
                .map(|(label, _)| label.as_str())
                .collect();
            let expected: Vec<_> = metrics.iter().map(|metric| metric.label()).collect();
            assert_eq!(labels, expected);
            assert_eq!(sample.words, []);
            assert!(
                sample
                    .values
                    .iter()
                    .all(|(_, value)| (0.0..=100.0).contains(&value.get()))
            );
        }
    }

    /// sysinfo reads nothing so soon, and gives what it gave before: nothing at all, after the first reading.
    #[test]
    fn what_was_read_a_moment_ago_is_not_said_again() {
        let start = Duration::from_secs(1_465_001_814);
        let metrics = [Metric::Cpu, Metric::Unmeasured];
        let (mut sampler, _) = Sampler::new(&metrics, start).unwrap();
        let early = start + APART_MIN - Duration::from_millis(1);
        // Not for another reason, as that the counters have not gone on in so short a time.
        let first = sampler.sample(Own::default(), early);
        let too_soon = (Metric::Cpu, Word::Begins(Unmeasured::TooSoon));
        assert_eq!(first.words, [too_soon]);
        sampler.sample(Own::default(), early);
        let sample = sampler.sample(Own::default(), early);
        let got: Vec<_> = sample
            .values
            .iter()
            .map(|(label, value)| (label.as_str(), value.get()))
            .collect();
        assert_eq!(got, [("unmeasured", 3.0)]);
    }
}
