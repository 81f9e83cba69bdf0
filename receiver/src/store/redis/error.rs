//! What fails at a Redis or Valkey server.

use std::path::PathBuf;

use redis::RedisError;

use super::super::error::{ErrorKind, StoreError};
use super::super::shard::Shard;
use super::config::Address;

/// Why a Redis store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RedisStoreError {
    /// A file of the configuration.
    #[error("{file}: cannot be read: {why}", file = file.display())]
    File { file: PathBuf, why: String },
    /// No connection, or it broke: whether the command took effect is unknown.
    #[error("{address}: no connection to Redis, or it broke")]
    Connection {
        address: Address,
        source: Box<RedisError>,
    },
    /// The server answered with an error.
    #[error("{address}: Redis refused a command")]
    Refused {
        address: Address,
        source: Box<RedisError>,
    },
    /// A server was found to be down a moment ago.
    #[error("{address}: no connection to Redis a moment ago")]
    Down { address: Address },
    /// A receiver without a key that others trust appends nothing.
    #[error(
        "journal groups cannot be signed: there is no token key, or this receiver's certificate is \
         not valid"
    )]
    NoSigningKey,
    /// The answer has another shape than the command's.
    #[error("{address}: the answer to {command} is not understood")]
    Answer {
        address: Address,
        command: &'static str,
    },
    /// No server knows the master's present address.
    #[error("no Sentinel knows a master named {name}")]
    NoMaster { name: String },
    /// Sentinels were found without the name of a master.
    #[error(
        "{address} is a Sentinel: add the master's name to the URL, as in redis://{address}/mymaster"
    )]
    NoMasterName { address: Address },
    /// The name of a master, but the servers are no Sentinels.
    #[error("{address} is not a Sentinel: leave `/{name}` out of the URL")]
    NotASentinel { address: Address, name: String },
    /// The cluster has no primary for the shard's slot.
    #[error("the cluster has no primary for shard {shard}")]
    NoPrimary { shard: u16 },
    /// `WAIT` was confirmed by too few replicas.
    #[error("{address}: {replicas} replicas have the write, {wanted} are wanted (--min-replicas)")]
    TooFewReplicas {
        address: Address,
        replicas: i64,
        wanted: u32,
    },
    /// The server would lose what was acknowledged, or take nothing.
    #[error("{0}; --accept-lossy-store goes on all the same")]
    Lossy(String),
    /// What is stored is not ours, or of another version.
    #[error("{key}: not a lizmon store of this version: {why}")]
    Incompatible { key: String, why: String },
    /// A copy into the store was interrupted.
    #[error(
        "this store is incomplete: a copy into it was interrupted; run `lizctl store copy` again"
    )]
    CopyIncomplete,
    /// A copy goes to servers without a store.
    #[error(
        "{url} holds a store already: name other servers, or remove its keys, `lizmon:*`, if nobody \
         needs it"
    )]
    NotEmpty { url: String },
    /// The same, though its own key is gone.
    #[error(
        "shard {shard} is left of a store whose own key is gone: name other servers, or remove its \
         keys, `lizmon:*`, if nobody needs it"
    )]
    Remains { shard: u16 },
    /// Another copy has begun since.
    #[error("another copy into this store has begun since: this one is given up")]
    CopyOvertaken,
    /// There is none, and none is to be created.
    #[error("there is no lizmon store on these servers: a receiver creates it at its first start")]
    NoStore,
    /// A value that no lizmon wrote.
    #[error("{key}: not what lizmon writes there: {why}")]
    Malformed { key: String, why: String },
    /// The state was committed again and again while it was read.
    #[error("shard {shard} changed while it was read")]
    Changing { shard: u16 },
    /// Another process owns the shard, or the server has lost the last commit, or what was read.
    #[error(
        "shard {shard}: another process has acquired it, or Redis has lost its last commit or its journal's end"
    )]
    Fenced { shard: u16 },
    /// There is nothing to rebuild: the servers keep their files themselves.
    #[error("a Redis store is not rebuilt from memory: restore the server's own backup")]
    NotRebuilt,
}

impl RedisStoreError {
    pub(super) fn fenced(shard: Shard) -> Self {
        Self::Fenced {
            shard: shard.number(),
        }
    }

    /// Whether a server was there and did not answer in time.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Connection { source, .. } if source.is_timeout())
    }

    /// Whether the servers' roles may have changed.
    pub(super) fn is_topology(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::NoPrimary { .. } | Self::Down { .. } => true,
            Self::Refused { source, .. } => is_topology(source),
            _ => false,
        }
    }
}

impl RedisStoreError {
    /// Whether a command may be sent once more: the connection broke, or the server is no primary
    /// any more.
    pub(super) fn is_worth_another(&self) -> bool {
        !matches!(self, Self::Down { .. }) && self.is_topology()
    }
}

/// Whether it was not reached at all, or did not let us in.
fn of_server(error: &RedisError) -> ErrorKind {
    let refused = ["NOAUTH", "NOPERM", "WRONGPASS", "DENIED"];
    let is_refused = error.code().is_some_and(|code| refused.contains(&code));
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => ErrorKind::AccessDenied,
        _ if is_refused => ErrorKind::AccessDenied,
        _ if error.code() == Some("OOM") => ErrorKind::Full,
        redis::ErrorKind::Io if !is_of_tls(error) => ErrorKind::Unreachable,
        _ => ErrorKind::Unavailable,
    }
}

/// Whether the server was reached, and the two sides do not trust each other. So says rustls.
fn is_of_tls(error: &RedisError) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::InvalidData)
}

/// MOVED, ASK, READONLY and the like.
fn is_topology(error: &RedisError) -> bool {
    let is_read_only = matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN"));
    error.is_cluster_error() || is_read_only
}

impl From<RedisStoreError> for StoreError {
    fn from(error: RedisStoreError) -> Self {
        let kind = match &error {
            RedisStoreError::Fenced { .. } => ErrorKind::Fenced,
            RedisStoreError::Incompatible { .. }
            | RedisStoreError::Lossy(_)
            | RedisStoreError::CopyIncomplete
            | RedisStoreError::CopyOvertaken
            | RedisStoreError::NotEmpty { .. }
            | RedisStoreError::Remains { .. } => ErrorKind::Incompatible,
            RedisStoreError::NoStore => ErrorKind::Missing,
            RedisStoreError::TooFewReplicas { .. } => ErrorKind::Unconfirmed,
            RedisStoreError::Connection { source, .. }
            | RedisStoreError::Refused { source, .. } => of_server(source),
            RedisStoreError::Down { .. } => ErrorKind::Unreachable,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, error)
    }
}
