//! Ways to send requests: over one open connection, over a new connection each, or over a resumed
//! session each.

use std::error::Error;
use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lizmon_protocol::route;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};

use super::Outcome;
use crate::harness::{Answer, curl, raw};

/// Concurrent handshakes.
const AT_ONCE: usize = 8;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    /// What a proxy adds.
    pub(super) forwarded: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// What no answer may have in it.
    pub(super) hidden: &'static [&'static str],
}

impl Ask {
    pub(super) fn new(method: &'static str, path: String) -> Self {
        Self {
            method,
            path,
            authorization: None,
            forwarded: Vec::new(),
            body: Vec::new(),
            hidden: &[],
        }
    }

    /// What the answer comes to.
    fn outcome(&self, answer: &Answer) -> Outcome {
        let text = match answer.header("content-encoding") {
            "snappy" => {
                let unpacked = snap::raw::Decoder::new().decompress_vec(&answer.body);
                String::from_utf8_lossy(&unpacked.unwrap()).into_owned()
            }
            _ => answer.text(),
        };
        match self.hidden.iter().find(|hidden| text.contains(**hidden)) {
            None => Outcome::of(answer),
            Some(hidden) => Outcome::Broken(format!("it tells {hidden}: {text}")),
        }
    }

    pub(super) fn health() -> Self {
        Self::new("GET", "/healthz".to_owned())
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        // Only the token endpoint and the routes of other protocols read it.
        let protobuf = ("content-type", "application/x-protobuf".to_owned());
        let mut headers = match &*self.path {
            route::REMOTE_READ | route::REMOTE_WRITE => {
                vec![protobuf, ("content-encoding", "snappy".to_owned())]
            }
            route::OTLP_METRICS if self.body.starts_with(b"{") => {
                vec![("content-type", "application/json".to_owned())]
            }
            route::OTLP_METRICS => vec![protobuf],
            _ => {
                let form = "application/x-www-form-urlencoded".to_owned();
                vec![("content-type", form)]
            }
        };
        headers.extend(
            self.authorization
                .clone()
                .map(|value| ("authorization", value)),
        );
        headers.extend(self.forwarded.iter().cloned());
        headers
    }

    /// As HTTP/1.1 on a connection that is closed after it.
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.method,
            self.path,
            self.body.len()
        );
        for (name, value) in self.headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// Sends requests. An open connection is never reopened: if it ends, its remaining requests have no
/// response.
pub(super) enum Requester {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>, u16),
    /// A handshake for each request, which is sent with the first flight, before the server has
    /// verified.
    New(ClientConfig, u16),
    /// The same, each resuming the session of the one before.
    Resumed(ClientConfig, u16),
}

impl Requester {
    pub(super) async fn http1(config: ClientConfig, port: u16) -> Self {
        let tls = raw::connect_to(port, config).await.expect("a handshake");
        let shaken = http1::handshake(TokioIo::new(tls)).await;
        let (sender, connection) = shaken.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self::Http1(sender).opened().await
    }

    pub(super) async fn http2(mut config: ClientConfig, port: u16) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = raw::connect_to(port, config).await.expect("a handshake");
        let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await;
        let (sender, connection) = shaken.expect("HTTP/2");
        tokio::spawn(connection);
        Self::Http2(sender, port).opened().await
    }

    /// Sends a first request, because a connection without one is closed soon.
    async fn opened(mut self) -> Self {
        let answer = self.answer(Ask::health()).await.expect("an answer");
        assert_eq!(answer.status, 200);
        self
    }

    /// A requester without an earlier session.
    pub(super) fn new(mut config: ClientConfig, port: u16) -> Self {
        config.resumption = Resumption::disabled();
        Self::New(config, port)
    }

    /// A full handshake first, for its session.
    pub(super) async fn resumed(config: ClientConfig, port: u16) -> Self {
        let outcome = over_tls(&config, port, &Ask::health(), HandshakeKind::Full).await;
        assert_eq!(outcome, Outcome::good(200));
        Self::Resumed(config, port)
    }

    /// All responses, in the order of the requests.
    pub(super) async fn ask_all(mut self, asks: Vec<Ask>) -> Vec<Outcome> {
        if let Self::New(config, port) = self {
            let asked = futures_util::stream::iter(asks).map(|ask| {
                let config = config.clone();
                async move { over_tls(&config, port, &ask, HandshakeKind::Full).await }
            });
            return asked.buffered(AT_ONCE).collect().await;
        }
        let mut outcomes = Vec::with_capacity(asks.len());
        for ask in asks {
            outcomes.push(match &self {
                Self::Resumed(config, port) => {
                    over_tls(config, *port, &ask, HandshakeKind::Resumed).await
                }
                _ => match self.answer(ask.clone()).await {
                    Ok(answer) => ask.outcome(&answer),
                    Err(error) => Outcome::Broken(error.to_string()),
                },
            });
        }
        outcomes
    }

    /// A response over the open connection.
    pub(super) async fn answer(
        &mut self,
        ask: Ask,
    ) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let mut request = Request::builder().method(ask.method);
        for (name, value) in ask.headers() {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(ask.body));
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                let request = request.header("host", "localhost").uri(ask.path);
                sender.send_request(request.body(body)?).await?
            }
            Self::Http2(sender, port) => {
                let request = request.uri(format!("https://localhost:{port}{}", ask.path));
                sender.send_request(request.body(body)?).await?
            }
            Self::New(..) | Self::Resumed(..) => return Err("no connection is open".into()),
        };
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await?.to_bytes().to_vec(),
        })
    }
}

/// One request on its own connection, with this kind of handshake.
async fn over_tls(config: &ClientConfig, port: u16, ask: &Ask, kind: HandshakeKind) -> Outcome {
    let said = async {
        let mut stream = raw::connect_to(port, config.clone()).await?;
        let said = raw::exchange(&mut stream, &ask.bytes()).await?;
        let had = stream.get_ref().1.handshake_kind();
        Ok::<_, io::Error>((said, had))
    };
    match said.await {
        Ok((said, _)) if said.is_empty() => Outcome::Broken("closed without a word".to_owned()),
        Ok((_, had)) if had != Some(kind) => Outcome::Broken(format!("a handshake {had:?}")),
        Ok((said, _)) => ask.outcome(&curl::parse(&String::from_utf8_lossy(&said))),
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => Outcome::Alert(*alert),
            _ => Outcome::Broken(format!("no alert but {error}")),
        },
    }
}
