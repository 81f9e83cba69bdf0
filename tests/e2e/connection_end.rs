//! How connections end when they are old or the receiver stops: no request is lost, in HTTP/1 and
//! HTTP/2.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::harness::raw::{self, tls_config};
use crate::harness::{Holder, World, answer};

const SHORT: Duration = Duration::from_millis(200);
/// Far more than it takes, far less than the default age.
const SOON: Duration = Duration::from_secs(20);
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Reads one response.
async fn response(stream: &mut TlsStream<TcpStream>) -> String {
    let mut said = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&said).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap_or("0");
            let length: String = length.chars().take_while(char::is_ascii_digit).collect();
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
        let read = stream.read_buf(&mut said).await.unwrap();
        assert!(read > 0, "closed without a response: {text}");
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(HEALTH.as_bytes()).await.unwrap();
    response(stream).await
}

fn closes(response: &str) -> bool {
    response.contains("\r\nconnection: close\r\n")
}

async fn connect(world: &World, node: &Holder, alpn: &str) -> TlsStream<TcpStream> {
    let config = tls_config(&world.root(), Some(node.shown()), &[alpn]);
    raw::connect(world, config).await.unwrap()
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An HTTP/2 connection with a POST in progress, whose body is sent through `body`.
struct Http2 {
    sender: http2::SendRequest<Body>,
    connection: JoinHandle<hyper::Result<()>>,
    body: mpsc::UnboundedSender<Bytes>,
    posted: JoinHandle<u16>,
}

impl Http2 {
    async fn start(world: &World, node: &Holder) -> Self {
        let token = world.token(node).await;
        let stream = TokioIo::new(connect(world, node, "h2").await);
        let handshake = http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, connection) = handshake.unwrap();
        let connection = tokio::spawn(connection);
        let (body, mut pieces) = mpsc::unbounded_channel();
        let pieces = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx));
        let pieces = futures_util::StreamExt::map(pieces, |piece| Ok(Frame::data(piece)));
        let path = format!("/api/perf/{}/{}", node.name, world.clock.now());
        let post = Request::post(world.url(&path))
            .header("authorization", format!("Bearer {token}"))
            .body(StreamBody::new(pieces).boxed_unsync())
            .unwrap();
        sender.ready().await.unwrap();
        let posted = sender.send_request(post);
        let posted = tokio::spawn(async { posted.await.unwrap().status().as_u16() });
        body.send(Bytes::from_static(b"{\"cpu\"")).unwrap();
        Self {
            sender,
            connection,
            body,
            posted,
        }
    }

    /// A response, or none once the receiver has said GOAWAY.
    async fn ask(&mut self, world: &World) -> Option<u16> {
        let empty = Full::new(Bytes::new()).boxed_unsync();
        let request = Request::get(world.url("/healthz")).body(empty).unwrap();
        self.sender.ready().await.ok()?;
        match self.sender.try_send_request(request).await {
            Ok(response) => Some(response.status().as_u16()),
            Err(error) => {
                let text = format!("{:?}", error.error());
                let was_refused = text.contains("GoAway") && text.contains("NO_ERROR");
                // Not sent any more.
                let was_not_sent = error.error().is_canceled();
                assert!(was_refused || was_not_sent, "{text}");
                None
            }
        }
    }

    /// What was in progress is finished, and then the connection ends in order.
    async fn finish(self) {
        self.body.send(Bytes::from_static(b":1.5}")).unwrap();
        drop(self.body);
        assert_eq!(self.posted.await.unwrap(), 204);
        self.connection.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_ends_after_a_response() {
    let world = World::start_with(|config| config.limits.connection_age = SHORT).await;
    let node = world.node("a");
    let mut stream = connect(&world, &node, "http/1.1").await;
    assert!(!closes(&ask(&mut stream).await), "it is young");
    let told = async { while !closes(&ask(&mut stream).await) {} };
    timeout(SOON, told).await.unwrap();
    assert_eq!(raw::read_to_close(&mut stream).await.unwrap(), b"");

    let mut http2 = Http2::start(&world, &node).await;
    assert_eq!(http2.ask(&world).await, Some(200), "it is young");
    let told = async {
        while let Some(status) = http2.ask(&world).await {
            assert_eq!(status, 200);
        }
    };
    timeout(SOON, told).await.unwrap();
    http2.finish().await;
}

/// Requests without a pause, so that some arrive at the moment in which their connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_at_the_end_of_its_connection_is_answered() {
    let world = World::start_with(|config| config.limits.connection_age = SHORT / 10).await;
    let node = world.node("a");
    for alpn in ["http/1.1", "h2"] {
        let client = world.client(Some(node.shown()), &[alpn]);
        let requests = (0..4).map(|_| async {
            for _ in 0..100 {
                assert_eq!(answer(client.get(world.url("/healthz"))).await.status, 200);
            }
        });
        futures_util::future::join_all(requests).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_stops_loses_no_request() {
    let mut world = World::start().await;
    let node = world.node("a");
    let token = world.token(&node).await;
    let mut idle = connect(&world, &node, "http/1.1").await;
    assert!(!closes(&ask(&mut idle).await));
    let mut busy = connect(&world, &node, "http/1.1").await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 11\r\n\r\n{{\"cpu\""
    );
    busy.write_all(head.as_bytes()).await.unwrap();
    let mut http2 = Http2::start(&world, &node).await;
    // All of it has arrived: what comes after it on the same connections has been answered.
    assert_eq!(http2.ask(&world).await, Some(200));
    let port = world.port();
    let asked = async {
        // The listener is closed first.
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {}
        let last = ask(&mut idle).await;
        assert!(last.starts_with("http/1.1 200") && closes(&last), "{last}");
        busy.write_all(b":1.5}").await.unwrap();
        let last = response(&mut busy).await;
        assert!(last.starts_with("http/1.1 204") && closes(&last), "{last}");
        http2.finish().await;
    };
    tokio::join!(world.stop(), asked);
}
