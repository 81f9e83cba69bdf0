//! The monitor's own figures, so that it can be watched like everything else.

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
use super::readings::Readings;

/// One figure. Each can be asked for by itself, so each is a collector.
struct SelfCollector {
    label: &'static str,
    /// None where the figure is not known yet: that is no failure.
    value: fn(&CollectContext) -> Option<f64>,
}

impl Collector for SelfCollector {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings,
    ) -> Result<(), CollectError> {
        match (self.value)(context) {
            Some(value) => readings.push(self.label, value),
            None => Ok(()),
        }
    }
}

/// Defines the collector of one figure, which is called like its label.
macro_rules! figure {
    ($spec:ident, $label:literal, $unit:literal, $meaning:literal, $value:expr) => {
        pub(super) static $spec: CollectorSpec = CollectorSpec {
            name: $label,
            labels: &[LabelSpec {
                label: $label,
                unit: $unit,
                source: "the monitor itself",
                meaning: $meaning,
            }],
            labels_max: 1,
            more_labels_a_day: 0,
            start: |_| {
                Ok(Box::new(SelfCollector {
                    label: $label,
                    value: $value,
                }))
            },
        };
    };
}

figure!(
    CLOCK_SKEW,
    "clock-skew",
    "seconds",
    "how far this machine's clock is ahead of its receivers' (the median); negative if it is behind",
    |context| context.stats.clock_ahead_secs
);
figure!(
    SPOOL_RECORDS,
    "spool-records",
    "records",
    "records that wait for the receiver that is furthest behind",
    |context| Some(context.stats.pending_records as f64)
);
figure!(
    SPOOL_DROPPED,
    "spool-dropped",
    "records",
    "records dropped since the monitor was started",
    |context| Some(context.stats.dropped_records as f64)
);
figure!(
    SPOOL_REPAIRED,
    "spool-repaired",
    "records",
    "records sent again since the monitor was started, because a receiver had lost them",
    |context| Some(context.stats.repaired_records as f64)
);
figure!(
    CERTIFICATE_DAYS,
    "certificate-days",
    "days",
    "time until the monitor's certificate ends; negative once it has ended",
    |context| Some(context.stats.certificate_days)
);
figure!(
    UNMEASURED,
    "unmeasured",
    "failures",
    "how often a collector failed, since the monitor was started",
    |context| Some(context.failures as f64)
);
