//! Why a connection failed.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use lizmon_pki::own_chain::OwnCertificateState;
use lizmon_pki::path::Fault;
pub use rustls::{AlertDescription, CertificateError};

use crate::base_url::BaseUrl;
use crate::certificate_text::{AlertText, TrustText};

/// Why there was no exchange with a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server refused our certificate by TLS alert. Under TLS 1.3 that shows with the first answer only.
    #[error("{url} refused our certificate: {}", AlertText(*alert, own))]
    CertificateRefused {
        /// Which server.
        url: BaseUrl,
        /// The alert.
        alert: AlertDescription,
        /// What we see of it ourselves.
        own: Box<OwnCertificateState>,
    },
    /// The server's certificate is not one we trust.
    #[error("{url} is not trusted: {}", TrustText(error))]
    ServerNotTrusted {
        /// Which server.
        url: BaseUrl,
        /// What is wrong with its certificate.
        error: CertificateError,
    },
    /// There was no connection.
    #[error("{url} cannot be reached: {failure}")]
    Unreachable {
        /// Which server.
        url: BaseUrl,
        /// What failed.
        failure: ConnectFailure,
        /// The same in the words of the layers below: for a log at debug level, it tells a user nothing more.
        cause: Box<dyn StdError + Send + Sync>,
    },
}

/// Why there is no connection to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
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

impl fmt::Display for ConnectFailure {
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

impl ConnectError {
    /// Whether the server refused our certificate: asking again with the same one will not help.
    pub fn is_refusal_of_us(&self) -> bool {
        matches!(self, Self::CertificateRefused { .. })
    }

    /// Stays the same as long as the reason does. [`Display`](fmt::Display) gives the clocks too, which
    /// differ each second.
    pub fn reason(&self) -> String {
        let kind = |fault: Option<&Fault>| format!("{:?}", fault.map(std::mem::discriminant));
        match self {
            Self::CertificateRefused { url, alert, own } => {
                format!("{url} {alert:?} {}", kind(own.fault.as_ref()))
            }
            Self::ServerNotTrusted {
                url,
                error: CertificateError::Other(other),
            } if other.0.is::<Fault>() => {
                format!("{url} {}", kind(other.0.downcast_ref()))
            }
            error => error.to_string(),
        }
    }

    /// Why an exchange with `url` failed. `own` gives what we know of our own certificate, where the
    /// server refused that.
    pub fn from_transport(
        url: &BaseUrl,
        error: reqwest::Error,
        own: impl FnOnce() -> OwnCertificateState,
    ) -> Self {
        let url = url.clone();
        let error = error.without_url();
        let failure = match find_in_chain::<rustls::Error>(&error) {
            Some(rustls::Error::AlertReceived(alert)) if is_about_our_certificate(*alert) => {
                let (alert, own) = (*alert, Box::new(own()));
                return Self::CertificateRefused { url, alert, own };
            }
            Some(rustls::Error::InvalidCertificate(error)) => {
                let error = error.clone();
                return Self::ServerNotTrusted { url, error };
            }
            // The server speaks TLS: a CRL of ours cannot be used.
            Some(rustls::Error::InvalidCertRevocationList(_)) => {
                let error = CertificateError::UnknownRevocationStatus;
                return Self::ServerNotTrusted { url, error };
            }
            Some(_) => ConnectFailure::Tls,
            None if error.is_timeout() => ConnectFailure::Timeout,
            None if error.is_dns() || mentions_dns(&error) => ConnectFailure::Name,
            None if error.is_connect() => ConnectFailure::Connect,
            None => ConnectFailure::Broken,
        };
        Self::Unreachable {
            url,
            failure,
            cause: Box::new(error),
        }
    }
}

/// Refused is who we are; anything else that a server does not do it only answers.
pub fn word_for(status: u16) -> &'static str {
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

#[cfg(test)]
mod tests {
    use lizmon_pki::credentials::ServerIdentityError;
    use lizmon_pki::identity::IdentityError;

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

    fn other(error: impl StdError + Send + Sync + 'static) -> CertificateError {
        CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error)))
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let url = || "https://localhost:8443".parse::<BaseUrl>().unwrap();
        let unreachable = |failure| ConnectError::Unreachable {
            url: url(),
            failure,
            cause: "below".into(),
        };
        let cases = [
            (unreachable(ConnectFailure::Connect), "is it running", false),
            (unreachable(ConnectFailure::Name), "check the name", false),
            (
                ConnectError::CertificateRefused {
                    url: url(),
                    alert: AlertDescription::CertificateRevoked,
                    own: Box::default(),
                },
                "it is revoked",
                true,
            ),
            (
                ConnectError::ServerNotTrusted {
                    url: url(),
                    error: other(Fault::BadSignature),
                },
                "check --ca",
                false,
            ),
            (
                ConnectError::ServerNotTrusted {
                    url: url(),
                    error: other(ServerIdentityError::from(IdentityError::UriCount(2))),
                },
                "its certificate: it bears 2 URI names",
                false,
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
