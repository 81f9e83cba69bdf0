//! Runs the collectors that were asked for, each by itself and timed.

use std::sync::Arc;
use std::time::Duration;

use lizmon_protocol::sample::{RECORD_LABELS_MAX, SampleSet};

use super::collector::{
    CollectContext, Collector, CollectorSpec, CollectorStart, CollectorStartError, SelfStats,
};
use super::failure::{CollectError, FailureLog, FailureNotice, REMIND_SECS};
use super::options::CollectOptions;
use super::readings::{LabelBudget, Readings};

/// A collector that takes longer than this delays the record: a quarter of the shortest interval.
pub const COLLECT_TIME_MAX: Duration = Duration::from_millis(250);

/// Measures what was asked for, and nothing else: everything sysinfo knows costs 11 ms, `cpu` and
/// `mem` 0.1 ms.
pub struct Sampler {
    collectors: Vec<Running>,
    /// Times the collectors: it does not step.
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    failures: u64,
}

/// One collector that was asked for.
struct Running {
    spec: &'static CollectorSpec,
    collector: Box<dyn Collector>,
    budget: LabelBudget,
    failure_log: FailureLog,
    /// When it was logged last that it is slow: epoch seconds.
    slow_logged_at: Option<u64>,
}

/// What was measured in one second.
#[derive(Debug, PartialEq)]
pub struct Collected {
    /// The values, in the order of the collectors.
    pub values: SampleSet<'static>,
    /// What to log, and of which collector.
    pub notices: Notices,
    /// How long each collector took.
    pub took: Vec<(&'static str, Duration)>,
}

/// What to log, and of which collector.
pub type Notices = Vec<(&'static str, Notice)>;

/// What to log of a collector.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// It fails, or works again.
    Failure(FailureNotice),
    /// It took so long.
    Slow(Duration),
}

impl Sampler {
    /// Takes the first reading, which the first record is measured against: leave at least
    /// [`super::CPU_INTERVAL_MIN`] until then. With it, what to log of collectors that fail.
    pub fn start(
        specs: &[&'static CollectorSpec],
        options: &CollectOptions,
        monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
        now: Duration,
    ) -> Result<(Self, Notices), CollectorStartError> {
        let labels = specs.iter().map(|spec| labels_max(spec, options)).sum();
        if labels > RECORD_LABELS_MAX {
            return Err(CollectorStartError::TooManyLabels { labels });
        }
        let start = CollectorStart {
            options,
            monotonic: monotonic.clone(),
        };
        let start = |spec: &&'static CollectorSpec| {
            Ok(Running {
                spec,
                collector: (spec.start)(&start)?,
                budget: LabelBudget::new(labels_max(spec, options), spec.more_labels_a_day),
                failure_log: FailureLog::default(),
                slow_logged_at: None,
            })
        };
        let mut sampler = Self {
            collectors: specs
                .iter()
                .map(start)
                .collect::<Result<_, CollectorStartError>>()?,
            monotonic,
            failures: 0,
        };
        let context = CollectContext {
            now,
            monotonic: (sampler.monotonic)(),
            stats: SelfStats::default(),
            failures: 0,
        };
        let mut notices = Vec::new();
        for running in &mut sampler.collectors {
            let mut readings = Readings::new(&mut running.budget, context.monotonic);
            match running.collector.collect(&context, &mut readings) {
                Ok(()) | Err(CollectError::FirstReading { .. }) => (),
                Err(why) => {
                    let notice = running.failure_log.failed(why, now.as_secs());
                    notices.extend(notice.map(|n| (running.spec.name, Notice::Failure(n))));
                }
            }
        }
        Ok((sampler, notices))
    }

    /// Measures now. A collector that fails keeps what it appended before; the failure is counted,
    /// and logged at a limited rate.
    pub fn sample(&mut self, stats: SelfStats, now: Duration) -> Collected {
        let mut values = Vec::new();
        let mut notices = Vec::new();
        let mut took = Vec::with_capacity(self.collectors.len());
        for running in &mut self.collectors {
            let name = running.spec.name;
            let started = (self.monotonic)();
            let context = CollectContext {
                now,
                monotonic: started,
                stats,
                failures: self.failures,
            };
            let mut readings = Readings::new(&mut running.budget, started);
            let result = running.collector.collect(&context, &mut readings);
            let (measured, missing) = readings.finish();
            values.extend(measured);
            let time = (self.monotonic)().saturating_sub(started);
            took.push((name, time));
            let notice = match result.err().or(missing) {
                None => running.failure_log.succeeded(),
                Some(why) => {
                    self.failures += 1;
                    running.failure_log.failed(why, now.as_secs())
                }
            };
            notices.extend(notice.map(|notice| (name, Notice::Failure(notice))));
            if running.is_slow(time, now.as_secs()) {
                notices.push((name, Notice::Slow(time)));
            }
        }
        Collected {
            values: SampleSet::new(values),
            notices,
            took,
        }
    }
}

/// How many labels the collector may publish at once.
fn labels_max(spec: &CollectorSpec, options: &CollectOptions) -> usize {
    let chosen = options.labels_max.iter().rev();
    let mut chosen = chosen.filter(|chosen| chosen.collector == spec.name);
    chosen
        .next()
        .map_or(spec.labels_max, |chosen| chosen.labels)
}

impl Running {
    /// Whether it took so long that this is to be logged, and was not logged lately.
    fn is_slow(&mut self, time: Duration, now: u64) -> bool {
        let is_logged_lately = self
            .slow_logged_at
            .is_some_and(|at| now.abs_diff(at) < REMIND_SECS);
        let is_slow = time > COLLECT_TIME_MAX && !is_logged_lately;
        if is_slow {
            self.slow_logged_at = Some(now);
        }
        is_slow
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "two readings of the CPU's counters need time between them"
)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::collector::LabelSpec;
    use super::super::cpu::{CPU, CPU_INTERVAL_MIN};
    use super::super::mem::MEM;
    use super::super::registry::{COLLECTORS, find};
    use super::super::self_stats::UNMEASURED;
    use super::*;

    const START: Duration = Duration::from_secs(1_465_001_814);

    fn start(specs: &[&'static CollectorSpec]) -> (Sampler, Notices) {
        let options = CollectOptions::default();
        Sampler::start(specs, &options, Arc::new(|| Duration::ZERO), START).unwrap()
    }

    fn pairs(collected: &Collected) -> Vec<(&str, f64)> {
        let values = collected.values.iter();
        values
            .map(|(label, value)| (label.as_str(), value.get()))
            .collect()
    }

    #[test]
    fn the_monitor_measures_itself() {
        let stats = SelfStats {
            clock_ahead_secs: Some(-1.5),
            pending_records: 3,
            dropped_records: 2,
            repaired_records: 4,
            certificate_days: -0.251,
        };
        let cases = [
            ("clock-skew", -1.5),
            ("spool-records", 3.0),
            ("spool-dropped", 2.0),
            ("spool-repaired", 4.0),
            ("certificate-days", -0.25),
            ("unmeasured", 0.0),
        ];
        for (label, expected) in cases {
            let (mut sampler, notices) = start(&[find(label).unwrap()]);
            assert_eq!(notices, []);
            let collected = sampler.sample(stats, START + CPU_INTERVAL_MIN);
            assert_eq!(pairs(&collected), [(label, expected)]);
        }
    }

    #[test]
    fn only_what_was_asked_for_is_measured() {
        let cases: [&[&'static CollectorSpec]; 4] = [&[&CPU, &MEM], &[&MEM], &[&MEM, &CPU], &[]];
        for specs in cases {
            let (mut sampler, notices) = start(specs);
            assert_eq!(notices, []);
            // So that the counters have risen.
            std::thread::sleep(CPU_INTERVAL_MIN);
            let collected = sampler.sample(SelfStats::default(), START + CPU_INTERVAL_MIN);
            let labels: Vec<_> = pairs(&collected)
                .into_iter()
                .map(|(label, _)| label)
                .collect();
            let expected: Vec<_> = specs.iter().map(|spec| spec.name).collect();
            assert_eq!(labels, expected);
            assert_eq!(collected.notices, []);
            assert!(
                pairs(&collected)
                    .iter()
                    .all(|(_, value)| (0.0..=100.0).contains(value))
            );
        }
    }

    #[test]
    fn every_label_is_one_that_its_collector_describes() {
        let (mut sampler, _) = start(COLLECTORS);
        std::thread::sleep(CPU_INTERVAL_MIN);
        let collected = sampler.sample(SelfStats::default(), START + CPU_INTERVAL_MIN);
        let described: Vec<_> = COLLECTORS.iter().flat_map(|spec| spec.labels).collect();
        for (label, _) in pairs(&collected) {
            assert!(described.iter().any(|spec| spec.matches(label)), "{label}");
        }
    }

    /// The counters need time between two readings.
    #[test]
    fn a_reading_of_a_moment_ago_is_not_repeated() {
        let (mut sampler, _) = start(&[&CPU, &UNMEASURED]);
        let early = START + CPU_INTERVAL_MIN - Duration::from_millis(1);
        // Not for another reason, such as that the counters have not changed in so short a time.
        let first = sampler.sample(SelfStats::default(), early);
        let failing = FailureNotice::Failing(CollectError::TooSoon);
        assert_eq!(first.notices, [("cpu", Notice::Failure(failing))]);
        sampler.sample(SelfStats::default(), early);
        let collected = sampler.sample(SelfStats::default(), early);
        assert_eq!(pairs(&collected), [("unmeasured", 3.0)]);
    }

    /// A label for each core, and a failure after the second one.
    struct Cores;

    impl Collector for Cores {
        fn collect(
            &mut self,
            _context: &CollectContext,
            readings: &mut Readings,
        ) -> Result<(), CollectError> {
            for core in 0..2 {
                readings.push(format!("core:{core}"), f64::from(core))?;
            }
            Err(CollectError::Unchanged { path: "/proc/x" })
        }
    }

    static CORES: CollectorSpec = CollectorSpec {
        name: "cores",
        labels: &[LabelSpec {
            label: "core:{number}",
            unit: "percent",
            source: "",
            meaning: "",
        }],
        labels_max: 2,
        more_labels_a_day: 0,
        start: |_| Ok(Box::new(Cores)),
    };

    #[test]
    fn a_collector_that_fails_stops_no_other() {
        let (mut sampler, notices) = start(&[&CORES, &MEM, &UNMEASURED]);
        assert_eq!(notices.len(), 1);
        let collected = sampler.sample(SelfStats::default(), START);
        let labels: Vec<_> = pairs(&collected)
            .into_iter()
            .map(|(label, _)| label)
            .collect();
        assert_eq!(labels, ["core:0", "core:1", "mem", "unmeasured"]);
        assert_eq!(pairs(&collected)[3].1, 1.0);
        // It was logged at the start.
        assert_eq!(collected.notices, []);
    }

    #[test]
    fn a_slow_collector_is_logged_once_and_rarely_again() {
        let millis = Arc::new(AtomicU64::new(0));
        let monotonic = {
            let millis = millis.clone();
            // Each call of it is so much later.
            Arc::new(move || Duration::from_millis(millis.fetch_add(251, Ordering::Relaxed)))
        };
        let (mut sampler, _) =
            Sampler::start(&[&UNMEASURED], &CollectOptions::default(), monotonic, START).unwrap();
        let slow = Duration::from_millis(251);
        let cases = [
            (1, true),
            (2, false),
            (600, false),
            (601, true),
            (602, false),
        ];
        for (second, is_logged) in cases {
            let collected =
                sampler.sample(SelfStats::default(), START + Duration::from_secs(second));
            assert_eq!(collected.took, [("unmeasured", slow)]);
            let expected: Vec<_> = is_logged
                .then_some(("unmeasured", Notice::Slow(slow)))
                .into_iter()
                .collect();
            assert_eq!(collected.notices, expected, "{second}");
        }
    }
}
