//! Metrics of alarms: how many there are, whether the rules are in force, how channels do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use super::gauges::gauges;
use crate::alarms::Alarms;

pub(super) fn register(registry: &mut Registry, alarms: Arc<Alarms>) {
    registry.register_collector(Box::new(AlarmFigures(alarms)));
}

#[derive(Debug)]
struct AlarmFigures(Arc<Alarms>);

impl Collector for AlarmFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut states = BTreeMap::from([("pending", 0), ("firing", 0), ("silenced", 0)]);
        for entry in self.0.board().entries() {
            let state = match entry.silenced_until {
                Some(_) => "silenced",
                None => entry.alarm.state.as_str(),
            };
            states.entry(state).and_modify(|count| *count += 1);
        }
        gauges(
            &mut encoder,
            "alarms",
            "Alarms that are pending or firing, or of silenced hosts",
            None,
            states
                .into_iter()
                .map(|(state, count)| ([("state", state.to_owned())], count)),
        )?;
        let (rules, _) = self.0.rule_counts();
        gauges::<0>(
            &mut encoder,
            "alarm_rules",
            "Alarm rules in force",
            None,
            [([], rules as u64)],
        )?;
        gauges::<0>(
            &mut encoder,
            "alarm_rules_in_force",
            "1 if the file of alarm rules is in force as it is, 0 if an earlier one is",
            None,
            [([], u64::from(self.0.fault().is_none()))],
        )?;
        self.encode_channels(&mut encoder)
    }
}

impl AlarmFigures {
    fn encode_channels(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reports = self.0.reports();
        let failing = reports.iter().map(|report| {
            let failing = u64::from(report.failing.is_some());
            ([("channel", report.name.clone())], failing)
        });
        gauges(
            encoder,
            "alarm_channel_failing",
            "1 while the channel accepts no messages",
            None,
            failing,
        )?;
        let mut family = encoder.encode_descriptor(
            "alarm_messages",
            "Messages that a channel has accepted, attempts that failed, messages given up",
            None,
            MetricType::Counter,
        )?;
        for report in &reports {
            let counts = [
                ("accepted", report.accepted),
                ("failed", report.failed),
                ("given_up", report.given_up),
            ];
            for (outcome, count) in counts {
                let labels = [("channel", report.name.as_str()), ("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
