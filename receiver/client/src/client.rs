//! The client and its requests.

mod forward;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lizmon_pki::credentials::{Credentials, CredentialsError, WatchedCredentials};
use lizmon_pki::server_crls::ServerCrls;
use lizmon_protocol::alarm::{AlarmList, ChannelTested, SilenceRequest, Silenced};
use lizmon_protocol::certificate::SeenCertificates;
use lizmon_protocol::delivery::{Acknowledge, Acknowledged, Delivery, REPLAYED_HEADER};
use lizmon_protocol::enrol;
use lizmon_protocol::facts::Facts;
use lizmon_protocol::history::{History, HistoryRange};
use lizmon_protocol::name::{Label, NodeName, SpiffeId, TagFilter};
use lizmon_protocol::problem::{Code, Problem};
use lizmon_protocol::route;
use lizmon_protocol::sample::{Batch, BatchAnswer, Epoch, IdempotencyKey};
use lizmon_protocol::summary::{Hosts, Summaries};
use lizmon_protocol::token::{GRANT_CLIENT_CREDENTIALS, Scopes, TokenError, TokenResponse};
use lizmon_transport::error::is_broken;
use lizmon_transport::https::{ask_clock, https_client, retry_after, server_clock};
use lizmon_transport::{BaseUrl, ConnectError, ServerClock};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{RequestBuilder, Response};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

pub use self::forward::Forwarded;
use crate::encoding::{compress, encode_segment, history_path, with_tags};
use crate::error::Error;
use crate::token::{Freshness, KeptToken};

/// The maximum size of a response. A full host's summaries take a tenth of it, and a list of
/// 100,000 hosts with the facts of their machines takes about two thirds.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Whether a request may be sent again if its connection ends before the answer, as pooled ones do
/// when the server closes them: RFC 9110 section 9.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing, or the server knows it by its numbers.
    Harmless,
    /// It would count twice.
    Harmful,
}

/// A client of one receiver, with one certificate.
pub struct Client {
    url: BaseUrl,
    /// The path of the client certificate, for errors.
    cert: PathBuf,
    credentials: WatchedCredentials,
    http: reqwest::Client,
    /// Locked while a new token is requested, so that concurrent requests share one token request.
    token: Mutex<Option<KeptToken>>,
    /// The server's clock in its last response, in milliseconds since 1970, shifted left by one
    /// bit; the lowest bit is set if the clock is steady. 0 if it is unknown or was taken.
    server_clock: AtomicU64,
    /// Whether the last response marked the request as a duplicate.
    replayed: AtomicBool,
    server_run: AtomicU64,
    /// How far the local clock is ahead of the clock that stamps the samples, in seconds.
    /// `i64::MIN` if the local clock stamps them.
    clock_ahead: AtomicI64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .field("identity", self.identity())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Loads and checks the credentials. Does not connect yet.
    pub fn new(url: BaseUrl, credentials: &Credentials, now: u64) -> Result<Self, Error> {
        Self::with(url, credentials, WatchedCredentials::new(credentials, now)?)
    }

    /// For programs that run longer than their certificates are valid: see
    /// [`WatchedCredentials::lasting`].
    pub fn lasting(
        url: BaseUrl,
        credentials: &Credentials,
        crls: ServerCrls,
        now: u64,
    ) -> Result<Self, Error> {
        let watched = WatchedCredentials::lasting(credentials, crls, now)?;
        Self::with(url, credentials, watched)
    }

    fn with(
        url: BaseUrl,
        credentials: &Credentials,
        watched: WatchedCredentials,
    ) -> Result<Self, Error> {
        Ok(Self {
            http: build_http(&credentials.cert, watched.current().tls.clone())?,
            token: Mutex::new(None),
            server_clock: AtomicU64::new(0),
            replayed: AtomicBool::new(false),
            server_run: AtomicU64::new(0),
            clock_ahead: AtomicI64::new(i64::MIN),
            cert: credentials.cert.clone(),
            credentials: watched,
            url,
        })
    }

    /// The receiver's URL.
    pub fn url(&self) -> &BaseUrl {
        &self.url
    }

    /// The identity in the client certificate.
    pub fn identity(&self) -> &SpiffeId {
        &self.credentials.current().identity
    }

    /// The last second in which the client certificate is valid.
    pub fn certificate_end(&self) -> u64 {
        self.credentials.current().not_after
    }

    /// The server's clock in its last response, if a response has arrived since the last call.
    pub fn take_server_clock(&self) -> Option<ServerClock> {
        let clock = self.server_clock.swap(0, Ordering::Relaxed);
        (clock > 0).then_some(ServerClock {
            at: Duration::from_millis(clock >> 1),
            is_steady: clock & 1 != 0,
            run: self.server_run.load(Ordering::Relaxed),
        })
    }

    /// Sets how far the local clock is ahead of the clock that stamps the samples. Each later
    /// request with samples includes it. `None` means that the local clock stamps the samples.
    pub fn tell_clock(&self, ahead_secs: Option<f64>) {
        let ahead = ahead_secs.map_or(i64::MIN, |ahead| ahead.round() as i64);
        self.clock_ahead.store(ahead, Ordering::Relaxed);
    }

    fn with_clock(&self, request: RequestBuilder) -> RequestBuilder {
        match self.clock_ahead.load(Ordering::Relaxed) {
            i64::MIN => request,
            ahead => request.header(route::AHEAD_HEADER, ahead),
        }
    }

    /// Whether the last response to [`Self::publish`] marked the record as a duplicate, which
    /// changed nothing. Calling this resets the flag.
    pub fn take_replayed(&self) -> bool {
        self.replayed.swap(false, Ordering::Relaxed)
    }

    /// Reloads the files if they have changed. If one of them cannot be used, none is reloaded.
    /// After a reload, the client drops its connections and its token, because both are bound to
    /// the certificate. Returns whether new files are in use. If only the CRLs have changed, it
    /// drops the connections, so that the next one is checked against the new CRLs.
    pub fn reload(&mut self, now: u64) -> Result<bool, CredentialsError> {
        let (http, cert) = (&mut self.http, &self.cert);
        let are_new = self.credentials.reload(now, |tls| {
            *http = build_http(cert, tls.clone())?;
            Ok(())
        })?;
        if are_new {
            self.token = Mutex::new(None);
        }
        Ok(are_new)
    }

    /// Requests a token. If `scope` is `None`, the token has all scopes of the client's role. The
    /// client does not keep this token.
    pub async fn token(&self, scope: Option<Scopes>, now: u64) -> Result<TokenResponse, Error> {
        let scope = scope.map(|scope| scope.to_string());
        let mut form = vec![("grant_type", GRANT_CLIENT_CREDENTIALS)];
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        let request = self.http.post(self.at(route::TOKEN)).form(&form);
        let response = self.send(request, Repeat::Harmless, now).await?;
        let status = response.status().as_u16();
        let retry_after = retry_after(&response);
        let body = self.read_body(response, now).await?;
        if status == 200 {
            return serde_json::from_slice(&body)
                .map_err(|error| Error::malformed(&self.url, error));
        }
        match serde_json::from_slice::<TokenError>(&body) {
            Ok(error) => Err(Error::NoToken {
                url: self.url.clone(),
                status,
                error: Box::new(error),
                retry_after,
            }),
            Err(_) => Err(self.refused(status, retry_after, &body)),
        }
    }

    /// Sends the values of one second. With a key, the receiver counts a repeated request only
    /// once.
    pub async fn publish(
        &self,
        host: &NodeName,
        epoch: Epoch,
        values: &impl serde::Serialize,
        key: Option<IdempotencyKey>,
        now: u64,
    ) -> Result<(), Error> {
        let mut request = self
            .http
            .post(self.at(&route::sample(host, epoch)))
            .header(CONTENT_TYPE, "application/json")
            .body(self.to_json(values)?);
        let mut repeat = Repeat::Harmful;
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
            repeat = Repeat::Harmless;
        }
        let request = self.with_clock(request);
        self.send_with_token(request, repeat, now).await?;
        Ok(())
    }

    /// Sends a batch of records. The response counts known records as duplicates; they change
    /// nothing.
    pub async fn publish_batch(
        &self,
        host: &NodeName,
        batch: &Batch<impl serde::Serialize>,
        now: u64,
    ) -> Result<BatchAnswer, Error> {
        let body = self.to_json(batch)?;
        let mut request = self
            .http
            .post(self.at(&route::host(host)))
            .header(CONTENT_TYPE, "application/json");
        request = match compress(&body) {
            Some(small) => request.header(CONTENT_ENCODING, "zstd").body(small),
            None => request.body(body),
        };
        let request = self.with_clock(request);
        let answer = self.send_with_token(request, Repeat::Harmless, now).await?;
        self.parse(&answer)
    }

    /// The summaries of a host. With a filter, only those with names that contain it, without
    /// regard to ASCII case.
    pub async fn summaries(
        &self,
        host: &NodeName,
        filter: Option<&str>,
        now: u64,
    ) -> Result<Summaries, Error> {
        self.parse(&self.summaries_json(host, filter, now).await?)
    }

    /// The same, as the receiver's JSON.
    pub async fn summaries_json(
        &self,
        host: &NodeName,
        filter: Option<&str>,
        now: u64,
    ) -> Result<Vec<u8>, Error> {
        match filter {
            None | Some("") => self.get(&route::host(host), now).await,
            Some(filter @ ("." | "..")) => {
                // URL parsers treat these as path segments with a meaning, even if encoded. So
                // filter here.
                let mut all: serde_json::Map<String, serde_json::Value> =
                    self.parse(&self.get(&route::host(host), now).await?)?;
                all.retain(|name, _| name.contains(filter));
                self.to_json(&all)
            }
            Some(filter) => {
                let path = format!("{}/{}", route::host(host), encode_segment(filter));
                self.get(&path, now).await
            }
        }
    }

    /// Intervals of one series further back than its summaries go: one page. If there are more,
    /// [`History::next`] is the `from` of the range to ask for next.
    pub async fn history(
        &self,
        host: &NodeName,
        label: &Label<'_>,
        range: &HistoryRange,
        now: u64,
    ) -> Result<History, Error> {
        self.parse(&self.history_json(host, label, range, now).await?)
    }

    /// The same, as the receiver's JSON.
    pub async fn history_json(
        &self,
        host: &NodeName,
        label: &Label<'_>,
        range: &HistoryRange,
        now: u64,
    ) -> Result<Vec<u8>, Error> {
        self.get(&history_path(host, label, range), now).await
    }

    /// The hosts that report, of those with the wanted tags.
    pub async fn hosts(&self, wanted: &TagFilter, now: u64) -> Result<Hosts, Error> {
        self.parse(&self.hosts_json(wanted, now).await?)
    }

    /// The same, as the receiver's JSON.
    pub async fn hosts_json(&self, wanted: &TagFilter, now: u64) -> Result<Vec<u8>, Error> {
        self.get(&with_tags(route::PERF, wanted), now).await
    }

    /// The sequence numbers of a host that have arrived.
    pub async fn delivery(&self, host: &NodeName, now: u64) -> Result<Delivery, Error> {
        self.parse(&self.get(&route::delivery(host), now).await?)
    }

    /// Acknowledges a host's missing sequence numbers. Returns how many there were.
    pub async fn acknowledge(&self, host: &NodeName, why: &str, now: u64) -> Result<u64, Error> {
        let why = why.to_owned();
        let request = self
            .http
            .post(self.at(&route::acknowledged(host)))
            .header(CONTENT_TYPE, "application/json")
            .body(self.to_json(&Acknowledge { why })?);
        let answer = self.send_with_token(request, Repeat::Harmful, now).await?;
        Ok(self.parse::<Acknowledged>(&answer)?.acknowledged)
    }

    /// The alarms there are, of hosts with the wanted tags, as the receiver's JSON.
    pub async fn alarms_json(&self, wanted: &TagFilter, now: u64) -> Result<Vec<u8>, Error> {
        self.get(&with_tags(route::ALARMS, wanted), now).await
    }

    /// The alarms there are, of hosts with the wanted tags.
    pub async fn alarms(&self, wanted: &TagFilter, now: u64) -> Result<AlarmList, Error> {
        self.parse(&self.alarms_json(wanted, now).await?)
    }

    /// Silences the alarms of a host, or ends that.
    pub async fn silence(
        &self,
        host: &NodeName,
        request: &SilenceRequest,
        now: u64,
    ) -> Result<Silenced, Error> {
        let request = self
            .http
            .post(self.at(&route::silence(host)))
            .header(CONTENT_TYPE, "application/json")
            .body(self.to_json(request)?);
        // The same again: it only lasts a moment longer.
        let answer = self.send_with_token(request, Repeat::Harmless, now).await?;
        self.parse(&answer)
    }

    /// Has the receiver send a test message by a channel of its rules.
    pub async fn test_channel(&self, channel: &str, now: u64) -> Result<ChannelTested, Error> {
        let path = route::test_channel(&encode_segment(channel));
        let request = self.http.post(self.at(&path));
        let answer = self.send_with_token(request, Repeat::Harmful, now).await?;
        self.parse(&answer)
    }

    /// The certificates that the receiver has seen.
    pub async fn certificates(&self, now: u64) -> Result<SeenCertificates, Error> {
        self.parse(&self.get(route::CERTIFICATES, now).await?)
    }

    /// Sends what the machine of this host is. They are durable when this returns.
    pub async fn put_facts(&self, host: &NodeName, facts: &Facts, now: u64) -> Result<(), Error> {
        let request = self
            .http
            .put(self.at(&route::facts(host)))
            .header(CONTENT_TYPE, "application/json")
            .body(self.to_json(facts)?);
        self.send_with_token(request, Repeat::Harmless, now).await?;
        Ok(())
    }

    /// Uploads CRLs in PEM. They are in use when this returns.
    pub async fn put_crl(&self, pem: &[u8], now: u64) -> Result<(), Error> {
        let request = self
            .http
            .put(self.at(route::CRL))
            .header(CONTENT_TYPE, "application/x-pem-file")
            .body(pem.to_vec());
        self.send_with_token(request, Repeat::Harmful, now).await?;
        Ok(())
    }

    /// A GET has no side effects, so it is retried once with a new token if the receiver rejects
    /// the token.
    async fn get(&self, path: &str, now: u64) -> Result<Vec<u8>, Error> {
        let ask = || {
            let request = self.http.get(self.at(path));
            self.send_with_token(request, Repeat::Harmless, now)
        };
        match ask().await {
            Err(error) if matches!(error.code(), Some(Code::TokenInvalid | Code::TokenExpired)) => {
                ask().await
            }
            result => result,
        }
    }

    /// The body of a successful response. Drops the token if the receiver rejects it.
    async fn send_with_token(
        &self,
        request: RequestBuilder,
        repeat: Repeat,
        now: u64,
    ) -> Result<Vec<u8>, Error> {
        let token = self.kept_token(now).await?;
        let response = self.send(request.bearer_auth(&token), repeat, now).await?;
        let status = response.status().as_u16();
        let retry_after = retry_after(&response);
        let body = self.read_body(response, now).await?;
        match status {
            200..300 => Ok(body),
            401 => {
                self.forget_token(&token).await;
                Err(self.refused(status, retry_after, &body))
            }
            _ => Err(self.refused(status, retry_after, &body)),
        }
    }

    /// The current token, or a new one if the current one expires soon. If no new one can be had,
    /// the current one is used until it expires.
    async fn kept_token(&self, now: u64) -> Result<Arc<str>, Error> {
        let mut kept = self.token.lock().await;
        let freshness = kept.as_ref().map(|token| token.freshness(now));
        if let (Some(token), Some(Freshness::Fresh)) = (kept.as_ref(), freshness) {
            return Ok(token.text().clone());
        }
        match (self.token(None, now).await, kept.as_ref(), freshness) {
            (Ok(response), ..) => {
                let token = KeptToken::new(response, now);
                let text = token.text().clone();
                *kept = Some(token);
                Ok(text)
            }
            (Err(error), Some(token), Some(Freshness::Aging)) if !error.is_identity_refused() => {
                Ok(token.text().clone())
            }
            (Err(error), ..) => {
                *kept = None;
                Err(error)
            }
        }
    }

    /// Drops the token, unless another request has replaced it in the meantime.
    async fn forget_token(&self, refused: &Arc<str>) {
        let mut kept = self.token.lock().await;
        if kept.as_ref().is_some_and(|token| token.text() == refused) {
            *kept = None;
        }
    }

    async fn send(
        &self,
        request: RequestBuilder,
        repeat: Repeat,
        now: u64,
    ) -> Result<Response, Error> {
        let again = match repeat {
            Repeat::Harmless => request.try_clone(),
            Repeat::Harmful => None,
        };
        let mut answer = request.send().await;
        if answer.as_ref().is_err_and(is_broken)
            && let Some(again) = again
            // If that fails as well, the first error says that the server may have the request.
            && let Ok(response) = again.send().await
        {
            answer = Ok(response);
        }
        let response = match answer {
            Ok(response) => response,
            Err(error) => return Err(self.failed(error, now).await),
        };
        let clock = server_clock(&response).map_or(0, |clock| {
            let millis = u64::try_from(clock.at.as_millis()).unwrap_or(u64::MAX);
            self.server_run.store(clock.run, Ordering::Relaxed);
            millis << 1 | u64::from(clock.is_steady)
        });
        self.server_clock.store(clock, Ordering::Relaxed);
        let replayed = response.headers().contains_key(REPLAYED_HEADER);
        self.replayed.store(replayed, Ordering::Relaxed);
        Ok(response)
    }

    /// Why an exchange failed. If the clocks may be the cause, this asks for the server's clock.
    async fn failed(&self, error: reqwest::Error, now: u64) -> Error {
        let current = self.credentials.current();
        let mut error = ConnectError::from_transport(&self.url, error, || current.own.state(now));
        ask_clock(&mut error, &self.url, &current.anonymous).await;
        error.into()
    }

    async fn read_body(&self, mut response: Response, now: u64) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(body),
                Err(error) => return Err(self.failed(error, now).await),
            };
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::malformed(&self.url, AnswerTooLarge));
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn refused(&self, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Error {
        if body.starts_with(enrol::NOT_FOUND.as_bytes()) {
            return Error::IsCa {
                url: self.url.clone(),
            };
        }
        Error::Refused {
            url: self.url.clone(),
            status,
            problem: serde_json::from_slice::<Problem>(body).ok().map(Box::new),
            retry_after,
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| Error::malformed(&self.url, error))
    }

    /// All lizmon types can be written as JSON, so this does not fail in practice.
    fn to_json(&self, value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(value).map_err(|error| Error::malformed(&self.url, error))
    }
}

/// The response is larger than [`ANSWER_BYTES_MAX`].
#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
struct AnswerTooLarge;

fn build_http(cert: &Path, tls: ClientConfig) -> Result<reqwest::Client, CredentialsError> {
    https_client(tls).map_err(|error| CredentialsError::Tls {
        path: cert.to_owned(),
        source: rustls::Error::General(error.to_string()),
    })
}
