//! Every series' newest minute as metrics.

use std::fmt;
use std::sync::Arc;

use lizmon_mtls::Clock;
use lizmon_summary::IntervalAverage;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::authorize::{Permit, ReadMetrics};
use crate::query;
use crate::summarize::SummaryTable;

/// Reads the summaries of the hosts that the caller may read.
pub(super) struct NewestMinutes {
    pub(super) summaries: Arc<SummaryTable>,
    pub(super) clock: Clock,
    /// Of which hosts.
    pub(super) permit: Arc<Permit<ReadMetrics>>,
}

impl fmt::Debug for NewestMinutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewestMinutes").finish_non_exhaustive()
    }
}

impl Collector for NewestMinutes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        self.family(encoder, "average", "Average of", None, |minute| minute.avg)?;
        self.family(encoder, "min", "Minimum of", None, |minute| minute.min)?;
        self.family(encoder, "max", "Maximum of", None, |minute| minute.max)?;
        self.family(encoder, "samples", "Number of", None, |minute| {
            i64::try_from(minute.count).unwrap_or(i64::MAX)
        })?;
        let unit = Some(&Unit::Seconds);
        self.family(
            encoder,
            "end",
            "End, in seconds since 1970, of the interval of",
            unit,
            |minute| i64::try_from(minute.end).unwrap_or(i64::MAX),
        )
    }
}

impl NewestMinutes {
    /// The format wants the lines of one metric together, so the summaries are read once for each;
    /// a minute may grow in between.
    fn family<T: EncodeGaugeValue>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl Fn(&IntervalAverage) -> T,
    ) -> Result<(), fmt::Error>
    where
        ConstGauge<T>: TypedMetric + EncodeMetric,
    {
        let name = format!("minute_{name}");
        let help = format!("{help} a series' samples in its newest minute");
        let mut family = encoder.encode_descriptor(&name, &help, unit, ConstGauge::<T>::TYPE)?;
        for shard in query::newest_minutes(&self.permit, &self.summaries, (self.clock)()) {
            for (host, label, minute) in shard {
                let labels = [("host", &*host), ("label", &*label)];
                ConstGauge::new(value(&minute)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
