use lizmon_engines::{EngineNode, EngineSettings, Fsync};

use super::*;
use crate::store::redis::info::NoEngineInfo;

/// What real engines answered to `INFO`.
const PRIMARY: &str = include_str!("answers/redis-7.0-primary.txt");
const REPLICA: &str = include_str!("answers/redis-7.0-replica.txt");
const SENTINEL: &str = include_str!("answers/redis-7.0-sentinel.txt");
/// With the answer to `CLUSTER INFO`.
const CLUSTER: &str = include_str!("answers/valkey-9.1-cluster.txt");

/// Of all these but the replica.
const MAXMEMORY_BYTES: u64 = 2 << 30;

const ONE_REPLICA: Requirements = Requirements {
    min_replicas: 1,
    is_durable_by_service: false,
};

/// An answer, with lines replaced.
fn edited(text: &str, edits: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (old, new) in edits {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text = text.replace(old, new);
    }
    text
}

fn parsed(text: &str) -> EngineInfo {
    EngineInfo::parse(text).unwrap().with_config(Some("always"))
}

fn codes(findings: &[Finding]) -> Vec<(&'static str, Severity)> {
    let code = |finding: &Finding| (finding.code, finding.severity);
    findings.iter().map(code).collect()
}

#[track_caller]
fn check(text: &str, wanted: Requirements, expected: &[(&str, Severity)]) {
    assert_eq!(codes(&judge(&parsed(text), &wanted)), expected);
}

use Severity::{Refuse, Warning};

#[test]
fn what_engines_say_is_understood() {
    let primary = parsed(PRIMARY);
    assert_eq!(primary.product, EngineProduct::Redis);
    assert_eq!(primary.version, EngineVersion(7, 0, 15));
    assert_eq!(primary.hosting, EngineHosting::Own);
    assert_eq!(primary.mode, EngineMode::Standalone);
    assert_eq!(primary.role, Some(EngineRole::Primary));
    assert_eq!(primary.replicas_online, 1);
    assert_eq!(primary.maxmemory_bytes, Some(MAXMEMORY_BYTES));
    assert_eq!(primary.maxmemory_policy.as_deref(), Some("noeviction"));
    assert_eq!(primary.has_append_only_file, Some(true));
    assert_eq!(primary.has_lua, None);
    assert_eq!(primary.append_fsync, Some(AppendFsync::Always));

    let primary = "127.0.0.1:6321".to_owned();
    assert_eq!(parsed(REPLICA).role, Some(EngineRole::Replica { primary }));
    assert_eq!(parsed(SENTINEL).mode, EngineMode::Sentinel);

    let node = parsed(CLUSTER);
    assert_eq!(node.product, EngineProduct::Valkey);
    assert_eq!(node.version, EngineVersion(9, 1, 2));
    assert_eq!(node.mode, EngineMode::Cluster);
    assert_eq!(
        (node.has_lua, node.is_cluster_whole),
        (Some(true), Some(true))
    );

    // As the server sends it.
    let crlf = PRIMARY.replace('\n', "\r\n");
    assert_eq!(parsed(&crlf), parsed(PRIMARY));
    for text in [
        "",
        "ERR unknown command",
        "redis_version:",
        "redis_version:x.y",
    ] {
        assert_eq!(EngineInfo::parse(text), Err(NoEngineInfo), "{text:?}");
    }
}

#[test]
fn versions_are_numbers() {
    for (text, expected) in [
        ("7.0.15", EngineVersion(7, 0, 15)),
        ("8.0.0-rc1", EngineVersion(8, 0, 0)),
        ("255.255.255", EngineVersion(255, 255, 255)),
        ("7.2", EngineVersion(7, 2, 0)),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    assert!(EngineVersion(10, 0, 0) > EngineVersion(9, 9, 9));
}

#[test]
fn a_good_engine_has_no_findings() {
    check(PRIMARY, ONE_REPLICA, &[]);
    check(CLUSTER, ONE_REPLICA, &[]);
    // A Cluster's clients go to its primaries.
    let replica = [("role:master", "role:slave\nmaster_host:a\nmaster_port:1")];
    check(&edited(CLUSTER, &replica), ONE_REPLICA, &[]);
}

#[test]
fn each_setting_that_loses_is_found() {
    for (text, old, new, expected) in [
        (
            PRIMARY,
            "aof_enabled:1",
            "aof_enabled:0",
            ("no-append-only-file", Refuse),
        ),
        (
            PRIMARY,
            "aof_enabled:1\n",
            "",
            ("no-append-only-file", Refuse),
        ),
        (
            PRIMARY,
            "policy:noeviction",
            "policy:allkeys-lru",
            ("eviction", Refuse),
        ),
        (
            PRIMARY,
            "policy:noeviction",
            "policy:volatile-ttl",
            ("eviction", Refuse),
        ),
        (
            PRIMARY,
            "maxmemory_policy:noeviction\n",
            "",
            ("eviction", Refuse),
        ),
        (
            PRIMARY,
            "redis_version:7.0.15",
            "redis_version:6.2.14",
            ("version", Refuse),
        ),
        (
            CLUSTER,
            "valkey_version:9.1.2",
            "valkey_version:7.2.11",
            ("version", Refuse),
        ),
        (PRIMARY, "\nloading:0", "\nloading:1", ("loading", Refuse)),
        (
            PRIMARY,
            "aof_last_write_status:ok",
            "aof_last_write_status:err",
            ("append-only-file-unwritten", Refuse),
        ),
        (
            PRIMARY,
            "aof_last_bgrewrite_status:ok",
            "aof_last_bgrewrite_status:err",
            ("append-only-file-grows", Warning),
        ),
        (
            PRIMARY,
            "rdb_last_bgsave_status:ok",
            "rdb_last_bgsave_status:err",
            ("snapshot-unsaved", Warning),
        ),
        (
            PRIMARY,
            "state=online",
            "state=wait_bgsave",
            ("too-few-replicas", Warning),
        ),
        (PRIMARY, "lag=1", "lag=11", ("too-few-replicas", Warning)),
        (
            CLUSTER,
            "engine_0:name=LUA",
            "engine_0:name=WASM",
            ("no-lua", Refuse),
        ),
        (
            CLUSTER,
            "engines_count:1",
            "engines_count:0",
            ("no-lua", Refuse),
        ),
        (
            CLUSTER,
            "cluster_state:ok",
            "cluster_state:fail",
            ("cluster-down", Warning),
        ),
        (
            PRIMARY,
            "\nmaxmemory:2147483648",
            "\nmaxmemory:0",
            ("no-memory-limit", Warning),
        ),
        (
            PRIMARY,
            "\nmaxmemory:2147483648",
            "\nmaxmemory:1000",
            ("memory-limit-low", Warning),
        ),
        (
            PRIMARY,
            "\nmaxmemory:2147483648",
            "\nmaxmemory:25000000000",
            ("memory-limit-high", Warning),
        ),
    ] {
        check(&edited(text, &[(old, new)]), ONE_REPLICA, &[expected]);
    }
    let expected = [("replica", Refuse), ("no-memory-limit", Warning)];
    check(REPLICA, Requirements::default(), &expected);
    check(SENTINEL, ONE_REPLICA, &[("sentinel", Refuse)]);
}

#[test]
fn memory_in_use_is_compared_with_its_limit() {
    let used = PRIMARY
        .lines()
        .find(|line| line.starts_with("used_memory:"))
        .unwrap();
    let (at_most, more) = (MAXMEMORY_BYTES / 100 * 80, MAXMEMORY_BYTES / 100 * 80 + 1);
    for (bytes, expected) in [
        (at_most, &[][..]),
        (more, &[("memory-nearly-full", Warning)]),
    ] {
        let text = edited(PRIMARY, &[(used, &format!("used_memory:{bytes}"))]);
        check(&text, ONE_REPLICA, expected);
    }
}

#[test]
fn syncing_counts_where_no_replica_has_it() {
    let alone = edited(PRIMARY, &[("state=online", "state=send_bulk")]);
    let engine = EngineInfo::parse(&alone).unwrap();
    for (config, expected) in [
        (Some("always"), &[][..]),
        (Some("everysec"), &[("synced-each-second", Warning)]),
        (Some("no"), &[("never-synced", Refuse)]),
        (None, &[("sync-unknown", Warning)]),
        (Some("?"), &[("sync-unknown", Warning)]),
    ] {
        let engine = engine.clone().with_config(config);
        assert_eq!(
            codes(&judge(&engine, &Requirements::default())),
            expected,
            "{config:?}"
        );
    }
    for (config, expected) in [
        (Some("everysec"), &[][..]),
        (None, &[]),
        (Some("no"), &[("never-synced", Refuse)]),
    ] {
        let engine = EngineInfo::parse(PRIMARY).unwrap().with_config(config);
        assert_eq!(codes(&judge(&engine, &ONE_REPLICA)), expected, "{config:?}");
    }
    check(
        PRIMARY,
        Requirements::default(),
        &[("no-replica-awaited", Warning)],
    );
}

/// AWS's engines have neither CONFIG nor an append-only file.
#[test]
fn amazons_engines_are_judged_by_what_they_are() {
    const OWN: &str = "os:Linux 6.1.0-13-amd64 x86_64";
    let hosted = |by: &str, edits: &[(&str, &str)]| {
        let aws = [(OWN, by), ("aof_enabled:1", "aof_enabled:0")];
        let text = edited(CLUSTER, &[&aws[..], edits].concat());
        EngineInfo::parse(&text).unwrap()
    };
    let declared = Requirements {
        min_replicas: 0,
        is_durable_by_service: true,
    };
    let undeclared = ONE_REPLICA;

    let memory_db = hosted("os:Amazon MemoryDB", &[]);
    assert_eq!(codes(&judge(&memory_db, &Requirements::default())), []);

    let elasticache = hosted("os:Amazon ElastiCache", &[]);
    assert_eq!(codes(&judge(&elasticache, &declared)), []);
    let findings = judge(&elasticache, &undeclared);
    assert_eq!(codes(&findings), [("durability-unknown", Refuse)]);
    assert!(
        findings[0].remedy.contains("durability = \"sync\"")
            && findings[0].remedy.ends_with("--store-durability service"),
        "{}",
        findings[0]
    );

    for edit in [
        ("valkey_version:9.1.2", "valkey_version:8.2.0"),
        ("cluster_enabled:1", "cluster_enabled:0"),
        ("valkey_version:9.1.2\n", ""),
    ] {
        let mut edits = vec![edit];
        if edit.1 == "cluster_enabled:0" {
            edits.push(("server_mode:cluster", "server_mode:standalone"));
        }
        let engine = hosted("os:Amazon ElastiCache", &edits);
        let findings = judge(
            &engine,
            &Requirements {
                min_replicas: 1,
                ..declared
            },
        );
        assert_eq!(codes(&findings), [("no-durability", Refuse)], "{edit:?}");
    }

    let evicts = [("policy:noeviction", "policy:volatile-lru")];
    let findings = judge(&hosted("os:Amazon ElastiCache", &evicts), &declared);
    assert_eq!(codes(&findings), [("eviction", Refuse)]);
    assert_eq!(
        findings[0].remedy,
        "set maxmemory-policy = noeviction in its parameter group"
    );
}

#[test]
fn the_worst_comes_first_and_says_what_to_do() {
    let bad = [
        ("aof_enabled:1", "aof_enabled:0"),
        ("policy:noeviction", "policy:allkeys-lru"),
        ("\nmaxmemory:2147483648", "\nmaxmemory:0"),
    ];
    let findings = judge(&parsed(&edited(PRIMARY, &bad)), &ONE_REPLICA);
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "maxmemory-policy is allkeys-lru: an engine that is full drops whole keys: a shard's \
             journal, state or delivery sets; `maxmemory-policy noeviction` in redis.conf, or \
             `CONFIG SET maxmemory-policy noeviction` and `CONFIG REWRITE`",
            "the engine has no append-only file (aof_enabled:0): after a restart it is as empty as at \
             its last snapshot: all acknowledged samples since then are gone; `appendonly yes` in \
             redis.conf, or `CONFIG SET appendonly yes` and `CONFIG REWRITE`",
            "maxmemory is 0: nothing limits the engine's memory: without summarizers it grows until \
             the kernel kills it; with a limit the receivers answer 503 first; `maxmemory 18079mb` in \
             redis.conf, or `CONFIG SET maxmemory 18079mb` and `CONFIG REWRITE`",
        ]
    );
}

/// Engines that run now say what is expected of them, and obey the remedies.
#[test]
fn real_engines_are_judged_and_mended() {
    for mut settings in [EngineSettings::redis(), EngineSettings::valkey()] {
        settings.fsync = Fsync::NoAppendOnlyFile;
        settings.maxmemory_policy = "allkeys-lru".to_owned();
        let node = EngineNode::start(&settings);
        let judged = || {
            let config = node.cli(&["CONFIG", "GET", "appendfsync"]);
            let engine = EngineInfo::parse(&node.info()).unwrap();
            judge(
                &engine.with_config(config.lines().nth(1)),
                &Requirements::default(),
            )
        };
        let findings = judged();
        let expected = [
            ("eviction", Refuse),
            ("no-append-only-file", Refuse),
            ("no-memory-limit", Warning),
        ];
        assert_eq!(codes(&findings), expected);
        for finding in findings {
            let command = finding
                .remedy
                .split('`')
                .find(|part| part.starts_with("CONFIG SET"));
            let words: Vec<&str> = command.unwrap().split(' ').collect();
            assert_eq!(node.cli(&words), "OK");
        }
        assert_eq!(codes(&judged()), [("synced-each-second", Warning)]);
        assert_eq!(node.cli(&["CONFIG", "SET", "appendfsync", "always"]), "OK");
        assert_eq!(judged(), []);
    }
}
