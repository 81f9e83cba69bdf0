//! A connection for everything but the cheapest load: TLS, HTTP/1.1 or 2, and a token.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lizmon_protocol::route;
use lizmon_protocol::summary::Summaries;
use lizmon_protocol::token::TokenResponse;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bare::TOKEN_BYTES;
use crate::scene::{Identity, Scene};
use crate::server::{Kind, Server};

/// A TLS connection that shows the certificate: a full handshake.
pub(crate) async fn connect(
    identity: &Identity,
    address: SocketAddr,
    alpn: Option<&[u8]>,
) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.context("a connection")?;
    stream.set_nodelay(true).context("no delay")?;
    let connector = TlsConnector::from(identity.tls(alpn));
    let name = ServerName::try_from("127.0.0.1").context("a name")?;
    connector.connect(name, stream).await.context("a handshake")
}

/// An HTTP/1.1 connection.
pub(crate) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    headers: HeaderMap,
}

impl Link {
    /// Without a token.
    pub(crate) async fn open(identity: &Identity, address: SocketAddr) -> Result<Self> {
        let stream = connect(identity, address, Some(b"http/1.1")).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .context("HTTP")?;
        tokio::spawn(connection);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1"));
        Ok(Self { sender, headers })
    }

    /// With one.
    pub(crate) async fn open_with_token(identity: &Identity, server: &Server) -> Result<Self> {
        let mut link = Self::open(identity, server.address).await?;
        let token = match server.kind {
            Kind::Ours => link.token().await?,
            _ => "x".repeat(TOKEN_BYTES),
        };
        link.use_token(&token)?;
        Ok(link)
    }

    /// Asks for a token.
    pub(crate) async fn token(&mut self) -> Result<String> {
        const FORM: &str = "application/x-www-form-urlencoded";
        let body = Bytes::from_static(b"grant_type=client_credentials");
        let (status, body) = self.send(Method::POST, route::TOKEN, (FORM, body)).await?;
        ensure!(status == StatusCode::OK, "no token: {status}");
        let answer: TokenResponse = serde_json::from_slice(&body).context("a token")?;
        Ok(answer.access_token)
    }

    pub(crate) fn use_token(&mut self, token: &str) -> Result<()> {
        self.headers.insert(AUTHORIZATION, bearer(token)?);
        Ok(())
    }

    /// Headers of all further requests.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes> {
        let nothing = ("text/plain", Bytes::new());
        let (status, body) = self.send(Method::GET, path, nothing).await?;
        ensure!(status == StatusCode::OK, "GET {path}: {status}");
        Ok(body)
    }

    /// A POST that must be answered by 200 or 204.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        self.post_as("application/json", path, body).await
    }

    /// The same of another type.
    pub(crate) async fn post_as(
        &mut self,
        content_type: &'static str,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        let typed = (content_type, body);
        let (status, body) = self.send(Method::POST, path, typed).await?;
        let said = || String::from_utf8_lossy(&body[..body.len().min(1_000)]).into_owned();
        ensure!(status.is_success(), "POST {path}: {status} {}", said());
        Ok(body)
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        (content_type, body): (&'static str, Bytes),
    ) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().context("a path")?;
        *request.headers_mut() = self.headers.clone();
        let content_type = HeaderValue::from_static(content_type);
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        self.sender.ready().await.context("a connection")?;
        let response = self
            .sender
            .send_request(request)
            .await
            .context("an answer")?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("its body")?.to_bytes();
        Ok((head.status, body))
    }
}

pub(crate) fn bearer(token: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer {token}")).context("a token")
}

/// An HTTP/2 connection.
pub(crate) async fn open_http2(
    identity: &Identity,
    address: SocketAddr,
) -> Result<http2::SendRequest<Full<Bytes>>> {
    let stream = connect(identity, address, Some(b"h2")).await?;
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.context("HTTP/2")?;
    tokio::spawn(connection);
    Ok(sender)
}

/// `https://127.0.0.1:PORT/PATH`
pub(crate) fn uri(address: SocketAddr, path: &str) -> Result<Uri> {
    format!("https://{address}{path}").parse().context("a URI")
}

/// Whether the receiver has exactly the samples that it has acknowledged.
pub(crate) async fn check_stored(
    scene: &Scene,
    server: &Server,
    acknowledged: &[(&Identity, u64)],
) -> Result<()> {
    if server.kind != Kind::Ours {
        return Ok(());
    }
    let mut reader = Link::open_with_token(scene.reader(), server).await?;
    for (identity, count) in acknowledged {
        let host = &identity.name;
        let body = reader.get(&route::host(host)).await?;
        let summaries: Summaries = serde_json::from_slice(&body).context("summaries")?;
        let by_hour = summaries.get("summary:by-hour:cpu").context("a summary")?;
        let stored: u64 = by_hour.averages.iter().map(|hour| hour.num_samples).sum();
        ensure!(
            stored == *count,
            "{host}: {stored} stored, {count} acknowledged"
        );
    }
    Ok(())
}
