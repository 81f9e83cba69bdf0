//! Errors of connections.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use lizmon_pki::own_chain::OwnCertificateState;
use lizmon_pki::path::Fault;
pub use rustls::{AlertDescription, CertificateError};

use crate::base_url::BaseUrl;
use crate::certificate_text::{AlertText, TrustText};

/// Why an exchange with a server failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server rejected the client certificate with a TLS alert. With TLS 1.3, the alert arrives
    /// only with the first response.
    #[error("{url} refused our certificate: {}", AlertText(*alert, own))]
    CertificateRefused {
        /// The server.
        url: BaseUrl,
        /// The alert.
        alert: AlertDescription,
        /// The client's own check of the certificate.
        own: Box<OwnCertificateState>,
    },
    /// The client does not trust the server's certificate.
    #[error("{url} is not trusted: {}", TrustText(error))]
    ServerNotTrusted {
        /// The server.
        url: BaseUrl,
        /// The fault in its certificate.
        error: CertificateError,
    },
    /// The connection failed.
    #[error("{url} cannot be reached: {failure}")]
    Unreachable {
        /// The server.
        url: BaseUrl,
        /// What failed.
        failure: ConnectFailure,
        /// The error of the layers below. It is for debug logs: for a user it has no further
        /// information.
        cause: Box<dyn StdError + Send + Sync>,
    },
}

/// Why a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The host name does not resolve.
    Name,
    /// The port is closed or blocked.
    Connect,
    /// The connection timed out.
    Timeout,
    /// The server does not support a TLS version or cipher suite of the client.
    Tls,
    /// The connection was closed before the exchange was complete.
    Broken,
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "its host name cannot be resolved: check the name",
            Self::Connect => "the connection failed: is it running, and is the port right?",
            Self::Timeout => "it timed out: does a firewall block it?",
            Self::Tls => "there is no TLS 1.2 or 1.3 server there: is the port right?",
            Self::Broken => "the connection was closed early: try again",
        })
    }
}

impl ConnectError {
    /// Whether the server rejected the client certificate. A retry with the same certificate will
    /// fail.
    pub fn is_identity_refused(&self) -> bool {
        matches!(self, Self::CertificateRefused { .. })
    }

    /// A text that stays the same while the reason is the same. The [`Display`](fmt::Display) text
    /// also has the clocks, which change each second.
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

    /// Why an exchange with `url` failed. `own` checks the client certificate, and is called only
    /// if the server rejected it.
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
            // The server supports TLS, but the client cannot use one of its own CRLs.
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

/// Whether a connection ended before the answer was there, for no reason that a new one would have
/// as well.
pub fn is_broken(error: &reqwest::Error) -> bool {
    let is_tls = find_in_chain::<rustls::Error>(error).is_some();
    !is_tls && !error.is_timeout() && !error.is_connect() && !error.is_builder()
}

/// The word is "refused" if the server rejected the client's identity, and "answered" otherwise.
pub fn word_for(status: u16) -> &'static str {
    match status {
        401 | 403 => "refused",
        _ => "answered",
    }
}

/// The alerts with which a server rejects a client certificate: RFC 8446 section 6.2.
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

/// The first error of this type in the chain. `io::Error` omits the error that it wraps from its
/// `source`, so it needs its own case.
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

/// hyper's resolver errors can be recognized only by their text.
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
                "its certificate: it has 2 URI names",
                false,
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
