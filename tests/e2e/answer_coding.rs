//! Answers that are compressed where the request asks for it: RFC 9110 section 12.5.3. The other
//! cases of weights are in `lizmon-receiver::body::answer_coding`.

use std::io::Read as _;

use lizmon_protocol::name::Role;
use serde_json::Value;

use crate::harness::{Answer, Holder, World, answer};

/// What the receiver answers to a request with this header, if any.
async fn get(
    world: &World,
    (holder, token): (&Holder, &str),
    path: &str,
    accept: Option<&str>,
) -> Answer {
    let mut request = holder.http.get(world.url(path)).bearer_auth(token);
    if let Some(accept) = accept {
        request = request.header("accept-encoding", accept);
    }
    answer(request).await
}

/// The body as other people's programs unpack it.
fn unpacked(got: &Answer) -> Vec<u8> {
    match got.header("content-encoding") {
        "" => got.body.clone(),
        "gzip" => {
            let mut unpacked = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&got.body[..]);
            decoder.read_to_end(&mut unpacked).unwrap();
            unpacked
        }
        "zstd" => zstd::stream::decode_all(&got.body[..]).unwrap(),
        other => panic!("{other}"),
    }
}

/// A node with this many labels.
async fn world_with_labels(count: usize) -> (World, Holder, String) {
    let world = World::start().await;
    let node = world.node("web1");
    let token = world.token(&node).await;
    let values: serde_json::Map<String, Value> = (0..count)
        .map(|at| (format!("label-{at}"), Value::from(at)))
        .collect();
    let path = format!("/api/perf/web1/{}", world.clock.now());
    let body = serde_json::to_vec(&values).unwrap();
    world
        .post(&node, &token, &path, body)
        .await
        .no_content("a sample");
    (world, node, token)
}

/// Answers made at once, compressed on another thread, and made on another thread.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_compressed_where_the_request_asks_for_it() {
    for labels in [10, 60, 100] {
        let (world, node, token) = world_with_labels(labels).await;
        let who = (&node, token.as_str());
        let path = "/api/perf/web1";
        let plain = get(&world, who, path, None).await;
        let expected = plain.json("no header");
        assert_eq!(plain.header("content-encoding"), "");
        for (accept, coding) in [
            ("", ""),
            ("gzip", "gzip"),
            ("zstd", "zstd"),
            ("gzip, zstd", "zstd"),
            ("gzip;q=1, zstd;q=0.9", "gzip"),
            ("gzip;q=0", ""),
            ("br, deflate", ""),
            ("*", "gzip"),
            ("*;q=0", ""),
            ("identity;q=0, gzip;q=0.5", "gzip"),
            ("identity, gzip;q=0.5", ""),
            ("identity;q=0", ""),
        ] {
            let story = format!("{labels} labels, {accept:?}");
            let got = get(&world, who, path, Some(accept)).await;
            assert_eq!(got.status, 200, "{story}");
            assert_eq!(got.header("content-encoding"), coding, "{story}");
            assert_eq!(got.header("vary"), "accept-encoding", "{story}");
            assert_eq!(got.header("cache-control"), "no-store", "{story}");
            assert_eq!(got.header("content-type"), "application/json", "{story}");
            assert_eq!(got.header("etag"), "", "{story}");
            let length = got.header("content-length").parse();
            assert_eq!(length, Ok(got.body.len()), "{story}");
            let body: Value = serde_json::from_slice(&unpacked(&got)).unwrap();
            assert_eq!(body, expected, "{story}");
            if !coding.is_empty() {
                assert!(got.body.len() * 5 < plain.body.len(), "{story}");
            }
        }
    }
}

/// RFC 9110 section 9.3.2: the same headers as of a GET.
#[tokio::test(flavor = "multi_thread")]
async fn head_says_what_get_would() {
    let (world, node, token) = world_with_labels(20).await;
    for accept in ["", "gzip", "zstd"] {
        let got = get(&world, (&node, &token), "/api/perf/web1", Some(accept)).await;
        let head = node.http.head(world.url("/api/perf/web1"));
        let head = answer(head.bearer_auth(&token).header("accept-encoding", accept)).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{accept}");
        for name in ["content-encoding", "content-length", "content-type", "vary"] {
            assert_eq!(head.header(name), got.header(name), "{accept}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_small_secret_or_streamed_is_sent_as_it_is() {
    let (world, node, token) = world_with_labels(100).await;
    let who = (&node, token.as_str());
    let small = get(&world, who, "/api/perf/web1/label-99", Some("gzip")).await;
    assert_eq!(small.header("content-encoding"), "");
    let forced = get(
        &world,
        who,
        "/api/perf/web1/label-99",
        Some("gzip, identity;q=0"),
    )
    .await;
    assert_eq!(forced.header("content-encoding"), "gzip");
    assert_eq!(unpacked(&forced), small.body);
    let refused = get(&world, who, "/api/perf/web2", Some("gzip")).await;
    assert_eq!(refused.header("content-encoding"), "");
    refused.refused("wrong_host", "another host");

    let form = [("grant_type", "client_credentials")];
    let asked = node.http.post(world.url("/oauth2/token")).form(&form);
    let asked = answer(asked.header("accept-encoding", "gzip, identity;q=0")).await;
    assert_eq!(asked.header("content-encoding"), "", "a token");
    assert!(asked.json("a token")["access_token"].is_string());

    let reader = world.holder(Role::Reader, "ada");
    let page = reader.http.get(world.url("/?q=web"));
    let page = answer(page.header("accept-encoding", "gzip")).await;
    assert_eq!((page.status, page.header("content-encoding")), (200, ""));
    assert!(page.body.starts_with(b"<!DOCTYPE html>"), "a page");
    let token = world.token(&reader).await;
    let live = reader.http.get(world.url("/api/live")).bearer_auth(&token);
    let live = live.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(live.status(), 200);
    assert_eq!(live.headers().get("content-encoding"), None, "a stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_is_compressed() {
    let (world, _, _) = world_with_labels(100).await;
    let operator = world.holder(Role::Operator, "olga");
    let token = world.token(&operator).await;
    for path in [
        "/api/perf",
        "/api/perf/web1",
        "/api/delivery/web1",
        "/api/history/web1/label-7",
        "/api/alarms",
        "/api/certificates",
    ] {
        let got = get(&world, (&operator, &token), path, Some("zstd, *;q=0")).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        assert_eq!(got.header("content-encoding"), "zstd", "{path}");
        let plain = get(&world, (&operator, &token), path, None).await;
        assert_eq!(plain.header("vary"), "accept-encoding", "{path}");
        let packed: Value = serde_json::from_slice(&unpacked(&got)).unwrap();
        assert!(packed.is_object(), "{path}");
    }
}
