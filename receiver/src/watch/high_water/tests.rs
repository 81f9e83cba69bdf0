use std::num::NonZeroU16;

use super::*;
use crate::store::Position;

const MIB: u64 = 1 << 20;
const SHARDS: u16 = 4;

fn shard(number: u16) -> Shard {
    Shard::new(number)
}

/// A server of 100 MiB with these shards.
fn server(name: &str, shards: &[u16], used: u64) -> ServerReading {
    ServerReading {
        name: name.to_owned(),
        shards: shards.iter().copied().map(Shard::new).collect(),
        used_bytes: used * MIB,
        limit_bytes: Some(100 * MIB),
    }
}

fn reading(servers: Vec<ServerReading>) -> StoreReading {
    StoreReading {
        servers,
        ..StoreReading::default()
    }
}

fn high_water() -> HighWater {
    HighWater::new(85, ShardCount::new(NonZeroU16::new(SHARDS).unwrap()))
}

/// The servers say this, and nothing was appended meanwhile.
fn note(mark: &HighWater, servers: Vec<ServerReading>) -> Vec<String> {
    let then = mark.appended_then();
    let full = mark.note(&reading(servers), &then);
    full.iter().map(Full::name).collect()
}

/// Which shards take a byte.
fn taking(mark: &HighWater) -> Vec<u16> {
    let shards = (0..SHARDS).filter(|number| mark.admit([(shard(*number), 1)].into_iter())[0]);
    shards.collect()
}

#[test]
fn the_shards_of_a_full_server_take_nothing() {
    let mark = high_water();
    assert_eq!(taking(&mark), [0, 1, 2, 3], "nothing is known");
    // What is in use, whether the server is full, one reading after the other.
    for (used, is_full) in [
        (84, false),
        (85, true),
        (84, true),
        (80, true),
        (79, false),
        (84, false),
        (100, true),
        (10, false),
    ] {
        let servers = vec![server("a", &[0, 1], used), server("b", &[2, 3], 10)];
        let full = note(&mark, servers);
        let (name, left) = match is_full {
            true => (vec!["a"], vec![2, 3]),
            false => (vec![], vec![0, 1, 2, 3]),
        };
        assert_eq!(full, name, "{used}");
        assert_eq!(taking(&mark), left, "{used}");
    }
}

#[test]
fn what_was_appended_since_counts() {
    let mark = high_water();
    let empty = || vec![server("a", &[0, 1], 70)];
    note(&mark, empty());
    let mib = MIB as usize;
    // A MiB takes up to one and a half.
    let requests = (0..20).map(|number| (shard(number % 2), mib));
    let taken = mark.admit(requests.clone());
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 10);
    assert!(taken[..10].iter().all(|taken| *taken), "the first ones");
    note(&mark, empty());
    mark.appended(shard(0), 9 * mib);
    let taken = mark.admit(requests.clone());
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    // The servers said what they say before the last group was appended.
    let then = mark.appended_then();
    mark.appended(shard(1), 9 * mib);
    let full = mark.note(&reading(vec![server("a", &[0, 1], 75)]), &then);
    assert_eq!(full.len(), 1);
    note(&mark, empty());
    assert_eq!(taking(&mark), [0, 1, 2, 3]);
    // Three receivers append as much as this one.
    let members = StoreReading {
        members: vec![(MemberRole::Receiver, 3), (MemberRole::Summarizer, 9)],
        ..reading(empty())
    };
    mark.note(&members, &mark.appended_then());
    let taken = mark.admit(requests);
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 4);
}

#[test]
fn one_journal_leaves_the_others_room() {
    let mark = high_water();
    let of = |number, journal: u64| ShardReading {
        shard: shard(number),
        cursor: Position::START,
        waiting_groups: 1,
        journal_bytes: Some(journal * MIB),
        is_owned: true,
    };
    for (journal, is_full) in [(49, false), (50, true), (46, true), (44, false)] {
        let reading = StoreReading {
            shards: vec![of(0, journal), of(1, 1)],
            ..reading(vec![server("a", &[0, 1, 2, 3], 60)])
        };
        let full = mark.note(&reading, &mark.appended_then());
        let full: Vec<_> = full.iter().map(Full::name).collect();
        let (name, left) = match is_full {
            true => (vec!["the journal of shard 0"], vec![1, 2, 3]),
            false => (vec![], vec![0, 1, 2, 3]),
        };
        assert_eq!(full, name, "{journal}");
        assert_eq!(taking(&mark), left, "{journal}");
    }
}

#[test]
fn a_failover_gives_shards_another_server() {
    let mark = high_water();
    note(&mark, vec![server("a", &[0, 1, 2, 3], 90)]);
    assert!(taking(&mark).is_empty());
    // One that does not answer is as full as it was.
    note(&mark, vec![server("b", &[2, 3], 10)]);
    assert_eq!(taking(&mark), [2, 3]);
    assert_eq!(note(&mark, vec![server("c", &[0, 1], 10)]), [""; 0]);
    assert_eq!(taking(&mark), [0, 1, 2, 3]);
}

#[test]
fn who_says_no_limit_has_none_and_who_refuses_is_full() {
    let mark = high_water();
    let endless = ServerReading {
        limit_bytes: None,
        ..server("a", &[0, 1], 1 << 20)
    };
    note(&mark, vec![endless, server("b", &[2, 3], 10)]);
    assert_eq!(taking(&mark), [0, 1, 2, 3]);
    mark.has_no_memory(shard(2));
    assert_eq!(taking(&mark), [0, 1]);
    note(&mark, vec![server("b", &[2, 3], 10)]);
    assert_eq!(taking(&mark), [0, 1, 2, 3]);
}
