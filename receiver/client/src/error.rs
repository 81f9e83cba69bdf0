//! What can come of a request.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use lizmon_pki::path::Fault;
use lizmon_protocol::problem::{Code, Problem};
use lizmon_protocol::token::TokenError;
pub use rustls::{AlertDescription, CertificateError};

use crate::base_url::BaseUrl;
use crate::credentials::CredentialsError;
pub use crate::refusal::Seen;
use crate::refusal::{AlertText, TrustText};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server understood, and will not.
    #[error("{url} {}: {}", word_for(*status), Refusal(*status, problem.as_deref()))]
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
    /// The server refused our certificate by TLS alert. Under TLS 1.3 that shows with the first answer only.
    #[error("{url} refused our certificate: {}", AlertText(*alert, seen))]
    CertificateRefused {
        /// Which server.
        url: BaseUrl,
        /// The alert.
        alert: AlertDescription,
        /// What we see of it ourselves.
        seen: Box<Seen>,
    },
    /// The server's certificate is not one we trust.
    #[error("{url} is not trusted: {}", TrustText(error))]
    ServerNotTrusted {
        /// Which server.
        url: BaseUrl,
        /// What is wrong with its certificate.
        error: CertificateError,
    },
    /// There was no getting through.
    #[error("{url} cannot be reached: {obstacle}")]
    Unreachable {
        /// Which server.
        url: BaseUrl,
        /// What stands in the way.
        obstacle: Obstacle,
        /// The same in the words of the layers below: for a log at debug level, it tells a user nothing more.
        cause: Box<dyn StdError + Send + Sync>,
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
    /// Our own files are no good.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// What stands between us and a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The host's name has no address.
    Name,
    /// Nobody listens, or nobody may.
    Connect,
    /// It took too long.
    Timeout,
    /// The other side speaks no TLS of ours.
    Tls,
    /// The connection ended in the middle.
    Broken,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "its host name has no address: check the name",
            Self::Connect => "nobody answers there: is it running, and is the port right?",
            Self::Timeout => "it took too long: is a firewall in the way?",
            Self::Tls => {
                "what answers there does not speak TLS 1.2 or 1.3 with us: is the port right?"
            }
            Self::Broken => "the connection ended in the middle: try again",
        })
    }
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
            Self::CertificateRefused { .. } => true,
            _ => false,
        }
    }

    /// Stays the same as long as the reason does: what [`Display`](fmt::Display) says of clocks is another text each second.
    pub fn reason(&self) -> String {
        let kind = |fault: Option<&Fault>| format!("{:?}", fault.map(std::mem::discriminant));
        match self {
            Self::CertificateRefused { url, alert, seen } => {
                format!("{url} {alert:?} {}", kind(seen.fault.as_ref()))
            }
            Self::ServerNotTrusted {
                url,
                error: CertificateError::Other(other),
            } if other.0.is::<Fault>() => {
                format!("{url} {}", kind(other.0.downcast_ref()))
            }
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

    /// Finds out what a failed exchange failed by.
    /// `seen` is asked for what we know of our own certificate, where that was refused.
    pub(crate) fn from_transport(
        url: &BaseUrl,
        error: reqwest::Error,
        seen: impl FnOnce() -> Seen,
    ) -> Self {
        let url = url.clone();
        let error = error.without_url();
        let obstacle = match find_in_chain::<rustls::Error>(&error) {
            Some(rustls::Error::AlertReceived(alert)) if is_about_our_certificate(*alert) => {
                let (alert, seen) = (*alert, Box::new(seen()));
                return Self::CertificateRefused { url, alert, seen };
            }
            Some(rustls::Error::InvalidCertificate(error)) => {
                let error = error.clone();
                return Self::ServerNotTrusted { url, error };
            }
            // It speaks TLS well: it is a list of ours that is no good.
            Some(rustls::Error::InvalidCertRevocationList(_)) => {
                let error = CertificateError::UnknownRevocationStatus;
                return Self::ServerNotTrusted { url, error };
            }
            Some(_) => Obstacle::Tls,
            None if error.is_timeout() => Obstacle::Timeout,
            None if error.is_dns() || mentions_dns(&error) => Obstacle::Name,
            None if error.is_connect() => Obstacle::Connect,
            None => Obstacle::Broken,
        };
        Self::Unreachable {
            url,
            obstacle,
            cause: Box::new(error),
        }
    }
}

/// Refused is who we are; anything else that a server does not do it only answers.
pub(crate) fn word_for(status: u16) -> &'static str {
    match status {
        401 | 403 => "refused",
        _ => "answered",
    }
}

/// The alerts by which a server refuses a client's certificate: RFC 8446 section 6.2.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError
            | A::CertificateRequired
    )
}

/// An error and what it came from, on one line.
///
/// Some errors say what their source says as well: it is told once.
pub fn in_one_line(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let below = source.to_string();
        if !text.ends_with(&below) {
            text.push_str(": ");
            text.push_str(&below);
        }
        next = source.source();
    }
    text
}

/// An error of this type anywhere below: `io::Error` hides the one it wraps from its own `source`.
fn find_in_chain<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// hyper's own resolver says what it is only by its text.
fn mentions_dns(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().starts_with("dns error") {
            return true;
        }
        next = error.source();
    }
    false
}

struct Refusal<'p>(u16, Option<&'p Problem>);

impl fmt::Display for Refusal<'_> {
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

    fn text(chain: impl StdError + Send + Sync + 'static) -> Option<String> {
        find_in_chain::<rustls::Error>(&chain).map(ToString::to_string)
    }

    #[test]
    fn what_io_errors_wrap_is_found() {
        let tls = || rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
        let expected = Some(tls().to_string());
        assert_eq!(text(tls()), expected);
        assert_eq!(text(io::Error::other(tls())), expected);
        assert_eq!(text(io::Error::other(io::Error::other(tls()))), expected);
        assert_eq!(text(io::Error::other("something else")), None);
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let url = || "https://localhost:8443".parse::<BaseUrl>().unwrap();
        let refused = |status, problem: Option<Problem>| Error::Refused {
            url: url(),
            status,
            problem: problem.map(Box::new),
            retry_after: None,
        };
        let unreachable = |obstacle| Error::Unreachable {
            url: url(),
            obstacle,
            cause: "below".into(),
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
            (unreachable(Obstacle::Connect), "is it running", false),
            (unreachable(Obstacle::Name), "check the name", false),
            (
                Error::CertificateRefused {
                    url: url(),
                    alert: AlertDescription::CertificateRevoked,
                    seen: Box::default(),
                },
                "it is revoked",
                true,
            ),
            (
                Error::ServerNotTrusted {
                    url: url(),
                    error: crate::refusal::of_fault(Fault::BadSignature),
                },
                "check --ca",
                false,
            ),
            (
                Error::ServerNotTrusted {
                    url: url(),
                    error: CertificateError::Other(rustls::OtherError(std::sync::Arc::new(
                        crate::credentials::IdentityError::from(
                            lizmon_pki::identity::IdentityError::UriCount(2),
                        ),
                    ))),
                },
                "its certificate: it bears 2 URI names",
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
