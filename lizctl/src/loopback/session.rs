//! Who may use the server: whoever had the key first, then whoever has the cookie.
//!
//! The key is in a URL, which others may come to see: in a history, in a list of processes. So it
//! works once and for a few minutes, and is traded for a cookie that no script can read.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::COOKIE;

/// How long a key works that nobody has used.
pub(crate) const KEY_LIFETIME_SECS: u64 = 600;
/// The path of a key's URL.
pub(super) const KEY_PATH: &str = "/open/";

const COOKIE_PREFIX: &str = "lizmon-open-";
/// How many cookies of other runs a browser keeps: some may run now.
const COOKIES_OF_OTHERS_MAX: usize = 16;

/// A fresh secret of 256 bits.
pub(crate) type NewSecret = fn() -> [u8; 32];

/// The session of this run. Its secrets are made at the start and are never stored.
pub(crate) struct Session {
    address: SocketAddr,
    cookie: String,
    new_secret: NewSecret,
    /// The one key that works now.
    key: Mutex<Option<Key>>,
}

struct Key {
    text: String,
    /// Epoch seconds.
    until: u64,
}

impl Session {
    pub(crate) fn new(address: SocketAddr, new_secret: NewSecret) -> Self {
        Self {
            address,
            cookie: URL_SAFE_NO_PAD.encode(new_secret()),
            new_secret,
            key: Mutex::new(None),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL with a new key. The key before it works no longer.
    pub(crate) fn url(&self, now: u64) -> String {
        let text = URL_SAFE_NO_PAD.encode((self.new_secret)());
        let url = format!("http://{}{KEY_PATH}{text}", self.address);
        let until = now.saturating_add(KEY_LIFETIME_SECS);
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(Key { text, until });
        url
    }

    /// Whether this is the key. It is not afterwards.
    pub(super) fn redeem(&self, text: &str, now: u64) -> bool {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let is_key = key
            .as_ref()
            .is_some_and(|key| now <= key.until && is_same(key.text.as_bytes(), text.as_bytes()));
        if is_key {
            *key = None;
        }
        is_key
    }

    /// Cookies know no ports: each server on this machine sees those of all others, so the name has
    /// the port.
    fn cookie_name(&self) -> String {
        format!("{COOKIE_PREFIX}{}", self.address.port())
    }

    /// The header that gives the cookie to the browser, until the browser ends.
    pub(super) fn set_cookie(&self) -> String {
        let name = self.cookie_name();
        format!("{name}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie)
    }

    /// Headers that take away all but the newest cookies of other runs. Browsers keep cookies of
    /// `127.0.0.1` for every port, longer than runs last, and send all of them to each server on
    /// this machine: many have no room for hundreds.
    pub(super) fn take_away_old_cookies(&self, headers: &HeaderMap) -> Vec<String> {
        let own = self.cookie_name();
        let others = pairs(headers).map(|(name, _)| name).filter(|name| {
            let port = name.strip_prefix(COOKIE_PREFIX);
            *name != own && port.is_some_and(|port| port.parse::<u16>().is_ok())
        });
        let others: Vec<_> = others.collect();
        // RFC 6265, section 5.4: the oldest come first.
        let old = others.len().saturating_sub(COOKIES_OF_OTHERS_MAX);
        let old = others.into_iter().take(old);
        old.map(|name| format!("{name}=; Path=/; Max-Age=0"))
            .collect()
    }

    /// Whether the request has the cookie of this run.
    pub(super) fn holds(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        pairs(headers).any(|(found, value)| {
            found == name && is_same(value.as_bytes(), self.cookie.as_bytes())
        })
    }
}

/// Names and values of the cookies, in their order.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).into_iter();
    let pairs = lines.filter_map(|line| line.to_str().ok());
    let pairs = pairs.flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('='))
}

/// Takes as long for any text of the same length.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    fn secret() -> [u8; 32] {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        [NEXT.fetch_add(1, Ordering::Relaxed); 32]
    }

    fn session() -> Session {
        Session::new("127.0.0.1:4711".parse().unwrap(), secret)
    }

    fn key(url: &str) -> &str {
        url.strip_prefix("http://127.0.0.1:4711/open/").unwrap()
    }

    #[test]
    fn a_key_works_once_and_for_ten_minutes() {
        let session = session();
        assert!(!session.redeem("", 1000), "there is none yet");
        let url = session.url(1000);
        assert!(key(&url).len() >= 43, "256 bits: {url}");
        assert!(!session.redeem("another", 1000));
        assert!(session.redeem(key(&url), 1600));
        assert!(!session.redeem(key(&url), 1600), "a second time");
        let late = session.url(1000);
        assert!(!session.redeem(key(&late), 1601), "too late");
        let (before, after) = (session.url(2000), session.url(2000));
        assert!(!session.redeem(key(&before), 2000), "the one before");
        assert!(session.redeem(key(&after), 2000));
    }

    #[test]
    fn the_cookie_is_of_this_run_and_port() {
        let (ours, other) = (session(), session());
        let cookie = ours.set_cookie();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
        let with = |line: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, line.parse().unwrap());
            headers
        };
        assert!(ours.holds(&with(pair)));
        assert!(ours.holds(&with(&format!("a=b; lizmon-open-4711=old; {pair}"))));
        let other_pair = other.set_cookie();
        for line in [
            "",
            "a",
            other_pair.split(';').next().unwrap(),
            &pair.replace("4711", "4712"),
            &pair[..pair.len() - 1],
            &format!("x{pair}"),
        ] {
            assert!(!ours.holds(&with(line)), "{line}");
        }
        assert!(!ours.holds(&HeaderMap::new()));
    }

    #[test]
    fn cookies_of_other_runs_do_not_pile_up() {
        let session = session();
        let check = |cookies: Vec<String>, expected: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, cookies.join("; ").parse().unwrap());
            let taken = session.take_away_old_cookies(&headers);
            let names: Vec<_> = taken
                .iter()
                .map(|line| line.strip_suffix("=; Path=/; Max-Age=0").unwrap())
                .collect();
            assert_eq!(names, expected, "{cookies:?}");
        };
        let runs = |ports: std::ops::Range<u16>| -> Vec<String> {
            ports.map(|port| format!("lizmon-open-{port}=x")).collect()
        };
        check(runs(1..17), &[]);
        check(runs(1..19), &["lizmon-open-1", "lizmon-open-2"]);
        // Its own, and what is nobody's of us, stay and do not count.
        let strangers = ["lizmon-open-4711=y", "a=b", "lizmon-open-x=1"];
        let all = strangers.map(str::to_owned).into_iter();
        check(all.chain(runs(1..18)).collect(), &["lizmon-open-1"]);
    }
}
