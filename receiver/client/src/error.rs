//! What can come of a request.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use lizmon_pki::credentials::CredentialsError;
use lizmon_protocol::problem::{Code, Problem};
use lizmon_protocol::token::TokenError;
use lizmon_transport::error::word_for;
use lizmon_transport::{BaseUrl, ConnectError};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server understood, and will not.
    #[error("{url} {}: {}", word_for(*status), ProblemText(*status, problem.as_deref()))]
    Refused {
        /// Which server.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// What it said; nothing where it is no receiver of ours, or something stands before it.
        problem: Option<Box<Problem>>,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The token endpoint gives us no token: RFC 6749 section 5.2.
    #[error("{url} gives no token: {}: {}", error.error, error.error_description.as_deref().unwrap_or("no more is said"))]
    NoToken {
        /// Which server.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// What it said.
        error: Box<TokenError>,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It is the other server of ours.
    #[error(
        "{url} is liz-ca, not a receiver: ask a receiver, which listens on a port of its own, 8443 unless told otherwise"
    )]
    IsCa {
        /// Which server.
        url: BaseUrl,
    },
    /// The answer is not what this route answers.
    #[error("{url} answered what no receiver answers: is it one, and is its version right?")]
    Malformed {
        /// Which server.
        url: BaseUrl,
        /// What could not be read.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// There was no exchange.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Our own files cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Error {
    /// The receiver's own word for what went wrong.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { problem, .. } => problem.as_ref().map(|problem| problem.code),
            _ => None,
        }
    }

    /// Whether it is about who we are, and asking again as the same will not help: HTTP 401 and 403, a token endpoint
    /// that gives us none, a TLS alert.
    pub fn is_refusal_of_us(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 401 | 403),
            Self::NoToken { status, .. } => (400..500).contains(status) && *status != 429,
            Self::Connect(error) => error.is_refusal_of_us(),
            _ => false,
        }
    }

    /// Stays the same as long as the reason does: what [`Display`](fmt::Display) says of clocks is another text each second.
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
                "HTTP {status}, and not in a receiver's words: is the URL right?"
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
                "refused: the token speaks for another host than the path names: web1 is not web2 (HTTP 403 wrong_host)",
                true,
            ),
            (
                refused(502, None),
                "HTTP 502, and not in a receiver's words",
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
                "gives no token: invalid_client: no certificate",
                true,
            ),
        ];
        for (error, part, about_us) in cases {
            let text = error.to_string();
            assert!(text.contains(part), "{text}: should say {part:?}");
            assert!(text.starts_with("https://localhost:8443 "), "{text}");
            assert_eq!(error.is_refusal_of_us(), about_us, "{text}");
        }
    }
}
