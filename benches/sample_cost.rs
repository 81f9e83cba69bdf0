//! What a sample costs in a store, without a connection.

use std::time::Duration;

use lizmon_receiver::store::Store;
use lizmon_receiver::summarize::Summarizer;

use crate::full_store::{HOSTS_A_GROUP, of_group, submission, take};

/// The CPU time of a sample set of each host in the journal, and in the summaries.
pub(crate) fn sample_cost(
    store: &mut dyn Store,
    summarizer: &mut Summarizer,
    (hosts, now): (u64, u64),
) -> (Duration, Duration) {
    let rounds = 20_000_u64.div_ceil(hosts).max(2);
    let (mut appending, mut applying) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        for first in (0..hosts).step_by(HOSTS_A_GROUP as usize) {
            let epochs = [now + round % 60];
            let submissions = of_group(first, hosts).map(|host| submission(host, &epochs, now));
            let (append, apply) = take(store, summarizer, &submissions.collect::<Vec<_>>());
            appending += append;
            applying += apply;
        }
    }
    let records = (rounds * hosts) as u32;
    (appending / records, applying / records)
}
