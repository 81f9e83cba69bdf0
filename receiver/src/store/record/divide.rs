//! Divides what was stored for fewer shards.

use std::collections::BTreeMap;

use super::super::shard::{Shard, ShardCount};
use super::format::HEAD_BYTES;
use super::view::{Corrupt, SubmissionView, read_group};
use super::write::Group;

/// Divides a stored group among the shards of a store that has so many: a group for each. Each has
/// the order of the whole.
pub fn divide_group(bytes: &[u8], count: ShardCount) -> Result<BTreeMap<Shard, Vec<u8>>, Corrupt> {
    read_group(bytes)?;
    let mut rest = bytes.get(HEAD_BYTES..).unwrap_or_default();
    let mut parts: BTreeMap<_, Group> = BTreeMap::new();
    while !rest.is_empty() {
        let (submission, behind) = SubmissionView::read(rest)?;
        let encoded = rest.len().checked_sub(behind.len()).ok_or(Corrupt)?;
        let part = parts.entry(count.shard_of(submission.host)).or_default();
        part.push_encoded(&rest[..encoded]);
        rest = behind;
    }
    let sealed = parts.into_iter();
    let sealed = sealed.map(|(shard, mut group)| (shard, group.seal().to_vec()));
    Ok(sealed.collect())
}
