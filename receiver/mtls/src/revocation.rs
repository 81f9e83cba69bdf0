//! Revocation lists: read, judged, and kept one for each authority, never an older one for a newer.

use std::fmt;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, KeyUsage, ParsedExtension, X509Certificate,
};

/// What is known of one revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlStatus {
    /// Whose it is, as text.
    pub issuer: String,
    /// Its number: RFC 5280 section 5.2.3; 0 if it has none.
    pub number: u64,
    /// Signed at: epoch seconds.
    pub this_update: u64,
    /// To be replaced before: epoch seconds; the same as `this_update` if it does not say.
    pub next_update: u64,
    /// Whether it is a root's, or of an authority of our own certificate: then it must not end. Of an authority that was
    /// retired the last list is held until it has ended, and nobody misses it.
    pub is_required: bool,
}

impl CrlStatus {
    /// Whether somebody should have signed a new one: more than half of its life is over, and less than
    /// [`LONG_BEFORE_SECS`] is left. A root's list may live for a year, and its key lie in a safe.
    pub fn is_due(&self, now: u64) -> bool {
        let life = self.next_update.saturating_sub(self.this_update);
        now > self.this_update + life / 2 && now + LONG_BEFORE_SECS > self.next_update
    }

    /// Whether it ended so long ago that it is not held any more.
    pub(crate) fn has_long_ended(&self, now: u64) -> bool {
        now > self.next_update.saturating_add(HELD_SECS)
    }
}

/// One list, as it was signed.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    der: CertificateRevocationListDer<'static>,
    /// The DER of its issuer's name.
    issuer: Box<[u8]>,
    status: CrlStatus,
}

/// Bytes that are no revocation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate revocation list, neither PEM nor DER")]
pub struct MalformedCrl;

/// Why a list that was handed in is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlRefused {
    /// Nobody whom we trust signed it.
    #[error("the list of {0} is not signed by an authority that is trusted here")]
    NotSigned(String),
    /// It is not newer than the one in force, nor the very same.
    #[error("the list of {issuer} has number {number}, number {held} is in force: sign a new one")]
    NotNewer {
        /// Whose list.
        issuer: String,
        /// The number of the one that was handed in.
        number: u64,
        /// The number of the one in force.
        held: u64,
    },
    /// It has ended already, or has not begun.
    #[error("the list of {0} is not in force now: sign a new one, and look at both clocks")]
    NotNow(String),
}

/// How long before its end a list is complained of at the earliest: 30 days.
pub const LONG_BEFORE_SECS: u64 = 30 * 86_400;
/// How long a list that nobody requires is held past its end: three days, the grace that required ones have by default.
pub const HELD_SECS: u64 = 72 * 3600;
/// How far apart the clocks of CA and receiver may be: seconds.
const CLOCK_SKEW_SECS_MAX: u64 = 300;

impl RevocationList {
    /// Reads one list.
    pub fn from_der(der: CertificateRevocationListDer<'static>) -> Result<Self, MalformedCrl> {
        let (rest, list) = CertificateRevocationList::from_der(&der).map_err(|_| MalformedCrl)?;
        let epoch = |secs: i64| u64::try_from(secs).map_err(|_| MalformedCrl);
        let this_update = epoch(list.last_update().timestamp())?;
        let next_update = list
            .next_update()
            .map(|time| epoch(time.timestamp()))
            .transpose()?;
        let number =
            list.extensions()
                .iter()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::CRLNumber(number) => Some(u64::try_from(number)),
                    _ => None,
                });
        if !rest.is_empty() {
            return Err(MalformedCrl);
        }
        let status = CrlStatus {
            issuer: list.issuer().to_string(),
            number: number.transpose().map_err(|_| MalformedCrl)?.unwrap_or(0),
            this_update,
            next_update: next_update.unwrap_or(this_update),
            is_required: false,
        };
        let issuer = list.issuer().as_raw().into();
        Ok(Self {
            issuer,
            status,
            der,
        })
    }

    /// Reads every list of a PEM text, or the one list of a DER; at least one.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, MalformedCrl> {
        const DER_SEQUENCE: u8 = 0x30;
        if bytes.first() == Some(&DER_SEQUENCE) {
            return Ok(vec![Self::from_der(bytes.to_vec().into())?]);
        }
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| MalformedCrl)?;
        if lists.is_empty() {
            return Err(MalformedCrl);
        }
        lists.into_iter().map(Self::from_der).collect()
    }

    /// What is known of it.
    pub fn status(&self) -> &CrlStatus {
        &self.status
    }

    /// The list as it was signed.
    pub fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }

    /// Judges a list that was handed in, beside those in force.
    ///
    /// `authorities` have been verified to be what they say; see [`verified_authorities`].
    pub fn judge(
        &self,
        in_force: &[Self],
        authorities: &[CertificateDer<'_>],
        now: u64,
    ) -> Result<(), CrlRefused> {
        let issuer = || self.status.issuer.clone();
        // Who hands in all lists of a CA must not fail for one that is here already, and that nobody can sign anew.
        if in_force.iter().any(|held| held.der == self.der) {
            return Ok(());
        }
        if !authorities
            .iter()
            .any(|authority| self.is_signed_by(authority))
        {
            return Err(CrlRefused::NotSigned(issuer()));
        }
        let held = in_force.iter().find(|held| held.issuer == self.issuer);
        if let Some(held) = held.filter(|held| held.status.number >= self.status.number) {
            let (number, held) = (self.status.number, held.status.number);
            return Err(CrlRefused::NotNewer {
                issuer: issuer(),
                number,
                held,
            });
        }
        if self.status.next_update < now || self.status.this_update > now + CLOCK_SKEW_SECS_MAX {
            return Err(CrlRefused::NotNow(issuer()));
        }
        Ok(())
    }

    fn is_signed_by(&self, authority: &[u8]) -> bool {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            return false;
        };
        let Ok((_, list)) = CertificateRevocationList::from_der(&self.der) else {
            return false;
        };
        authority.subject().as_raw() == &*self.issuer
            && may(&authority, KeyUsage::crl_sign)
            && list.verify_signature(authority.public_key()).is_ok()
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} number {}", self.status.issuer, self.status.number)
    }
}

/// Marks the lists that must not end: the roots', and those of the authorities of our own chain. Of the others those are
/// thrown away that ended [`HELD_SECS`] ago: without a list nobody of that authority is let in.
pub fn require(
    lists: &mut Vec<RevocationList>,
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: u64,
) {
    let matters = issuers(chain.iter().chain(roots));
    for list in lists.iter_mut() {
        list.status.is_required = matters.iter().any(|name| **name == *list.issuer);
    }
    lists.retain(|list| list.status.is_required || !list.status.has_long_ended(now));
}

/// Whether the list of a root, or of an authority of our own chain, is not there.
pub fn lacks_a_list(
    lists: &[RevocationList],
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> bool {
    issuers(chain.iter().chain(roots))
        .iter()
        .any(|name| !lists.iter().any(|list| *list.issuer == **name))
}

/// The DER of the names of those who signed these.
fn issuers<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'a>>) -> Vec<Vec<u8>> {
    let issuer = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(certificate.issuer().as_raw().to_vec())
    };
    certificates.filter_map(issuer).collect()
}

/// One list for each authority: the one with the highest number. Of equal ones the first.
pub fn newest(lists: impl IntoIterator<Item = RevocationList>) -> Vec<RevocationList> {
    let mut kept: Vec<RevocationList> = Vec::new();
    for list in lists {
        match kept.iter_mut().find(|held| held.issuer == list.issuer) {
            Some(held) if held.status.number < list.status.number => *held = list,
            Some(_) => (),
            None => kept.push(list),
        }
    }
    kept
}

/// The roots, and those of `candidates` that a root has signed as an authority. Whoever shows a candidate need not be
/// believed.
pub fn verified_authorities<'a>(
    roots: &'a [CertificateDer<'a>],
    candidates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Vec<CertificateDer<'a>> {
    let signed = candidates
        .into_iter()
        .filter(|candidate| roots.iter().any(|root| is_authority_of(root, candidate)));
    roots.iter().chain(signed).cloned().collect()
}

fn is_authority_of(root: &[u8], candidate: &[u8]) -> bool {
    let Ok((_, root)) = X509Certificate::from_der(root) else {
        return false;
    };
    let Ok((_, candidate)) = X509Certificate::from_der(candidate) else {
        return false;
    };
    candidate.issuer().as_raw() == root.subject().as_raw()
        && candidate.is_ca()
        && may(&root, KeyUsage::key_cert_sign)
        && candidate.verify_signature(Some(root.public_key())).is_ok()
}

/// Whether the certificate is an authority's whose key may be used so: RFC 5280 sections 4.2.1.3 and 4.2.1.9.
fn may(authority: &X509Certificate<'_>, usage: impl FnOnce(&KeyUsage) -> bool) -> bool {
    let usages = authority.key_usage().ok().flatten();
    authority.is_ca() && usages.is_some_and(|usages| usage(usages.value))
}
