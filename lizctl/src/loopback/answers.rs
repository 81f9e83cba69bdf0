//! The server's own answers: short pages that say what to do, or JSON for programs.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lizmon_client::Error;
use lizmon_pki::error_chain::in_one_line;
use maud::{DOCTYPE, html};
use serde_json::json;

use super::admission::{Refusal, accepts};

/// What every answer has, unless the receiver says something else.
const DEFAULT_HEADERS: [(&str, &str); 6] = [
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];
/// After how many seconds a page that waits for the receiver asks again.
const ASK_AGAIN_SECS: u32 = 5;

/// Adds what is not there yet.
pub(super) fn with_default_headers(mut response: Response) -> Response {
    for (name, value) in DEFAULT_HEADERS {
        let entry = response.headers_mut().entry(HeaderName::from_static(name));
        entry.or_insert(HeaderValue::from_static(value));
    }
    response
}

/// What went wrong, in the words of a page.
pub(super) struct OwnAnswer<'a> {
    pub(super) status: StatusCode,
    /// For programs: stable.
    pub(super) code: &'static str,
    pub(super) title: &'a str,
    pub(super) what_to_do: &'a str,
    pub(super) details: Option<&'a str>,
    /// Whether the page asks again by itself.
    pub(super) asks_again: bool,
}

impl OwnAnswer<'_> {
    /// As a page for those who accept one, else as JSON.
    pub(super) fn into_response(self, headers: &HeaderMap) -> Response {
        let body = match accepts(headers, "text/html") {
            true => self.page(),
            false => self.json(),
        };
        let (media_type, text) = body;
        let policy =
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        if self.asks_again {
            headers.insert(RETRY_AFTER, HeaderValue::from(ASK_AGAIN_SECS));
        }
        with_default_headers(response)
    }

    fn page(&self) -> (&'static str, String) {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if self.asks_again {
                        meta http-equiv="refresh" content=(ASK_AGAIN_SECS);
                    }
                    title { "lizmon: " (self.title) }
                }
                body {
                    main {
                        h1 { (self.title) }
                        p { (self.what_to_do) }
                        @if let Some(details) = self.details {
                            p { code { (details) } }
                        }
                    }
                }
            }
        };
        ("text/html; charset=utf-8", page.into_string())
    }

    fn json(&self) -> (&'static str, String) {
        let body = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.details.unwrap_or(self.what_to_do),
        });
        (lizmon_protocol::problem::MEDIA_TYPE, body.to_string())
    }
}

/// What admission refused.
pub(super) fn refused(refusal: Refusal, headers: &HeaderMap) -> Response {
    let (status, code, title) = match refusal {
        Refusal::Method => (
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "only GET and HEAD are answered here",
        ),
        Refusal::Target => (
            StatusCode::BAD_REQUEST,
            "not_a_proxy",
            "this is no proxy: ask for a path",
        ),
        Refusal::Host => (
            StatusCode::MISDIRECTED_REQUEST,
            "wrong_host",
            "this server is not the host that was asked for",
        ),
        Refusal::Origin => (
            StatusCode::FORBIDDEN,
            "wrong_origin",
            "another site asked for this",
        ),
    };
    let answer = OwnAnswer {
        status,
        code,
        title,
        what_to_do: "Type or paste the address that lizctl printed into the browser's address bar.",
        details: None,
        asks_again: false,
    };
    let mut response = answer.into_response(headers);
    if refusal == Refusal::Method {
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// No cookie of this run, or a key that does not work any more.
pub(super) fn not_opened(headers: &HeaderMap) -> Response {
    let answer = OwnAnswer {
        status: StatusCode::UNAUTHORIZED,
        code: "not_opened",
        title: "This browser has no access yet",
        what_to_do: "Each address that lizctl prints works once, in one browser, and for ten minutes at most. \
                     Get a new one: run `lizctl open` again, in the folder of `lizctl up` if that is running.",
        details: None,
        asks_again: false,
    };
    answer.into_response(headers)
}

/// Who looks ahead gets nothing, and the key is not used up.
pub(super) fn not_yet(headers: &HeaderMap) -> Response {
    let answer = OwnAnswer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "not_yet",
        title: "Not before you ask for it",
        what_to_do: "Open this address in a browser.",
        details: None,
        asks_again: false,
    };
    answer.into_response(headers)
}

pub(super) fn not_found(headers: &HeaderMap) -> Response {
    let answer = OwnAnswer {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        title: "There is nothing here",
        what_to_do: "The page begins at /.",
        details: None,
        asks_again: false,
    };
    answer.into_response(headers)
}

/// The receiver gave no answer. A page waits for it; what is wrong with the certificate does not mend
/// itself.
pub(super) fn no_answer(error: &Error, headers: &HeaderMap) -> Response {
    let why = in_one_line(error);
    let is_refused = error.is_identity_refused();
    let (code, title, what_to_do) = if is_refused {
        (
            "certificate_refused",
            "The receiver refuses your certificate",
            "It is revoked, has ended, or is not a reader's. Get a new one from whoever runs the CA (`lizctl issue-reader NAME`, or `lizctl join` with a token); \
             once it is in place of the old one, load this page again.",
        )
    } else {
        (
            "receiver_unreachable",
            "The receiver does not answer",
            "This page asks again every few seconds. `lizctl doctor` says what is wrong if it stays so.",
        )
    };
    if !is_refused && accepts(headers, "text/event-stream") {
        return wait_for_events();
    }
    let answer = OwnAnswer {
        status: StatusCode::BAD_GATEWAY,
        code,
        title,
        what_to_do,
        details: Some(&why),
        asks_again: !is_refused,
    };
    answer.into_response(headers)
}

/// The receiver refuses a page, with a reason for programs.
pub(super) fn page_refused(status: StatusCode, why: &str, headers: &HeaderMap) -> Response {
    let answer = OwnAnswer {
        status,
        code: "certificate_refused",
        title: "The receiver refuses your certificate",
        what_to_do: "Get a new one from whoever runs the CA (`lizctl issue-reader NAME`, or `lizctl join` with a token); once it is in place of the old one, load this page again.",
        details: Some(why),
        asks_again: false,
    };
    answer.into_response(headers)
}

/// A browser gives a stream up for good at any error status, and tries again after one that ends.
fn wait_for_events() -> Response {
    let text = format!("retry: {}\n\n", ASK_AGAIN_SECS * 1000);
    let headers = [(CONTENT_TYPE, "text/event-stream")];
    with_default_headers((headers, text).into_response())
}

/// The page, for the browser that had the key.
pub(super) fn opened(page: &str, cookies: &[String]) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    let cookies = cookies.iter().map(|cookie| (SET_COOKIE, &**cookie));
    let others = [(LOCATION, page), (CACHE_CONTROL, "no-store")];
    for (name, value) in cookies.chain(others) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    }
    with_default_headers(response)
}
