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
use crate::alarms::{self, Alarms};
use crate::authorize::{Permit, ReadMetrics};
use crate::summarize::SummaryTable;

pub(super) fn register(
    of_receiver: &mut Registry,
    of_all_clients: &mut Registry,
    alarms: &Arc<Alarms>,
) {
    of_receiver.register_collector(Box::new(RuleFigures(alarms.clone())));
    of_all_clients.register_collector(Box::new(ChannelFigures(alarms.clone())));
}

/// How many alarms there are, of the hosts that the caller may read.
pub(super) struct AlarmStates {
    pub(super) alarms: Arc<Alarms>,
    pub(super) summaries: Arc<SummaryTable>,
    pub(super) permit: Arc<Permit<ReadMetrics>>,
}

impl fmt::Debug for AlarmStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlarmStates").finish_non_exhaustive()
    }
}

impl Collector for AlarmStates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut states = BTreeMap::from([("pending", 0), ("firing", 0), ("silenced", 0)]);
        let entries = self.alarms.board().entries();
        for entry in alarms::of_scope(self.permit.scope(), &self.summaries, entries) {
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
        )
    }
}

/// Whether the rules are in force.
#[derive(Debug)]
struct RuleFigures(Arc<Alarms>);

impl Collector for RuleFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
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
        )
    }
}

/// How channels do.
#[derive(Debug)]
struct ChannelFigures(Arc<Alarms>);

impl Collector for ChannelFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reports = self.0.reports();
        let failing = reports.iter().map(|report| {
            let failing = u64::from(report.failing.is_some());
            ([("channel", report.name.clone())], failing)
        });
        gauges(
            &mut encoder,
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
