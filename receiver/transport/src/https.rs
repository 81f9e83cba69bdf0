//! HTTPS connections, and the headers that every response has.

use std::time::{Duration, UNIX_EPOCH};

use lizmon_protocol::route;
use reqwest::Response;
use reqwest::header::{DATE, RETRY_AFTER};
use rustls::{AlertDescription, ClientConfig};

use crate::base_url::BaseUrl;
use crate::error::ConnectError;

/// The limit for the TCP connection and the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit for a whole request. The receiver's own limits for head and body are 10 s and 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Less than the receiver's idle timeout, so that the client closes the connection first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// The server's clock in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerClock {
    /// The time since 1970.
    pub at: Duration,
    /// Whether the server knows that its clock is steady.
    pub is_steady: bool,
    /// Identifies the server's current run; it differs for each start. 0 if the server does not
    /// send it.
    pub run: u64,
}

/// Asks for the server's clock if the server rejected the client certificate for its dates and the
/// certificate is valid by the local clock. The request needs no client certificate, and is sent
/// only to a server that the client trusts.
pub async fn ask_clock(error: &mut ConnectError, url: &BaseUrl, anonymous: &ClientConfig) {
    let ConnectError::CertificateRefused { alert, own, .. } = error else {
        return;
    };
    if *alert != AlertDescription::CertificateExpired || own.fault.is_some() {
        return;
    }
    let Ok(http) = https_client(anonymous.clone()) else {
        return;
    };
    let answer = http.get(format!("{url}{}", route::HEALTHZ)).send().await;
    let clock = answer.ok().and_then(|answer| server_clock(&answer));
    own.server_clock = clock.map(|clock| clock.at.as_secs());
}

/// The HTTP client of all lizmon clients: no redirects, no proxy, HTTP/1.1 only.
pub fn https_client(tls: ClientConfig) -> reqwest::Result<reqwest::Client> {
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

/// The Retry-After header in seconds: RFC 9110 section 10.2.3. Dates are ignored, because receivers
/// never send them.
pub fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The server's time. Receivers send milliseconds. For other servers, this uses the Date header
/// (RFC 9110 section 6.6.1). It has whole seconds, which are half a second early on average, so
/// half a second is added.
pub fn server_clock(response: &Response) -> Option<ServerClock> {
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
    // RFC 9651 section 3.3.2 allows at most three decimals. An f64 represents them up to a small
    // error, which the rounding below removes.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
