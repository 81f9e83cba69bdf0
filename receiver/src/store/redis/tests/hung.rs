//! A primary that is stopped and keeps its connections: it holds up its own shards alone.

use super::*;
use crate::clock::Clocks;
use crate::journal::{GATHER_WINDOW, Journal};
use crate::store::SharedStore;
use crate::watch::{HIGH_WATER_PERCENT, Watch, WatchStatus};

fn submission(host: &str, number: u64) -> Submission {
    let values = SampleSet::new(vec![(Label::new("cpu").unwrap(), Value::new(1.5).unwrap())]);
    let records = [(Seq::new(number), Epoch::new(AT).unwrap(), &values)];
    let producer = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b".parse().unwrap();
    Submission::new(&host.parse().unwrap(), AT * 2, Some(producer), AT)
        .with_records(records.into_iter())
}

fn open_without_replicas(url: &str) -> RedisStore {
    let config = RedisConfig {
        replicas_min: Some(0),
        ..RedisConfig::new(url.parse().unwrap())
    };
    let keys = GroupKeys {
        signer: Some(Arc::new(BareKey::new())),
        verifier: Arc::<TrustsNewer>::default(),
    };
    RedisStore::open(config, new_id(), keys).unwrap()
}

/// All groups of one append were answered together: requests for all servers waited until the one
/// that hung was given up.
#[tokio::test]
async fn a_hung_primary_holds_up_no_other() {
    let cluster = EngineCluster::start(&EngineSettings::redis(), 3, 0);
    let url = &cluster.nodes()[1].url();
    let role = GroupRole {
        reads: true,
        summarizes: false,
    };
    let store = open_without_replicas(url);
    let shards = store.shard_count();
    let mut member = GroupMember::open(Box::new(store), role, new_id(), reading(0)).unwrap();
    let status = WatchStatus::new(HIGH_WATER_PERCENT, shards, member.counts());
    let status = Arc::new(status);
    let config = RedisConfig::new(url.parse().unwrap());
    let watch = super::super::open_watch(config, shards).unwrap();
    Watch::new(Box::new(watch), status.clone())
        .look(AT, 0)
        .unwrap();
    assert_eq!(status.placement().servers(), 3);
    let store = |_| -> Box<dyn SharedStore> { Box::new(open_without_replicas(url)) };
    let stores = (0..3).map(store).collect();
    let clocks = Clocks::of_one(Arc::new(|| AT));
    let (journal, threads) =
        Journal::start_shared(stores, &member.table(), status, GATHER_WINDOW, clocks).unwrap();

    let host_at = |node: &EngineNode| {
        let is_there = |host: &String| {
            let journal = keys::journal(shards.shard_of(host));
            cluster.primary_of(cluster.slot_of(&journal)).address() == node.address()
        };
        let hosts = (0..).map(|number| format!("web{number}"));
        hosts.into_iter().find(is_there).unwrap()
    };
    let (hung, healthy) = (&cluster.nodes()[0], &cluster.nodes()[1]);
    let (of_hung, of_healthy) = (host_at(hung), host_at(healthy));
    for host in [&of_hung, &of_healthy] {
        journal.submit(submission(host, 1), AT).await.unwrap();
    }
    hung.pause();
    let mut waiting = Box::pin(journal.submit(submission(&of_hung, 2), AT));
    tokio::select! {
        biased;
        answer = &mut waiting => panic!("the one that hangs was first: {answer:?}"),
        answer = journal.submit(submission(&of_healthy, 2), AT) => assert_eq!(answer.unwrap().accepted, 1),
    }
    hung.resume();
    // Whatever that has come to: it is sent again, and counts once.
    let _acknowledged_or_not = waiting.await;
    while journal.submit(submission(&of_hung, 2), AT).await.is_err() {
        tokio::task::yield_now().await;
    }
    drop(journal);
    // The runtime goes on meanwhile.
    let joined = tokio::task::spawn_blocking(|| threads.join()).await;
    joined.unwrap().unwrap();
    member.read_on(AT);
    let counted = [of_hung, of_healthy].map(|host| received(&member, &host));
    assert_eq!(counted, [2, 2]);
}
