//! Error texts for rejected certificates: the client's by the server's TLS alert, and the server's
//! by the client.
//!
//! An alert has less detail than the server that sent it. The client therefore makes the same
//! checks with its own roots, and reports the full reason if it finds one.

use std::fmt;

use lizmon_pki::date::rfc3339;
use lizmon_pki::own_chain::OwnCertificateState;
use lizmon_pki::path::{ChainMember, Fault};
use rustls::{AlertDescription, CertificateError};

/// The server rejected the client certificate with an alert.
pub(crate) struct AlertText<'s>(
    pub(crate) AlertDescription,
    pub(crate) &'s OwnCertificateState,
);

impl fmt::Display for AlertText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use AlertDescription as A;
        let Self(alert, state) = self;
        match (alert, &state.fault) {
            (A::CertificateRevoked, _) => {
                f.write_str("it is revoked, or a CA above it is: have a new one issued")
            }
            (A::CertificateRequired | A::NoCertificate, _) => {
                f.write_str("it requires one, and got none")
            }
            (_, Some(fault)) => fault.fmt(f),
            (A::CertificateExpired, None) => f.write_str(&clocks_differ(state)),
            (A::UnknownCA, None) => f.write_str(
                "the CA that issued it is not among the roots that the server trusts: \
                 give the server's --ca the root of that CA, or have a certificate issued by the server's CA",
            ),
            (A::DecryptError, None) => f.write_str(
                "its signatures do not verify by the roots that the server trusts: another CA of the same name issued it, \
                 or it was changed: have one issued by the server's CA",
            ),
            (A::UnsupportedCertificate, None) => f.write_str(
                "its extended key usage does not allow clientAuth: have one issued with clientAuth",
            ),
            (A::BadCertificate, None) => f.write_str(
                "the server cannot read it, or it has a critical extension that is not supported there: have it issued by lizctl",
            ),
            (A::AccessDenied, None) => f.write_str(
                "it is of another trust domain than the server serves, or has no lizmon identity: have one issued by the server's CA",
            ),
            (A::CertificateUnknown, None) => f.write_str(
                "the server cannot verify it. Most often the server has no valid CRL of the CA that issued it: \
                 add the current CRL to the server's --crl; its log has the reason",
            ),
            (other, None) => write!(f, "TLS alert {}: the server's log has the reason", u8::from(*other)),
        }
    }
}

/// The certificate is valid by the client's clock, but not by the server's.
fn clocks_differ(state: &OwnCertificateState) -> String {
    let here = rfc3339(state.now);
    let Some((begin, end)) = state.validity else {
        return format!(
            "it has expired or is not valid yet by the server's clock, and the clock here says {here}: compare the clocks"
        );
    };
    let (from, until) = (rfc3339(begin), rfc3339(end));
    let validity = format!("it is valid from {from} until {until}");
    match state.server_clock {
        Some(there) if there < begin => format!(
            "it is not valid yet by the server's clock, which says {}: {validity}, and the clock here says {here}: set the clock that is wrong",
            rfc3339(there)
        ),
        Some(there) if there > end => format!(
            "it has expired by the server's clock, which says {}: {validity}, and the clock here says {here}: set the clock that is wrong",
            rfc3339(there)
        ),
        Some(there) => format!(
            "a CA above it has expired or is not valid yet by the server's roots: {validity}, the server's clock says {}, the clock here {here}",
            rfc3339(there)
        ),
        None => format!(
            "it has expired or is not valid yet by the server's clock: {validity}, and the clock here says {here}: compare the two clocks"
        ),
    }
}

/// The client rejected the server's certificate.
pub(crate) struct TrustText<'e>(pub(crate) &'e CertificateError);

impl fmt::Display for TrustText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CertificateError::Other(other) => match other.0.downcast_ref::<Fault>() {
                Some(fault) => server_fault(fault, f),
                None => write!(f, "its certificate: {}", other.0),
            },
            error @ (CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }) => {
                write!(
                    f,
                    "{error}: issue it a certificate with that --san, or use a name it has"
                )
            }
            CertificateError::BadSignature => {
                f.write_str("it cannot prove possession of its certificate's key")
            }
            error => write!(f, "its certificate: {error}"),
        }
    }
}

fn server_fault(fault: &Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match fault {
        Fault::MissingIssuer { .. } | Fault::UnknownRoot { .. } | Fault::BadSignature => write!(
            f,
            "its certificate was not issued by the CA given: {fault}: check --ca"
        ),
        Fault::Revoked(ChainMember::Leaf) => {
            f.write_str("its certificate is revoked: it needs a new one from lizctl issue-receiver")
        }
        Fault::Expired {
            member: ChainMember::Leaf,
            ..
        } => write!(
            f,
            "its certificate: {fault}: lizctl issue-receiver on the CA makes one"
        ),
        fault => write!(f, "its certificate: {fault}"),
    }
}
