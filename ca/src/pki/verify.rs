//! Whether a receiver would accept a certificate, by the receiver's own code: the path to the root,
//! the CRLs along it, then the identity.

use lizmon_mtls::identity::{Identity, IdentityError};
use lizmon_pki::anchors::{self, Anchors, AnchorsError};
use lizmon_pki::crl::{Crl, UnusableCrl};
use lizmon_pki::path::{ChainMember, Fault, PathVerifier, RevocationPolicy, Usage, unix_time};
use lizmon_pki::pem::{self, PemError};
use lizmon_protocol::name::{SpiffeId, TrustDomain};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;

use super::ca_certificate::trust_domain_of;

/// What a receiver trusts, as PEM.
#[derive(Debug, Clone, Copy)]
pub struct Trusted<'a> {
    /// `certs/root.crt`.
    pub roots_pem: &'a [u8],
    /// `certs/crl.pem`.
    pub crls_pem: &'a [u8],
}

/// A certificate that a receiver accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The holder's identity.
    pub spiffe_id: SpiffeId,
    /// Its last second.
    pub not_after: u64,
    /// When the first of the CRLs expires.
    pub crl_next_update: u64,
}

/// Why a receiver refuses a certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The file contains no certificate.
    #[error("there is no certificate in it that can be read")]
    NoCertificate(#[source] PemError),
    /// No usable root.
    #[error("the root certificate cannot be used: is --certs the right folder?")]
    BadRoot(#[source] AnchorsError),
    /// No usable CRL. A receiver without one refuses all certificates.
    #[error("there is no usable CRL: is --certs the right folder?")]
    BadCrl(#[source] UnusableCrl),
    /// The certificate, or a CA above it, is revoked.
    #[error("{0} has been revoked")]
    Revoked(ChainMember),
    /// Not for TLS clients.
    #[error("it is not a client certificate: it is a CA's or another program's")]
    NotForClients,
    /// Any other reason.
    #[error(transparent)]
    Chain(Fault),
    /// It contains no identity.
    #[error("it contains no valid identity")]
    Identity(#[from] IdentityError),
    /// Its identity is in another trust domain.
    #[error("it belongs to the trust domain {found}, the root to {expected}")]
    TrustDomain {
        /// The certificate's.
        found: TrustDomain,
        /// The root's.
        expected: TrustDomain,
    },
}

/// Verifies a leaf and the certificates that follow it in the file, as a receiver would at `now`.
/// An expired CRL is accepted, as receivers accept one; the verdict says when it expires.
pub fn verify(chain_pem: &[u8], trusted: Trusted<'_>, now: u64) -> Result<Verdict, VerifyError> {
    let chain = certificates(chain_pem).map_err(VerifyError::NoCertificate)?;
    let (leaf, above) = chain.split_first().ok_or(VerifyError::NotForClients)?;
    let anchors = authorities(trusted.roots_pem).map_err(VerifyError::BadRoot)?;
    let crls = Crl::read_all(trusted.crls_pem).map_err(VerifyError::BadCrl)?;
    let ends = crls.iter().map(|crl| crl.status().next_update);
    let crl_next_update = ends.min().unwrap_or(0);

    let expected = anchors.roots.first().and_then(trust_domain_of);
    let Anchors {
        roots,
        intermediates,
        ..
    } = anchors;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    PathVerifier::new(
        &roots,
        intermediates,
        crls,
        RevocationPolicy::CrlRequired,
        algorithms.all,
    )
    .verify(leaf, above, unix_time(now), Usage::Client)
    .map_err(verify_error)?;

    let identity = Identity::from_der(leaf)?;
    let found = &identity.spiffe_id.trust_domain;
    match expected {
        Some(expected) if expected != *found => Err(VerifyError::TrustDomain {
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

/// At least one certificate, from PEM or DER.
fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    match pem::certificates(bytes) {
        Err(PemError::Der) => Ok(vec![bytes.to_vec().into()]),
        read => read,
    }
}

/// The roots in a PEM file, or the one in a DER file.
fn authorities(bytes: &[u8]) -> Result<Anchors, AnchorsError> {
    match anchors::read(bytes) {
        Err(AnchorsError::Pem(PemError::Der)) => Ok(Anchors {
            roots: vec![bytes.to_vec().into()],
            ..Anchors::default()
        }),
        read => read,
    }
}

fn verify_error(fault: Fault) -> VerifyError {
    match fault {
        Fault::Revoked(whose) => VerifyError::Revoked(whose),
        Fault::IsAuthority => VerifyError::NotForClients,
        fault => VerifyError::Chain(fault),
    }
}
