//! Verifies the path from a peer's certificate to a root, including revocation.
//!
//! webpki builds the paths, and this module checks each of them against the CRLs. webpki can check
//! CRLs itself, but it takes the first CRL with the issuer's name, whatever key signed it. A CRL
//! that another key signed would then lock out every peer, and the second of two CRLs in force
//! would be ignored. This module uses all CRLs that the issuer's key on the path signed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath};

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::crl::Crl;
use crate::fault::loggable_name;
pub use crate::fault::{ChainMember, Fault};
pub use crate::usage::Usage;

/// The maximum number of cached pairs of CRL and key. The cache holds only keys of authorities with
/// a path to a root.
const REMEMBERED_MAX: usize = 4096;
/// The maximum number of authorities that are remembered from the chains of peers.
const LEARNED_MAX: usize = 64;

/// Whether a CRL is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationPolicy {
    /// Each issuer on the path must have a CRL that covers the certificate below it.
    CrlRequired,
    /// A certificate is rejected only if a CRL revokes it. A missing CRL is accepted.
    CrlOptional,
}

/// Cached result of checking whether a key signed a CRL: by the index of the CRL and the bytes of
/// the key.
type Signed = HashMap<(usize, Box<[u8]>), bool>;

/// Verifies chains against a fixed set of roots and CRLs.
pub struct PathVerifier {
    anchors: Vec<TrustAnchor<'static>>,
    intermediates: Vec<CertificateDer<'static>>,
    crls: Vec<Crl>,
    demand: RevocationPolicy,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    signed: RwLock<Signed>,
    learned: RwLock<Vec<CertificateDer<'static>>>,
}

impl fmt::Debug for PathVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Paths to {} roots by {:?}",
            self.anchors.len(),
            self.crls
        )
    }
}

impl PathVerifier {
    /// `intermediates` help to build paths and need not be trusted. Roots that cannot be parsed are
    /// ignored.
    pub fn new(
        roots: &[CertificateDer<'static>],
        intermediates: Vec<CertificateDer<'static>>,
        crls: Vec<Crl>,
        demand: RevocationPolicy,
        algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    ) -> Self {
        let anchor = |root: &CertificateDer<'static>| {
            Some(webpki::anchor_from_trusted_cert(root).ok()?.to_owned())
        };
        Self {
            anchors: roots.iter().filter_map(anchor).collect(),
            intermediates,
            crls,
            demand,
            algorithms,
            signed: RwLock::default(),
            learned: RwLock::default(),
        }
    }

    /// The certificates that are added to the chain of each peer.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// Authorities on valid paths that so far only came from peers.
    pub fn learned(&self) -> Vec<CertificateDer<'static>> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        learned.clone()
    }

    /// Verifies a chain at `now`: there must be a path to a root, valid for this usage, without a
    /// revoked certificate.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), Fault> {
        let all: Vec<CertificateDer<'_>> =
            self.intermediates.iter().chain(shown).cloned().collect();
        let explain = |error| Fault::explain(error, leaf, &all, usage);
        let parsed = EndEntityCert::try_from(leaf).map_err(explain)?;
        let fault = RefCell::new(None);
        let on_path = |path: &VerifiedPath<'_>| {
            let found = self.verify_path(path);
            if let Err(found) = &found {
                // If there are several paths, a revoked certificate is a more useful error than a
                // missing CRL.
                let mut said = fault.borrow_mut();
                if !matches!(*said, Some(Fault::Revoked(_))) {
                    *said = Some(found.clone());
                }
            }
            found.map_err(|_| webpki::Error::UnknownRevocationStatus)
        };
        let path = parsed.verify_for_usage(
            self.algorithms,
            &self.anchors,
            &all,
            now,
            match usage {
                Usage::Client => KeyUsage::client_auth(),
                Usage::Server => KeyUsage::server_auth(),
            },
            None,
            Some(&on_path),
        );
        match path {
            Ok(path) => {
                self.learn(&path);
                Ok(())
            }
            Err(error) => Err(fault.take().unwrap_or_else(|| explain(error))),
        }
    }

    fn verify_path(&self, path: &VerifiedPath<'_>) -> Result<(), Fault> {
        let above: Vec<&Cert<'_>> = path.intermediate_certificates().collect();
        let mut keys: Vec<(Box<[u8]>, Option<CertificateDer<'_>>)> = above
            .iter()
            .map(|cert| {
                (
                    cert.subject_public_key_info().as_ref().into(),
                    Some(cert.der()),
                )
            })
            .collect();
        let anchor = webpki::spki_for_anchor(path.anchor());
        keys.push((anchor.as_ref().into(), None));
        let leaf: &Cert<'_> = path.end_entity();
        let mut uncovered = None;
        for (cert, (key, issuer)) in std::iter::once(leaf).chain(above).zip(&keys) {
            match self.revocation_status(cert, key, issuer.as_ref()) {
                RevocationStatus::Revoked => {
                    let is_leaf = cert.der() == leaf.der();
                    return Err(Fault::Revoked(match is_leaf {
                        true => ChainMember::Leaf,
                        false => {
                            ChainMember::Authority(name_of(cert, |it| loggable_name(it.subject())))
                        }
                    }));
                }
                RevocationStatus::NotCovered => {
                    let issuer = name_of(cert, |it| loggable_name(it.issuer()));
                    uncovered.get_or_insert(Fault::NoCrl { issuer });
                }
                RevocationStatus::Foreign => {
                    let issuer = name_of(cert, |it| loggable_name(it.issuer()));
                    uncovered.get_or_insert(Fault::ForeignCrl { issuer });
                }
                RevocationStatus::Good => (),
            }
        }
        match uncovered {
            Some(fault) if self.demand == RevocationPolicy::CrlRequired => Err(fault),
            _ => Ok(()),
        }
    }

    /// Checks one certificate against the CRLs of its issuer, which has this key.
    fn revocation_status(
        &self,
        cert: &Cert<'_>,
        key: &[u8],
        issuer: Option<&CertificateDer<'_>>,
    ) -> RevocationStatus {
        let der = cert.der();
        let (mut covered, mut signed, mut foreign) = (false, false, false);
        for (at, crl) in self.crls.iter().enumerate() {
            if crl.issuer_name() != cert.issuer() {
                continue;
            }
            if !self.has_signed(key, issuer, at, crl) {
                foreign = true;
                continue;
            }
            if crl.revokes(cert.serial()) {
                return RevocationStatus::Revoked;
            }
            signed = true;
            covered = covered || crl.covers(&der);
        }
        match (covered, foreign && !signed) {
            (true, _) => RevocationStatus::Good,
            (false, true) => RevocationStatus::Foreign,
            (false, false) => RevocationStatus::NotCovered,
        }
    }

    fn has_signed(
        &self,
        key: &[u8],
        issuer: Option<&CertificateDer<'_>>,
        at: usize,
        crl: &Crl,
    ) -> bool {
        if let Some(signer) = crl.signer() {
            return **signer == *key;
        }
        let pair = (at, Box::from(key));
        let known = self.signed.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&pair) {
            return *known;
        }
        drop(known);
        let signed = issuer.is_none_or(may_sign_crls) && crl.is_signed_by(key);
        let mut known = self.signed.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED_MAX {
            known.insert(pair, signed);
        }
        signed
    }

    fn learn(&self, path: &VerifiedPath<'_>) {
        for cert in path.intermediate_certificates() {
            let der = cert.der();
            let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
            let is_known = self.intermediates.contains(&der) || learned.contains(&der);
            let is_full = learned.len() >= LEARNED_MAX;
            drop(learned);
            if !is_known && !is_full {
                let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
                learned.push(der.into_owned());
            }
        }
    }
}

/// RFC 5280 section 4.2.1.3. A certificate without the key usage extension allows every usage, as
/// in webpki.
fn may_sign_crls(issuer: &CertificateDer<'_>) -> bool {
    let Ok((_, issuer)) = X509Certificate::from_der(issuer) else {
        return false;
    };
    let usages = issuer.key_usage().ok().flatten();
    usages.is_none_or(|usages| usages.value.crl_sign())
}

/// The result of checking one certificate against the CRLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RevocationStatus {
    /// A CRL of its issuer covers the certificate, and none revokes it.
    Good,
    /// A CRL of its issuer revokes it.
    Revoked,
    /// No CRL covers it.
    NotCovered,
    /// No CRL covers it, and another key signed the CRLs with its issuer's name.
    Foreign,
}

fn name_of(cert: &Cert<'_>, which: impl Fn(&X509Certificate<'_>) -> String) -> String {
    let der = cert.der();
    let parsed = X509Certificate::from_der(&der);
    parsed.map(|(_, parsed)| which(&parsed)).unwrap_or_default()
}

/// Converts epoch seconds for webpki.
pub fn unix_time(epoch: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(epoch))
}
