//! Which paths are handed on, and how. Everything else is not there.

use std::borrow::Cow;

use lizmon_protocol::name::NodeName;
use lizmon_protocol::route;
use percent_encoding::percent_decode_str;

/// How a path is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The API takes a token, the page a certificate alone.
    pub(super) with_token: bool,
    /// Whether the answer goes on for as long as it is read.
    pub(super) is_stream: bool,
}

const PAGE: Place = Place {
    with_token: false,
    is_stream: false,
};
const API: Place = Place {
    with_token: true,
    is_stream: false,
};

/// What the path is, if it is one of the page or of the reading API.
pub(super) fn place(path: &str) -> Option<Place> {
    if !is_plain(path) {
        return None;
    }
    let streams = |place| Place {
        is_stream: true,
        ..place
    };
    let place = match path {
        route::PAGE | route::PAGE_TRUST | route::PAGE_DELIVERY => PAGE,
        route::PAGE_ALARMS | route::PAGE_ADD => PAGE,
        route::OPENAPI | route::HEALTHZ | route::READYZ => PAGE,
        route::PAGE_LIVE => streams(PAGE),
        route::LIVE => streams(API),
        route::PERF | route::ALARMS => API,
        _ => below(path)?,
    };
    Some(place)
}

/// Paths with names in them.
fn below(path: &str) -> Option<Place> {
    let rest = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix('/');
    if let Some(file) = rest(route::PAGE_ASSETS) {
        return file.split('/').all(is_file_name).then_some(PAGE);
    }
    if let Some(host) = rest(route::PAGE_HOSTS) {
        return is_host(host).then_some(PAGE);
    }
    if let Some(host) = rest(route::PAGE_REVOKE) {
        return host.parse::<NodeName>().is_ok().then_some(PAGE);
    }
    if let Some(host) = rest(route::DELIVERY) {
        return host.parse::<NodeName>().is_ok().then_some(API);
    }
    let host = rest(route::PERF).or_else(|| rest(route::HISTORY))?;
    is_host(host).then_some(API)
}

/// A host, and perhaps a label, which may be anything.
fn is_host(rest: &str) -> bool {
    let (host, label) = rest.split_once('/').unwrap_or((rest, "x"));
    host.parse::<NodeName>().is_ok() && !label.is_empty()
}

fn is_file_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(is_allowed)
}

/// Whether everybody on the way reads the path alike: characters of RFC 3986, no empty segment, no
/// `.` or `..`, also once it is decoded. An encoded slash is one in a label.
fn is_plain(path: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte);
    if !path.bytes().all(is_allowed) || path.contains("//") {
        return false;
    }
    let is_hex = |at: usize| {
        let digits = path.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    if !path.match_indices('%').all(|(at, _)| is_hex(at)) {
        return false;
    }
    let Ok(decoded) = percent_decode_str(path).decode_utf8() else {
        return false;
    };
    let decoded: Cow<'_, str> = decoded;
    let mut segments = decoded.split(['/', '\\']);
    !decoded.contains(char::is_control) && segments.all(|segment| segment != "." && segment != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_the_reading_api() {
        let live = Place {
            is_stream: true,
            ..PAGE
        };
        let api_live = Place {
            is_stream: true,
            ..API
        };
        for (path, expected) in [
            ("/", PAGE),
            ("/trust", PAGE),
            ("/delivery", PAGE),
            ("/alarms", PAGE),
            ("/add", PAGE),
            ("/revoke/web1", PAGE),
            ("/healthz", PAGE),
            ("/readyz", PAGE),
            ("/openapi.json", PAGE),
            ("/assets/page.js", PAGE),
            ("/assets/a/b-1.css", PAGE),
            ("/hosts/web1", PAGE),
            ("/hosts/web1/cpu", PAGE),
            ("/live", live),
            ("/api/live", api_live),
            ("/api/perf", API),
            ("/api/perf/web1", API),
            ("/api/perf/web1/disk-used:/", API),
            ("/api/perf/web1/disk-used:%2Fvar", API),
            ("/api/perf/web1/100%25", API),
            ("/api/history/web1/cpu", API),
            ("/api/delivery/web1", API),
            ("/api/alarms", API),
        ] {
            assert_eq!(place(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn nothing_else() {
        for path in [
            "",
            "//",
            "/..",
            "/.",
            "/trust/",
            "/trust/x",
            "/metrics",
            "/oauth2/token",
            "/.well-known/jwks.json",
            "/api",
            "/api/",
            "/api/crl",
            "/api/certificates",
            "/api/perf/",
            "/api/perf//web1",
            "/api/perf/web1/",
            "/api/perf/../crl",
            "/api/perf/%2e%2e/crl",
            "/api/perf/.%2E/crl",
            "/api/perf/web1/..%2f..%2fcrl",
            "/api/perf/web1/..%5c..%5ccrl",
            "/api/perf/web1/..\\..\\crl",
            "/api/perf/web1/%00",
            "/api/perf/web1/%0a",
            "/api/perf/web1/%ff",
            "/api/perf/web1/%",
            "/api/perf/web1/%2",
            "/api/perf/web1/%zz",
            "/api/perf/web1/a|b",
            "/api/perf/web%2f1",
            "/api/delivery/web1/acknowledged",
            "/assets/",
            "/assets/../healthz",
            "/assets/.hidden",
            "/assets/a%2fb",
            "/hosts/",
            "/hosts/a%2fb",
            "/Trust",
            "/add/web1",
            "/revoke",
            "/revoke/",
            "/revoke/web1/x",
            "/revoke/..%2ftrust",
        ] {
            assert_eq!(place(path), None, "{path}");
        }
    }
}
