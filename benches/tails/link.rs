//! A connection of one client, with its token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use lizmon_protocol::route;
use lizmon_protocol::token::TokenResponse;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::site::Identity;

/// An answer that takes longer counts as lost: longer than monitors wait.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is sent.
pub(super) struct Message {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// Why nothing came back.
pub(super) type NoAnswer = &'static str;

/// A connection that is made when it is used.
pub(super) struct Link {
    address: SocketAddr,
    pub(super) identity: Arc<Identity>,
    sender: Option<SendRequest<Full<Bytes>>>,
    token: Option<HeaderValue>,
}

impl Link {
    pub(super) fn new(address: SocketAddr, identity: Arc<Identity>) -> Self {
        Self {
            address,
            identity,
            sender: None,
            token: None,
        }
    }

    /// Closes the connection. The token stays, as in a monitor whose receiver restarts.
    pub(super) fn cut(&mut self) {
        self.sender = None;
    }

    /// Closes the connection and drops the token, as in a monitor that starts.
    pub(super) fn forget(&mut self) {
        (self.sender, self.token) = (None, None);
    }

    /// Sends with a token, and gets both connection and token first where there is none.
    pub(super) async fn send(&mut self, message: &Message) -> Result<Answer, NoAnswer> {
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, self.send_in_any_time(message)).await;
        let answer = sent.unwrap_or(Err("no answer in time"));
        if answer.is_err() {
            self.cut();
        }
        answer
    }

    async fn send_in_any_time(&mut self, message: &Message) -> Result<Answer, NoAnswer> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            self.sender = Some(self.connect().await?);
        }
        let token = match &self.token {
            Some(token) => token.clone(),
            None => match self.get_token().await? {
                Ok(token) => self.token.insert(token).clone(),
                Err(refusal) => return Ok(refusal),
            },
        };
        let mut request = self.request(message)?;
        request.headers_mut().insert(AUTHORIZATION, token);
        self.exchange(request).await
    }

    async fn get_token(&mut self) -> Result<Result<HeaderValue, Answer>, NoAnswer> {
        let mut request = self.request(&Message {
            method: Method::POST,
            path: route::TOKEN.to_owned(),
            body: Bytes::from_static(b"grant_type=client_credentials"),
        })?;
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        let answer = self.exchange(request).await?;
        let token = serde_json::from_slice::<TokenResponse>(&answer.body).ok();
        let header = token.and_then(|token| {
            HeaderValue::from_str(&format!("Bearer {}", token.access_token)).ok()
        });
        Ok(header.ok_or(answer))
    }

    fn request(&self, message: &Message) -> Result<Request<Full<Bytes>>, NoAnswer> {
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = message.method.clone();
        *request.uri_mut() = message.path.parse().map_err(|_| "not a path")?;
        let host = HeaderValue::from_str(&self.address.to_string());
        if let Ok(host) = host {
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let sender = self.sender.as_mut().ok_or("connection lost")?;
        sender.ready().await.map_err(|_| "connection lost")?;
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|_| "connection lost")?.into_parts();
        let body = body.collect().await.map_err(|_| "connection lost")?;
        let retry_after = head.headers.get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer {
            status: head.status,
            retry_after: retry_after.map(Duration::from_secs),
            body: body.to_bytes(),
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|_| "cannot connect")?;
        stream.set_nodelay(true).map_err(|_| "cannot connect")?;
        let connector = TlsConnector::from(self.identity.tls.clone());
        let name = ServerName::from(self.address.ip());
        let stream = connector.connect(name, stream).await;
        let io = TokioIo::new(stream.map_err(|_| "TLS handshake failed")?);
        let (sender, connection) = handshake(io).await.map_err(|_| "connection lost")?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
