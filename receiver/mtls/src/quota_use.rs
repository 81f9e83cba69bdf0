//! What holders use of their quotas, for servers that share the limits.
//!
//! A holder may come to several servers. Each tells the others, every second, which holders use a
//! good part of their limit; and each counts what is used elsewhere as if it were used here. So a
//! holder has its limit once, but for the first second and for what no server tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lizmon_protocol::name::SpiffeId;

use crate::client_quota::ClientQuotas;
use crate::limits::Limits;

/// What a holder was granted in the last second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderUse {
    /// Whose.
    pub holder: SpiffeId,
    /// Requests.
    pub requests: u32,
    /// Records.
    pub records: u32,
}

/// How many holders are told of, those with most requests and records first.
pub const TOLD_MAX: usize = 256;
/// What a holder must use at one server to be told of: this part of what each server's share of the
/// limit is. So what is not told is less than a quarter of the limit in all.
const TOLD_PART: u32 = 4;

/// The quotas of all holders at this server.
#[derive(Debug, Clone)]
pub struct HolderQuotas {
    pub(crate) quotas: Arc<ClientQuotas>,
    pub(crate) limits: Limits,
}

impl HolderQuotas {
    /// What holders were granted here since the last call, of those that use a good part of their
    /// limit at one of so many servers. To be called every second.
    pub fn take_use(&self, servers: usize) -> Vec<HolderUse> {
        let servers = u32::try_from(servers).unwrap_or(u32::MAX).max(1);
        let limits = &self.limits;
        let least = |limit: u32| (limit / servers.saturating_mul(TOLD_PART)).max(1);
        let (requests_least, records_least) = (
            least(limits.requests_per_second_max.get()),
            least(limits.records_per_second_max.get()),
        );
        let mut told = Vec::new();
        self.quotas.for_each(|holder, quota| {
            let requests = quota.counted.requests.swap(0, Ordering::Relaxed);
            let records = quota.counted.records.swap(0, Ordering::Relaxed);
            if requests >= requests_least || records >= records_least {
                told.push(HolderUse {
                    holder: holder.clone(),
                    requests,
                    records,
                });
            }
        });
        let part =
            |one: &HolderUse| (one.requests / requests_least).max(one.records / records_least);
        told.sort_by_key(|one| std::cmp::Reverse(part(one)));
        told.truncate(TOLD_MAX);
        told
    }

    /// Counts here what a holder was granted elsewhere.
    pub fn charge(&self, elsewhere: &HolderUse) {
        let quota = self.quotas.of(&elsewhere.holder, &self.limits);
        quota.charge_elsewhere(elsewhere.requests, elsewhere.records);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::limits::RECORDS_AT_ONCE_MAX;

    /// A hundred requests a second. One record a second, so that none comes back meanwhile.
    fn quotas() -> HolderQuotas {
        HolderQuotas {
            quotas: Arc::new(ClientQuotas::new()),
            limits: Limits {
                requests_per_second_max: NonZeroU32::new(100).unwrap(),
                records_per_second_max: NonZeroU32::MIN,
                ..Limits::default()
            },
        }
    }

    fn holder(number: usize) -> SpiffeId {
        let id = format!("spiffe://lizmon/node/n{number}");
        id.try_into().unwrap()
    }

    fn take(server: &HolderQuotas, number: usize, requests: u32) -> usize {
        let quota = server.quotas.of(&holder(number), &server.limits);
        (0..requests).filter(|_| quota.take().is_ok()).count()
    }

    fn takes_records(server: &HolderQuotas, number: usize, records: u32) -> bool {
        let quota = server.quotas.of(&holder(number), &server.limits);
        quota.take_records(records).is_ok()
    }

    const ALL: u32 = RECORDS_AT_ONCE_MAX.get();

    /// At two servers the limit of a holder's certificate is one.
    #[test]
    fn what_is_used_elsewhere_is_not_left_here() {
        let (one, other) = (quotas(), quotas());
        assert!(takes_records(&one, 1, ALL - 1_000));
        let told = one.take_use(2);
        let records = told.iter().map(|one| one.records);
        assert_eq!(records.collect::<Vec<_>>(), [ALL - 1_000]);
        told.iter().for_each(|elsewhere| other.charge(elsewhere));
        assert!(!takes_records(&other, 1, 1_500));
        assert!(takes_records(&other, 1, 900));
        // What was counted elsewhere is not told back.
        assert_eq!(other.take_use(2)[0].records, 900);
        assert_eq!(one.take_use(2), []);
    }

    #[test]
    fn more_than_there_is_takes_all() {
        let server = quotas();
        let elsewhere = HolderUse {
            holder: holder(1),
            requests: u32::MAX,
            records: u32::MAX,
        };
        server.charge(&elsewhere);
        assert!(!takes_records(&server, 1, 100));
        assert!(takes_records(&server, 2, ALL));
    }

    #[test]
    fn little_use_is_not_told_and_the_most_comes_first() {
        for (servers, requests, is_told) in [
            (1, 24, false),
            (1, 25, true),
            (5, 4, false),
            (5, 5, true),
            (1_000, 1, true),
        ] {
            let server = quotas();
            take(&server, 1, requests);
            let told = !server.take_use(servers).is_empty();
            assert_eq!(told, is_told, "{servers} {requests}");
        }
        let server = quotas();
        let holders = TOLD_MAX + 5;
        for number in 0..holders {
            take(&server, number, if number == holders - 1 { 90 } else { 25 });
        }
        let told = server.take_use(1);
        assert_eq!((told.len(), told[0].requests), (TOLD_MAX, 90));
    }
}
