//! Whether anybody on a peer's verified path to a root is revoked.
//!
//! WebPKI looks for paths; each that it finds is judged here. It could ask the CRLs as well, but takes the first that bears
//! an issuer's name, whoever signed it: a CRL by another key would lock everybody out, and of two CRLs in force the second
//! would say nothing. Here every CRL counts that the very key on the path has signed.

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

/// How many pairs of a CRL and a key are remembered. Keys on paths are authorities' that a root vouches for.
const REMEMBERED_MAX: usize = 4096;
/// How many authorities are remembered that only peers have shown.
const LEARNED_MAX: usize = 64;

/// What is asked of the CRLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationPolicy {
    /// Each issuer on the path must have a CRL that speaks about whom it issued to.
    CrlRequired,
    /// What the CRLs say holds; where none speaks, nothing is held against anybody.
    CrlOptional,
}

/// Whether a CRL, by its place, is signed by a key, by its bytes: as far as it was asked.
type Signed = HashMap<(usize, Box<[u8]>), bool>;

/// Judges chains by roots and CRLs that never change.
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
    /// `intermediates` help to find paths; whoever is shown need not be believed. Roots that cannot be read lead nowhere.
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

    /// The certificates that are added to whatever a peer shows.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// Authorities on good paths that only peers have shown so far.
    pub fn learned(&self) -> Vec<CertificateDer<'static>> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        learned.clone()
    }

    /// Judges a chain at `now`: there is a path to a root, for this use, on which nobody is revoked.
    pub fn judge(
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
            let found = self.judge_path(path);
            if let Err(found) = &found {
                // Of several paths: that somebody is revoked says more than that a CRL is missing.
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

    fn judge_path(&self, path: &VerifiedPath<'_>) -> Result<(), Fault> {
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
        let mut unspoken = None;
        for (cert, (key, issuer)) in std::iter::once(leaf).chain(above).zip(&keys) {
            match self.ask(cert, key, issuer.as_ref()) {
                Asked::Revoked => {
                    let is_leaf = cert.der() == leaf.der();
                    return Err(Fault::Revoked(match is_leaf {
                        true => ChainMember::Leaf,
                        false => {
                            ChainMember::Authority(name_of(cert, |it| loggable_name(it.subject())))
                        }
                    }));
                }
                Asked::Nobody => {
                    let issuer = name_of(cert, |it| loggable_name(it.issuer()));
                    unspoken.get_or_insert(Fault::NoList { issuer });
                }
                Asked::Foreign => {
                    let issuer = name_of(cert, |it| loggable_name(it.issuer()));
                    unspoken.get_or_insert(Fault::ForeignList { issuer });
                }
                Asked::Good => (),
            }
        }
        match unspoken {
            Some(fault) if self.demand == RevocationPolicy::CrlRequired => Err(fault),
            _ => Ok(()),
        }
    }

    /// What the CRLs of its issuer, who has this key, say of one certificate.
    fn ask(&self, cert: &Cert<'_>, key: &[u8], issuer: Option<&CertificateDer<'_>>) -> Asked {
        let der = cert.der();
        let (mut spoken, mut signed, mut foreign) = (false, false, false);
        for (at, crl) in self.crls.iter().enumerate() {
            if crl.issuer_name() != cert.issuer() {
                continue;
            }
            if !self.has_signed(key, issuer, at, crl) {
                foreign = true;
                continue;
            }
            if crl.revokes(cert.serial()) {
                return Asked::Revoked;
            }
            signed = true;
            spoken = spoken || crl.speaks_about(&der);
        }
        match (spoken, foreign && !signed) {
            (true, _) => Asked::Good,
            (false, true) => Asked::Foreign,
            (false, false) => Asked::Nobody,
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
        let signed = issuer.is_none_or(may_sign_lists) && crl.is_signed_by(key);
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

/// RFC 5280 section 4.2.1.3: a certificate that says nothing of its key's usage forbids none, as WebPKI has it.
fn may_sign_lists(issuer: &CertificateDer<'_>) -> bool {
    let Ok((_, issuer)) = X509Certificate::from_der(issuer) else {
        return false;
    };
    let usages = issuer.key_usage().ok().flatten();
    usages.is_none_or(|usages| usages.value.crl_sign())
}

/// What the CRLs say of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// One of its issuer's speaks about it, and none revokes it.
    Good,
    /// One of its issuer's does.
    Revoked,
    /// None speaks about it.
    Nobody,
    /// None speaks about it, and those in its issuer's name are by another key.
    Foreign,
}

fn name_of(cert: &Cert<'_>, which: impl Fn(&X509Certificate<'_>) -> String) -> String {
    let der = cert.der();
    let parsed = X509Certificate::from_der(&der);
    parsed.map(|(_, parsed)| which(&parsed)).unwrap_or_default()
}

/// Seconds since 1970 as WebPKI wants them.
pub fn unix_time(epoch: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(epoch))
}
