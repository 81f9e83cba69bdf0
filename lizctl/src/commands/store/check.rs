//! `store check`: whether a receiver would start on these servers.

use anyhow::bail;
use clap::Args;
use lizmon_receiver::store::redis::check::{AcknowledgementPromise, StoreVerdict, check};
use lizmon_receiver::store::redis::config::{Address, StoreUrl};
use lizmon_receiver::store::redis::info::EngineInfo;
use lizmon_receiver::store::redis::judge::{Finding, Severity};
use serde::Serialize;

use crate::flags::output::OutputFlags;
use crate::flags::store::StoreConnectionFlags;
use crate::output;

/// Judge Redis or Valkey servers as a receiver does at its start
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lizctl store check rediss://r1.example,r2.example --store-ca redis-ca.crt\n\n\
                  Exit code 1 if a receiver would not start there. Warnings do not stop it.\n\
                  Nothing is written to the servers."
)]
pub(crate) struct StoreCheckArgs {
    /// redis://HOST:PORT, or rediss:// for TLS; HOST:PORT,HOST:PORT for nodes of a cluster, with
    /// /MASTER for Sentinels and the name of their master
    #[arg(value_name = "URL")]
    url: StoreUrl,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: StoreConnectionFlags,
}

/// `lizctl store check`. Fails if a receiver would be refused.
pub(crate) fn run(args: StoreCheckArgs) -> anyhow::Result<()> {
    let url = args.url.to_string();
    let verdict = check(args.connection.servers(args.url))?;
    if args.output.is_json() {
        output::json(&VerdictJson::new(&url, &verdict))?;
    } else {
        show(&url, &verdict)?;
    }
    let Some(found) = verdict.refusal() else {
        return Ok(());
    };
    let Finding { what, remedy, .. } = &found.finding;
    bail!(
        "a receiver would not start on {url}: {}: {what}; {remedy}",
        found.address
    )
}

fn show(url: &str, verdict: &StoreVerdict) -> anyhow::Result<()> {
    let rows = findings(verdict).into_iter().map(|(finding, servers)| {
        let word = |text: &str| text.to_owned();
        let severity = severity(finding.severity);
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let loss = format!("{}; {}", finding.what, finding.why);
        [
            word(severity),
            servers.join(","),
            loss,
            finding.remedy.clone(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        output::table(["SEVERITY", "SERVER", "FINDING", "REMEDY"], rows)?;
    }
    let servers = verdict.servers.len();
    let primaries = if servers == 1 { "primary" } else { "primaries" };
    match (&verdict.promise, verdict.findings.len()) {
        (None, _) => return Ok(()),
        (Some(_), 0) => output::line(format_args!("{url}: {servers} {primaries}, all is well"))?,
        (Some(_), _) => output::line(format_args!(
            "{url}: {servers} {primaries}, a receiver starts there, with warnings"
        ))?,
    }
    if let Some(promise) = verdict.promise {
        output::line(format_args!("a 204 means: {promise}"))?;
    }
    output::line(match &verdict.store {
        None => "there is no store yet: a receiver creates it at its first start".to_owned(),
        Some(store) => format!("it holds store {}, of {} shards", store.id, store.shards),
    })
}

/// Equal findings once, with all servers that have them. The worst first.
fn findings(verdict: &StoreVerdict) -> Vec<(&Finding, Vec<&Address>)> {
    let mut merged: Vec<(&Finding, Vec<&Address>)> = Vec::new();
    for found in &verdict.findings {
        match merged
            .iter_mut()
            .find(|(finding, _)| **finding == found.finding)
        {
            Some((_, servers)) => servers.push(&found.address),
            None => merged.push((&found.finding, vec![&found.address])),
        }
    }
    merged
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Refuse => "refuse",
        Severity::Warning => "warning",
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct VerdictJson {
    url: String,
    /// Whether a receiver would start.
    starts: bool,
    min_replicas: u32,
    promise: Option<PromiseJson>,
    store: Option<StoreJson>,
    servers: Vec<ServerJson>,
    findings: Vec<FindingJson>,
}

#[derive(Debug, Serialize)]
struct PromiseJson {
    code: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct StoreJson {
    id: String,
    format: u64,
    shards: u16,
}

#[derive(Debug, Serialize)]
struct ServerJson {
    address: String,
    product: String,
    version: String,
}

#[derive(Debug, Serialize)]
struct FindingJson {
    severity: &'static str,
    code: &'static str,
    servers: Vec<String>,
    what: String,
    why: &'static str,
    remedy: String,
}

impl VerdictJson {
    fn new(url: &str, verdict: &StoreVerdict) -> Self {
        let promise = |promise: AcknowledgementPromise| PromiseJson {
            code: promise.code(),
            text: promise.to_string(),
        };
        let server = |(address, engine): &(Address, EngineInfo)| ServerJson {
            address: address.to_string(),
            product: engine.product.to_string(),
            version: engine.version.to_string(),
        };
        let findings = findings(verdict).into_iter();
        Self {
            url: url.to_owned(),
            starts: verdict.refusal().is_none(),
            min_replicas: verdict.min_replicas,
            promise: verdict.promise.map(promise),
            store: verdict.store.as_ref().map(|store| StoreJson {
                id: store.id.clone(),
                format: store.format,
                shards: store.shards,
            }),
            servers: verdict.servers.iter().map(server).collect(),
            findings: findings
                .map(|(finding, servers)| FindingJson {
                    severity: severity(finding.severity),
                    code: finding.code,
                    servers: servers.iter().map(ToString::to_string).collect(),
                    what: finding.what.clone(),
                    why: finding.why,
                    remedy: finding.remedy.clone(),
                })
                .collect(),
        }
    }
}
