//! Brings the journal of a version before, which had fewer shards, to the shards of today.

use super::super::record::divide_group;
use super::batch;
use super::read::Groups;
use super::schema::SHARDS;

/// Divides the groups of each row among the shards of their hosts. A row of today stays as it is.
pub(super) fn rows(groups: &mut Groups) {
    for row in groups.values_mut() {
        if let Some(divided) = divide(row) {
            *row = divided;
        }
    }
}

/// The row with its groups divided; `None` if every group is in its shard, or cannot be read: the
/// row is what was written, so nothing else could read it either.
fn divide(row: &[u8]) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    let mut is_changed = false;
    for section in batch::sections(row) {
        let (shard, group) = section?;
        let divided = divide_group(group, SHARDS).ok()?;
        is_changed |= divided.keys().any(|of_host| *of_host != shard);
        parts.extend(divided);
    }
    if !is_changed {
        return None;
    }
    // A shard of today is part of one of then, so no two groups are of the same.
    parts.sort();
    let parts: Vec<_> = parts
        .iter()
        .map(|(shard, group)| (*shard, group.as_slice()))
        .collect();
    let mut divided = Vec::new();
    batch::encode(&parts, &mut divided);
    Some(divided)
}
