//! Slow, many and greedy clients: the limits in docs/receiver.md. They are short here; another test
//! checks the defaults.

use std::num::NonZeroU32;
use std::time::Duration;

use lizmon_mtls::limits::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::raw::{self, tls_config};
use crate::harness::{World, answer};

const SHORT: Duration = Duration::from_millis(400);
/// Far more than a short limit, far less than a default limit.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn the_defaults_are_the_promised_ones() {
    let limits = Limits::default();
    assert_eq!(limits.handshake_timeout, Duration::from_secs(10));
    assert_eq!(limits.first_request_timeout, Duration::from_secs(10));
    assert_eq!(limits.idle_timeout, Duration::from_secs(120));
    assert_eq!(limits.connection_age, Duration::from_secs(3_600));
    assert_eq!(limits.connections_per_address_max, 20_000);
    assert_eq!(limits.requests_per_second_max.get(), 10_000);
    assert_eq!(limits.records_per_second_max.get(), 500_000);
    let files = World::without_receiver(|_| ());
    let config = lizmon_receiver::Config::new(files.trust_files(), files.data());
    assert_eq!(config.body_timeout, Duration::from_secs(30));
    assert_eq!(config.token_ttl, Duration::from_secs(300));
    assert_eq!(config.crl_grace, Duration::from_secs(72 * 3_600));
    assert_eq!(config.token_key_life, Duration::from_secs(30 * 86_400));
    assert!(config.gather_window <= Duration::from_millis(2));
}

/// Waits until the receiver closes this connection; returns what it sent.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin), story: &str) -> Vec<u8> {
    let mut said = Vec::new();
    let end = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await;
    // A reset counts as a close.
    let _how = end.unwrap_or_else(|_| panic!("{story}: still open"));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_is_cut_and_stalls_no_client() {
    let world = World::start_with(|config| config.limits.handshake_timeout = SHORT).await;
    let mut slow = Vec::new();
    for at in 0..100 {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port()))
            .await
            .unwrap();
        // No bytes at all, or the first bytes of a ClientHello.
        if at % 2 == 0 {
            stream
                .write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
                .await
                .unwrap();
        }
        slow.push(stream);
    }
    world.healthy().await;
    for stream in &mut slow {
        let said = closed(stream, "a slow handshake").await;
        assert!(
            said.is_empty() || said[0] == 0x15,
            "nothing, or an alert: {said:?}"
        );
    }
    world.healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_first_head_is_cut() {
    let world = World::start_with(|config| config.limits.first_request_timeout = SHORT).await;
    let node = world.node("a");
    for (alpn, begun) in [
        ("http/1.1", &b""[..]),
        ("http/1.1", b"G"),
        ("http/1.1", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"),
        ("http/1.1", b"GET /healthz HTTP/1.1\r\nX: "),
        ("h2", b""),
        ("h2", b"PRI * HTTP/2.0\r\n"),
    ] {
        let story = format!("{alpn} {:?}", String::from_utf8_lossy(begun));
        let mut stream = raw::connect(
            &world,
            tls_config(&world.root(), Some(node.shown()), &[alpn]),
        )
        .await
        .unwrap();
        stream.write_all(begun).await.unwrap();
        let said = closed(&mut stream, &story).await;
        assert!(
            matches!(raw::status(&said), 0 | 408),
            "{story}: {}",
            String::from_utf8_lossy(&said)
        );
    }
    world.healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_answered_408() {
    let world = World::start_with(|config| config.body_timeout = SHORT).await;
    let (node, reader) = (world.node("a"), world.reader());
    let token = world.token(&node).await;
    for (framing, begun) in [
        ("Content-Length: 100", "{\"cpu\""),
        ("Content-Length: 100", ""),
        ("Transfer-Encoding: chunked", "6\r\n{\"cpu\"\r\n"),
    ] {
        let path = format!("/api/perf/a/{}", world.clock.now());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{framing}\r\n\r\n{begun}"
        );
        let mut stream = raw::connect(
            &world,
            tls_config(&world.root(), Some(node.shown()), &["http/1.1"]),
        )
        .await
        .unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = vec![0; 4096];
        let read = tokio::time::timeout(SOON, stream.read(&mut said))
            .await
            .expect("an answer in time");
        said.truncate(read.unwrap());
        let text = String::from_utf8_lossy(&said);
        assert_eq!(raw::status(&said), 408, "{framing}: {text}");
        assert!(text.contains("request_timeout"), "{framing}: {text}");
    }
    assert_eq!(world.stored(&reader).await, serde_json::json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let world = World::start_with(|config| config.limits.idle_timeout = SHORT).await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let config = || tls_config(&world.root(), None, &["http/1.1"]);
    let mut stream = raw::connect(&world, config()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let said = closed(&mut stream, "idle after a request").await;
    assert_eq!(raw::status(&said), 200);
    // Bytes between requests do not keep it open.
    let mut stream = raw::connect(&world, config()).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.write_all(b"GET /heal").await.unwrap();
    let said = closed(&mut stream, "idle in the middle of a head").await;
    assert_eq!(raw::status(&said), 200);
    // HTTP/2: the client's preface, empty settings, then nothing but pings.
    let mut stream = raw::connect(&world, tls_config(&world.root(), None, &["h2"]))
        .await
        .unwrap();
    let preface = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
    ]
    .concat();
    stream.write_all(&preface).await.unwrap();
    stream
        .write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        .await
        .unwrap();
    closed(&mut stream, "HTTP/2 with pings alone").await;
}

/// hyper's header timeout also runs while a keep-alive connection idles, so it must not be as short
/// as that of the first head.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_idle_for_longer_than_a_head_may_take() {
    let world = World::start_with(|config| config.limits.first_request_timeout = SHORT).await;
    let config = || tls_config(&world.root(), None, &["http/1.1"]);
    let mut kept = raw::connect(&world, config()).await.unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut said = [0; 1024];
    let read = kept.read(&mut said).await.unwrap();
    assert_eq!(raw::status(&said[..read]), 200);
    // Two later connections, one after the other, are closed for lack of a head: twice that time
    // has passed.
    for at in ["first", "second"] {
        let mut mute = raw::connect(&world, config()).await.unwrap();
        let said = closed(&mut mute, at).await;
        assert!(matches!(raw::status(&said), 0 | 408), "{at}");
    }
    let last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let said = raw::exchange(&mut kept, last).await.unwrap();
    assert_eq!(raw::status(&said), 200, "it is still served");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_connections() {
    let world = World::start_with(|config| config.limits.connections_per_address_max = 3).await;
    let config = || tls_config(&world.root(), None, &["http/1.1"]);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(raw::connect(&world, config()).await.unwrap());
    }
    assert!(raw::connect(&world, config()).await.is_err(), "the fourth");
    let mut first = open.remove(0);
    first.shutdown().await.unwrap();
    drop(first);
    // The slot is free once the receiver has seen the close, so retry until then.
    let retried = async {
        while raw::connect(&world, config()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, retried)
        .await
        .expect("a place is free again");
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_has_so_many_requests() {
    let world = World::start_with(|config| {
        config.limits.requests_per_second_max = NonZeroU32::new(5).expect("not zero");
    })
    .await;
    let (a, b) = (world.node("a"), world.node("b"));
    let path = format!("/api/perf/a/{}", world.clock.now());
    let token = world.token(&a).await;
    // Over several connections, because the limit is per certificate.
    let posts = (0..20).map(|_| world.post(&a, &token, &path, r#"{"cpu":1}"#));
    let got = futures_util::future::join_all(posts).await;
    let good = got.iter().filter(|got| got.status == 204).count();
    let over: Vec<_> = got.iter().filter(|got| got.status != 204).collect();
    assert!(good >= 1 && !over.is_empty(), "{good} were good");
    for got in over {
        got.refused("rate_limited", "over the limit");
    }
    // Other clients are not affected.
    let token = world.token(&b).await;
    let path = format!("/api/perf/b/{}", world.clock.now());
    world
        .post(&b, &token, &path, r#"{"cpu":1}"#)
        .await
        .no_content("another certificate");
    let client = world.client(None, &["http/1.1"]);
    assert_eq!(answer(client.get(world.url("/healthz"))).await.status, 200);
}

/// A few compressed kilobytes may hold a million values, so values are limited; a day's backlog
/// passes at once.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the limit is of real time")]
async fn a_certificate_has_so_many_records() {
    const A_DAY: u64 = 86_400;
    let world = World::start_with(|config| {
        // Little is replenished while the test runs.
        config.limits.records_per_second_max = NonZeroU32::new(1).expect("not zero");
    })
    .await;
    let (a, b) = (world.node("a"), world.node("b"));
    let (token, reader) = (world.token(&a).await, world.reader());
    let now = world.clock.now();
    let begun = std::time::Instant::now();
    let mut next = A_DAY + 1;
    let batch = |from: u64, records: u64, values: &str| {
        let record = |seq| format!(r#"{{"seq":{seq},"epoch":{now},"values":{values}}}"#);
        let records: Vec<_> = (from..from + records).map(record).collect();
        let records = records.join(",");
        let batch = format!(
            r#"{{"producer":"1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b","records":[{records}]}}"#
        );
        zstd::encode_all(batch.as_bytes(), 0).unwrap()
    };
    let post = async |body: Vec<u8>| {
        let request = a.http.post(world.url("/api/perf/a")).bearer_auth(&token);
        answer(request.header("Content-Encoding", "zstd").body(body)).await
    };
    // The limit is a million values: a day with twenty labels is 432,000; four batches with fifty
    // labels are 520,000.
    let values = |count: u64| {
        let values: Vec<_> = (0..count).map(|at| format!(r#""l{at}":1"#)).collect();
        format!("{{{}}}", values.join(","))
    };
    for from in (1..=A_DAY).step_by(4_800) {
        post(batch(from, 4_800, &values(20)))
            .await
            .json("a day's backlog");
    }
    for (count, values) in [(4, values(50)), (4, values(0))] {
        for _ in 0..count {
            post(batch(next, 10_000, &values))
                .await
                .json("under the limit");
            next += 10_000;
        }
    }
    // 8,000 are left, and one more for each second. Facts take the place of fifty.
    let put_facts = async || {
        let request = a.http.put(world.url("/api/facts/a")).bearer_auth(&token);
        answer(request.body(r#"{"os":"x"}"#)).await
    };
    for _ in 0..60 {
        put_facts().await.no_content("facts under the limit");
    }
    let before = world.stored(&reader).await;
    let over = post(batch(next, 6_900, "{}")).await;
    over.refused("rate_limited", "over the limit");
    let wait: u64 = over.header("retry-after").parse().unwrap();
    let replenished = begun.elapsed().as_secs() + 1;
    assert!(
        wait <= 1_900 && wait + replenished >= 1_900,
        "{wait} s for 1,900 records less {replenished}"
    );
    // The body is not even parsed: it would be refused for its content.
    let unread = post(zstd::encode_all(&b"no JSON"[..], 0).unwrap()).await;
    unread.refused("rate_limited", "did not wait");
    let facts = put_facts().await;
    facts.refused("rate_limited", "facts did not wait");
    assert_eq!(
        world.stored(&reader).await,
        before,
        "nothing of it is stored"
    );
    // Other clients are not affected.
    let token = world.token(&b).await;
    let path = format!("/api/perf/b/{now}");
    world
        .post(&b, &token, &path, r#"{"cpu":1}"#)
        .await
        .no_content("another certificate");
}

/// Only TLS 1.3 and 1.2 are accepted.
#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_turned_away() {
    let world = World::start().await;
    let hello = |version: u8| {
        let mut body = vec![0x03, version];
        body.extend([0x42; 32]);
        body.push(0);
        // TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA and the old RSA one; no compression; no extensions.
        body.extend([0, 4, 0xc0, 0x09, 0x00, 0x2f, 1, 0]);
        let length = u8::try_from(body.len()).expect("short");
        let mut record = vec![0x16, 0x03, 0x01, 0, length + 4, 1, 0, 0, length];
        record.extend(body);
        record
    };
    for (story, bytes) in [
        (
            "HTTP without TLS",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("SSL 3.0", hello(0)),
        ("TLS 1.0", hello(1)),
        ("TLS 1.1", hello(2)),
        ("TLS 1.2 without any suite of ours", hello(3)),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port()))
            .await
            .unwrap();
        stream.write_all(&bytes).await.unwrap();
        let said = closed(&mut stream, story).await;
        assert!(said.is_empty() || said[0] == 0x15, "{story}: {said:?}");
        world.healthy().await;
    }
}

/// A node with unfinished bodies takes no memory that others need: only received bytes count.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_begun_leave_room_for_others() {
    let world = World::start().await;
    let (a, b) = (world.node("a"), world.node("b"));
    let token = world.token(&b).await;
    let path = format!("/api/perf/b/{}", world.clock.now());
    for framing in [
        "Transfer-Encoding: chunked",
        "Content-Length: 1048576",
        "Transfer-Encoding: chunked\r\nContent-Encoding: gzip",
        "Content-Length: 1000\r\nContent-Encoding: zstd",
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{framing}\r\nExpect: 100-continue\r\n\r\n"
        );
        let mut begun = Vec::new();
        for _ in 0..300 {
            let config = tls_config(&world.root(), Some(b.shown()), &["http/1.1"]);
            let mut stream = raw::connect(&world, config).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            // The receiver either asks for the body and waits, or has refused this request.
            let mut said = [0; 512];
            let read = tokio::time::timeout(SOON, stream.read(&mut said)).await;
            assert!(read.expect("a word in time").unwrap() > 0, "{framing}");
            begun.push(stream);
        }
        let token = world.token(&a).await;
        let path = format!("/api/perf/a/{}", world.clock.now());
        let got = world.post(&a, &token, &path, r#"{"cpu":1}"#).await;
        got.no_content(&format!("another node, beside 300 of {framing}"));
        drop(begun);
    }
}

/// A holder with several certificates and bodies on all of them has one memory budget.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_many_certificates_takes_no_more_than_its_part() {
    const CERTIFICATES: usize = 12;
    const BODIES_EACH: usize = 32;
    // Even on a slow machine, no body times out before the others have asked.
    let world = World::start_with(|config| config.body_timeout = Duration::from_secs(600)).await;
    let (a, reader) = (world.node("a"), world.reader());
    let path = format!("/api/perf/b/{}", world.clock.now());
    let (token_of_a, token_of_reader) = (world.token(&a).await, world.token(&reader).await);
    for (story, coding, body) in [
        ("large bodies", "identity", vec![b' '; (1 << 20) - 1]),
        ("small bodies", "identity", vec![b' '; 48 << 10]),
        ("packed bodies", "gzip", vec![0x1f; (1 << 20) - 1]),
    ] {
        let mut held = Vec::new();
        for _ in 0..CERTIFICATES {
            let b = world.node("b");
            let token = world.token(&b).await;
            let config = tls_config(&world.root(), Some(b.shown()), &["http/1.1"]);
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
                 Content-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
                body.len() + 1
            );
            for _ in 0..BODIES_EACH {
                let mut stream = raw::connect(&world, config.clone()).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                // All except the last byte, so it is held until the body timeout. Or it is refused,
                // and the connection may be closed before all of it is sent.
                let _sent_or_refused = stream.write_all(&body).await;
                held.push(stream);
            }
        }
        let path = format!("/api/perf/a/{}", world.clock.now());
        let got = world.post(&a, &token_of_a, &path, r#"{"cpu":1}"#).await;
        got.no_content(&format!("another node's POST beside {story}"));
        let large = format!("{{\"cpu\":1{}}}", " ".repeat(200 << 10));
        let got = world.post(&a, &token_of_a, &path, large).await;
        got.no_content(&format!("another node's large POST beside {story}"));
        let got = world.get(&reader, &token_of_reader, "/api/perf/a").await;
        assert_eq!(got.status, 200, "a reader beside {story}");
        let newcomer = world.node("c");
        world.token(&newcomer).await;
        drop(held);
    }
}
