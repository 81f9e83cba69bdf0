//! The names of the keys.
//!
//! Everything of shard `p` has the hash tag `{p}`, so it is in one slot: what a failover forgets is
//! the end of the whole shard, journal, state, cursor and delivery sets together.
//!
//! ```text
//! lizmon:{store}            hash: format, shards, id; copying, until a copy into it is complete
//! lizmon:{group}:ROLE       hash: member -> until when it is there, and what it tells the others
//! lizmon:{group}:token-keys hash: key -> until when it is published, and whose it is
//! lizmon:{group}:crls       hash: SHA-256 of a CRL -> PEM of it and of its issuer's certificates
//! lizmon:{p}:journal        stream: an entry is a group, see entry.rs
//! lizmon:{p}:meta           hash: owner, until, epoch (the lease); cursor, commit, clock
//! lizmon:{p}:keys           hash: key -> whose it is: the keys that groups are signed with
//! lizmon:{p}:writers        hash: writer -> number of its last group behind the cursor, and when that was
//! lizmon:{p}:hosts          hash: host -> JSON, see host.rs
//! lizmon:{p}:documents      hash: HOST/KIND -> a host's document, /KIND -> one of the shard itself
//! lizmon:{p}:series         set: HOST/LABEL of every series
//! lizmon:{p}:series:HOST/LABEL   string: the buckets of a series, see ring.rs
//! lizmon:{p}:history:TIER:START:HOST   hash: label -> a chunk, see history.rs; expires
//! ```

use lizmon_protocol::history::HistoryTier;

use super::super::history::{ChunkKey, HistoryRetention, StoredChunk};
use super::super::shard::Shard;

/// What is the same for all shards.
pub(super) const STORE: &str = "lizmon:{store}";

/// The keys that receivers sign tokens with.
pub(super) const TOKEN_KEYS: &str = "lizmon:{group}:token-keys";
/// The CRLs in force.
pub(super) const CRLS: &str = "lizmon:{group}:crls";

/// The members with this role.
pub(super) fn members(role: &str) -> String {
    format!("lizmon:{{group}}:{role}")
}

/// The key of a shard with this name.
fn of(shard: Shard, name: &str) -> String {
    format!("lizmon:{{{}}}:{name}", shard.number())
}

pub(super) fn journal(shard: Shard) -> String {
    of(shard, "journal")
}

pub(super) fn meta(shard: Shard) -> String {
    of(shard, "meta")
}

pub(super) fn keys(shard: Shard) -> String {
    of(shard, "keys")
}

pub(super) fn writers(shard: Shard) -> String {
    of(shard, "writers")
}

pub(super) fn hosts(shard: Shard) -> String {
    of(shard, "hosts")
}

pub(super) fn series_set(shard: Shard) -> String {
    of(shard, "series")
}

pub(super) fn documents(shard: Shard) -> String {
    of(shard, "documents")
}

/// A series is `HOST/LABEL`: no node name has a slash.
pub(super) fn series(shard: Shard, series: &str) -> String {
    of(shard, &format!("series:{series}"))
}

/// What all hashes of a shard's history match. No name of a host has a sign with a meaning.
pub(super) fn history_pattern(shard: Shard) -> String {
    of(shard, "history:*")
}

/// A hash of the history: a part of a host's, from one time on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HistoryKey {
    pub(super) host: Box<str>,
    pub(super) tier: HistoryTier,
    pub(super) start: u64,
}

impl HistoryKey {
    /// That of a chunk.
    pub(super) fn of(chunk: &StoredChunk) -> Self {
        Self {
            host: chunk.host.clone(),
            tier: chunk.tier,
            start: chunk.start,
        }
    }

    /// Its name.
    pub(super) fn name(&self, shard: Shard) -> String {
        let (tier, start, host) = (self.tier.as_str(), self.start, &self.host);
        of(shard, &format!("history:{tier}:{start}:{host}"))
    }

    /// The hash with this name.
    pub(super) fn parse(shard: Shard, name: &str) -> Option<Self> {
        let rest = name.strip_prefix(&of(shard, "history:"))?;
        let (tier, rest) = rest.split_once(':')?;
        let (start, host) = rest.split_once(':')?;
        Some(Self {
            host: host.into(),
            tier: tier.parse().ok()?,
            start: start.parse().ok()?,
        })
    }

    /// The end of its last interval.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(ChunkKey::span_secs(self.tier))
    }

    /// When nothing in it is kept any more: epoch seconds.
    pub(super) fn expires(&self, retention: &HistoryRetention) -> u64 {
        self.end().saturating_add(retention.secs(self.tier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_found_by_its_name() {
        let key = HistoryKey {
            host: "web-1.a_b".into(),
            tier: HistoryTier::ByDay,
            start: 1_463_961_600,
        };
        let shard = Shard::new(7);
        let name = key.name(shard);
        assert_eq!(name, "lizmon:{7}:history:by-day:1463961600:web-1.a_b");
        assert_eq!(HistoryKey::parse(shard, &name), Some(key));
        for name in [
            "lizmon:{8}:history:by-day:0:a",
            "lizmon:{7}:history:by-day:a",
            "",
        ] {
            assert_eq!(HistoryKey::parse(shard, name), None, "{name}");
        }
    }
}
