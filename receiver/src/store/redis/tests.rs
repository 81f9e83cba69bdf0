//! The contract, on real servers.

mod full;
mod hung;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use uuid::Uuid;

use lizmon_engines::{EngineCluster, EngineNode, EngineSettings, MONITORED_NAME, SentinelGroup};
use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};

use super::super::members::{Member, MemberRole, Members, SharedTrust};
use super::super::record::{Group, Submission};
use super::super::signing::{GroupKeys, GroupRefusal, GroupSigner, GroupVerifier, PublishedKey};
use super::*;
use crate::clock::ClockReading;
use crate::summarize::group::{GroupMember, GroupRole};

/// A receiver's key, published as it is, with the number of its certificate.
#[derive(Debug)]
struct BareKey {
    pair: Ed25519KeyPair,
    certificate: AtomicU64,
}

impl BareKey {
    fn new() -> Self {
        Self {
            pair: Ed25519KeyPair::generate().unwrap(),
            certificate: AtomicU64::new(1),
        }
    }
}

impl GroupSigner for BareKey {
    fn key(&self, _store: &str) -> Option<PublishedKey> {
        let public = hex::encode(self.pair.public_key().as_ref());
        let certificate = self.certificate.load(Ordering::Relaxed);
        let (id, statement) = (public[..8].to_owned(), format!("{public} {certificate}"));
        Some(PublishedKey { id, statement })
    }

    fn sign(&self, _key: &str, message: &[u8]) -> Option<Vec<u8>> {
        Some(self.pair.sign(message).as_ref().to_vec())
    }
}

/// Trusts all keys but those of certificates that are revoked: all up to a number.
#[derive(Debug, Default)]
struct TrustsNewer {
    revoked: AtomicU64,
}

impl TrustsNewer {
    /// The public key, if it is trusted.
    fn public(&self, key: &PublishedKey) -> Option<Vec<u8>> {
        let (public, certificate) = key.statement.split_once(' ')?;
        let is_newer = certificate.parse::<u64>().ok()? > self.revoked.load(Ordering::Relaxed);
        hex::decode(public).ok().filter(|_| is_newer)
    }
}

impl GroupVerifier for TrustsNewer {
    fn trusts(&self, _store: &str, key: &PublishedKey) -> bool {
        self.public(key).is_some()
    }

    fn verify(
        &self,
        _store: &str,
        key: &PublishedKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), GroupRefusal> {
        let public = self.public(key).ok_or(GroupRefusal::UntrustedKey)?;
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
    open_with(url, &Arc::new(BareKey::new()), &Arc::default())
}

fn open_with(url: &str, signer: &Arc<BareKey>, verifier: &Arc<TrustsNewer>) -> RedisStore {
    try_open(url, signer, verifier).unwrap()
}

fn try_open(
    url: &str,
    signer: &Arc<BareKey>,
    verifier: &Arc<TrustsNewer>,
) -> Result<RedisStore, StoreError> {
    let config = RedisConfig::new(url.parse().unwrap());
    let keys = GroupKeys {
        signer: Some(signer.clone()),
        verifier: verifier.clone(),
    };
    RedisStore::open(config, new_id(), keys)
}

/// Runs the contract on these servers.
fn keeps_the_contract(url: &str) {
    super::super::contract::check_shared(&mut || open(url));
    super::super::contract::check_sharing(&mut || open(url));
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

/// One primary that was away cost an owner the shards of all: its leases were renewed in turn, up
/// to the first that failed.
#[test]
fn leases_at_one_server_do_not_hang_on_another() {
    let cluster = EngineCluster::start(&EngineSettings::redis(), 3, 1);
    let primary = |shard: Shard| cluster.primary_of(cluster.slot_of(&keys::meta(shard)));
    let away = primary(Shard::new(0));
    let mut store = open(&away.url());
    let shards: Vec<_> = store.shard_count().all().collect();
    let fences = store.acquire(&shards).unwrap();
    let is_elsewhere = |shard: &Shard| primary(*shard).address() != away.address();
    let other = shards.into_iter().find(is_elsewhere).unwrap();
    let end = || -> u64 {
        let end = primary(other).cli(&["HGET", &keys::meta(other), "until"]);
        end.parse().unwrap()
    };
    let before = end();
    away.kill();
    assert_eq!(store.renew(&fences).unwrap().len(), fences.len());
    assert!(end() > before);
    // At the end, too.
    let _of_the_killed = store.release(&fences);
    assert_eq!(end(), 0);
}

/// In a cluster what belongs to no shard is at one primary, too.
#[test]
fn members_tell_each_other_keys_and_crls() {
    let cluster = EngineCluster::start(&EngineSettings::redis(), 3, 0);
    let url = &cluster.nodes()[0].url();
    let (mut one, mut other) = (open(url), open(url));
    let [first, second] = [1, 2].map(Uuid::from_u128);
    let texts = |members: Vec<Member>| -> Vec<_> {
        members
            .into_iter()
            .map(|member| (member.id, member.text))
            .collect()
    };
    let said = |id, text: &str| (id, text.to_owned());
    let attend = |store: &mut RedisStore, id, text, millis| {
        texts(
            store
                .attend(MemberRole::Receiver, id, text, millis)
                .unwrap(),
        )
    };
    assert_eq!(attend(&mut one, first, "a b", 60_000), [said(first, "a b")]);
    let both = [said(first, "a b"), said(second, "")];
    assert_eq!(attend(&mut other, second, "", 60_000), both);
    other.leave(MemberRole::Receiver, second).unwrap();
    assert_eq!(attend(&mut one, first, "c", 60_000), [said(first, "c")]);
    let summarizers = other
        .attend(MemberRole::Summarizer, second, "", 60_000)
        .unwrap();
    assert_eq!(texts(summarizers), [said(second, "")]);

    let key = |id: &str| PublishedKey {
        id: id.to_owned(),
        statement: format!("statement of {id}"),
    };
    one.publish_keys(&[key("k1"), key("k2")], 60_000).unwrap();
    let all = [key("k1"), key("k2"), key("k3")];
    assert_eq!(other.publish_keys(&[key("k3")], 60_000).unwrap(), all);
    assert_eq!(one.publish_keys(&[], 60_000).unwrap(), all);

    // The same server's clock for all of them.
    let [before, after] = [one.time(), other.time()].map(|time| time.unwrap().unwrap());
    assert!(Duration::from_secs(AT) < before && before <= after);

    assert_eq!(one.crl_names().unwrap(), [""; 0]);
    one.add_crl("n1", "a CRL").unwrap();
    assert_eq!(other.crl_names().unwrap(), ["n1"]);
    assert_eq!(other.crl("n1").unwrap().as_deref(), Some(&b"a CRL"[..]));
    other.remove_crl("n1").unwrap();
    assert_eq!(one.crl("n1").unwrap(), None);
}

/// A failover forgot the end of a journal, and others appended there before the owner read on: its
/// commit trimmed what they appended, which was acknowledged and never counted.
#[test]
fn what_was_forgotten_is_not_committed() {
    let server = EngineNode::start(&EngineSettings::redis());
    let (mut owner, mut writer) = (open(&server.url()), open(&server.url()));
    let (shard, group) = group_of(&writer, "web1", 1);
    let mut append = || writer.append(&[(shard, &group)]).remove(0).unwrap();
    let fence = owner.acquire(&[shard]).unwrap().remove(0);
    owner.load(&[shard], AT).unwrap();
    let cursor = append();
    let read = owner.read_after(&[(shard, Position::START)], &mut |_, _, _| ());
    assert_eq!(read.through, [(shard, cursor)]);
    server.cli(&["DEL", &keys::journal(shard)]);
    assert_eq!(append(), cursor, "in the same place");
    let changes = ShardChanges {
        cursor,
        ..ShardChanges::default()
    };
    assert!(owner.commit(fence, &changes).is_err());
    owner.load(&[shard], AT).unwrap();
    owner.read_after(&[(shard, Position::START)], &mut |_, _, _| ());
    owner.commit(fence, &changes).unwrap();
}

/// A summarizer that took over after some minutes without one read for longer than its leases
/// lasted: it lost all of them, began again, and never committed anything.
#[test]
fn leases_are_kept_while_a_long_journal_is_read() {
    let server = EngineNode::start(&EngineSettings::redis());
    let mut store = open(&server.url());
    let (shard, group) = group_of(&store, "web1", 1);
    let fences = store.acquire(&[shard]).unwrap();
    store.append(&[(shard, &group)]).remove(0).unwrap();
    let ends_before = server.cli(&["HINCRBY", &keys::meta(shard), "until", "-2000"]);
    store.leases.kept_at -= std::time::Duration::from_secs(2);
    let mut groups = 0;
    store
        .read_after(&[(shard, Position::START)], &mut |_, _, _| groups += 1)
        .complete()
        .unwrap();
    assert_eq!(groups, 1);
    let end = |text: &str| text.parse::<u64>().unwrap();
    let ends = server.cli(&["HGET", &keys::meta(shard), "until"]);
    assert!(end(&ends) > end(&ends_before) + 1_000);
    assert_eq!(store.renew(&fences).unwrap(), fences);
}

/// One without points is marked when it is opened: a program of then would take points for damage.
#[test]
fn a_store_of_the_format_before_is_marked() {
    let server = EngineNode::start(&EngineSettings::redis());
    drop(open(&server.url()));
    let format = || server.cli(&["HGET", keys::STORE, "format"]);
    assert_eq!(format(), "2");
    server.cli(&["HSET", keys::STORE, "format", "1"]);
    // Who looks only changes nothing.
    let looked = super::status::status(RedisConfig::new(server.url().parse().unwrap()));
    assert_eq!(looked.unwrap().store.format, 1);
    assert_eq!(format(), "1");
    drop(open(&server.url()));
    assert_eq!(format(), "2");
    server.cli(&["HSET", keys::STORE, "format", "3"]);
    let later = try_open(&server.url(), &Arc::new(BareKey::new()), &Arc::default());
    let refused = later.unwrap_err().in_full();
    assert!(refused.contains("its format is 3"), "{refused}");
    assert_eq!(format(), "3");
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

/// The key stays, and what is said about it changes. Who appends says it again, and who reads asks
/// again before a group is refused: it is not offered a second time.
#[test]
fn a_renewed_certificate_costs_no_group() {
    let server = EngineNode::start(&EngineSettings::redis());
    let (key, verifier) = (Arc::new(BareKey::new()), Arc::<TrustsNewer>::default());
    let mut writer = open_with(&server.url(), &key, &verifier);
    let mut reader = open_with(&server.url(), &key, &verifier);
    let (shard, group) = group_of(&writer, "web1", 1);
    let mut at = Position::default();
    let mut read = |append: bool| {
        if append {
            writer.append(&[(shard, &group)]).remove(0).unwrap();
        }
        let mut groups = 0;
        let report = reader.read_after(&[(shard, at)], &mut |_, _, _| groups += 1);
        assert!(report.unread.is_empty() && report.rewound.is_empty());
        at = report.through.first().map_or(at, |(_, through)| *through);
        groups
    };
    assert_eq!(read(true), 1);
    key.certificate.store(2, Ordering::Relaxed);
    assert_eq!(read(true), 1, "by what was published first");
    verifier.revoked.store(1, Ordering::Relaxed);
    assert_eq!(read(true), 1, "by what was published since");
    verifier.revoked.store(2, Ordering::Relaxed);
    assert_eq!(read(true), 0, "nothing newer is published");
    assert_eq!(reader.refusals.get(&GroupRefusal::UntrustedKey), Some(&1));
}
