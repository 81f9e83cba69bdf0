//! Methods, paths, epochs and idempotency keys that must be refused, in valid HTTP.

use serde_json::json;

use super::{PRODUCER, Stage, batch_of, record};
use crate::harness::answer;

#[tokio::test(flavor = "multi_thread")]
async fn methods() {
    let stage = Stage::set().await;
    let sample = format!("/api/perf/a/{}", stage.world.clock.now());
    let routes = [
        ("/oauth2/token", "POST"),
        ("/.well-known/oauth-authorization-server", "GET"),
        ("/.well-known/jwks.json", "GET"),
        ("/api/perf", "GET"),
        ("/api/perf/a", "GET POST"),
        (sample.as_str(), "GET POST"),
        ("/api/delivery/a", "GET"),
        ("/healthz", "GET"),
        ("/readyz", "GET"),
    ];
    for (path, allowed) in routes {
        for method in [
            "GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get", "GETT",
        ] {
            if allowed.split(' ').any(|allowed| allowed == method) {
                continue;
            }
            let story = format!("{method} {path}");
            let got = answer(stage.request(method, path)).await;
            let allow = got.header("allow").to_owned();
            assert_eq!(got.status, 405, "{story}: {}", got.text());
            for method in allowed.split(' ') {
                assert!(
                    allow.split(", ").any(|told| told == method),
                    "{story}: allow: {allow}"
                );
            }
            if path != "/oauth2/token" {
                got.refused("method_not_allowed", &story);
            }
            stage.unchanged(&story).await;
        }
    }
}

/// RFC 9110 section 9.1: HEAD is as common as GET.
#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_a_body() {
    let stage = Stage::set().await;
    for path in [
        "/healthz",
        "/readyz",
        "/.well-known/jwks.json",
        "/api/perf/a",
        "/api/delivery/a",
    ] {
        let got = answer(stage.request("HEAD", path)).await;
        assert_eq!((got.status, got.body.len()), (200, 0), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths() {
    let stage = Stage::set().await;
    let long = format!("/api/perf/{}", "a".repeat(201));
    let very_long = format!("/api/perf/{}", "a".repeat(8_000));
    for (path, code) in [
        ("/api", "not_found"),
        ("/api/", "not_found"),
        ("/api/perfx", "not_found"),
        ("/apiperf/a", "not_found"),
        ("/API/perf/a", "not_found"),
        ("/oauth2", "not_found"),
        ("/oauth2/token/", "not_found"),
        ("/healthz/", "not_found"),
        ("/.well-known/", "not_found"),
        ("/.well-known/openid-configuration", "not_found"),
        ("/api/delivery", "not_found"),
        ("/api/delivery/a/b", "not_found"),
        ("/index.php", "not_found"),
        ("/.git/config", "not_found"),
        // Of another host.
        ("/api/perf/b", "wrong_host"),
        ("/api/perf/A", "wrong_host"),
        ("/api/perf/a.", "wrong_host"),
        ("/api/perf/a%20", "wrong_host"),
        ("/api/perf/a%00", "wrong_host"),
        ("/api/perf/a%2Fb", "wrong_host"),
        ("/api/perf/a%2F..%2Fb", "wrong_host"),
        ("/api/perf/%2e%2e%2fb", "wrong_host"),
        ("/api/perf/b%2F..%2Fa", "wrong_host"),
        ("/api/perf/%C3%A4", "wrong_host"),
        ("/api/perf/a%CC%88", "wrong_host"),
        ("/api/perf/%D0%B0", "wrong_host"),
        ("/api/perf/%2561", "wrong_host"),
        ("/api/delivery/b", "wrong_host"),
        ("/api/delivery/%D0%B0", "wrong_host"),
        (&long, "wrong_host"),
        (&very_long, "wrong_host"),
    ] {
        stage.refused(stage.request("GET", path), code, path).await;
    }
    // For a reader they are unknown hosts.
    let token = stage.world.token(&stage.reader).await;
    for path in [
        "/api/perf/A",
        "/api/perf/a%00",
        "/api/perf/%C3%A4",
        "/api/delivery/b",
        &long,
    ] {
        let got = stage.world.get(&stage.reader, &token, path).await;
        got.refused("unknown_host", path);
    }
    // RFC 3986 section 2.3: an unreserved letter means the same encoded. A query means nothing
    // here.
    for path in ["/api/perf/%61", "/api/perf/a?host=b", "/api/delivery/%61"] {
        let got = answer(stage.request("GET", path)).await;
        got.json(path);
    }
}

/// Paths that are not UTF-8, or not valid percent-encoding, match no route.
#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_no_text() {
    let stage = Stage::set().await;
    for path in [
        "/api/perf/%FF",
        "/api/perf/%C3",
        "/api/delivery/%FF",
        "/%FF",
    ] {
        let got = answer(stage.request("GET", path)).await;
        assert!(
            matches!(got.status, 400 | 403 | 404),
            "{path}: {} {}",
            got.status,
            got.text()
        );
        assert_eq!(
            got.header("content-type"),
            "application/problem+json",
            "{path}"
        );
        stage.unchanged(path).await;
    }
    let got = answer(stage.request("GET", "/api/perf/a/%FF")).await;
    assert_eq!(got.json("a label that is none"), json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_in_the_path() {
    let mut stage = Stage::set().await;
    let now = stage.world.clock.now();
    let oldest = now / 3_600 * 3_600 - 86_400;
    let post = |stage: &Stage, epoch: &str| {
        stage
            .request("POST", &format!("/api/perf/a/{epoch}"))
            .body(r#"{"cpu":1}"#)
    };
    for epoch in [
        "abc",
        "-1",
        "+1",
        "1.5",
        "1e9",
        "0x10",
        "NaN",
        "9007199254740992",
        "18446744073709551616",
        "%20",
        "%00",
        "1465001814%20",
        "%D9%A1",
        "1465001814.0",
        "1465001814%2F1",
        "1465001814,1",
        &"9".repeat(400),
    ] {
        stage
            .refused(post(&stage, epoch), "malformed_epoch", epoch)
            .await;
    }
    for (epoch, code) in [
        (0, "epoch_too_old"),
        (oldest - 1, "epoch_too_old"),
        (oldest, "epoch_too_old"),
        (now + 121, "epoch_in_future"),
        (9_007_199_254_740_991, "epoch_in_future"),
    ] {
        let epoch = epoch.to_string();
        let problem = stage.refused(post(&stage, &epoch), code, &epoch).await;
        assert_eq!(problem["now"], now, "{epoch}");
    }
    for epoch in [oldest + 1, now, now + 120] {
        let request = post(&stage, &epoch.to_string());
        stage.taken(request, &format!("epoch {epoch}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys() {
    let mut stage = Stage::set().await;
    let single = |stage: &Stage, key: &str| {
        stage
            .single()
            .header("idempotency-key", key)
            .body(r#"{"cpu":1}"#)
    };
    let upper = PRODUCER.to_uppercase();
    for key in [
        "",
        "\"\"",
        "x",
        "17",
        "\"17\"",
        "\"x/17\"",
        &format!("{PRODUCER}/17"),
        &format!("'{PRODUCER}/17'"),
        &format!("\"{PRODUCER}\""),
        &format!("\"{PRODUCER}/\""),
        &format!("\"{PRODUCER}/0\""),
        &format!("\"{PRODUCER}/-1\""),
        &format!("\"{PRODUCER}/+1\""),
        &format!("\"{PRODUCER}/01\""),
        &format!("\"{PRODUCER}/1.0\""),
        &format!("\"{PRODUCER}/1e3\""),
        &format!("\"{PRODUCER}/ 1\""),
        &format!("\"{PRODUCER}/1/1\""),
        &format!("\"{PRODUCER}/9007199254740992\""),
        &format!("\"{PRODUCER}/18446744073709551617\""),
        &format!("\"{upper}/17\""),
        &format!("\"{{{PRODUCER}}}/17\""),
        &format!("\"{}/17\"", PRODUCER.replace('-', "")),
        &format!("\"{PRODUCER}/17\", \"{PRODUCER}/18\""),
        &format!("\"{PRODUCER}/17"),
        &format!("\"{PRODUCER}/17\"x"),
        &"\"".repeat(5_000),
    ] {
        stage
            .refused(single(&stage, key), "malformed_idempotency_key", key)
            .await;
    }
    let twice = single(&stage, &format!("\"{PRODUCER}/17\""))
        .header("idempotency-key", format!("\"{PRODUCER}/18\""));
    stage
        .refused(twice, "malformed_idempotency_key", "two headers")
        .await;
    for seq in [1, 9_007_199_254_740_991_u64] {
        let request = single(&stage, &format!("\"{PRODUCER}/{seq}\""));
        stage.taken(request, &seq.to_string()).await;
    }
    // The same key is the same record whatever else the request says, and is recognized before its
    // epoch is checked.
    let before = stage.stored["a"][1].clone();
    let now = stage.world.clock.now();
    for epoch in [now, now - 10, 1, now + 1_000] {
        let request = stage.request("POST", &format!("/api/perf/a/{epoch}"));
        let request = request
            .header("idempotency-key", format!("\"{PRODUCER}/1\""))
            .body(r#"{"other":9}"#);
        stage
            .taken(request, &format!("known, epoch {epoch}"))
            .await
            .no_content("answers as before");
        assert_eq!(stage.stored["a"][1], before);
    }
    // Also in a batch.
    let body = batch_of(&[record(1, 1, json!({"other": 9}))]);
    let request = stage.batch().body(body);
    let got = stage
        .taken(request, "known, in a batch")
        .await
        .json("known, in a batch");
    assert_eq!(got, json!({"accepted": 0, "duplicate": 1}));
}
