//! What machines are: what is taken of a monitor, how long it is there, and what is refused.

use serde_json::{Value, json};

use crate::harness::{Answer, Holder, World, answer};

async fn put(world: &World, node: &Holder, body: impl Into<reqwest::Body>) -> Answer {
    let token = world.token(node).await;
    let request = node.http.put(world.url("/api/facts/a"));
    answer(request.bearer_auth(token).body(body)).await
}

async fn shown(world: &World) -> Value {
    world.stored(&world.reader()).await["a"][0]["facts"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_facts_are_there_after_a_restart() {
    let mut world = World::start().await;
    let node = world.node("a");
    let token = world.token(&node).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let sample = world.post(&node, &token, &path, r#"{"cpu":1}"#).await;
    sample.no_content("a sample");
    assert_eq!(shown(&world).await, Value::Null);
    let first = json!({"os": "Debian GNU/Linux 12", "cores": 2, "old": 1});
    let second = json!({"os": "Debian GNU/Linux 13 🦎", "cores": 2.5, "boot-epoch": 1_465_001_000});
    for facts in [&first, &second] {
        put(&world, &node, facts.to_string())
            .await
            .no_content("facts");
        assert_eq!(shown(&world).await, *facts);
    }
    let bad = [
        ("[1]", "malformed_json", "an object of facts"),
        ("", "malformed_json", "EOF"),
        (
            r#"{"os":"a","os":"b"}"#,
            "malformed_json",
            "`os` is there twice",
        ),
        (
            r#"{"os":{"name":"Debian"}}"#,
            "invalid_values",
            "`os`: a fact is a text or a number",
        ),
        (
            r#"{"Kernel":"6.1"}"#,
            "invalid_values",
            "`Kernel`: a key is",
        ),
        (
            r#"{"os":"a\u001b[2Jb"}"#,
            "invalid_values",
            "`os`: a text has",
        ),
    ];
    for (body, code, part) in bad {
        let got = put(&world, &node, body).await;
        got.refused(code, body);
        assert!(got.text().contains(part), "{body}: {}", got.text());
    }
    let large = |bytes: usize| format!("{{\"os\":\"x\"{}}}", " ".repeat(bytes - 10));
    put(&world, &node, large(4_097))
        .await
        .refused("body_too_large", "4,097 bytes");
    assert_eq!(shown(&world).await, second);
    world.restart().await;
    assert_eq!(shown(&world).await, second);
    put(&world, &node, large(4_096))
        .await
        .no_content("4,096 bytes");
    assert_eq!(shown(&world).await, json!({"os": "x"}));
}

/// At and over each limit, by a receiver as it is.
#[tokio::test(flavor = "multi_thread")]
async fn facts_have_limits() {
    let world = World::start().await;
    let node = world.node("a");
    let object = |pairs: &[(String, String)]| {
        let pairs = pairs
            .iter()
            .map(|(key, text)| (key.clone(), text.clone().into()));
        Value::Object(pairs.collect()).to_string()
    };
    let one = |key: usize, text: usize| {
        object(&[(
            "k".repeat(key),
            "é".repeat(text / 2) + &"x".repeat(text % 2),
        )])
    };
    let many = |count: usize| {
        let pairs: Vec<_> = (0..count)
            .map(|at| (format!("k{at}"), String::new()))
            .collect();
        object(&pairs)
    };
    let cases = [
        (one(64, 256), None),
        (one(65, 256), Some("a key is 1 to 64")),
        (one(64, 257), Some("at most 256 bytes")),
        (many(64), None),
        (many(65), Some("at most 64 facts")),
    ];
    for (body, refused) in cases {
        let got = put(&world, &node, body.clone()).await;
        match refused {
            None => got.no_content(&body),
            Some(part) => {
                got.refused("invalid_values", &body);
                assert!(got.text().contains(part), "{body}: {}", got.text());
            }
        }
    }
    // The last that was taken is what is there.
    let token = world.token(&node).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let sample = world.post(&node, &token, &path, r#"{"cpu":1}"#).await;
    sample.no_content("a sample");
    assert_eq!(
        shown(&world).await.as_object().map(|all| all.len()),
        Some(64)
    );
}
