//! Whether a request may be looked at: what a browser says of who made it.
//!
//! A stranger's page in the same browser can send requests here. It cannot read the answers without
//! our consent, but it could once its own name resolves to 127.0.0.1: so Host must be ours.

use http::header::{ACCEPT, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::session::Session;

/// Why a request is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Neither GET nor HEAD.
    Method,
    /// A target that is no path: for proxies, which this is not.
    Target,
    /// Another name than ours, or none.
    Host,
    /// A page of another origin made it.
    Origin,
}

/// Holds for the Unix socket, too. Only forms of our own are posted.
pub(super) fn check_target(parts: &Parts, has_forms: bool) -> Result<(), Refusal> {
    let is_form = has_forms && parts.method == Method::POST;
    if parts.method != Method::GET && parts.method != Method::HEAD && !is_form {
        return Err(Refusal::Method);
    }
    let is_path = parts.uri.scheme().is_none() && parts.uri.authority().is_none();
    match is_path && parts.uri.path().starts_with('/') {
        true => Ok(()),
        false => Err(Refusal::Target),
    }
}

/// What a browser adds.
pub(super) fn check_origin(headers: &HeaderMap, session: &Session) -> Result<(), Refusal> {
    let host = only(headers, &HOST).ok_or(Refusal::Host)?;
    let port = session.address().port();
    let mut ours = vec![session.address().to_string(), format!("localhost:{port}")];
    if port == 80 {
        // Browsers leave the default port out.
        let named: Vec<_> = ours
            .iter()
            .filter_map(|name| name.strip_suffix(":80"))
            .collect();
        let named: Vec<_> = named.into_iter().map(str::to_owned).collect();
        ours.extend(named);
    }
    if !ours.iter().any(|name| host.eq_ignore_ascii_case(name)) {
        return Err(Refusal::Host);
    }
    if headers.contains_key(ORIGIN) {
        let origin = only(headers, &ORIGIN).ok_or(Refusal::Origin)?;
        if !origin.eq_ignore_ascii_case(&format!("http://{host}")) {
            return Err(Refusal::Origin);
        }
    }
    // `same-site` is another server on this machine, whose pages get our cookie as well.
    match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(Refusal::Origin),
    }
}

/// Whether somebody looks ahead, for a user who has not asked yet: a browser that prefetches, or a
/// program that sees the address in a clipboard, a terminal or a chat. That must not use the key up.
/// Who opens a page takes HTML; curl and scripts take anything.
pub(super) fn is_ahead_of_the_user(headers: &HeaderMap) -> bool {
    let takes_html = !headers.contains_key(ACCEPT)
        || ["text/html", "text/*", "*/*"]
            .iter()
            .any(|media_type| accepts(headers, media_type));
    let is_no_page = !takes_html
        || headers
            .get("sec-fetch-mode")
            .is_some_and(|mode| mode != "navigate");
    is_no_page || says_it_is_ahead(headers)
}

fn says_it_is_ahead(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .any(|name| {
            headers.get_all(*name).iter().any(|value| {
                let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
                value.contains("prefetch")
                    || value.contains("prerender")
                    || value.contains("preview")
            })
        })
}

/// Whether the client names this media type, or this range of them.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(ACCEPT).into_iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.any(|value| {
        value
            .split(',')
            .any(|part| part.trim().starts_with(media_type))
    })
}

/// The value of a header that stands there once.
fn only<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use http::{Request, Uri};

    use super::*;

    fn session(address: &str) -> Session {
        Session::new(address.parse().unwrap(), || [7; 32])
    }

    fn headers(lines: &str) -> HeaderMap {
        let lines = lines.split('\n').filter(|line| !line.is_empty());
        let pairs = lines.map(|line| line.split_once(": ").unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_our_own_pages_are_answered() {
        let at = session("127.0.0.1:4711");
        for (lines, expected) in [
            ("host: 127.0.0.1:4711", Ok(())),
            ("host: localhost:4711", Ok(())),
            (
                "host: LocalHost:4711\norigin: http://localhost:4711",
                Ok(()),
            ),
            ("host: 127.0.0.1:4711\nsec-fetch-site: none", Ok(())),
            ("host: 127.0.0.1:4711\nsec-fetch-site: same-origin", Ok(())),
            ("", Err(Refusal::Host)),
            ("host: evil.example", Err(Refusal::Host)),
            ("host: evil.example:4711", Err(Refusal::Host)),
            ("host: 127.0.0.1", Err(Refusal::Host)),
            ("host: 127.0.0.1:4712", Err(Refusal::Host)),
            ("host: 127.0.0.1:4711.evil.example", Err(Refusal::Host)),
            ("host: localhost.:4711", Err(Refusal::Host)),
            ("host: 0.0.0.0:4711", Err(Refusal::Host)),
            ("host: [::1]:4711", Err(Refusal::Host)),
            (
                "host: 127.0.0.1:4711\nhost: evil.example",
                Err(Refusal::Host),
            ),
            (
                "host: 127.0.0.1:4711\norigin: http://evil.example",
                Err(Refusal::Origin),
            ),
            ("host: 127.0.0.1:4711\norigin: null", Err(Refusal::Origin)),
            (
                "host: 127.0.0.1:4711\norigin: https://127.0.0.1:4711",
                Err(Refusal::Origin),
            ),
            (
                "host: 127.0.0.1:4711\norigin: http://localhost:4711",
                Err(Refusal::Origin),
            ),
            (
                "host: 127.0.0.1:4711\norigin: http://127.0.0.1:4711\norigin: null",
                Err(Refusal::Origin),
            ),
            (
                "host: 127.0.0.1:4711\nsec-fetch-site: same-site",
                Err(Refusal::Origin),
            ),
            (
                "host: 127.0.0.1:4711\nsec-fetch-site: cross-site",
                Err(Refusal::Origin),
            ),
        ] {
            assert_eq!(check_origin(&headers(lines), &at), expected, "{lines}");
        }
        let six = session("[::1]:80");
        for (host, expected) in [
            ("[::1]:80", Ok(())),
            ("[::1]", Ok(())),
            ("::1", Err(Refusal::Host)),
            ("localhost", Ok(())),
            ("evil.example", Err(Refusal::Host)),
        ] {
            let got = check_origin(&headers(&format!("host: {host}")), &six);
            assert_eq!(got, expected, "{host}");
        }
    }

    #[test]
    fn who_opens_a_page_is_told_from_who_looks_ahead() {
        let page = "accept: text/html,application/xhtml+xml,*/*;q=0.8";
        for (lines, expected) in [
            ("", false),
            ("accept: */*", false),
            ("accept: image/avif,image/webp", true),
            ("accept: application/json", true),
            (page, false),
            (&format!("{page}\nsec-fetch-mode: navigate"), false),
            (&format!("{page}\nsec-fetch-mode: no-cors"), true),
            (&format!("{page}\nsec-purpose: prefetch;prerender"), true),
            (&format!("{page}\npurpose: prefetch"), true),
            (&format!("{page}\nx-moz: prefetch"), true),
            (&format!("{page}\nx-purpose: preview"), true),
        ] {
            assert_eq!(is_ahead_of_the_user(&headers(lines)), expected, "{lines}");
        }
    }

    #[test]
    fn methods_and_targets() {
        for (method, target, expected) in [
            ("GET", "/", Ok(())),
            ("HEAD", "/api/perf?x=1", Ok(())),
            ("POST", "/", Err(Refusal::Method)),
            ("PUT", "/api/crl", Err(Refusal::Method)),
            ("OPTIONS", "/", Err(Refusal::Method)),
            ("CONNECT", "evil.example:443", Err(Refusal::Method)),
            ("GET", "http://evil.example/", Err(Refusal::Target)),
            ("GET", "http://127.0.0.1:4711/", Err(Refusal::Target)),
            ("GET", "evil.example:443", Err(Refusal::Target)),
            ("GET", "*", Err(Refusal::Target)),
        ] {
            let uri: Uri = target.parse().unwrap();
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            let parts = request.into_parts().0;
            assert_eq!(check_target(&parts, false), expected, "{method} {target}");
            let with_forms = match method {
                "POST" => Ok(()),
                _ => expected,
            };
            assert_eq!(check_target(&parts, true), with_forms, "{method} {target}");
        }
    }
}
