//! What holders use of their limits, as receivers tell each other.

use lizmon_mtls::quota_use::{HolderQuotas, HolderUse, TOLD_MAX};
use lizmon_protocol::name::SpiffeId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::{Member, MemberRole, Members, StoreError};

/// A receiver that does not attend for so long is gone, and what it told is not counted any more.
const ATTENDANCE_MILLIS: u64 = 3_000;

/// Tells the other receivers what was granted here, and counts what they tell.
#[derive(Debug)]
pub(super) struct UsageExchange {
    quotas: HolderQuotas,
    member: Uuid,
    /// How many receivers there are.
    receivers: usize,
}

/// What a receiver tells.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    /// Of holders that use a good part of their limit, what was granted in the last second.
    used: Vec<Used>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Used {
    holder: SpiffeId,
    requests: u32,
    records: u32,
}

impl UsageExchange {
    pub(super) fn new(quotas: HolderQuotas, member: Uuid) -> Self {
        Self {
            quotas,
            member,
            receivers: 1,
        }
    }

    /// To be called every second.
    pub(super) fn exchange(&mut self, store: &mut dyn Members) -> Result<(), StoreError> {
        let told = Told {
            used: self
                .quotas
                .take_use(self.receivers)
                .into_iter()
                .map(|one| Used {
                    holder: one.holder,
                    requests: one.requests,
                    records: one.records,
                })
                .collect(),
        };
        let text = serde_json::to_string(&told).unwrap_or_default();
        let role = MemberRole::Receiver;
        let members = store.attend(role, self.member, &text, ATTENDANCE_MILLIS)?;
        self.receivers = members.len();
        let others = members.iter().filter(|member| member.id != self.member);
        for used in others.flat_map(told_by) {
            self.quotas.charge(&HolderUse {
                holder: used.holder,
                requests: used.requests,
                records: used.records,
            });
        }
        Ok(())
    }

    /// Others need not wait until we are gone.
    pub(super) fn finish(&self, store: &mut dyn Members) {
        if let Err(error) = store.leave(MemberRole::Receiver, self.member) {
            tracing::debug!(%error, "other receivers could not be told that this one stops");
        }
    }
}

/// Nothing, where it is not what a receiver writes; and no more than a receiver tells, because each
/// holder has a quota here from then on.
fn told_by(member: &Member) -> Vec<Used> {
    let mut told: Told = serde_json::from_str(&member.text).unwrap_or_default();
    told.used.truncate(TOLD_MAX);
    told.used
}
