//! The judgement of a receiver on a certificate: rustls with the root and the CRLs, then the identity.

use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::identity::{Identity, IdentityError};
use lizmon_pki::pem::{self, Kind, PemError};
use lizmon_protocol::name::{SpiffeId, TrustDomain};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::profile::rfc3339;
use crate::signer::trust_domain_of;

/// What a receiver trusts, as PEM.
#[derive(Debug, Clone, Copy)]
pub struct Trusted<'a> {
    /// `certs/root.crt`.
    pub roots_pem: &'a [u8],
    /// `certs/crl.pem`.
    pub crls_pem: &'a [u8],
}

/// A certificate that a receiver takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Who it speaks for.
    pub spiffe_id: SpiffeId,
    /// Its last second.
    pub not_after: u64,
    /// When the first of the CRLs ends.
    pub crl_next_update: u64,
}

/// Why a receiver does not take a certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No certificate in the file.
    #[error("there is no certificate in it that can be read")]
    NoCertificate(#[source] PemError),
    /// No usable root.
    #[error("the root certificate cannot be used: is --certs the right folder?")]
    BadRoot,
    /// No usable CRL. Without one rustls would check nothing.
    #[error("there is no revocation list that can be used: is --certs the right folder?")]
    BadCrl,
    /// It, or one above it, has ended.
    #[error("it has ended, the chain's first end is {}: issue a new one", rfc3339(*.first_end))]
    Expired {
        /// Epoch seconds.
        first_end: u64,
    },
    /// It, or one above it, has not begun.
    #[error("it is not valid yet: check the clock")]
    NotValidYet,
    /// It, or one above it, is on the CRL.
    #[error("it has been revoked")]
    Revoked,
    /// No CRL speaks for one of its issuers.
    #[error("no revocation list of its issuer is in crl.pem: fetch the current one")]
    UnknownRevocationStatus,
    /// Signed by nobody known.
    #[error(
        "it is not signed below this root: is the issuing certificate in the file, and the folder right?"
    )]
    UnknownIssuer,
    /// Tampered with.
    #[error("its signature is wrong")]
    BadSignature,
    /// Not for clients of TLS.
    #[error("it is not meant for clients: a CA's or another program's certificate")]
    NotForClients,
    /// Anything else that rustls says.
    #[error("rustls refuses it")]
    Rustls(#[source] rustls::Error),
    /// It speaks for nobody.
    #[error("it speaks for nobody")]
    Identity(#[from] IdentityError),
    /// It speaks for somebody of another trust domain.
    #[error("it belongs to the trust domain {found}, the root to {expected}")]
    TrustDomain {
        /// The certificate's.
        found: TrustDomain,
        /// The root's.
        expected: TrustDomain,
    },
}

/// Judges a leaf and what follows it in the file as a receiver would at `now`. An expired CRL is taken, as
/// receivers take one; when it ends is in the verdict.
pub fn verify(chain_pem: &[u8], trusted: Trusted<'_>, now: u64) -> Result<Verdict, Refusal> {
    let chain = certificates(chain_pem).map_err(Refusal::NoCertificate)?;
    let (leaf, above) = chain.split_first().ok_or(Refusal::BadSignature)?;
    let roots = certificates(trusted.roots_pem).map_err(|_| Refusal::BadRoot)?;
    let crls = lists(trusted.crls_pem).ok_or(Refusal::BadCrl)?;
    let crl_next_update = crls.iter().filter_map(next_update).min();
    let crl_next_update = crl_next_update.ok_or(Refusal::BadCrl)?;

    let expected = roots.first().and_then(trust_domain_of);
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(|_| Refusal::BadRoot)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .with_crls(crls)
        .build()
        .map_err(|_| Refusal::BadCrl)?;
    verifier
        .verify_client_cert(
            leaf,
            above,
            UnixTime::since_unix_epoch(Duration::from_secs(now)),
        )
        .map_err(|error| refusal(error, &chain))?;

    let identity = Identity::from_der(leaf)?;
    let found = &identity.spiffe_id.trust_domain;
    match expected {
        Some(expected) if expected != *found => Err(Refusal::TrustDomain {
            found: found.clone(),
            expected,
        }),
        _ => Ok(Verdict {
            not_after: identity.not_after,
            spiffe_id: identity.spiffe_id,
            crl_next_update,
        }),
    }
}

/// At least one, from PEM or DER.
fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    match pem::certificates(bytes) {
        Err(PemError::Der) => Ok(vec![bytes.to_vec().into()]),
        read => read,
    }
}

/// Every list of a PEM text, or the one of a DER.
fn lists(bytes: &[u8]) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let sections = match pem::read(bytes) {
        Err(PemError::Der) => return Some(vec![bytes.to_vec().into()]),
        read => read.ok()?,
    };
    let lists = sections
        .into_iter()
        .filter(|section| section.kind == Kind::RevocationList);
    Some(lists.map(|section| section.der.into()).collect())
}

fn next_update(der: &CertificateRevocationListDer<'_>) -> Option<u64> {
    let (_, crl) = CertificateRevocationList::from_der(der).ok()?;
    u64::try_from(crl.next_update()?.timestamp()).ok()
}

fn refusal(error: rustls::Error, chain: &[CertificateDer<'_>]) -> Refusal {
    let rustls::Error::InvalidCertificate(why) = &error else {
        return Refusal::Rustls(error);
    };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired {
            first_end: chain.iter().filter_map(not_after).min().unwrap_or(0),
        },
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Refusal::NotValidYet
        }
        CertificateError::Revoked => Refusal::Revoked,
        CertificateError::UnknownRevocationStatus => Refusal::UnknownRevocationStatus,
        CertificateError::UnknownIssuer => Refusal::UnknownIssuer,
        CertificateError::BadSignature => Refusal::BadSignature,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Refusal::NotForClients
        }
        // rustls has no name for it.
        _ if chain.first().is_some_and(is_ca) => Refusal::NotForClients,
        _ => Refusal::Rustls(error),
    }
}

fn is_ca(der: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

fn not_after(der: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}
