use std::path::PathBuf;

use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_protocol::name::Role;

use crate::{
    EngineCluster, EngineKind, EngineNode, EngineSettings, EngineTls, Fsync, SentinelGroup,
};

const KINDS: [EngineKind; 2] = [EngineKind::Redis, EngineKind::Valkey];

fn set(node: &EngineNode, value: &str) {
    assert_eq!(node.cli(&["SET", "{0}:key", value]), "OK");
}

fn get(node: &EngineNode) -> String {
    node.cli(&["GET", "{0}:key"])
}

#[test]
fn a_killed_server_has_what_it_synced() {
    for kind in KINDS {
        let mut settings = EngineSettings::new(kind);
        settings.fsync = Fsync::Always;
        let node = EngineNode::start(&settings);
        set(&node, "kept");
        node.kill();
        assert!(node.try_cli(&["PING"]).is_err(), "{kind:?}");
        node.restart();
        assert_eq!(get(&node), "kept", "{kind:?}");
        node.stop();
        node.restart();
        assert_eq!(get(&node), "kept", "{kind:?}");

        settings.fsync = Fsync::NoAppendOnlyFile;
        let node = EngineNode::start(&settings);
        set(&node, "forgotten");
        node.kill();
        node.restart();
        assert_eq!(get(&node), "", "{kind:?}");
    }
}

#[test]
fn a_paused_server_does_not_answer() {
    let node = EngineNode::start(&EngineSettings::redis());
    node.pause();
    assert!(!node.runs());
    assert!(node.try_cli(&["PING"]).is_err());
    node.resume();
    assert_eq!(node.cli(&["PING"]), "PONG");
}

#[test]
fn a_dropped_server_leaves_nothing() {
    let node = EngineNode::start(&EngineSettings::redis());
    let (pid, folder) = (node.pid().unwrap(), node.folder().to_owned());
    assert!(folder.join("engine.conf").exists());
    drop(node);
    assert!(!folder.exists());
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}

/// The launcher becomes the server, so signals reach that.
#[test]
fn a_launched_server_is_the_launchers_process() {
    for kind in KINDS {
        let mut settings = EngineSettings::new(kind);
        settings.launcher = vec!["nice".to_owned(), "-n".to_owned(), "1".to_owned()];
        let node = EngineNode::start(&settings);
        let pid = node.pid().unwrap();
        assert_eq!(node.info_line("process_id"), pid.to_string(), "{kind:?}");
        let name = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let name = String::from_utf8_lossy(&name).into_owned();
        assert!(name.contains("-server"), "{name}");
        node.kill();
        node.restart();
        assert_ne!(node.info_line("process_id"), pid.to_string(), "{kind:?}");
    }
}

#[test]
fn settings_reach_the_server() {
    for kind in KINDS {
        let mut settings = EngineSettings::new(kind);
        settings.maxmemory_bytes = 200 << 20;
        settings.maxmemory_policy = "allkeys-lru".to_owned();
        settings.lines = vec!["hz 50".to_owned()];
        let node = EngineNode::start(&settings);
        assert_eq!(node.info_line("maxmemory"), "209715200");
        assert_eq!(node.info_line("maxmemory_policy"), "allkeys-lru");
        assert_eq!(node.info_line("configured_hz"), "50");
        let version = node.info_line("redis_version");
        assert!(version.starts_with("7."), "{kind:?} {version}");
    }
}

#[test]
fn users_have_their_rights_and_no_others() {
    for kind in KINDS {
        let mut settings = EngineSettings::new(kind);
        settings.password = Some("admin".to_owned());
        settings.users = vec!["lizmon on >secret ~lizmon:* &* +@all -@dangerous".to_owned()];
        let node = EngineNode::start(&settings);
        let as_user = |words: &[&str]| {
            let user = ["--user", "lizmon", "--pass", "secret", "--no-auth-warning"];
            node.try_cli(&[&user[..], words].concat())
        };
        assert_eq!(as_user(&["SET", "lizmon:{0}:x", "1"]), Ok("OK".to_owned()));
        assert!(
            as_user(&["SET", "other", "1"])
                .unwrap_err()
                .contains("NOPERM")
        );
        assert!(as_user(&["FLUSHALL"]).unwrap_err().contains("NOPERM"));
        let nobody = [
            "--user",
            "default",
            "--pass",
            "wrong",
            "--no-auth-warning",
            "PING",
        ];
        assert!(node.try_cli(&nobody).is_err());
    }
}

/// A CA in a folder, and a server's certificate of it.
fn server_certificate(folder: &tempfile::TempDir) -> EngineTls {
    let certs = folder.path().join("certs");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let ca = Authority::init(&certs, &InitOptions::default(), now).unwrap();
    let mut request = Request::new(Role::Receiver, "redis1".parse().unwrap());
    request.sans = vec!["127.0.0.1".parse().unwrap()];
    ca.issue(request, now).unwrap();
    EngineTls {
        cert: certs.join("receivers/redis1.crt"),
        key: certs.join("receivers/redis1.key"),
        ca: certs.join("root.crt"),
        needs_client_certificate: true,
    }
}

#[test]
fn tls_wants_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = EngineSettings::redis();
    settings.tls = Some(server_certificate(&folder));
    let node = EngineNode::start(&settings);
    assert!(
        node.url().starts_with("rediss://127.0.0.1:"),
        "{}",
        node.url()
    );
    set(&node, "by a certificate");
    assert_eq!(get(&node), "by a certificate");

    let ping = |flags: &[&str]| {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["-e", "-p", &node.address().port().to_string()]);
        command.args(flags).arg("PING").output().unwrap().status
    };
    let ca = settings.tls.unwrap().ca;
    assert!(!ping(&["--tls", "--cacert", ca.to_str().unwrap()]).success());
    assert!(!ping(&[]).success());
}

/// A primary is killed: a replica that has everything takes over, and the old one follows it.
fn check_sentinel_failover(settings: &EngineSettings) {
    let group = SentinelGroup::start(settings, 2);
    let first = group.primary();
    assert_eq!(first.address(), group.nodes()[0].address());
    set(first, "replicated");
    first.wait_until_replicated(2);
    first.kill();
    let second = group.wait_for_failover(first);
    assert_eq!(get(second), "replicated");
    set(second, "newer");
    second.wait_until_replicated(1);
    first.restart();
    assert_eq!(get(group.wait_until_whole()), "newer");
    assert_eq!(first.info_line("role"), "slave");
    assert_eq!(get(first), "newer");
}

#[test]
fn sentinels_fail_over() {
    let mut settings = EngineSettings::redis();
    settings.password = Some("secret".to_owned());
    check_sentinel_failover(&settings);
}

#[test]
fn sentinels_fail_over_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = EngineSettings::redis();
    settings.tls = Some(server_certificate(&folder));
    check_sentinel_failover(&settings);
}

/// The primary of a slot is killed: its replica takes over, and the old one follows it.
fn check_cluster_failover(settings: &EngineSettings) {
    let cluster = EngineCluster::start(settings, 3, 1);
    assert_eq!(cluster.nodes().len(), 6);
    let slot = cluster.slot_of("{0}:key");
    let first = cluster.primary_of(slot);
    let replicas = cluster.replicas_of(first);
    let [replica] = replicas[..] else {
        panic!("{replicas:?}");
    };
    set(first, "replicated");
    first.wait_until_replicated(1);
    first.kill();
    let second = cluster.wait_for_failover(slot, first);
    assert_eq!(second.address(), replica.address());
    assert_eq!(get(second), "replicated");
    set(second, "newer");
    first.restart();
    second.wait_until_replicated(1);
    cluster.wait_until_whole();
    assert_eq!(cluster.replicas_of(second)[0].address(), first.address());
    assert!(get(second) == "newer" && cluster.primary_of(slot).address() == second.address());
}

#[test]
fn a_redis_cluster_fails_over_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = EngineSettings::redis();
    settings.tls = Some(server_certificate(&folder));
    settings.password = Some("secret".to_owned());
    check_cluster_failover(&settings);
}

#[test]
fn a_valkey_cluster_fails_over() {
    check_cluster_failover(&EngineSettings::valkey());
}

/// What a replica has not got is forgotten when it takes over.
#[test]
fn a_failover_forgets_what_only_the_primary_had() {
    let cluster = EngineCluster::start(&EngineSettings::valkey(), 3, 1);
    let slot = cluster.slot_of("{0}:key");
    let primary = cluster.primary_of(slot);
    set(primary, "old");
    primary.wait_until_replicated(1);
    let replica = cluster.replicas_of(primary)[0];
    replica.kill();
    set(primary, "acknowledged");
    primary.kill();
    replica.restart();
    let second = cluster.wait_for_failover(slot, primary);
    assert_eq!(get(second), "old");
}
