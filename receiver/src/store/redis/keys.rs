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
//! ```

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
