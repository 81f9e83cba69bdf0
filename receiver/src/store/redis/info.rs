//! What an engine says about itself in `INFO`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// How long ago a replica may have answered last and still be counted as online.
const REPLICA_LAG_MAX_SECS: u64 = 10;

/// What `INFO` says, as far as a store depends on it. What an engine leaves out is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Which engine.
    pub product: EngineProduct,
    /// Its own version: Valkey's, where it is Valkey.
    pub version: EngineVersion,
    /// Who runs it.
    pub hosting: EngineHosting,
    /// Whether it is a server, a node of a Cluster or a Sentinel.
    pub mode: EngineMode,
    /// Whether it is reading its files after a start; it refuses all commands then.
    pub is_loading: bool,
    /// Primary or replica.
    pub role: Option<EngineRole>,
    /// Replicas of this primary that have all but the last seconds.
    pub replicas_online: u32,
    /// All replicas that are connected to it.
    pub replicas: Vec<EngineReplica>,
    /// Memory in use, in bytes.
    pub used_memory_bytes: Option<u64>,
    /// `maxmemory` in bytes; 0 is no limit.
    pub maxmemory_bytes: Option<u64>,
    /// Memory of the machine in bytes.
    pub total_memory_bytes: Option<u64>,
    /// `maxmemory-policy`.
    pub maxmemory_policy: Option<String>,
    /// Whether it writes an append-only file.
    pub has_append_only_file: Option<bool>,
    /// Whether the last write to that file worked.
    pub is_append_only_file_written: Option<bool>,
    /// Whether the last rewrite of that file worked.
    pub is_append_only_file_rewritten: Option<bool>,
    /// Whether the last snapshot worked. If not, the engine may refuse writes.
    pub is_snapshot_saved: Option<bool>,
    /// Whether server-side scripts can be Lua; Valkey can be built without since 9.1.
    pub has_lua: Option<bool>,
    /// `cluster_state` is ok: only where the text of `CLUSTER INFO` follows that of `INFO`.
    pub is_cluster_whole: Option<bool>,
    /// `appendfsync`, which `INFO` does not have: see [`Self::with_config`].
    pub append_fsync: Option<AppendFsync>,
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineProduct {
    /// Redis, or an engine that says it is.
    Redis,
    /// Valkey.
    Valkey,
}

/// MAJOR.MINOR.PATCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EngineVersion(pub u32, pub u32, pub u32);

/// Who runs it, which decides what can be configured and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineHosting {
    /// `CONFIG` and redis.conf, unless an operator forbids them.
    Own,
    /// Amazon ElastiCache: parameter groups, no `CONFIG`, no append-only file.
    ElastiCache,
    /// Amazon MemoryDB: the same, and every write is in a log of several zones before its answer.
    MemoryDb,
}

/// What kind of process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineMode {
    /// A server of its own, or one of a primary and its replicas.
    Standalone,
    /// A node of a Cluster.
    Cluster,
    /// It stores nothing.
    Sentinel,
}

/// Primary or replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineRole {
    /// It takes writes.
    Primary,
    /// It follows the engine at this address.
    Replica {
        /// HOST:PORT.
        primary: String,
    },
}

/// A replica, as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineReplica {
    /// HOST:PORT.
    pub address: String,
    /// Whether it is past its first copy of everything.
    pub is_online: bool,
    /// Seconds since it said last how far it is.
    pub lag_secs: Option<u64>,
    /// How far it is behind, in bytes of what the primary sends.
    pub bytes_behind: Option<u64>,
}

/// `appendfsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFsync {
    /// Synced before each answer.
    Always,
    /// Synced once a second.
    EverySecond,
    /// Synced when the kernel likes to.
    Never,
}

/// The text is not what `INFO` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer to INFO names no redis_version")]
pub struct NoEngineInfo;

impl EngineInfo {
    /// Reads the answer to `INFO` (all sections that a user may see), with that to `CLUSTER INFO`
    /// after it in a Cluster. Lines it does not know do no harm.
    pub fn parse(text: &str) -> Result<Self, NoEngineInfo> {
        let lines = Lines::read(text);
        let version = |name| lines.get(name).and_then(|text| text.parse().ok());
        let (product, version) = match version("valkey_version") {
            Some(version) => (EngineProduct::Valkey, version),
            None => (
                EngineProduct::Redis,
                version("redis_version").ok_or(NoEngineInfo)?,
            ),
        };
        Ok(Self {
            product,
            version,
            hosting: lines.hosting(),
            mode: lines.mode(),
            is_loading: lines.is("loading", "1").unwrap_or(false),
            role: lines.role(),
            replicas_online: lines.replicas_online(),
            replicas: lines.replicas().collect(),
            used_memory_bytes: lines.number("used_memory"),
            maxmemory_bytes: lines.number("maxmemory"),
            total_memory_bytes: lines.number("total_system_memory"),
            maxmemory_policy: lines.get("maxmemory_policy").map(str::to_owned),
            has_append_only_file: lines.is("aof_enabled", "1"),
            is_append_only_file_written: lines.is("aof_last_write_status", "ok"),
            is_append_only_file_rewritten: lines.is("aof_last_bgrewrite_status", "ok"),
            is_snapshot_saved: lines.is("rdb_last_bgsave_status", "ok"),
            has_lua: lines.has_lua(),
            is_cluster_whole: lines.is("cluster_state", "ok"),
            append_fsync: None,
        })
    }

    /// With the value of `CONFIG GET appendfsync`, where that is allowed.
    #[must_use]
    pub fn with_config(mut self, appendfsync: Option<&str>) -> Self {
        self.append_fsync = appendfsync.and_then(|value| match value {
            "always" => Some(AppendFsync::Always),
            "everysec" => Some(AppendFsync::EverySecond),
            "no" => Some(AppendFsync::Never),
            _ => None,
        });
        self
    }
}

/// What `INFO memory` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryInfo {
    used_bytes: u64,
    /// Buffers for replicas and for the append-only file: the engine leaves them out when it
    /// compares with its limit.
    uncounted_bytes: u64,
    maxmemory_bytes: u64,
    total_bytes: u64,
}

impl MemoryInfo {
    /// None if the text does not say what is in use.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let lines = Lines::read(text);
        let number = |name| lines.number(name).unwrap_or(0);
        Some(Self {
            used_bytes: lines.number("used_memory")?,
            uncounted_bytes: number("mem_not_counted_for_evict"),
            maxmemory_bytes: number("maxmemory"),
            total_bytes: number("total_system_memory"),
        })
    }

    /// What is in use of [`limit_bytes`](Self::limit_bytes).
    pub(super) fn counted_bytes(self) -> u64 {
        match self.maxmemory_bytes {
            0 => self.used_bytes,
            _ => self.used_bytes.saturating_sub(self.uncounted_bytes),
        }
    }

    /// `maxmemory`; without one, the machine has no more than its memory.
    pub(super) fn limit_bytes(self) -> Option<u64> {
        let limits = [self.maxmemory_bytes, self.total_bytes];
        limits.into_iter().find(|limit| *limit > 0)
    }
}

/// `NAME:VALUE` by name.
struct Lines<'a>(HashMap<&'a str, &'a str>);

impl<'a> Lines<'a> {
    fn read(text: &'a str) -> Self {
        let lines = text.lines().filter_map(|line| line.trim().split_once(':'));
        Self(lines.collect())
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn is(&self, name: &str, value: &str) -> Option<bool> {
        self.get(name).map(|is| is == value)
    }

    fn hosting(&self) -> EngineHosting {
        match self.get("os") {
            Some("Amazon ElastiCache") => EngineHosting::ElastiCache,
            Some("Amazon MemoryDB") => EngineHosting::MemoryDb,
            _ => EngineHosting::Own,
        }
    }

    /// Valkey calls it `server_mode`, and `redis_mode` too where it is told to.
    fn mode(&self) -> EngineMode {
        let mode = self.get("redis_mode").or_else(|| self.get("server_mode"));
        match (mode, self.is("cluster_enabled", "1")) {
            (Some("sentinel"), _) => EngineMode::Sentinel,
            (Some("cluster"), _) | (_, Some(true)) => EngineMode::Cluster,
            _ => EngineMode::Standalone,
        }
    }

    fn role(&self) -> Option<EngineRole> {
        match self.get("role")? {
            "master" => Some(EngineRole::Primary),
            _ => {
                let part = |name| self.get(name).unwrap_or("?");
                let primary = format!("{}:{}", part("master_host"), part("master_port"));
                Some(EngineRole::Replica { primary })
            }
        }
    }

    /// `slave0:ip=127.0.0.1,port=6380,state=online,offset=14,lag=0`
    fn replicas(&self) -> impl Iterator<Item = EngineReplica> {
        let sent = self.number("master_repl_offset");
        let replicas = (0_u32..).map_while(|index| self.get(&format!("slave{index}")));
        replicas.map(move |replica| {
            let field = |name| {
                let mut fields = replica.split(',').filter_map(|field| field.split_once('='));
                fields.find(|(is, _)| *is == name).map(|(_, value)| value)
            };
            let number = |name| field(name).and_then(|value| value.parse::<u64>().ok());
            let part = |name| field(name).unwrap_or("?");
            EngineReplica {
                address: format!("{}:{}", part("ip"), part("port")),
                is_online: field("state") == Some("online"),
                lag_secs: number("lag"),
                bytes_behind: sent
                    .zip(number("offset"))
                    .map(|(sent, has)| sent.saturating_sub(has)),
            }
        })
    }

    fn replicas_online(&self) -> u32 {
        let online = self.replicas().filter(|replica| {
            let is_near = |lag| lag <= REPLICA_LAG_MAX_SECS;
            replica.is_online && replica.lag_secs.is_none_or(is_near)
        });
        u32::try_from(online.count()).unwrap_or(u32::MAX)
    }

    /// `engine_0:name=LUA,module=lua,…`, in a section that engines without such modules leave out.
    fn has_lua(&self) -> Option<bool> {
        let engines = self.number("engines_count")?;
        let mut names = (0..engines).filter_map(|index| self.get(&format!("engine_{index}")));
        Some(names.any(|engine| engine.starts_with("name=LUA,")))
    }
}

impl FromStr for EngineVersion {
    type Err = NoEngineInfo;

    /// `7.0.15`; what follows the digits of the last part is left out, as in `8.0.0-rc1`.
    fn from_str(text: &str) -> Result<Self, NoEngineInfo> {
        let mut parts = text.split('.').map(|part| {
            let digits = part.find(|letter: char| !letter.is_ascii_digit());
            part[..digits.unwrap_or(part.len())].parse::<u32>().ok()
        });
        let major = parts.next().flatten().ok_or(NoEngineInfo)?;
        let mut next = || parts.next().flatten().unwrap_or(0);
        Ok(Self(major, next(), next()))
    }
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl fmt::Display for EngineProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
        })
    }
}
