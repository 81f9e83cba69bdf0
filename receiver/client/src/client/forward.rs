//! Hands a request on for somebody who has no certificate, and streams the answer.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, Url};

use super::{Client, Repeat};
use crate::error::Error;

/// How long a stream of events may last. The server ends it earlier, when it authorizes it no longer.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// How long the server may take to begin a stream.
const STREAM_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that is handed on as it is.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'r> {
    /// GET or HEAD: it may be sent twice.
    pub method: &'r Method,
    /// Path and query, as they are sent.
    pub path_and_query: &'r str,
    /// The headers that are sent besides the client's own.
    pub headers: &'r HeaderMap,
    /// Whether the client's token is added.
    pub with_token: bool,
    /// Whether the answer goes on for as long as it is read.
    pub is_stream: bool,
}

impl Client {
    /// Sends the request with the client's certificate. Every answer of the server is a success. The
    /// body is not read yet; the connection ends when it is dropped.
    pub async fn forward(&self, request: Forwarded<'_>, now: u64) -> Result<Response, Error> {
        let url = self.at(request.path_and_query);
        // A parser of URLs resolves `..`, in several spellings: what was checked must be what is sent.
        let bare = url.split('?').next().unwrap_or_default();
        if Url::parse(bare).is_ok_and(|parsed| parsed.as_str() != bare) {
            return Err(Error::OtherPath {
                url: self.url.clone(),
            });
        }
        if !request.with_token {
            return self.send_forwarded(&url, request, None, now).await;
        }
        let token = self.kept_token(now).await?;
        let response = self
            .send_forwarded(&url, request, Some(&token), now)
            .await?;
        if response.status().as_u16() != 401 {
            return Ok(response);
        }
        self.forget_token(&token).await;
        let token = self.kept_token(now).await?;
        self.send_forwarded(&url, request, Some(&token), now).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant"
    )]
    async fn send_forwarded(
        &self,
        url: &str,
        request: Forwarded<'_>,
        token: Option<&str>,
        now: u64,
    ) -> Result<Response, Error> {
        let mut builder = self.http.request(request.method.clone(), url);
        builder = builder.headers(request.headers.clone());
        if let Some(token) = token {
            builder = builder.bearer_auth(token);
        }
        if !request.is_stream {
            return self.send(builder, Repeat::Harmless, now).await;
        }
        let sent = self.send(builder.timeout(STREAM_TIMEOUT), Repeat::Harmless, now);
        match tokio::time::timeout(STREAM_HEAD_TIMEOUT, sent).await {
            Ok(sent) => sent,
            Err(late) => Err(Error::malformed(&self.url, late)),
        }
    }
}
