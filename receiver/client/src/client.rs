//! The requests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use lizmon_protocol::certificate::SeenCertificates;
use lizmon_protocol::delivery::{Acknowledge, Acknowledged, Delivery, REPLAYED_HEADER};
use lizmon_protocol::enrol;
use lizmon_protocol::name::{NodeName, SpiffeId};
use lizmon_protocol::problem::{Code, Problem};
use lizmon_protocol::route;
use lizmon_protocol::sample::{Batch, BatchAnswer, Epoch, IdempotencyKey, SampleSet};
use lizmon_protocol::summary::{Hosts, Summaries};
use lizmon_protocol::token::{GRANT_CLIENT_CREDENTIALS, Scopes, TokenError, TokenResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use rustls::{AlertDescription, ClientConfig};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::base_url::BaseUrl;
use crate::credentials::{Credentials, CredentialsError, Fingerprint, Loaded};
use crate::enrol::lists::ServerLists;
use crate::error::Error;
use crate::refusal::OwnChain;
use crate::token::{Freshness, KeptToken};

/// A server that takes longer to accept a connection and shake hands is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that takes longer has failed: the receiver's own bounds on head and body are 10 s and 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Less than the receiver's bound on idle connections, so that we are the first to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Far more than any honest answer: a full host's summaries are a fifth of it, a list of 100,000 hosts some two thirds.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Batches from this size on are worth compressing.
const COMPRESS_BYTES_MIN: usize = 4096;
/// zstd's own default: more costs the monitored machine more than it saves.
const COMPRESS_LEVEL: i32 = 3;

/// One receiver, asked with one certificate.
pub struct Client {
    url: BaseUrl,
    credentials: Credentials,
    fingerprint: Fingerprint,
    lists: ServerLists,
    lists_version: u64,
    identity: SpiffeId,
    not_after: u64,
    /// Whether a server that trusts the same roots as we do would take it, when it was loaded.
    is_good: bool,
    own: OwnChain,
    http: reqwest::Client,
    /// For what anyone may ask.
    anonymous: ClientConfig,
    /// Locked while a new one is asked for, so that many requests ask once.
    token: Mutex<Option<KeptToken>>,
    /// The server's clock at its latest answer, epoch seconds; 0 where that is not known, or was asked for.
    server_clock: AtomicU64,
    /// Whether the last answer said that the request's number was known.
    replayed: AtomicBool,
    server_run: AtomicU64,
    /// How far our clock is ahead of what samples are stamped by; the least there is where that is our own.
    clock_ahead: AtomicI64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Reads and checks the credentials; nothing is sent yet.
    pub fn new(url: BaseUrl, credentials: &Credentials, now: u64) -> Result<Self, Error> {
        Self::with(url, credentials, ServerLists::default(), |lists| {
            credentials.load(lists, now)
        })
    }

    /// For a program that outlives its certificates. It does not speak to a server that is on one of these lists, and begins
    /// with a certificate that has ended too, or has not begun, which no server takes: [`reload`](Self::reload) takes up new lists and files.
    pub fn lasting(
        url: BaseUrl,
        credentials: &Credentials,
        lists: ServerLists,
        now: u64,
    ) -> Result<Self, Error> {
        Self::with(url, credentials, lists, |lists| {
            credentials.load_whenever(lists, now)
        })
    }

    fn with(
        url: BaseUrl,
        credentials: &Credentials,
        lists: ServerLists,
        load: impl FnOnce(&ServerLists) -> Result<Loaded, CredentialsError>,
    ) -> Result<Self, Error> {
        let (fingerprint, lists_version) = (credentials.fingerprint(), lists.version());
        let loaded = load(&lists)?;
        Ok(Self {
            lists,
            lists_version,
            identity: loaded.identity.clone(),
            not_after: loaded.not_after,
            is_good: loaded.fault.is_none(),
            http: build_http(credentials, loaded.tls)?,
            own: loaded.own,
            anonymous: loaded.anonymous,
            token: Mutex::new(None),
            server_clock: AtomicU64::new(0),
            replayed: AtomicBool::new(false),
            server_run: AtomicU64::new(0),
            clock_ahead: AtomicI64::new(i64::MIN),
            credentials: credentials.clone(),
            fingerprint,
            url,
        })
    }

    /// Which receiver.
    pub fn url(&self) -> &BaseUrl {
        &self.url
    }

    /// Who we are, by our certificate.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The last second our certificate is good for.
    pub fn certificate_end(&self) -> u64 {
        self.not_after
    }

    /// What the server's clock said in its latest answer since this was last asked.
    pub fn take_server_clock(&self) -> Option<ServerClock> {
        let clock = self.server_clock.swap(0, Ordering::Relaxed);
        (clock > 0).then_some(ServerClock {
            at: Duration::from_millis(clock >> 1),
            is_steady: clock & 1 != 0,
            run: self.server_run.load(Ordering::Relaxed),
        })
    }

    /// Says with each sample from now on how far our clock is ahead of what samples are stamped by; nothing where that is our
    /// own.
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

    /// Whether the last answer to [`Self::publish`] said that the record's number was known already: it changed nothing then. Asked once.
    pub fn take_replayed(&self) -> bool {
        self.replayed.swap(false, Ordering::Relaxed)
    }

    /// Takes the files again if they changed: all of them, or none where one is no good. Then the connections and the
    /// token go too, as both are bound to the certificate. Says whether anything was taken. Where only the lists that
    /// servers are judged by have changed, the connections go, so that the next one is judged by them.
    pub fn reload(&mut self, now: u64) -> Result<bool, CredentialsError> {
        let fingerprint = self.credentials.fingerprint();
        let same_files = fingerprint == self.fingerprint;
        let lists_version = self.lists.version();
        if same_files && lists_version == self.lists_version {
            return Ok(false);
        }
        let loaded = self.credentials.load(&self.lists, now)?;
        if loaded.identity != self.identity {
            return Err(CredentialsError::IdentityChanged {
                path: self.credentials.cert.clone(),
                held: Box::new(self.identity.clone()),
                found: Box::new(loaded.identity),
            });
        }
        if let Some(source) = &loaded.fault
            && self.is_good
            && now <= self.not_after
        {
            let (path, source) = (self.credentials.cert.clone(), source.clone());
            return Err(CredentialsError::NoBetter { path, source });
        }
        self.not_after = loaded.not_after;
        self.is_good = loaded.fault.is_none();
        self.http = build_http(&self.credentials, loaded.tls)?;
        (self.own, self.anonymous) = (loaded.own, loaded.anonymous);
        self.lists_version = lists_version;
        if same_files {
            return Ok(false);
        }
        self.token = Mutex::new(None);
        self.fingerprint = fingerprint;
        Ok(true)
    }

    /// Asks for a token; for all that our role may have where `scope` is `None`. It is not kept.
    pub async fn token(&self, scope: Option<Scopes>, now: u64) -> Result<TokenResponse, Error> {
        let scope = scope.map(|scope| scope.to_string());
        let mut form = vec![("grant_type", GRANT_CLIENT_CREDENTIALS)];
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        let request = self.http.post(self.at(route::TOKEN)).form(&form);
        let response = self.send(request, now).await?;
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

    /// Sends the values of one second. With a key, sending them again counts them once.
    pub async fn publish(
        &self,
        host: &NodeName,
        epoch: Epoch,
        values: &SampleSet<'_>,
        key: Option<IdempotencyKey>,
        now: u64,
    ) -> Result<(), Error> {
        let mut request = self
            .http
            .post(self.at(&route::sample(host, epoch)))
            .header(CONTENT_TYPE, "application/json")
            .body(self.to_json(values)?);
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        self.send_with_token(self.with_clock(request), now).await?;
        Ok(())
    }

    /// Sends many records at once; one that was known already counts as a duplicate and changes nothing.
    pub async fn publish_batch(
        &self,
        host: &NodeName,
        batch: &Batch<'_>,
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
        let answer = self.send_with_token(self.with_clock(request), now).await?;
        self.parse(&answer)
    }

    /// A host's summaries; with a filter, those whose name contains it, ASCII case folded.
    pub async fn summaries(
        &self,
        host: &NodeName,
        filter: Option<&str>,
        now: u64,
    ) -> Result<Summaries, Error> {
        self.parse(&self.summaries_json(host, filter, now).await?)
    }

    /// The same, in the receiver's own words.
    pub async fn summaries_json(
        &self,
        host: &NodeName,
        filter: Option<&str>,
        now: u64,
    ) -> Result<Vec<u8>, Error> {
        match filter {
            None | Some("") => self.get(&route::host(host), now).await,
            Some(filter @ ("." | "..")) => {
                // In a URL's path these mean a place, however they are encoded: the sieve must be here.
                let mut all: serde_json::Map<String, serde_json::Value> =
                    self.parse(&self.get(&route::host(host), now).await?)?;
                all.retain(|name, _| name.contains(filter));
                self.to_json(&all)
            }
            Some(filter) => {
                let path = format!("{}/{}", route::host(host), encode(filter));
                self.get(&path, now).await
            }
        }
    }

    /// Every host that reports.
    pub async fn hosts(&self, now: u64) -> Result<Hosts, Error> {
        self.parse(&self.hosts_json(now).await?)
    }

    /// The same, in the receiver's own words.
    pub async fn hosts_json(&self, now: u64) -> Result<Vec<u8>, Error> {
        self.get(route::PERF, now).await
    }

    /// Which numbered records of a host have arrived.
    pub async fn delivery(&self, host: &NodeName, now: u64) -> Result<Delivery, Error> {
        self.parse(&self.get(&route::delivery(host), now).await?)
    }

    /// Settles what is missing of a host. How many numbers that were.
    pub async fn acknowledge(&self, host: &NodeName, why: &str, now: u64) -> Result<u64, Error> {
        let why = why.to_owned();
        let request = self
            .http
            .post(self.at(&route::acknowledged(host)))
            .header(CONTENT_TYPE, "application/json")
            .body(self.to_json(&Acknowledge { why })?);
        let answer = self.send_with_token(request, now).await?;
        Ok(self.parse::<Acknowledged>(&answer)?.acknowledged)
    }

    /// Which certificates were seen there.
    pub async fn certificates(&self, now: u64) -> Result<SeenCertificates, Error> {
        self.parse(&self.get(route::CERTIFICATES, now).await?)
    }

    /// Hands in revocation lists, PEM. They are in force when this returns.
    pub async fn put_crl(&self, pem: &[u8], now: u64) -> Result<(), Error> {
        let request = self
            .http
            .put(self.at(route::CRL))
            .header(CONTENT_TYPE, "application/x-pem-file")
            .body(pem.to_vec());
        self.send_with_token(request, now).await?;
        Ok(())
    }

    /// A GET changes nothing, so a token that turns out to have ended is replaced and the question asked once more.
    async fn get(&self, path: &str, now: u64) -> Result<Vec<u8>, Error> {
        let ask = || self.send_with_token(self.http.get(self.at(path)), now);
        match ask().await {
            Err(error) if matches!(error.code(), Some(Code::TokenInvalid | Code::TokenExpired)) => {
                ask().await
            }
            result => result,
        }
    }

    /// The body of a successful answer. A token that was refused is not kept.
    async fn send_with_token(&self, request: RequestBuilder, now: u64) -> Result<Vec<u8>, Error> {
        let token = self.kept_token(now).await?;
        let response = self.send(request.bearer_auth(&token), now).await?;
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

    /// The kept token, or a new one where it is near its end. While it lasts, it bridges a server that gives no new one.
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
            (Err(error), Some(token), Some(Freshness::Aging)) if !error.is_refusal_of_us() => {
                Ok(token.text().clone())
            }
            (Err(error), ..) => {
                *kept = None;
                Err(error)
            }
        }
    }

    /// Only if it is still the one: another request may have replaced it meanwhile.
    async fn forget_token(&self, refused: &Arc<str>) {
        let mut kept = self.token.lock().await;
        if kept.as_ref().is_some_and(|token| token.text() == refused) {
            *kept = None;
        }
    }

    async fn send(&self, request: RequestBuilder, now: u64) -> Result<Response, Error> {
        let response = match request.send().await {
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

    /// What an exchange failed by. Where it may be a clock, the server's is asked.
    async fn failed(&self, error: reqwest::Error, now: u64) -> Error {
        let mut error = Error::from_transport(&self.url, error, || self.own.seen(now));
        ask_clock(&mut error, &self.url, &self.anonymous).await;
        error
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

    /// Values and names of ours can all be written as JSON, so this fails only where memory ends.
    fn to_json(&self, value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(value).map_err(|error| Error::malformed(&self.url, error))
    }
}

/// What a server's clock said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerClock {
    /// The time since 1970.
    pub at: Duration,
    /// Whether the server knows its clock to be steady.
    pub is_steady: bool,
    /// Which start of the server this is: another number each time, 0 where it does not say.
    pub run: u64,
}

/// An answer beyond [`ANSWER_BYTES_MAX`].
#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
struct AnswerTooLarge;

fn build_http(
    credentials: &Credentials,
    tls: ClientConfig,
) -> Result<reqwest::Client, CredentialsError> {
    http_client(tls).map_err(|error| CredentialsError::Tls {
        path: credentials.cert.clone(),
        source: rustls::Error::General(error.to_string()),
    })
}

/// Where a certificate of ours that is valid by our clock was refused for its dates: what the server's clock says. Anyone may
/// ask that, and only who is believed to be the server is asked.
pub(crate) async fn ask_clock(error: &mut Error, url: &BaseUrl, anonymous: &ClientConfig) {
    let Error::CertificateRefused { alert, seen, .. } = error else {
        return;
    };
    if *alert != AlertDescription::CertificateExpired || seen.fault.is_some() {
        return;
    }
    let Ok(http) = http_client(anonymous.clone()) else {
        return;
    };
    let answer = http.get(format!("{url}{}", route::HEALTHZ)).send().await;
    let clock = answer.ok().and_then(|answer| server_clock(&answer));
    seen.server_clock = clock.map(|clock| clock.at.as_secs());
}

/// The way all of our clients speak HTTP.
pub(crate) fn http_client(tls: ClientConfig) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("lizmon/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build()
}

/// RFC 9110 section 10.2.3, in seconds; as a date, which receivers never send, it says nothing here.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A receiver says it to the millisecond; of others, RFC 9110 section 6.6.1 gives whole seconds, half a second early on average.
fn server_clock(response: &Response) -> Option<ServerClock> {
    let own = response.headers().get(route::TIME_HEADER);
    if let Some(clock) = own.and_then(|value| own_clock(value.as_bytes())) {
        return Some(clock);
    }
    let text = response.headers().get(DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(text).ok()?;
    Some(ServerClock {
        at: date.duration_since(UNIX_EPOCH).ok()? + Duration::from_millis(500),
        is_steady: false,
        run: 0,
    })
}

fn own_clock(value: &[u8]) -> Option<ServerClock> {
    let item = sfv::Parser::new(value).parse::<sfv::Item>().ok()?;
    let secs: f64 = item.bare_item.as_decimal()?.into();
    let steady = item
        .params
        .get("steady")
        .and_then(sfv::BareItem::as_boolean);
    // RFC 9651 section 3.3.2: three digits at most, which an f64 holds but for its last bits.
    let at = Duration::try_from_secs_f64(secs).ok()? + Duration::from_micros(500);
    let at = Duration::from_millis(u64::try_from(at.as_millis()).ok()?);
    let run = item.params.get("run").and_then(sfv::BareItem::as_integer);
    let run = run.map(i64::from).and_then(|run| u64::try_from(run).ok());
    Some(ServerClock {
        at,
        is_steady: steady == Some(true),
        run: run.unwrap_or(0),
    })
}

/// The smaller form, where there is one.
fn compress(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    zstd::bulk::compress(body, COMPRESS_LEVEL)
        .ok()
        .filter(|small| small.len() < body.len())
}

/// One path segment, whatever is in it: `/`, `%`, `?` and `#` too.
fn encode(filter: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(filter, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::*;

    #[test]
    fn a_filter_stays_one_segment() {
        let cases = [
            ("cpu", "cpu"),
            ("disk:/", "disk%3A%2F"),
            ("a/../b", "a%2F..%2Fb"),
            ("100% ?#", "100%25%20%3F%23"),
            ("außen", "au%C3%9Fen"),
        ];
        for (filter, expected) in cases {
            assert_eq!(encode(filter), expected);
            let url = Url::parse(&format!("https://h/api/perf/web1/{expected}")).unwrap();
            assert_eq!(url.path(), format!("/api/perf/web1/{expected}"));
        }
    }

    #[test]
    fn what_a_receiver_says_of_its_clock() {
        let check = |text: &str, expected: Option<(u64, bool)>| {
            let told = own_clock(text.as_bytes());
            let told = told.map(|clock| (clock.at.as_millis() as u64, clock.is_steady));
            assert_eq!(told, expected, "{text}");
        };
        let run = own_clock(b"1465001814.123;steady;run=1465001800000").map(|clock| clock.run);
        assert_eq!(run, Some(1_465_001_800_000));
        check("1465001814.123;steady", Some((1_465_001_814_123, true)));
        check("1465001814.000;steady=?0", Some((1_465_001_814_000, false)));
        check("1465001814.5", Some((1_465_001_814_500, false)));
        check("-1.0;steady", None);
        check("soon", None);
        check("", None);
    }

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        let long = vec![b'a'; COMPRESS_BYTES_MIN];
        let small = compress(&long).unwrap();
        assert!(small.len() < 100);
        assert_eq!(zstd::bulk::decompress(&small, long.len()).unwrap(), long);
        assert!(compress(&long[1..]).is_none());
    }
}
