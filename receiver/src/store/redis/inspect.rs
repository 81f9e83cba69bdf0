//! Asks every primary what it says of itself, and judges it.

use redis::FromRedisValue;

use super::config::Address;
use super::error::RedisStoreError;
use super::info::{EngineInfo, EngineMode};
use super::judge::{Finding, Requirements, Severity, judge};
use super::nodes::Nodes;

/// What is wrong with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFinding {
    /// The server.
    pub address: Address,
    /// What is wrong with it.
    pub finding: Finding,
}

impl std::fmt::Display for ServerFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.address, self.finding)
    }
}

/// What every primary says of itself.
pub(super) fn engines(nodes: &mut Nodes) -> Result<Vec<(Address, EngineInfo)>, RedisStoreError> {
    let primaries = nodes.primaries()?.into_iter();
    let engines = primaries.map(|address| {
        let engine = engine(nodes, &address)?;
        Ok((address, engine))
    });
    engines.collect()
}

/// Judges all of them: the worst findings first.
pub(super) fn judge_all(
    engines: &[(Address, EngineInfo)],
    wanted: &Requirements,
) -> Vec<ServerFinding> {
    let mut findings = Vec::new();
    for (address, engine) in engines {
        let found = judge(engine, wanted).into_iter();
        findings.extend(found.map(|finding| ServerFinding {
            address: address.clone(),
            finding,
        }));
    }
    findings.sort_by_key(|found| found.finding.severity);
    findings
}

/// The first finding that stops a start.
pub(super) fn refusal(findings: &[ServerFinding]) -> Option<&ServerFinding> {
    let mut findings = findings.iter();
    findings.find(|found| found.finding.severity == Severity::Refuse)
}

/// What a server says of itself.
pub(super) fn engine(nodes: &mut Nodes, address: &Address) -> Result<EngineInfo, RedisStoreError> {
    let answer = nodes.ask(address, &redis::cmd("INFO"))?;
    let unknown = || RedisStoreError::Answer {
        address: address.clone(),
        command: "INFO",
    };
    let mut text = String::from_redis_value(answer).map_err(|_| unknown())?;
    // Not among the default sections; engines that do not know it answer with nothing.
    let engines = nodes.ask(address, redis::cmd("INFO").arg("scriptingengines"));
    let engines = engines.ok().map(String::from_redis_value);
    text.push_str(&engines.and_then(Result::ok).unwrap_or_default());
    let engine = EngineInfo::parse(&text).map_err(|_| unknown())?;
    if engine.mode == EngineMode::Cluster {
        let answer = nodes.ask(address, redis::cmd("CLUSTER").arg("INFO"))?;
        text.push_str(&String::from_redis_value(answer).map_err(|_| unknown())?);
    }
    let engine = EngineInfo::parse(&text).map_err(|_| unknown())?;
    // Forbidden at some services: then it is not known.
    let config = nodes.ask(address, redis::cmd("CONFIG").arg("GET").arg("appendfsync"));
    let config = config.ok().map(Vec::<String>::from_redis_value);
    let config = config.and_then(Result::ok).unwrap_or_default();
    Ok(engine.with_config(config.get(1).map(String::as_str)))
}
