//! The contract, on real servers.

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use uuid::Uuid;

use lizmon_engines::{EngineCluster, EngineNode, EngineSettings, MONITORED_NAME, SentinelGroup};
use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};

use super::super::record::{Group, Submission};
use super::super::signing::{GroupRefusal, GroupSigner, GroupVerifier, PublishedKey};
use super::*;
use crate::clock::ClockReading;
use crate::summarize::group::{GroupMember, GroupRole};

/// A receiver's key, and what all trust: keys that are published as they are.
#[derive(Debug)]
struct BareKey(Ed25519KeyPair);

impl BareKey {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }
}

impl GroupSigner for BareKey {
    fn key(&self) -> Option<PublishedKey> {
        let statement = hex::encode(self.0.public_key().as_ref());
        let id = statement[..8].to_owned();
        Some(PublishedKey { id, statement })
    }

    fn sign(&self, _key: &str, message: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.sign(message).as_ref().to_vec())
    }
}

#[derive(Debug)]
struct TrustsAll;

impl GroupVerifier for TrustsAll {
    fn verify(
        &self,
        key: &PublishedKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), GroupRefusal> {
        let public = hex::decode(&key.statement).map_err(|_| GroupRefusal::UntrustedKey)?;
        UnparsedPublicKey::new(&ED25519, public)
            .verify(message, signature)
            .map_err(|_| GroupRefusal::BadSignature)
    }
}

/// Unlike all others, as a process has it.
#[expect(
    clippy::disallowed_methods,
    reason = "tests of stores that outlive their processes"
)]
fn new_id() -> Uuid {
    Uuid::new_v4()
}

fn open(url: &str) -> RedisStore {
    let config = RedisConfig::new(url.parse().unwrap());
    let signer = Arc::new(BareKey::new());
    RedisStore::open(config, new_id(), signer, Arc::new(TrustsAll)).unwrap()
}

/// Runs the contract on these servers.
fn keeps_the_contract(url: &str) {
    super::super::contract::check_shared(&mut || open(url));
}

#[test]
fn one_redis_server_keeps_the_contract() {
    let server = EngineNode::start(&EngineSettings::redis());
    keeps_the_contract(&server.url());
}

#[test]
fn one_valkey_server_keeps_the_contract() {
    let server = EngineNode::start(&EngineSettings::valkey());
    keeps_the_contract(&server.url());
}

#[test]
fn a_redis_cluster_keeps_the_contract() {
    let cluster = EngineCluster::start(&EngineSettings::redis(), 3, 1);
    keeps_the_contract(&cluster.nodes()[0].url());
}

#[test]
fn a_valkey_cluster_keeps_the_contract() {
    let cluster = EngineCluster::start(&EngineSettings::valkey(), 3, 1);
    keeps_the_contract(&cluster.nodes()[0].url());
}

#[test]
fn a_master_with_sentinels_keeps_the_contract() {
    let group = SentinelGroup::start(&EngineSettings::redis(), 1);
    keeps_the_contract(&sentinel_url(&group));
}

fn sentinel_url(group: &SentinelGroup) -> String {
    let sentinels = group.sentinels().iter();
    let sentinels: Vec<_> = sentinels.map(|one| one.address().to_string()).collect();
    format!("redis://{}/{MONITORED_NAME}", sentinels.join(","))
}

const AT: u64 = 1_465_001_814;

fn reading(secs: u64) -> ClockReading {
    ClockReading {
        wall: AT + secs,
        monotonic: secs,
        boot: None,
    }
}

fn group_of(store: &RedisStore, host: &str, number: u64) -> (Shard, Vec<u8>) {
    let producer = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b".parse().unwrap();
    let values = SampleSet::new(vec![(Label::new("cpu").unwrap(), Value::new(1.5).unwrap())]);
    let records = [(Seq::new(number), Epoch::new(AT + number).unwrap(), &values)];
    let submission = Submission::new(&host.parse().unwrap(), AT * 2, Some(producer), AT)
        .with_records(records.into_iter());
    let mut group = Group::default();
    group.push(&submission);
    (store.shard_count().shard_of(host), group.seal().to_vec())
}

fn received(member: &GroupMember, host: &str) -> u64 {
    let table = member.table();
    let hosts = table.shard_with(host);
    let producers = hosts.get(host).map(|host| &host.producers);
    producers
        .into_iter()
        .flat_map(|all| all.values())
        .map(|one| one.set.received())
        .sum()
}

#[test]
fn summarizers_share_the_shards() {
    let server = EngineNode::start(&EngineSettings::redis());
    let url = &server.url();
    let member = |reads, summarizes| {
        let role = GroupRole { reads, summarizes };
        GroupMember::open(Box::new(open(url)), role, new_id(), reading(0)).unwrap()
    };
    let mut writer = open(url);
    let mut append = |host: &str, number| {
        let (shard, group) = group_of(&writer, host, number);
        writer.append(&[(shard, &group)]).remove(0).unwrap();
    };
    let mut reader = member(true, false);
    let before = received(&reader, "web1");
    append("web1", before + 1);
    append("web1", before + 1);
    reader.read_on(AT);
    assert_eq!(received(&reader, "web1"), before + 1);
    let mut first = member(false, true);
    first.maintain(reading(1));
    assert_eq!(first.owned().len(), 64);
    first.read_on(AT);
    let mut second = member(false, true);
    second.maintain(reading(1));
    first.maintain(reading(2));
    second.maintain(reading(2));
    assert_eq!((first.owned().len(), second.owned().len()), (32, 32));
    append("web1", before + 2);
    reader.read_on(AT);
    for secs in [3, 14, 26, 38] {
        for member in [&mut first, &mut second] {
            member.read_on(AT + secs);
            member.maintain(reading(secs));
        }
    }
    // Committed, and so there for one that begins now.
    let shard = writer.shard_count().shard_of("web1");
    let state = open(url).load(&[shard], AT).unwrap().remove(0);
    let web1 = state.hosts.iter().find(|host| host.name == "web1").unwrap();
    assert_eq!(web1.producers[0].ranges, [(1, before + 2)]);
    assert_eq!(received(&member(true, false), "web1"), before + 2);
    first.finish().unwrap();
    second.maintain(reading(40));
    assert_eq!(second.owned().len(), 64);
    second.finish().unwrap();
}

#[test]
fn a_server_is_asked_whether_it_has_lua() {
    let settings = [EngineSettings::redis(), EngineSettings::valkey()];
    for (settings, expected) in settings.iter().zip([None, Some(true)]) {
        let server = EngineNode::start(settings);
        let config = RedisConfig::new(server.url().parse().unwrap());
        let mut nodes = Nodes::open(config).unwrap();
        let address = nodes.primaries().unwrap().remove(0);
        let engine = inspect::engine(&mut nodes, &address).unwrap();
        assert_eq!(engine.has_lua, expected, "{}", engine.product);
    }
}
