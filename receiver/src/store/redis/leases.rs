//! Keeps leases, also while a long journal is read: whoever takes over after some minutes without a
//! summarizer reads for longer than a lease lasts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use uuid::Uuid;

use super::super::shard::{Fence, Shard};
use super::error::RedisStoreError;
use super::keys;
use super::nodes::Nodes;
use super::scripts::Scripts;

/// How long a shard stays with an owner that does not renew its lease.
pub(super) const LEASE_MILLIS: u64 = 5_000;
/// How often leases are kept while something else is done.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// The leases of one owner.
#[derive(Debug)]
pub(super) struct Leases {
    owner: Uuid,
    pub(super) fences: HashMap<Shard, Fence>,
    pub(super) kept_at: Instant,
}

impl Leases {
    /// None yet.
    #[expect(clippy::disallowed_methods, reason = "paces renewals")]
    pub(super) fn of(owner: Uuid) -> Self {
        Self {
            owner,
            fences: HashMap::new(),
            kept_at: Instant::now(),
        }
    }

    /// Moves the ends of all leases, if that is due. One that cannot be renewed shows at the next
    /// commit.
    #[expect(clippy::disallowed_methods, reason = "paces renewals")]
    pub(super) fn keep(&mut self, nodes: &mut Nodes, scripts: &Scripts) {
        if self.fences.is_empty() || self.kept_at.elapsed() < KEEP_EVERY {
            return;
        }
        for fence in self.fences.values() {
            if let Err(error) = self.renew(nodes, scripts, *fence, LEASE_MILLIS) {
                let shard = fence.shard().number();
                tracing::debug!(shard, %error, "a lease was not renewed");
            }
        }
        self.kept_at = Instant::now();
    }

    /// Moves the end of a lease. Whether it is still ours.
    pub(super) fn renew(
        &self,
        nodes: &mut Nodes,
        scripts: &Scripts,
        fence: Fence,
        millis: u64,
    ) -> Result<bool, RedisStoreError> {
        let shard = fence.shard();
        let mut script = scripts.renew.prepare_invoke();
        script
            .key(keys::meta(shard))
            .arg(self.owner.to_string())
            .arg(fence.epoch())
            .arg(millis);
        let answer = nodes.run(shard, &script)?;
        bool::from_redis_value(answer).map_err(|_| RedisStoreError::Malformed {
            key: keys::meta(shard),
            why: "another answer than the script gives".to_owned(),
        })
    }
}
