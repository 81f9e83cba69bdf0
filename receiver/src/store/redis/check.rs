//! Whether a receiver would start on these servers, and what it would promise there.

use std::fmt;

use super::super::error::{ErrorKind, StoreError};
use super::config::{Address, RedisConfig};
use super::error::RedisStoreError;
use super::info::{AppendFsync, EngineHosting, EngineInfo};
use super::inspect;
pub use super::inspect::ServerFinding;
use super::judge::{Finding, Requirements, Severity};
use super::nodes::Nodes;
use super::store_key::{self, StoreKey};

/// What a receiver would find at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreVerdict {
    /// Every primary, and what it says of itself.
    pub servers: Vec<(Address, EngineInfo)>,
    /// Everything that is wrong, the worst first.
    pub findings: Vec<ServerFinding>,
    /// How many replicas must have a group before it is acknowledged.
    pub min_replicas: u32,
    /// What is stored there; none where nothing is.
    pub store: Option<StoreKey>,
    /// What a 204 means there; none where no receiver starts.
    pub promise: Option<AcknowledgementPromise>,
}

impl StoreVerdict {
    /// What stops a start, if anything does.
    pub fn refusal(&self) -> Option<&ServerFinding> {
        inspect::refusal(&self.findings)
    }
}

/// What a 204 means, as docs/scaling.md has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgementPromise {
    /// In the log of one server, synced.
    Synced,
    /// In the memory of one server, and within a second in its log.
    SyncedEachSecond,
    /// In the primary and in so many replicas.
    Replicated(u32),
    /// In a log of the service, in several zones.
    ByService,
    /// In the memory of one server; when it is in its log is not known.
    Unknown,
}

impl AcknowledgementPromise {
    /// A name for programs: it does not change.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::SyncedEachSecond => "synced-each-second",
            Self::Replicated(_) => "replicated",
            Self::ByService => "by-service",
            Self::Unknown => "unknown",
        }
    }

    /// The least that any of these servers promises.
    fn of(servers: &[(Address, EngineInfo)], wanted: &Requirements) -> Self {
        let engines = || servers.iter().map(|(_, engine)| engine);
        let has = |fsync| engines().all(|engine| engine.append_fsync == Some(fsync));
        let is_kept = |engine: &EngineInfo| match engine.hosting {
            EngineHosting::MemoryDb => true,
            EngineHosting::ElastiCache => wanted.is_durable_by_service,
            EngineHosting::Own => false,
        };
        if engines().all(is_kept) {
            Self::ByService
        } else if wanted.min_replicas > 0 {
            Self::Replicated(wanted.min_replicas)
        } else if has(AppendFsync::Always) {
            Self::Synced
        } else if engines().any(|engine| engine.append_fsync == Some(AppendFsync::EverySecond)) {
            Self::SyncedEachSecond
        } else {
            Self::Unknown
        }
    }
}

impl fmt::Display for AcknowledgementPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synced => f.write_str("it is in the server's log, synced"),
            Self::SyncedEachSecond => f.write_str(
                "it is in the server's memory, and within a second in its log; a power failure may \
                 forget that second, and monitors send theirs again",
            ),
            Self::Replicated(replicas) => {
                let word = if *replicas == 1 {
                    "replica"
                } else {
                    "replicas"
                };
                write!(
                    f,
                    "it is in the primary and in {replicas} {word}; a failover may still forget the \
                     end of a shard, and monitors send theirs again"
                )
            }
            Self::ByService => f.write_str("it is in the service's log, in several zones"),
            Self::Unknown => f.write_str(
                "it is in the server's memory; when it is in its log, the server does not say",
            ),
        }
    }
}

/// What a receiver would find at its start. Writes nothing.
pub fn check(config: RedisConfig) -> Result<StoreVerdict, StoreError> {
    Ok(verdict(&mut Nodes::open(config)?)?)
}

fn verdict(nodes: &mut Nodes) -> Result<StoreVerdict, RedisStoreError> {
    let wanted = nodes.requirements();
    let servers = inspect::engines(nodes)?;
    let mut findings = inspect::judge_all(&servers, &wanted);
    let store = match store_key::read(nodes) {
        // What a server that is refused anyway does not tell.
        Err(error) if inspect::refusal(&findings).is_none() => match unusable(&error) {
            None => return Err(error),
            Some(finding) => {
                findings.insert(0, at_store(nodes, finding)?);
                None
            }
        },
        Err(_) => None,
        Ok(store) => store,
    };
    let found = store.clone().map(StoreKey::usable);
    if let Some(finding) = found.and_then(Result::err).as_ref().and_then(unusable) {
        findings.insert(0, at_store(nodes, finding)?);
    }
    let starts = inspect::refusal(&findings).is_none();
    Ok(StoreVerdict {
        promise: starts.then(|| AcknowledgementPromise::of(&servers, &wanted)),
        servers,
        findings,
        min_replicas: wanted.min_replicas,
        store,
    })
}

/// What is wrong with a store's servers, and was accepted; an error if it must be.
pub(super) fn accepted(
    nodes: &mut Nodes,
    accepts_lossy: bool,
) -> Result<Vec<String>, RedisStoreError> {
    let wanted = nodes.requirements();
    let findings = inspect::judge_all(&inspect::engines(nodes)?, &wanted);
    match inspect::refusal(&findings) {
        Some(found) if !accepts_lossy => Err(RedisStoreError::Lossy(found.to_string())),
        _ => Ok(findings.iter().map(ToString::to_string).collect()),
    }
}

fn at_store(nodes: &mut Nodes, finding: Finding) -> Result<ServerFinding, RedisStoreError> {
    let address = nodes.primary_of_key(super::keys::STORE)?;
    Ok(ServerFinding { address, finding })
}

/// The finding, if the error is that what is stored there is not to be used.
fn unusable(error: &RedisStoreError) -> Option<Finding> {
    let refuse = |code, what: String, why, remedy: &str| Finding {
        code,
        severity: Severity::Refuse,
        what,
        why,
        remedy: remedy.to_owned(),
    };
    match error {
        RedisStoreError::CopyIncomplete => Some(refuse(
            "copy-incomplete",
            "a copy into this store was interrupted".to_owned(),
            "a part of its hosts is missing",
            "run `lizctl store copy` again, from the same source",
        )),
        error if StoreError::from(error.clone()).kind() == ErrorKind::Incompatible => Some(refuse(
            "other-format",
            error.to_string(),
            "this program would misread it, or overwrite another program's data",
            "use the lizmon that wrote it, or other servers",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS: &str = include_str!("judge/answers/redis-7.0-primary.txt");

    fn engine(fsync: &str, os: Option<&str>) -> (Address, EngineInfo) {
        let os = os.map_or_else(String::new, |os| format!("\nos:{os}\n"));
        let engine = EngineInfo::parse(&format!("{REDIS}{os}")).unwrap();
        let address = Address {
            host: "r1".to_owned(),
            port: 6379,
        };
        (address, engine.with_config(Some(fsync)))
    }

    #[test]
    fn the_least_of_all_servers_is_promised() {
        use AcknowledgementPromise as Promise;
        let cases: [(&[&str], u32, Promise); 6] = [
            (&["always"], 0, Promise::Synced),
            (&["everysec"], 0, Promise::SyncedEachSecond),
            (&["always", "everysec"], 0, Promise::SyncedEachSecond),
            (&["always", "?"], 0, Promise::Unknown),
            (&["everysec", "everysec"], 1, Promise::Replicated(1)),
            (&["always"], 2, Promise::Replicated(2)),
        ];
        for (fsyncs, min_replicas, expected) in cases {
            let servers: Vec<_> = fsyncs.iter().map(|fsync| engine(fsync, None)).collect();
            let wanted = Requirements {
                min_replicas,
                is_durable_by_service: false,
            };
            let promise = Promise::of(&servers, &wanted);
            assert_eq!(promise, expected, "{fsyncs:?} {min_replicas}");
        }
        for (os, is_durable_by_service, expected) in [
            ("Amazon MemoryDB", false, Promise::ByService),
            ("Amazon ElastiCache", true, Promise::ByService),
            ("Amazon ElastiCache", false, Promise::Replicated(1)),
            ("Linux", true, Promise::Replicated(1)),
        ] {
            let wanted = Requirements {
                min_replicas: 1,
                is_durable_by_service,
            };
            let servers = [engine("?", Some(os))];
            assert_eq!(Promise::of(&servers, &wanted), expected, "{os}");
        }
    }
}
