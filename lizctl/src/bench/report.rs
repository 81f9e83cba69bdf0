//! The results, as JSON and as text.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::http_version::HttpVersion;
use super::run::{Load, Plan, RunOutcome};
use super::worker::Job;
use crate::output;

/// The results. Its JSON is documented: fields are added, none is changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BenchReport {
    load: &'static str,
    target: String,
    nodes: u32,
    connections: u32,
    streams: u32,
    http: HttpVersion,
    /// Records of a request; 0 for queries.
    batch: u32,
    /// Requests a second that were asked for; `None` flat out.
    rate: Option<f64>,
    measured_secs: f64,
    interrupted: bool,
    requests: u64,
    records: u64,
    requests_per_second: Option<f64>,
    records_per_second: Option<f64>,
    not_sent: u64,
    latency_ms: Percentiles,
    service_ms: Percentiles,
    refused: BTreeMap<String, u64>,
    taken: u64,
    unanswered: u64,
    receiver_has: u64,
    differing_nodes: u64,
    server: Option<Server>,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    #[serde(rename = "p99.9")]
    p999: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
}

/// What the receiver's process used in the measured part.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Server {
    cpu_secs: f64,
    cpu_us_per_request: Option<f64>,
    requests_per_cpu_second: Option<f64>,
    rss_bytes: u64,
    rss_max_bytes: u64,
}

impl BenchReport {
    pub(crate) fn new(plan: &Plan, target: String, outcome: RunOutcome) -> Self {
        let tally = outcome.tally;
        let secs = outcome.measured.as_secs_f64();
        let per_second = |count: u64| ratio(count as f64, secs);
        let server = outcome.server.map(|(before, after)| {
            let cpu = after.cpu_secs - before.cpu_secs;
            Server {
                cpu_secs: cpu,
                cpu_us_per_request: ratio(cpu * 1e6, tally.requests as f64),
                requests_per_cpu_second: ratio(tally.requests as f64, cpu),
                rss_bytes: after.rss_bytes,
                rss_max_bytes: after.rss_max_bytes,
            }
        });
        Self {
            load: match plan.load {
                Load::Samples => "samples",
                Load::Handshakes => "handshakes",
                Load::Reconnect => "reconnect",
                Load::Queries => "queries",
            },
            target,
            nodes: plan.nodes,
            connections: plan.nodes * plan.connections,
            streams: plan.streams,
            http: plan.http,
            batch: match plan.job {
                Job::Query => 0,
                Job::Sample => 1,
                Job::Batch { records, .. } => records,
            },
            rate: plan.rate,
            measured_secs: secs,
            interrupted: outcome.is_interrupted,
            requests: tally.requests,
            records: tally.records,
            requests_per_second: per_second(tally.requests),
            records_per_second: per_second(tally.records),
            not_sent: tally.not_sent,
            latency_ms: Percentiles::of(&tally.latency),
            service_ms: Percentiles::of(&tally.service),
            refused: tally.refused,
            taken: outcome.verdict.taken,
            unanswered: outcome.verdict.unanswered,
            receiver_has: outcome.verdict.has,
            differing_nodes: outcome.verdict.differing,
            server,
        }
    }

    /// Nodes of which the receiver has less than it took, or more than was sent.
    pub(crate) fn differing_nodes(&self) -> u64 {
        self.differing_nodes
    }

    /// Prints it as text.
    pub(crate) fn show(&self) -> anyhow::Result<()> {
        let head = ["ms", "p50", "p90", "p99", "p99.9", "max", "mean"];
        let row = |name: &str, of: &Percentiles| {
            let [p50, p90, p99, p999, max, mean] =
                [of.p50, of.p90, of.p99, of.p999, of.max, of.mean].map(ms);
            [name.to_owned(), p50, p90, p99, p999, max, mean]
        };
        let rows = vec![
            row("latency", &self.latency_ms),
            row("service", &self.service_ms),
        ];
        output::line(format_args!(
            "{} over {} connections for {:.1} s{}: {} requests, {}/s; {} records, {}/s",
            self.load,
            self.connections,
            self.measured_secs,
            if self.interrupted {
                ", interrupted"
            } else {
                ""
            },
            self.requests,
            whole(self.requests_per_second),
            self.records,
            whole(self.records_per_second),
        ))?;
        output::table(head, rows)?;
        if self.not_sent > 0 {
            output::line(format_args!(
                "not sent in time: {}; their latency is what they had waited at the end",
                self.not_sent
            ))?;
        }
        for (reason, count) in &self.refused {
            output::line(format_args!("refused: {count} times {reason}"))?;
        }
        match &self.server {
            None => output::line("receiver: CPU time and memory are not known")?,
            Some(server) => output::line(format_args!(
                "receiver: {} requests per CPU second, {} us each; {:.1} MiB resident, {:.1} MiB at most",
                whole(server.requests_per_cpu_second),
                server
                    .cpu_us_per_request
                    .map_or("-".to_owned(), |us| format!("{us:.1}")),
                mib(server.rss_bytes),
                mib(server.rss_max_bytes),
            ))?,
        }
        output::line(format_args!(
            "of the whole run: {} records taken, {} unanswered, the receiver has {}",
            self.taken, self.unanswered, self.receiver_has
        ))
    }
}

impl Percentiles {
    fn of(micros: &Histogram<u64>) -> Self {
        let known = |value: f64| (!micros.is_empty()).then_some(value / 1e3);
        let at = |percent| known(micros.value_at_percentile(percent) as f64);
        Self {
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: known(micros.max() as f64),
            mean: known(micros.mean()),
        }
    }
}

/// `None` where there is nothing to divide by.
fn ratio(value: f64, by: f64) -> Option<f64> {
    (by > 0.0).then_some(value / by)
}

fn ms(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

fn whole(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.0}"))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
