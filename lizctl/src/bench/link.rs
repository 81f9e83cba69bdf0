//! A connection of one identity: TLS, HTTP/1.1 or 2, and its token. Connects when it is used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lizmon_client::BaseUrl;
use lizmon_protocol::problem::Problem;
use lizmon_protocol::route;
use lizmon_protocol::token::TokenResponse;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::http_version::HttpVersion;
use super::nodes::LoadIdentity;

/// A connection or an answer that takes longer counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What a token is asked for with.
const TOKEN_FORM: &str = "grant_type=client_credentials";

/// Where the receiver is.
#[derive(Debug)]
pub(crate) struct LoadTarget {
    url: BaseUrl,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    http: HttpVersion,
}

impl LoadTarget {
    pub(crate) fn new(url: &BaseUrl, http: HttpVersion) -> anyhow::Result<Self> {
        let uri: Uri = url.as_str().parse().context("--target")?;
        let host = uri.host().context("--target has no host")?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            url: url.clone(),
            server_name: ServerName::try_from(host.clone()).context("--target")?,
            host,
            port: uri.port_u16().unwrap_or(443),
            http,
        })
    }

    pub(crate) fn url(&self) -> &BaseUrl {
        &self.url
    }

    /// Only a loopback address: what listens there is a process of this machine.
    pub(crate) fn loopback_port(&self) -> Option<u16> {
        let is_loopback = match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        };
        is_loopback.then_some(self.port)
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Unreachable,
    HandshakeFailed,
    Lost,
    TimedOut,
}

impl NoAnswer {
    /// Whether the receiver may have got the request.
    pub(crate) fn may_have_arrived(self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "cannot connect",
            Self::HandshakeFailed => "TLS handshake failed",
            Self::Lost => "connection lost",
            Self::TimedOut => "no answer in time",
        })
    }
}

/// What is sent: the rest is the same for all requests.
#[derive(Debug, Clone)]
pub(crate) struct LoadRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    /// Names and values of further headers.
    pub(crate) headers: Vec<(&'static str, HeaderValue)>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct LoadAnswer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl LoadAnswer {
    /// `503 overloaded`; without a problem document the status alone.
    pub(crate) fn reason(&self) -> String {
        let status = self.status.as_u16();
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => format!("{status} {}", problem.code.as_str()),
            Err(_) => status.to_string(),
        }
    }
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    renewed_at: Instant,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

#[derive(Default)]
struct Open {
    sender: Option<Sender>,
    token: Option<Token>,
}

/// A connection of one identity.
pub(crate) struct Link {
    target: Arc<LoadTarget>,
    identity: Arc<LoadIdentity>,
    open: Mutex<Open>,
}

impl Link {
    pub(crate) fn new(target: Arc<LoadTarget>, identity: Arc<LoadIdentity>) -> Self {
        Self {
            target,
            identity,
            open: Mutex::default(),
        }
    }

    /// Closes the connection. The token stays, as in a monitor whose receiver restarts.
    pub(crate) async fn cut(&self) {
        self.open.lock().await.sender = None;
    }

    /// Closes the connection and drops the token, as in a monitor that starts.
    pub(crate) async fn forget(&self) {
        *self.open.lock().await = Open::default();
    }

    /// Sends with a token. Connects, and gets a token, where that is needed. Where the token is
    /// refused, the answer is that refusal.
    #[expect(
        clippy::disallowed_methods,
        reason = "ANSWER_TIMEOUT limits each request"
    )]
    pub(crate) async fn send(&self, message: &LoadRequest) -> Result<LoadAnswer, NoAnswer> {
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, self.send_with_token(message)).await;
        let answer = sent.unwrap_or(Err(NoAnswer::TimedOut));
        match &answer {
            Err(_) => self.cut().await,
            Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                self.open.lock().await.token = None;
            }
            Ok(_) => (),
        }
        answer
    }

    async fn send_with_token(&self, message: &LoadRequest) -> Result<LoadAnswer, NoAnswer> {
        let mut open = self.open.lock().await;
        if open.sender.as_ref().is_none_or(Sender::is_closed) {
            open.sender = Some(self.connect().await?);
        }
        let now = Instant::now();
        let token = match &open.token {
            Some(token) if token.renewed_at > now => token.header.clone(),
            _ => match self.renew_token(&mut open, now).await? {
                Ok(header) => header,
                Err(refusal) => return Ok(refusal),
            },
        };
        let mut request = self.request(message);
        request.headers_mut().insert(AUTHORIZATION, token);
        match open.sender.as_mut() {
            None => Err(NoAnswer::Lost),
            // One request at a time: the lock is held until the answer.
            Some(one @ Sender::One(_)) => one.exchange(request).await,
            Some(Sender::Two(sender)) => {
                let mut stream = Sender::Two(sender.clone());
                drop(open);
                stream.exchange(request).await
            }
        }
    }

    /// The new token, or the answer that refuses one.
    async fn renew_token(
        &self,
        open: &mut Open,
        now: Instant,
    ) -> Result<Result<HeaderValue, LoadAnswer>, NoAnswer> {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let message = LoadRequest {
            method: Method::POST,
            path: route::TOKEN.to_owned(),
            body: Bytes::from_static(TOKEN_FORM.as_bytes()),
            headers: vec![(CONTENT_TYPE.as_str(), form)],
        };
        let request = self.request(&message);
        let sender = open.sender.as_mut().ok_or(NoAnswer::Lost)?;
        let answer = sender.exchange(request).await?;
        let parsed = serde_json::from_slice::<TokenResponse>(&answer.body).ok();
        let header = parsed.as_ref().and_then(|token| {
            HeaderValue::from_str(&format!("Bearer {}", token.access_token)).ok()
        });
        let (Some(token), Some(header), true) = (parsed, header, answer.status.is_success()) else {
            return Ok(Err(answer));
        };
        // As monitors do: when a fifth of its life is left.
        let renewed_at = now + Duration::from_secs(token.expires_in) * 4 / 5;
        open.token = Some(Token {
            header: header.clone(),
            renewed_at,
        });
        Ok(Ok(header))
    }

    fn request(&self, message: &LoadRequest) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = message.method.clone();
        let whole = || format!("{}{}", self.target.url, message.path).parse::<Uri>();
        let uri = whole().unwrap_or_default();
        let headers = request.headers_mut();
        for (name, value) in &message.headers {
            headers.insert(*name, value.clone());
        }
        match self.target.http {
            HttpVersion::One => {
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                if let Ok(host) = HeaderValue::from_str(authority) {
                    headers.insert(HOST, host);
                }
                let path = uri.path_and_query().cloned();
                *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
            }
            HttpVersion::Two => *request.uri_mut() = uri,
        }
        request
    }

    async fn connect(&self) -> Result<Sender, NoAnswer> {
        let LoadTarget { host, port, .. } = &*self.target;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream.map_err(|_| NoAnswer::Unreachable)?;
        stream
            .set_nodelay(true)
            .map_err(|_| NoAnswer::Unreachable)?;
        let connector = TlsConnector::from(self.identity.tls.clone());
        let name = self.target.server_name.clone();
        let stream = connector.connect(name, stream).await;
        let io = TokioIo::new(stream.map_err(|_| NoAnswer::HandshakeFailed)?);
        match self.target.http {
            HttpVersion::One => {
                let (sender, connection) =
                    http1::handshake(io).await.map_err(|_| NoAnswer::Lost)?;
                tokio::spawn(connection);
                Ok(Sender::One(sender))
            }
            HttpVersion::Two => {
                let made = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = made.map_err(|_| NoAnswer::Lost)?;
                tokio::spawn(connection);
                Ok(Sender::Two(sender))
            }
        }
    }
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Two(sender) => sender.is_closed(),
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<LoadAnswer, NoAnswer> {
        let response = match self {
            Self::One(sender) => {
                sender.ready().await.map_err(|_| NoAnswer::Lost)?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                sender.ready().await.map_err(|_| NoAnswer::Lost)?;
                sender.send_request(request).await
            }
        };
        let (head, body) = response.map_err(|_| NoAnswer::Lost)?.into_parts();
        let body = body.collect().await.map_err(|_| NoAnswer::Lost)?;
        let retry_after = head.headers.get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(LoadAnswer {
            status: head.status,
            retry_after: retry_after.map(Duration::from_secs),
            body: body.to_bytes(),
        })
    }
}
