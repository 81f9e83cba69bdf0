//! The end of a run: each numbered record counts once, and of the others those that were
//! acknowledged.

use std::thread::sleep;
use std::time::{Duration, Instant};

use lizmon_client::{Client, Error};
use lizmon_protocol::name::{NodeName, Role};
use lizmon_protocol::summary::Summaries;

use super::Plan;
use super::load::Load;
use super::network::{GroupNetwork, receiver_url};
use crate::audit::audit;
use crate::programs::epoch_now;

/// A monitor asks each minute what is missing, and sends it again.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) fn check(network: &GroupNetwork, mut load: Load, plan: Plan) {
    let (posted, gaps) = load.stop_measuring();
    eprintln!("the reader: {gaps:?}");
    let by = Instant::now() + REPAIR_TIMEOUT;
    let readers = network.clients(Role::Reader, "chaos-reader");
    let counts = load.counts.clone();
    // Repair goes on until everything is there: the monitors are ended after that.
    let stopped = Instant::now();
    for (host, recorded) in load.recorded() {
        wait_until_complete(&load, &readers[0], &host, recorded, by);
    }
    eprintln!(
        "nothing is missing {:?} after the faults have ended",
        stopped.elapsed()
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let numbered = load.end();
    eprintln!("{} monitors: {counts:?}", numbered.len());
    for (at, (host, recorded)) in numbered.iter().enumerate() {
        let url = receiver_url((at % 3) as u8);
        audit(
            &network.credentials(Role::Reader, "chaos-reader"),
            &url,
            host,
        );
        let count = runtime.block_on(settled_count(&readers[at % readers.len()], host, *recorded));
        assert_eq!(count, *recorded, "{host}: twice or lost");
    }
    let (mut forgotten, mut sum) = (0, [0; 3]);
    for (at, (host, posted)) in posted.iter().enumerate() {
        let most = posted.acknowledged + posted.unknown;
        let reader = &readers[at % readers.len()];
        let count = runtime.block_on(settled_count(reader, host, posted.acknowledged));
        assert!(count <= most, "{host}: {count} are more than {posted:?}");
        forgotten += posted.acknowledged.saturating_sub(count);
        sum[0] += posted.acknowledged;
        sum[1] += posted.unknown;
        sum[2] += posted.refused;
    }
    eprintln!(
        "without numbers: {} acknowledged, {} unknown, {} refused; {forgotten} of the acknowledged were forgotten",
        sum[0], sum[1], sum[2]
    );
    // Each was in a replica, and no two servers of a shard were broken at once.
    if plan.min_replicas > 0 {
        assert_eq!(forgotten, 0, "acknowledged after WAIT, and forgotten");
    }
}

/// Until each number that the host's monitor has given has arrived.
fn wait_until_complete(load: &Load, reader: &Client, host: &NodeName, recorded: u64, by: Instant) {
    loop {
        let answer = load.runtime.block_on(reader.delivery(host, epoch_now()));
        let delivery = match answer {
            Ok(delivery) => delivery,
            Err(error) => {
                assert!(Instant::now() < by, "{host}: {error}");
                sleep(POLL_INTERVAL);
                continue;
            }
        };
        let is_whole = delivery
            .producers
            .iter()
            .all(|producer| producer.missing.is_empty());
        let received: u64 = delivery
            .producers
            .iter()
            .map(|producer| producer.received)
            .sum();
        if is_whole && received >= recorded && delivery.as_of.is_none() {
            return;
        }
        assert!(
            Instant::now() < by,
            "{host}: {recorded} recorded, and there is {delivery:?}"
        );
        sleep(POLL_INTERVAL);
    }
}

/// The host's samples, as soon as there are so many.
async fn settled_count(reader: &Client, host: &NodeName, wanted: u64) -> u64 {
    let by = Instant::now() + Duration::from_secs(10);
    loop {
        let count = match reader.summaries(host, None, epoch_now()).await {
            Ok(summaries) => samples(&summaries),
            Err(Error::Refused { status: 404, .. }) => 0,
            Err(error) => panic!("{host}: {error}"),
        };
        if count >= wanted || Instant::now() > by {
            return count;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn samples(summaries: &Summaries) -> u64 {
    let minutes = summaries.get("summary:by-minute:cpu");
    let averages = minutes.iter().flat_map(|summary| &summary.averages);
    averages.map(|average| average.num_samples).sum()
}
