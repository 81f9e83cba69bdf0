//! `lizctl store`, on real servers.

use std::path::Path;

use lizmon_engines::{EngineCluster, EngineNode, EngineSettings, Fsync};
use serde_json::{Value, json};

use crate::harness::process::{Finished, program, run};

fn store(words: &[&str]) -> Finished {
    run(program("lizctl").arg("store").args(words))
}

fn json_of(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"))
}

#[test]
fn servers_are_judged_as_at_a_start() {
    let settings = EngineSettings {
        fsync: Fsync::Always,
        maxmemory_bytes: 128 << 20,
        ..EngineSettings::redis()
    };
    let server = EngineNode::start(&settings);
    let url = &server.url();
    let well = store(&["check", url]).success();
    assert!(well.contains("all is well"), "{well}");
    let promise = "a 204 means: it is in the server's log, synced";
    assert!(well.contains(promise), "{well}");
    assert!(well.contains("there is no store yet"), "{well}");
    // Warnings do not stop a start.
    server.cli(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let warned = store(&["check", url, "--json"]);
    let verdict = json_of(&warned);
    warned.success();
    assert_eq!(
        (&verdict["starts"], &verdict["promise"]["code"]),
        (&json!(true), &json!("synced-each-second"))
    );
    let found = &verdict["findings"][0];
    assert_eq!(
        (&found["severity"], &found["code"]),
        (&json!("warning"), &json!("synced-each-second"))
    );
    // The worst first, and each with its remedy.
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let refused = store(&["check", url]);
    let why = refused.failure(1);
    assert!(
        why.contains("maxmemory-policy") && why.contains("noeviction"),
        "{why}"
    );
    let rows: Vec<_> = refused.stdout.lines().collect();
    assert!(rows[0].starts_with("SEVERITY"), "{rows:?}");
    assert!(
        rows[1].starts_with("refuse ") && rows[1].contains("CONFIG SET maxmemory-policy"),
        "{rows:?}"
    );
    assert!(rows[2].starts_with("warning "), "{rows:?}");
    assert_eq!(server.cli(&["DBSIZE"]), "0", "nothing is written");
}

#[test]
fn a_cluster_is_judged_with_its_replicas() {
    let cluster = EngineCluster::start(&EngineSettings::valkey(), 3, 1);
    let url = &cluster.nodes()[0].url();
    let checked = store(&["check", url, "--json"]);
    let verdict = json_of(&checked);
    checked.success();
    assert_eq!(
        (&verdict["min-replicas"], &verdict["promise"]["code"]),
        (&json!(1), &json!("replicated"))
    );
    assert_eq!(verdict["servers"].as_array().unwrap().len(), 3);
    let more = store(&["check", url, "--min-replicas", "2"]).success();
    assert!(more.contains("--min-replicas is 2"), "{more}");
}

#[test]
fn exit_codes_tell_who_is_away_and_who_is_refused() {
    let settings = EngineSettings {
        password: Some("secret".to_owned()),
        ..EngineSettings::redis()
    };
    let server = EngineNode::start(&settings);
    let url = &server.url();
    for verb in ["check", "status"] {
        let refused = store(&[verb, url]);
        assert!(refused.failure(3).contains("refused"), "{refused:?}");
    }
    let password = server.folder().join("password");
    std::fs::write(&password, "secret").unwrap();
    let password = as_text(&password);
    let missing = store(&["status", url, "--store-password-file", password]);
    let why = missing.failure(1);
    assert!(why.contains("there is no lizmon store"), "{why}");
    server.kill();
    for verb in ["check", "status"] {
        let away = store(&[verb, url, "--store-password-file", password]);
        assert!(away.failure(4).contains(&url["redis://".len()..]));
    }
}

fn as_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
