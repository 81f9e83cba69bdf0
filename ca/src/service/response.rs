//! Error responses: a status, and a line of text that says what to do (RFC 7030 section 4.2.3).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use lizmon_mtls::trust::PeerRefusal as CertificateRefusal;
use lizmon_protocol::enrol::NOT_FOUND;

use crate::authority::{Error, IssuanceError, IssueError, RenewalError};

/// `Retry-After` if no better value is known.
const RETRY_AFTER_SECS: u64 = 5;
/// RFC 7617 section 2.
const CHALLENGE: &str = r#"Basic realm="lizmon enrolment", charset="UTF-8""#;

/// What the client is told if a request fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ErrorResponse {
    /// No valid name and token.
    Unauthorized(&'static str),
    /// The client may not do this.
    Forbidden(String),
    /// The request is malformed.
    BadRequest(String),
    /// The body is too large.
    TooLarge,
    /// The body took too long.
    Timeout,
    /// Too many attempts.
    TooMany(Duration),
    /// The holder has enough certificates.
    Enough(String, Duration),
    /// The CA cannot issue at present.
    Unavailable,
    /// No such route.
    NotFound,
    /// No such method.
    Method(&'static str),
}

const TOKEN_REFUSED: &str = "the join token is not valid for this name: it is wrong, has expired, or was used with another key; \
     make a new one with `lizctl join-token NAME`";

impl ErrorResponse {
    /// No token was sent.
    pub(super) const NO_TOKEN: Self = Self::Unauthorized(
        "send the name and the join token as HTTP Basic credentials: curl -u NAME:TOKEN; \
         `lizctl join-token NAME` makes a token",
    );

    /// The response for an error. The log has the details.
    pub(super) fn of(error: &IssuanceError) -> Self {
        match error {
            IssuanceError::Body(error) => Self::BadRequest(with_causes(error)),
            IssuanceError::Request(error) => Self::BadRequest(error.to_string()),
            IssuanceError::Token(_) => Self::Unauthorized(TOKEN_REFUSED),
            IssuanceError::Renewal(error) => Self::Forbidden(match error {
                RenewalError::NotValidNow => {
                    "the certificate has expired: join again with a token from `lizctl join-token NAME`"
                        .to_owned()
                }
                RenewalError::TooMany { wait, .. } => {
                    return Self::Enough(error.to_string(), *wait);
                }
                error @ (RenewalError::Unknown | RenewalError::Revoked) => {
                    format!("{error}: it cannot be renewed; join again with a token from `lizctl join-token NAME`")
                }
            }),
            IssuanceError::Ca(Error::Issue(error @ IssueError::CaseConflict { .. })) => {
                Self::Forbidden(error.to_string())
            }
            IssuanceError::Ca(_) => Self::Unavailable,
        }
    }

    /// The response for a client certificate that is refused.
    pub(super) fn of_certificate(refusal: CertificateRefusal) -> Self {
        Self::Forbidden(format!(
            "{refusal}: it cannot be renewed; join again with a token from `lizctl join-token NAME`"
        ))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooMany(_) | Self::Enough(..) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Unauthorized(text) => (*text).to_owned(),
            Self::Forbidden(text) | Self::BadRequest(text) | Self::Enough(text, _) => text.clone(),
            Self::TooLarge => "the body is too large for a signing request".to_owned(),
            Self::Timeout => "the body took too long to arrive: send it again".to_owned(),
            Self::TooMany(wait) => {
                format!("too many attempts: try again in {} s", whole_secs(*wait))
            }
            Self::Unavailable => {
                "cannot issue certificates at present: try again, and see liz-ca's log if it persists"
                    .to_owned()
            }
            Self::NotFound => format!(
                "{NOT_FOUND}: its routes are /.well-known/est/cacerts, simpleenroll and simplereenroll beside it, and /crl; receivers listen elsewhere"
            ),
            Self::Method(allow) => format!("this route allows {allow}"),
        }
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.text() + "\n").into_response();
        let headers = response.headers_mut();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, plain);
        match self {
            Self::Unauthorized(_) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            }
            Self::TooMany(wait) | Self::Enough(_, wait) => {
                headers.insert(RETRY_AFTER, whole_secs(wait).into());
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_SECS.into());
            }
            Self::Method(allow) => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            _ => (),
        }
        response
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ")
}

/// At least one second.
fn whole_secs(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_its_status_asks_for() {
        let wait = Duration::from_millis(1500);
        let cases = [
            (
                ErrorResponse::NO_TOKEN,
                401,
                "www-authenticate",
                "Basic realm=",
            ),
            (
                ErrorResponse::Unauthorized(TOKEN_REFUSED),
                401,
                "www-authenticate",
                "Basic realm=",
            ),
            (
                ErrorResponse::Forbidden("no".into()),
                403,
                "content-type",
                "text/plain",
            ),
            (
                ErrorResponse::BadRequest("no".into()),
                400,
                "content-type",
                "text/plain",
            ),
            (ErrorResponse::TooLarge, 413, "content-type", "text/plain"),
            (ErrorResponse::Timeout, 408, "content-type", "text/plain"),
            (ErrorResponse::TooMany(wait), 429, "retry-after", "2"),
            (
                ErrorResponse::TooMany(Duration::ZERO),
                429,
                "retry-after",
                "1",
            ),
            (
                ErrorResponse::Enough("use it".into(), wait),
                429,
                "retry-after",
                "2",
            ),
            (ErrorResponse::Unavailable, 503, "retry-after", "5"),
            (ErrorResponse::NotFound, 404, "content-type", "text/plain"),
            (
                ErrorResponse::Method("GET, HEAD"),
                405,
                "allow",
                "GET, HEAD",
            ),
        ];
        for (refusal, status, header, value) in cases {
            let response = refusal.clone().into_response();
            assert_eq!(response.status(), status, "{refusal:?}");
            let got = response.headers()[header].to_str().unwrap();
            assert!(got.starts_with(value), "{refusal:?}: {got}");
        }
    }
}
