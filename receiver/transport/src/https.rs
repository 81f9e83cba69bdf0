//! How a connection to a server is made, and what every answer of a server says.

use std::time::{Duration, UNIX_EPOCH};

use lizmon_protocol::route;
use reqwest::Response;
use reqwest::header::{DATE, RETRY_AFTER};
use rustls::{AlertDescription, ClientConfig};

use crate::base_url::BaseUrl;
use crate::error::ConnectError;

/// A server that takes longer to accept a connection and shake hands is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that takes longer has failed: the receiver's own bounds on head and body are 10 s and 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Less than the receiver's bound on idle connections, so that we are the first to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
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

/// Where a certificate of ours that is valid by our clock was refused for its dates: what the server's clock says. Anyone may
/// ask that, and only who is believed to be the server is asked.
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

/// HTTP as all of our clients speak it: no redirect, no proxy, HTTP/1.1 alone.
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

/// RFC 9110 section 10.2.3, in seconds; as a date, which receivers never send, it says nothing here.
pub fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A receiver says it to the millisecond; of others, RFC 9110 section 6.6.1 gives whole seconds, half a second early on average.
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
