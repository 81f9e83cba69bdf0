//! Requests that no HTTP client sends: malformed framing and heads. Whatever the response, nothing
//! is smuggled or stored, and the receiver keeps running.

use std::time::Duration;

use serde_json::json;

use crate::harness::World;
use crate::harness::raw::{self, tls_config};

/// Sends each text on its own connection; `TOKEN` and `EPOCH` are replaced by valid ones. The
/// status must be one of these; 0 is a close without a response.
async fn check(cases: &[(&str, &str, &[u16])]) {
    // Some of these leave the receiver waiting for more, so its timeouts are short.
    let world = World::start_with(|config| {
        config.limits.first_request_timeout = Duration::from_secs(1);
        config.limits.idle_timeout = Duration::from_secs(1);
        config.body_timeout = Duration::from_secs(1);
    })
    .await;
    let (node, reader) = (world.node("a"), world.reader());
    let token = world.token(&node).await;
    let epoch = world.clock.now().to_string();
    for (story, text, statuses) in cases {
        let text = text.replace("TOKEN", &token).replace("EPOCH", &epoch);
        let config = tls_config(&world.root(), Some(node.shown()), &["http/1.1"]);
        let mut stream = raw::connect(&world, config).await.unwrap();
        let bytes: Vec<u8> = text
            .chars()
            .map(|c| u8::try_from(c).expect("bytes are U+0000 to U+00FF"))
            .collect();
        let said = raw::exchange(&mut stream, &bytes).await.unwrap_or_default();
        let shown = String::from_utf8_lossy(&said);
        assert!(statuses.contains(&raw::status(&said)), "{story}: {shown}");
        assert_eq!(
            shown.matches("HTTP/1.1 ").count(),
            said.len().min(1),
            "{story}: one answer: {shown}"
        );
        world.healthy().await;
        assert_eq!(world.stored(&reader).await, json!({}), "{story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn framing() {
    let post = |headers: &str, body: &str| {
        format!(
            "POST /api/perf/a/EPOCH HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n{headers}\r\n\r\n{body}"
        )
    };
    let inner = "POST /api/perf/a/EPOCH HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 9\r\n\r\n{\"cpu\":1}";
    let cases = [
        (
            "two lengths",
            post("Content-Length: 9\r\nContent-Length: 8", "{\"cpu\":1}"),
        ),
        (
            "lengths in a list",
            post("Content-Length: 9, 8", "{\"cpu\":1}"),
        ),
        (
            "a negative length",
            post("Content-Length: -1", "{\"cpu\":1}"),
        ),
        (
            "a length with a sign",
            post("Content-Length: +9", "{\"cpu\":1}"),
        ),
        (
            "a length in hexadecimal",
            post("Content-Length: 0x9", "{\"cpu\":1}"),
        ),
        (
            "a length past 2^64",
            post("Content-Length: 18446744073709551625", "{\"cpu\":1}"),
        ),
        (
            "a name with a space behind it",
            post("Content-Length : 9", "{\"cpu\":1}"),
        ),
        (
            "another coding",
            post("Transfer-Encoding: gzip", "{\"cpu\":1}"),
        ),
        (
            "chunked twice",
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                "9\r\n{\"cpu\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "chunked first",
            post(
                "Transfer-Encoding: chunked, gzip",
                "9\r\n{\"cpu\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "chunked in a costume",
            post(
                "Transfer-Encoding: xchunked",
                "9\r\n{\"cpu\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "a chunk's size in words",
            post(
                "Transfer-Encoding: chunked",
                "nine\r\n{\"cpu\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "a negative chunk",
            post(
                "Transfer-Encoding: chunked",
                "-9\r\n{\"cpu\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "a chunk past 2^64",
            post(
                "Transfer-Encoding: chunked",
                "fffffffffffffffff\r\n{\"cpu\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "a chunk longer than told",
            post(
                "Transfer-Encoding: chunked",
                "3\r\n{\"cpu\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "a request in the body",
            post("Content-Length: 3", &format!("{{}}x{inner}")),
        ),
        (
            "a body that never comes whole",
            post("Content-Length: 3000000000", "{\"cpu\":1}"),
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(story, text)| (*story, text.as_str(), &[0, 400, 413, 501][..]))
        .collect();
    check(&cases).await;
}

/// RFC 9112 section 6.3: with both, the length is ignored or the request refused; never is there a
/// second request.
#[tokio::test(flavor = "multi_thread")]
async fn both_framings_at_once() {
    let world = World::start().await;
    let (node, reader) = (world.node("a"), world.reader());
    let token = world.token(&node).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
    let smuggled = format!("{head}Content-Length: 9\r\n\r\n{{\"mem\":1}}");
    let body = format!("9\r\n{{\"cpu\":1}}\r\n0\r\n\r\n{smuggled}");
    let text = format!(
        "{head}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{body}",
        body.len()
    );
    let config = tls_config(&world.root(), Some(node.shown()), &["http/1.1"]);
    let mut stream = raw::connect(&world, config).await.unwrap();
    let said = raw::exchange(&mut stream, text.as_bytes())
        .await
        .unwrap_or_default();
    let shown = String::from_utf8_lossy(&said).into_owned();
    assert!(matches!(raw::status(&said), 0 | 400 | 204), "{shown}");
    assert!(
        shown.matches("HTTP/1.1 ").count() <= 1,
        "the connection is closed after it: {shown}"
    );
    assert!(
        !world.stored(&reader).await.to_string().contains("mem"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn heads() {
    let get = |line: &str, headers: &str| {
        format!("{line}\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
    };
    let many = "X: y\r\n".repeat(5_000);
    let long = format!("X: {}\r\n", "y".repeat(100_000));
    let long_name = format!("{}: y\r\n", "x".repeat(100_000));
    let long_path = format!("GET /{} HTTP/1.1", "a".repeat(100_000));
    let bad = &[0, 400, 404, 405, 414, 431, 505][..];
    let cases = [
        (
            "no host",
            "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            &[400][..],
        ),
        ("HTTP/0.9", "GET /api/perf/a\r\n\r\n".to_owned(), bad),
        (
            "HTTP/2.0 in a line",
            get("GET /api/perf/a HTTP/2.0", ""),
            bad,
        ),
        (
            "HTTP/3.0 in a line",
            get("GET /api/perf/a HTTP/3.0", ""),
            bad,
        ),
        ("no version", get("GET /api/perf/a", ""), bad),
        ("two spaces", get("GET  /api/perf/a HTTP/1.1", ""), bad),
        (
            "a space in the path",
            get("GET /api/perf/a b HTTP/1.1", ""),
            bad,
        ),
        (
            "a NUL in the path",
            get("GET /api/perf/a\0b HTTP/1.1", ""),
            bad,
        ),
        (
            "bytes in the path",
            get("GET /api/perf/\u{ff}\u{fe} HTTP/1.1", ""),
            bad,
        ),
        (
            "a broken escape",
            get(
                "GET /api/perf/%zz HTTP/1.1",
                "Authorization: Bearer TOKEN\r\n",
            ),
            &[0, 400, 403, 404][..],
        ),
        (
            "half an escape",
            get(
                "GET /api/perf/% HTTP/1.1",
                "Authorization: Bearer TOKEN\r\n",
            ),
            &[0, 400, 403, 404][..],
        ),
        (
            "a path that climbs",
            get(
                "GET /api/perf/a/../b HTTP/1.1",
                "Authorization: Bearer TOKEN\r\n",
            ),
            &[0, 400, 404][..],
        ),
        (
            "a path that climbs out",
            get("GET /../../etc/passwd HTTP/1.1", ""),
            bad,
        ),
        ("two slashes", get("GET //api/perf/a HTTP/1.1", ""), bad),
        (
            "a fragment",
            get(
                "GET /api/perf/b#/../a HTTP/1.1",
                "Authorization: Bearer TOKEN\r\n",
            ),
            &[0, 400, 403][..],
        ),
        ("a star", get("OPTIONS * HTTP/1.1", ""), bad),
        ("CONNECT", get("CONNECT localhost:22 HTTP/1.1", ""), bad),
        (
            "another host's URL",
            get(
                "GET https://evil.example/api/perf/b HTTP/1.1",
                "Authorization: Bearer TOKEN\r\n",
            ),
            &[400][..],
        ),
        (
            "a method with bytes",
            get("G\u{e9}T /healthz HTTP/1.1", ""),
            bad,
        ),
        (
            "a method of ten thousand",
            get(&format!("{} /healthz HTTP/1.1", "M".repeat(10_000)), ""),
            bad,
        ),
        ("a path of a hundred thousand", get(&long_path, ""), bad),
        (
            "five thousand headers",
            get("GET /healthz HTTP/1.1", &many),
            bad,
        ),
        (
            "a header of a hundred thousand",
            get("GET /healthz HTTP/1.1", &long),
            bad,
        ),
        (
            "a name of a hundred thousand",
            get("GET /healthz HTTP/1.1", &long_name),
            bad,
        ),
        (
            "a header without a name",
            get("GET /healthz HTTP/1.1", ": y\r\n"),
            bad,
        ),
        (
            "a header without a colon",
            get("GET /healthz HTTP/1.1", "xy\r\n"),
            bad,
        ),
        (
            "a space in a name",
            get("GET /healthz HTTP/1.1", "x y: z\r\n"),
            bad,
        ),
        (
            "a NUL in a value",
            get("GET /healthz HTTP/1.1", "x: \0\r\n"),
            bad,
        ),
        (
            "a bare CR in a value",
            get("GET /healthz HTTP/1.1", "x: a\rb\r\n"),
            bad,
        ),
        (
            "a folded header",
            get("GET /healthz HTTP/1.1", "x: a\r\n b\r\n"),
            bad,
        ),
        (
            "a token with bytes",
            get(
                "GET /api/perf/a HTTP/1.1",
                "Authorization: Bearer \u{ff}\u{fe}\r\n",
            ),
            &[0, 400, 401][..],
        ),
        (
            "two hosts",
            get("GET /healthz HTTP/1.1", "Host: evil.example\r\n"),
            &[400][..],
        ),
        (
            "the same host twice",
            get("GET /healthz HTTP/1.1", "Host: localhost\r\n"),
            &[400][..],
        ),
        (
            "a host that is none",
            "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
            &[400][..],
        ),
        (
            "an empty host",
            "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
            &[400][..],
        ),
        (
            "bytes that are no host, and a second request behind",
            "GET /healthz HTTP/1.1\r\nHost: \u{ff}\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                .to_owned(),
            &[400][..],
        ),
        (
            "nothing but line ends",
            "\r\n".repeat(50_000),
            &[0, 400, 431][..],
        ),
        (
            "nothing but letters",
            "A".repeat(200_000),
            &[0, 400, 414, 431][..],
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(story, text, statuses)| (*story, text.as_str(), *statuses))
        .collect();
    check(&cases).await;
}

/// HTTP/2 frames that break its rules, and floods of those that keep them.
#[tokio::test(flavor = "multi_thread")]
async fn http2_frames() {
    let world = World::start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let settings = frame(4, 0, 0, &[]);
    let begin = [preface.clone(), settings.clone()].concat();
    // :method GET, :scheme https, :path /, :authority localhost, all from the static table or
    // literal.
    let headers = [&[0x82, 0x87, 0x84, 0x41, 9][..], b"localhost"].concat();
    let rapid: Vec<u8> = (0..5_000_u32)
        .flat_map(|at| {
            [
                frame(1, 5, at * 2 + 1, &headers),
                frame(3, 0, at * 2 + 1, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .collect();
    let continuations = [
        frame(1, 1, 1, &headers),
        (0..5_000)
            .flat_map(|_| frame(9, 0, 1, &[0x00, 1, b'x', 1, b'y']))
            .collect(),
    ]
    .concat();
    for (story, bytes) in [
        (
            "a wrong preface",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
        ),
        (
            "no settings",
            [preface.clone(), frame(6, 0, 0, &[0; 8])].concat(),
        ),
        (
            "a frame too long",
            [begin.clone(), vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        ),
        (
            "data on no stream",
            [begin.clone(), frame(0, 0, 0, b"x")].concat(),
        ),
        (
            "headers on an even stream",
            [begin.clone(), frame(1, 5, 2, &headers)].concat(),
        ),
        (
            "a table index that is not there",
            [
                begin.clone(),
                frame(1, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            ]
            .concat(),
        ),
        (
            "a window update of nothing",
            [begin.clone(), frame(8, 0, 0, &[0; 4])].concat(),
        ),
        (
            "a window past its end",
            [begin.clone(), frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])].concat(),
        ),
        (
            "settings of a wrong length",
            [preface, frame(4, 0, 0, &[0; 5])].concat(),
        ),
        ("rapid resets", [begin.clone(), rapid].concat()),
        ("continuations without end", [begin, continuations].concat()),
    ] {
        let config = tls_config(&world.root(), None, &["h2"]);
        let mut stream = raw::connect(&world, config).await.unwrap();
        // GOAWAY or a close are both fine; hanging is not.
        let _said = raw::exchange(&mut stream, &bytes).await;
        world.healthy().await;
        drop((stream, story));
    }
}
