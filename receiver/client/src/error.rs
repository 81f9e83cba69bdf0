//! Errors of requests.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use lizmon_pki::credentials::CredentialsError;
use lizmon_protocol::problem::{Code, Problem};
use lizmon_protocol::token::TokenError;
use lizmon_transport::error::word_for;
use lizmon_transport::{BaseUrl, ConnectError};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server rejected the request.
    #[error("{url} {}: {}", word_for(*status), ProblemText(*status, problem.as_deref()))]
    Refused {
        /// The server.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// The problem in the body. `None` if the server is not a lizmon receiver, or a proxy
        /// responded.
        problem: Option<Box<Problem>>,
        /// The Retry-After of the response.
        retry_after: Option<Duration>,
    },
    /// The token endpoint did not issue a token: RFC 6749 section 5.2.
    #[error("{url} issued no token: {}: {}", error.error, error.error_description.as_deref().unwrap_or("no reason given"))]
    NoToken {
        /// The server.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// The error in the body.
        error: Box<TokenError>,
        /// The Retry-After of the response.
        retry_after: Option<Duration>,
    },
    /// The server is `liz-ca`.
    #[error(
        "{url} is liz-ca, not a receiver: ask a receiver, which listens on another port, 8443 by default"
    )]
    IsCa {
        /// The server.
        url: BaseUrl,
    },
    /// The response does not match this route.
    #[error("{url} sent an unexpected answer: is it a receiver of a compatible version?")]
    Malformed {
        /// The server.
        url: BaseUrl,
        /// The parse error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A request to hand on has a path that would not be sent as it is written.
    #[error("{url} is not asked: the path would not arrive as it is written")]
    OtherPath {
        /// The server.
        url: BaseUrl,
    },
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The client's own files cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Error {
    /// The receiver's error code.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { problem, .. } => problem.as_ref().map(|problem| problem.code),
            _ => None,
        }
    }

    /// Whether the server rejected this client's identity, so that a retry with the same identity
    /// will fail: HTTP 401 or 403, a refusal by the token endpoint, or a TLS alert.
    pub fn is_identity_refused(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 401 | 403),
            Self::NoToken { status, .. } => (400..500).contains(status) && *status != 429,
            Self::Connect(error) => error.is_identity_refused(),
            _ => false,
        }
    }

    /// A text that stays the same while the reason is the same. The [`Display`](fmt::Display) text
    /// can have clocks in it, which change each second.
    pub fn reason(&self) -> String {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Credentials(error) => error.reason(),
            error => error.to_string(),
        }
    }

    pub(crate) fn malformed(
        url: &BaseUrl,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Malformed {
            url: url.clone(),
            source: source.into(),
        }
    }
}

struct ProblemText<'p>(u16, Option<&'p Problem>);

impl fmt::Display for ProblemText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(status, problem) = *self;
        let Some(problem) = problem else {
            return write!(
                f,
                "HTTP {status} without a problem document: is the URL right?"
            );
        };
        f.write_str(&problem.title)?;
        if let Some(detail) = &problem.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(error) = problem.errors.first() {
            let label = error.label.as_deref().unwrap_or("the record");
            write!(f, ": {}: {}", label.escape_debug(), error.reason)?;
        }
        write!(f, " (HTTP {status} {})", problem.code.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        let url = || "https://localhost:8443".parse::<BaseUrl>().unwrap();
        let refused = |status, problem: Option<Problem>| Error::Refused {
            url: url(),
            status,
            problem: problem.map(Box::new),
            retry_after: None,
        };
        let wrong_host = Problem::new(Code::WrongHost).with_detail("web1 is not web2");
        let cases = [
            (
                refused(403, Some(wrong_host)),
                "refused: the token is for another host than the path: web1 is not web2 (HTTP 403 wrong_host)",
                true,
            ),
            (
                refused(502, None),
                "HTTP 502 without a problem document",
                false,
            ),
            (refused(401, None), "HTTP 401", true),
            (
                refused(429, Some(Problem::new(Code::RateLimited))),
                "rate_limited",
                false,
            ),
            (
                Error::NoToken {
                    url: url(),
                    status: 401,
                    error: Box::new(TokenError {
                        error: "invalid_client".into(),
                        error_description: Some("no certificate".into()),
                    }),
                    retry_after: None,
                },
                "issued no token: invalid_client: no certificate",
                true,
            ),
        ];
        for (error, part, about_us) in cases {
            let text = error.to_string();
            assert!(text.contains(part), "{text}: should say {part:?}");
            assert!(text.starts_with("https://localhost:8443 "), "{text}");
            assert_eq!(error.is_identity_refused(), about_us, "{text}");
        }
    }
}
