//! Many clients without a certificate, or with the same one: they get a response at once, hold few
//! resources, and lock nobody out.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::enrolment::{CaServer, ENROLL, REENROLL};
use crate::harness::raw::{self, tls_config};
use crate::harness::{World, answer};

/// Far less than the body timeout, far more than a response takes.
const AT_ONCE: Duration = Duration::from_secs(4);
const SOON: Duration = Duration::from_secs(8);

/// The response to a request whose body never arrives, before any timeout.
async fn said_at_once(stream: &mut TlsStream<TcpStream>, head: &str, story: &str) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let first = async {
        while !said.windows(4).any(|four| four == b"\r\n\r\n") {
            let read = stream.read_buf(&mut said).await.unwrap();
            assert!(read > 0, "{story}: closed without a word");
        }
    };
    let in_time = tokio::time::timeout(AT_ONCE, first).await;
    in_time.unwrap_or_else(|_| panic!("{story}: no answer at once"));
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unauthenticated_request_is_answered_before_its_body() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    for (port, path, status) in [
        (world.port(), "/oauth2/token", 401),
        (world.port(), "/api/perf/a", 401),
        (world.port(), "/api/perf/a/1465001814", 401),
        (world.port(), "/api/delivery/a/acknowledged", 401),
        (world.port(), "/api/crl", 401),
        (world.port(), "/healthz", 405),
        (world.port(), "/nowhere", 404),
        (ca_server.port(), ENROLL, 401),
        (ca_server.port(), REENROLL, 403),
        (ca_server.port(), "/crl", 405),
        (ca_server.port(), "/nowhere", 404),
    ] {
        for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
            let method = if path == "/api/crl" { "PUT" } else { "POST" };
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n1\r\nx");
            let config = tls_config(&world.root(), None, &["http/1.1"]);
            let mut stream = raw::connect_to(port, config).await.unwrap();
            let story = format!("{method} {path} {framing}");
            let said = said_at_once(&mut stream, &head, &story).await;
            assert_eq!(raw::status(said.as_bytes()), status, "{story}: {said}");
            // Otherwise a client would send its next request on this connection in vain.
            let closes = said
                .to_ascii_lowercase()
                .contains("\r\nconnection: close\r\n");
            assert!(closes, "{story}: {said}");
        }
    }
}

/// The response must not be lost although the client is still sending.
#[tokio::test(flavor = "multi_thread")]
async fn an_unauthenticated_client_that_sends_much_gets_its_answer() {
    let world = World::start().await;
    for protocol in ["http/1.1", "h2"] {
        let client = world.client(None, &[protocol]);
        for bytes in [100_usize, 60_000, 800_000] {
            for path in ["/api/perf/a", "/oauth2/token"] {
                let request = client.post(world.url(path)).body(vec![b' '; bytes]);
                let got = answer(request).await;
                assert_eq!(got.status, 401, "{protocol} {path} {bytes}");
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A hundred requests at once, whose responses are not read: RFC 9113 section 6.5.2, an initial
/// window of 0.
#[tokio::test(flavor = "multi_thread")]
async fn an_unauthenticated_client_keeps_few_answers_waiting() {
    const REQUESTS: u32 = 100;
    let world = World::start().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    // :method GET, :scheme https, :path /healthz, :authority localhost.
    let headers = [
        &[0x82, 0x87, 0x04, 8][..],
        b"/healthz",
        &[0x01, 9],
        b"localhost",
    ]
    .concat();
    for at in 0..REQUESTS {
        bytes.extend(frame(1, 5, at * 2 + 1, &headers));
    }
    let config = tls_config(&world.root(), None, &["h2"]);
    let mut stream = raw::connect(&world, config).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    // A response whose headers end its stream holds no resources.
    let (mut said, mut with_body, mut without) = (Vec::new(), 0, 0);
    let read = async {
        while with_body + without < REQUESTS {
            assert!(stream.read_buf(&mut said).await.unwrap() > 0);
            while let Some(head) = said.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if said.len() < 9 + length {
                    break;
                }
                let (kind, flags) = (head[3], head[4]);
                match (kind, flags & 1) {
                    (1, 0) => with_body += 1,
                    (1, _) => without += 1,
                    (kind, _) => assert_ne!(kind, 0, "no body was asked for"),
                }
                said.drain(..9 + length);
            }
        }
    };
    tokio::time::timeout(SOON, read).await.expect("answers");
    assert_eq!((with_body, without), (8, REQUESTS - 8));
    world.healthy().await;
}

/// Idle connections lock nobody out, with a certificate or without.
#[tokio::test(flavor = "multi_thread")]
async fn idle_unauthenticated_connections_make_room() {
    const SEATS: usize = 4;
    let world = World::start_with(|config| {
        config.limits.handshakes_max = SEATS;
        config.limits.anonymous_max = SEATS;
    })
    .await;
    let node = world.node("a");
    let config = || tls_config(&world.root(), None, &["http/1.1"]);
    let mut idle = Vec::new();
    for _ in 0..SEATS {
        idle.push(raw::connect(&world, config()).await.unwrap());
    }
    world.token(&node).await;
    let mut newer = raw::connect(&world, config()).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let said = raw::exchange(&mut newer, request).await.unwrap();
    assert_eq!(raw::status(&said), 200);
    let mut said = Vec::new();
    let end = tokio::time::timeout(SOON, idle[0].read_to_end(&mut said)).await;
    let _closed_or_reset = end.expect("the oldest made room");
    // The same before the handshake: each of these lasts for ten seconds.
    let mut mute = Vec::new();
    for _ in 0..2 * SEATS {
        mute.push(
            TcpStream::connect(("127.0.0.1", world.port()))
                .await
                .unwrap(),
        );
    }
    world.token(&node).await;
    let shown = tls_config(&world.root(), Some(node.shown()), &["http/1.1"]);
    raw::connect(&world, shown).await.expect("a node gets in");
    drop(mute);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_has_so_many_connections() {
    let world = World::start_with(|config| config.limits.connections_per_holder_max = 3).await;
    let (a, b) = (world.node("a"), world.node("b"));
    let again = world.node("a");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let connect = async |shown: raw::Shown| {
        let config = tls_config(&world.root(), Some(shown), &["http/1.1"]);
        let mut stream = raw::connect(&world, config).await?;
        stream.write_all(request).await?;
        let mut said = [0; 4096];
        // TLS 1.3 clients learn of a refusal only when they read.
        match stream.read(&mut said).await? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
            _ => Ok(stream),
        }
    };
    let mut open = Vec::new();
    for shown in [a.shown(), again.shown(), a.shown()] {
        open.push(connect(shown).await.unwrap());
    }
    connect(a.shown()).await.expect_err("the fourth");
    connect(again.shown())
        .await
        .expect_err("the fourth, by another certificate");
    connect(b.shown()).await.expect("another holder");
    drop(open);
    let retried = async { while connect(a.shown()).await.is_err() {} };
    tokio::time::timeout(SOON, retried)
        .await
        .expect("a place is free again");
}
