//! Checks that a request names exactly one host. Other requests are rejected: RFC 9112 section 3.2.
//!
//! If two servers in a chain each trust a different name, an attacker can smuggle requests and
//! poison caches.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::{Version, request};

/// Why the host of a request is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The host is missing although the protocol requires it.
    #[error("the request has no Host header: RFC 9112 section 3.2")]
    Missing,
    /// There is more than one `Host` line.
    #[error("the request has more than one Host header: RFC 9112 section 3.2")]
    Repeated,
    /// The value is not a name or an address with an optional port.
    #[error(
        "the Host header is not a name or address, with or without a port: RFC 9110 section 7.2"
    )]
    Malformed,
    /// `Host` differs from the request target, which is `:authority` in HTTP/2.
    #[error(
        "the Host header differs from the authority of the request's target: RFC 9113 section 8.3.1"
    )]
    Contradicted,
}

/// Checks that the request names its host as its HTTP version requires. Any name is valid here: the
/// client has already compared our certificate with it.
pub fn check_host(head: &request::Parts) -> Result<(), HostError> {
    let mut lines = head.headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(HostError::Repeated);
    }
    let of_header = line.map(|line| line.to_str().map_err(|_| HostError::Malformed));
    let of_header = of_header.transpose()?;
    let of_target = head.uri.authority().map(|target| target.as_str());
    for text in of_header.into_iter().chain(of_target) {
        if !is_host(text) {
            return Err(HostError::Malformed);
        }
    }
    match (of_header, of_target, head.version) {
        (Some(header), Some(target), _) if !header.eq_ignore_ascii_case(target) => {
            Err(HostError::Contradicted)
        }
        (None, _, Version::HTTP_11) | (None, None, Version::HTTP_2) => Err(HostError::Missing),
        _ => Ok(()),
    }
}

/// RFC 3986 section 3.2.2, limited to what a certificate can contain: a DNS name or an address, and
/// a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            return address.parse::<Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !host.is_empty() && host.bytes().all(is_name_byte) && is_port(port)
}

/// Digits, or an empty string.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn check(version: Version, uri: &str, hosts: &[&[u8]], expected: Result<(), HostError>) {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        let got = check_host(&request.body(()).unwrap().into_parts().0);
        assert_eq!(got, expected, "{version:?} {uri} {hosts:?}");
    }

    #[test]
    fn which_requests_name_a_host() {
        let (http1, http10, http2) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
        let whole = "https://a.example:8443/healthz";
        check(http1, "/", &[b"a.example"], Ok(()));
        check(http1, "/", &[], Err(HostError::Missing));
        check(http1, whole, &[], Err(HostError::Missing));
        check(http1, whole, &[b"A.example:8443"], Ok(()));
        check(
            http1,
            whole,
            &[b"b.example:8443"],
            Err(HostError::Contradicted),
        );
        check(http1, whole, &[b"a.example"], Err(HostError::Contradicted));
        check(http1, "/", &[b"a", b"a"], Err(HostError::Repeated));
        check(http1, "/", &[b"a", b"b"], Err(HostError::Repeated));
        check(http10, "/", &[], Ok(()));
        check(http10, "/", &[b"a", b"b"], Err(HostError::Repeated));
        check(http10, "/", &[b"a b"], Err(HostError::Malformed));
        check(http2, whole, &[], Ok(()));
        check(http2, whole, &[b"a.example:8443"], Ok(()));
        check(
            http2,
            whole,
            &[b"b.example:8443"],
            Err(HostError::Contradicted),
        );
        check(http2, "/", &[b"a.example"], Ok(()));
        check(http2, "/", &[], Err(HostError::Missing));
        check(
            http2,
            "https://user@a.example/",
            &[],
            Err(HostError::Malformed),
        );
    }

    #[test]
    fn what_a_host_is() {
        let good: &[&[u8]] = &[
            b"localhost",
            b"LOCALHOST",
            b"a.example.",
            b"my_host-1",
            b"127.0.0.1",
            b"127.0.0.1:8443",
            b"a:",
            b"a:0",
            b"a:65535",
            b"[::1]",
            b"[::1]:8443",
            b"[2001:db8::7]:",
        ];
        for host in good {
            check(Version::HTTP_11, "/", &[host], Ok(()));
        }
        let bad: &[&[u8]] = &[
            b"",
            b":8443",
            b"a b",
            b"a,b",
            b"a, b",
            b"a/b",
            b"a\\b",
            b"a?b",
            b"a#b",
            b"user@a",
            b"a:x",
            b"a:65536",
            b"a:-1",
            b"a:+1",
            b"a:1:2",
            b"::1",
            b"[::1",
            b"::1]",
            b"[::1]x",
            b"[::1]:x",
            b"[a]",
            b"[]",
            b"[::1%eth0]",
            b"a\xff",
            b"a\tb",
            b"a;b",
            b"<a>",
            b"a%00b",
            b"a'b",
            b"https://a",
        ];
        for host in bad {
            check(Version::HTTP_11, "/", &[host], Err(HostError::Malformed));
        }
    }
}
