//! The monitor's own figures, so that it can be watched like everything else.

use super::collector::{
    CollectContext, Collector, CollectorSpec, CollectorStartError, LabelSpec, Readings,
};
use super::failure::CollectError;

/// One figure. Each can be asked for by itself, so each is a collector.
struct SelfCollector {
    label: &'static str,
    /// None where the figure is not known yet: that is no failure.
    value: fn(&CollectContext) -> Option<f64>,
}

fn start(
    label: &'static str,
    value: fn(&CollectContext) -> Option<f64>,
) -> Result<Box<dyn Collector>, CollectorStartError> {
    Ok(Box::new(SelfCollector { label, value }))
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

pub(super) static CLOCK_SKEW: CollectorSpec = CollectorSpec {
    name: "clock-skew",
    labels: &[LabelSpec {
        label: "clock-skew",
        unit: "seconds",
        meaning: "how far this machine's clock is ahead of its receivers' (the median); negative if it is behind",
    }],
    start: || start("clock-skew", |context| context.stats.clock_ahead_secs),
};

pub(super) static SPOOL_RECORDS: CollectorSpec = CollectorSpec {
    name: "spool-records",
    labels: &[LabelSpec {
        label: "spool-records",
        unit: "records",
        meaning: "records that wait for the receiver that is furthest behind",
    }],
    start: || {
        start("spool-records", |context| {
            Some(context.stats.pending_records as f64)
        })
    },
};

pub(super) static SPOOL_DROPPED: CollectorSpec = CollectorSpec {
    name: "spool-dropped",
    labels: &[LabelSpec {
        label: "spool-dropped",
        unit: "records",
        meaning: "records dropped since the monitor was started",
    }],
    start: || {
        start("spool-dropped", |context| {
            Some(context.stats.dropped_records as f64)
        })
    },
};

pub(super) static CERTIFICATE_DAYS: CollectorSpec = CollectorSpec {
    name: "certificate-days",
    labels: &[LabelSpec {
        label: "certificate-days",
        unit: "days",
        meaning: "time until the monitor's certificate ends; negative once it has ended",
    }],
    start: || {
        start("certificate-days", |context| {
            Some(context.stats.certificate_days)
        })
    },
};

pub(super) static UNMEASURED: CollectorSpec = CollectorSpec {
    name: "unmeasured",
    labels: &[LabelSpec {
        label: "unmeasured",
        unit: "failures",
        meaning: "how often a collector failed, since the monitor was started",
    }],
    start: || start("unmeasured", |context| Some(context.failures as f64)),
};
