//! What is shown of a store, on real servers.

use super::*;
use crate::store::redis::config::RedisConfig;
use crate::store::redis::status::{ShardFigures, SharedStoreStatus, status};
use crate::store::{ErrorKind, ShardChanges};

fn config(server: &EngineNode) -> RedisConfig {
    RedisConfig::new(server.url().parse().unwrap())
}

fn shard_of(status: &SharedStoreStatus, shard: Shard) -> &ShardFigures {
    let (found, figures) = &status.shards[shard.index()];
    assert_eq!(*found, shard);
    figures.as_ref().unwrap()
}

/// It reads with the rights to read alone, which also shows that it writes nothing.
#[test]
fn a_store_is_shown_and_left_alone() {
    let rights = "+@read +info +time +cluster|slots +cluster|keyslot +cluster|info";
    let settings = EngineSettings {
        users: vec![format!("viewer on >secret ~lizmon:* {rights}")],
        ..EngineSettings::redis()
    };
    let server = EngineNode::start(&settings);
    let password = server.folder().join("viewer.password");
    std::fs::write(&password, "secret\n").unwrap();
    let viewer = RedisConfig {
        user: Some("viewer".to_owned()),
        password_file: Some(password.clone()),
        ..config(&server)
    };
    let missing = status(viewer.clone()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Missing, "{missing}");
    assert_eq!(server.cli(&["DBSIZE"]), "0", "nothing is created");

    let mut store = open(&server.url());
    let (shard, group) = group_of(&store, "web1", 1);
    let first = store.append(&[(shard, &group)]).remove(0).unwrap();
    let member = new_id();
    store
        .attend(MemberRole::Summarizer, member, "a text", 60_000)
        .unwrap();
    let shown = status(viewer.clone()).unwrap();
    assert_eq!((shown.store.shards, shown.shards.len()), (64, 64));
    let figures = shard_of(&shown, shard);
    assert_eq!(figures.owner, None);
    assert_eq!(
        (figures.epoch, figures.journal_length, figures.uncommitted),
        (0, 1, 1)
    );
    // The group was received in 2016.
    assert!(figures.oldest_uncommitted_secs.unwrap() > 300_000_000);
    let members = &shown.members[&MemberRole::Summarizer];
    assert_eq!(members.len(), 1);
    assert!(members[0].member.contains(&member.to_string()));
    assert!(shown.members[&MemberRole::Receiver].is_empty());

    // Behind the cursor is what was appended after it.
    let fence = store.acquire(&[shard]).unwrap().remove(0);
    let _the_keys = store.load(&[shard], AT).unwrap();
    let changes = ShardChanges {
        cursor: first,
        ..ShardChanges::default()
    };
    store.commit(fence, &changes).unwrap();
    let shown = status(viewer.clone()).unwrap();
    let figures = shard_of(&shown, shard);
    let (owner, left) = figures.owner.unwrap();
    assert_eq!(owner, store.owner);
    assert!((1..=LEASE_MILLIS).contains(&left), "{left}");
    assert_eq!((figures.epoch, figures.cursor), (fence.epoch(), first));
    assert_eq!((figures.journal_length, figures.uncommitted), (1, 0));
    assert_eq!(figures.oldest_uncommitted_secs, None);
    store.append(&[(shard, &group)]).remove(0).unwrap();
    let shown = status(viewer.clone()).unwrap();
    let figures = shard_of(&shown, shard);
    assert_eq!((figures.journal_length, figures.uncommitted), (2, 1));
    assert!(figures.oldest_uncommitted_secs.is_some());

    std::fs::write(&password, "another\n").unwrap();
    let refused = status(viewer).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AccessDenied, "{refused}");
}

#[test]
fn servers_that_are_away_hide_no_other() {
    let cluster = EngineCluster::start(&EngineSettings::redis(), 3, 1);
    let node = &cluster.nodes()[0];
    drop(open(&node.url()));
    let shown = status(config(node)).unwrap();
    assert_eq!(shown.servers.len(), 3);
    let engines = shown
        .servers
        .iter()
        .map(|(_, engine)| engine.as_ref().unwrap());
    assert!(
        engines
            .clone()
            .all(|engine| engine.replicas.len() == 1 && engine.replicas[0].bytes_behind.is_some())
    );
    assert!(shown.shards.iter().all(|(_, figures)| figures.is_ok()));
    // Not that of the store's own key, nor that of the members.
    let keys = [keys::STORE.to_owned(), keys::members("receivers")];
    let needed = keys.map(|key| cluster.primary_of(cluster.slot_of(&key)).address());
    let mut primaries = cluster.nodes().iter().filter(|node| {
        let address = node.address().to_string();
        let is_primary = |(primary, _): &(config::Address, _)| primary.to_string() == address;
        shown.servers.iter().any(is_primary)
    });
    let away = primaries
        .find(|node| !needed.contains(&node.address()))
        .unwrap();
    away.kill();
    let asked = cluster.running().next().unwrap();
    let shown = status(config(asked)).unwrap();
    let unread = shown
        .shards
        .iter()
        .filter(|(_, figures)| figures.is_err())
        .count();
    assert!((1..64).contains(&unread), "{unread}");
}
