//! An HTTP response, and the checks that every response of its kind must pass.

use http::HeaderMap;
use serde_json::Value;

use crate::openapi::may_answer;

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Sends a request and reads the whole response. If it is a problem, it must be one that the
/// description of the API has for this request.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await;
    let response = response.expect("the receiver answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response
        .bytes()
        .await
        .expect("the answer is whole")
        .to_vec();
    let answer = Answer {
        status,
        headers,
        body,
    };
    if let Some(code) = answer.code() {
        let is_described = may_answer(method.as_str(), &path, status, &code);
        assert!(is_described, "/openapi.json: {method} {path}: {code}");
    }
    answer
}

impl Answer {
    /// The code of a receiver's problem.
    fn code(&self) -> Option<String> {
        let problem: Value = serde_json::from_slice(&self.body).ok()?;
        let code = problem["type"]
            .as_str()?
            .strip_prefix("urn:lizmon:problem:")?;
        Some(code.to_owned())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a header is ASCII"))
    }

    /// The body of a successful response.
    #[track_caller]
    pub(crate) fn json(&self, story: &str) -> Value {
        assert_eq!(self.status, 200, "{story}: {}", self.text());
        assert_eq!(self.header("content-type"), "application/json", "{story}");
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{story}: {}", self.text()))
    }

    #[track_caller]
    pub(crate) fn no_content(&self, story: &str) {
        assert_eq!((self.status, self.text().as_str()), (204, ""), "{story}");
    }

    /// Checks an error of the API: RFC 9457 with this code, and the headers its status requires.
    #[track_caller]
    pub(crate) fn refused(&self, code: &str, story: &str) -> Value {
        let shown = format!("{story}: {} {}", self.status, self.text());
        let problem: Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{shown}"));
        assert_eq!(problem["code"], code, "{shown}");
        assert_eq!(self.status, status_of(code), "{shown}");
        assert_eq!(problem["status"], self.status, "{shown}");
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{shown}"
        );
        assert!(
            problem["title"].as_str().is_some_and(|t| !t.is_empty()),
            "{shown}"
        );
        if code == "unsupported_encoding" {
            let accepted = self.header("accept-encoding");
            assert!(["gzip, zstd", "snappy"].contains(&accepted), "{shown}");
        }
        let challenge = self.header("www-authenticate");
        match code {
            "token_missing" => {
                assert!(challenge.starts_with("Bearer"), "{shown} {challenge}");
                assert!(!challenge.contains("error="), "{shown} {challenge}");
            }
            _ if self.status == 401 => {
                assert!(challenge.starts_with("Bearer"), "{shown} {challenge}");
                assert!(
                    challenge.contains(r#"error="invalid_token""#),
                    "{shown} {challenge}"
                );
            }
            _ => (),
        }
        if matches!(self.status, 429 | 503) {
            let secs = self.header("retry-after").parse::<u32>();
            assert!(secs.is_ok_and(|secs| secs > 0), "{shown}");
        }
        if self.status == 405 {
            assert!(!self.header("allow").is_empty(), "{shown}");
        }
        if self.status == 422 {
            assert!(
                problem["errors"].is_array() && problem["now"].is_u64(),
                "{shown}"
            );
        }
        problem
    }

    /// Checks an error of the token endpoint: RFC 6749 section 5.2.
    #[track_caller]
    pub(crate) fn token_error(&self, status: u16, error: &str, story: &str) {
        let shown = format!("{story}: {} {}", self.status, self.text());
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{shown}"));
        assert_eq!(body["error"], error, "{shown}");
        assert_eq!(self.status, status, "{shown}");
        assert_eq!(self.header("content-type"), "application/json", "{shown}");
        assert_eq!(self.header("cache-control"), "no-store", "{shown}");
    }
}

/// The table of errors in docs/http-api.md.
pub(crate) fn status_of(code: &str) -> u16 {
    match code {
        "malformed_json"
        | "malformed_epoch"
        | "malformed_query"
        | "malformed_protobuf"
        | "answer_too_large"
        | "malformed_idempotency_key"
        | "invalid_host" => 400,
        "token_missing"
        | "token_invalid"
        | "token_expired"
        | "certificate_mismatch"
        | "certificate_revoked"
        | "certificate_untrusted"
        | "certificate_expired" => 401,
        "wrong_host" | "insufficient_scope" | "untrusted_proxy" | "invalid_forwarding" => 403,
        "unknown_host" | "not_found" => 404,
        "method_not_allowed" => 405,
        "request_timeout" => 408,
        "body_too_large" | "too_many_records" => 413,
        "unsupported_encoding" | "unsupported_media_type" => 415,
        "invalid_values" | "epoch_too_old" | "epoch_in_future" | "too_many_labels" => 422,
        "rate_limited" => 429,
        "store_unavailable"
        | "clock_unsteady"
        | "overloaded"
        | "crl_expired"
        | "certificate_renewed" => 503,
        other => panic!("docs/http-api.md has no code {other}"),
    }
}
