//! One CRL: its status, its signer and its scope.

mod number;
mod scope;

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::CertificateRevocationListDer;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

pub use self::number::CrlNumber;
use self::scope::CrlScope;
use crate::authority::AuthorityCertificate;
use crate::pem::{self, PemError, PemKind, Section};
use crate::signature::{Signature, verify};

/// The metadata of one CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlStatus {
    /// The name of the issuer, as text.
    pub issuer: String,
    /// The CRL number, if present.
    pub number: Option<CrlNumber>,
    /// thisUpdate, the time of issue: epoch seconds.
    pub this_update: u64,
    /// nextUpdate, the expiry: epoch seconds. The same as `this_update` if the CRL has no
    /// nextUpdate.
    pub next_update: u64,
    /// Whether the CRL must not expire. True for the CRL of a root and of an authority in the chain
    /// of our own certificate. The last CRL of a retired authority stays in force until it expires,
    /// and needs no replacement.
    pub is_required: bool,
    /// Whether a later CRL of the same authority is also in force, and that one is not newer by
    /// both number and date. A certificate that either CRL revokes is revoked.
    pub is_concurrent: bool,
}

/// Warnings about the expiry of a CRL start at most this long before it: 30 days.
pub const CRL_EXPIRY_WARNING_SECS: u64 = 30 * 86_400;
/// How long a CRL that is not required is kept after it expires: three days, the default grace
/// period of required CRLs.
pub const CRL_RETENTION_SECS: u64 = 72 * 3600;

/// One signed CRL.
#[derive(Clone)]
pub struct Crl {
    der: CertificateRevocationListDer<'static>,
    entries: Arc<CertRevocationList<'static>>,
    scope: CrlScope,
    /// The public key of the signer, if known: SubjectPublicKeyInfo, DER.
    signer: Option<Arc<[u8]>>,
    status: CrlStatus,
}

/// Why a CRL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableCrl {
    /// The input is not valid PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The input is not a CRL.
    #[error("not a certificate revocation list, neither PEM nor DER")]
    Malformed,
    /// A PEM section holds a CRL that cannot be used.
    #[error("line {line}: {source}")]
    At {
        /// The line on which the section begins.
        line: usize,
        /// The reason.
        source: Box<UnusableCrl>,
    },
    /// A delta CRL, with only the changes since another CRL: RFC 5280 section 5.2.4.
    #[error("the CRL of {0} is a delta CRL: provide the complete CRL")]
    Delta(String),
    /// An indirect CRL, which covers certificates of other issuers: RFC 5280 section 5.2.5.
    #[error(
        "the CRL of {0} is an indirect CRL, which lists other issuers' certificates: not supported"
    )]
    Indirect(String),
    /// The CRL covers only some revocation reasons, or only attribute certificates.
    #[error(
        "the CRL of {0} is partitioned (issuing distribution point) in a way that is not supported"
    )]
    Partition(String),
    /// The CRL has a critical extension that is not supported.
    #[error("the CRL of {0} has a critical extension that is not supported here")]
    CriticalExtension(String),
    /// A version 1 CRL, which has no extensions.
    #[error("the CRL of {0} is of version 1: sign version 2 (`openssl ca`: set crl_extensions)")]
    Version(String),
    /// The CRL number is longer than 20 octets, or negative.
    #[error("the CRL of {0} has no valid number: at most 20 octets, RFC 5280 section 5.2.3")]
    Number(String),
    /// webpki rejects the CRL for another reason.
    #[error("the CRL of {issuer} cannot be used: {source}")]
    WebPki {
        /// The name of the issuer, as text.
        issuer: String,
        /// The error of webpki.
        source: webpki::Error,
    },
}

impl UnusableCrl {
    /// Whether the input is not a CRL at all, rather than a CRL that must not be used.
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Pem(_) | Self::Malformed => true,
            Self::At { source, .. } => source.is_malformed(),
            _ => false,
        }
    }
}

impl CrlStatus {
    /// Whether a new CRL should have been signed by now: more than half of the lifetime is over,
    /// and less than [`CRL_EXPIRY_WARNING_SECS`] is left. A root's CRL may be valid for a year,
    /// because its key may be offline.
    pub fn is_due(&self, now: u64) -> bool {
        let life = self.next_update.saturating_sub(self.this_update);
        now > self.this_update + life / 2 && now + CRL_EXPIRY_WARNING_SECS > self.next_update
    }

    /// Whether the retention period after the expiry is over.
    pub fn is_past_retention(&self, now: u64) -> bool {
        now > self.next_update.saturating_add(CRL_RETENTION_SECS)
    }

    /// Returns "number 7", or "no number".
    pub fn numbered(&self) -> String {
        match &self.number {
            Some(number) => format!("number {number}"),
            None => "no number".to_owned(),
        }
    }

    /// Whether this CRL has a higher number and a date that is not earlier. RFC 5280 section 5.2.3
    /// requires that neither decreases. CRLs that are signed within the same second have the same
    /// date.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let by_number = self.number.as_ref().zip(other.number.as_ref());
        by_number.is_some_and(|(ours, theirs)| ours > theirs)
            && self.this_update >= other.this_update
    }
}

impl Crl {
    /// Parses one CRL.
    pub fn from_der(der: CertificateRevocationListDer<'static>) -> Result<Self, UnusableCrl> {
        let Ok(([], crl)) = CertificateRevocationList::from_der(&der) else {
            return Err(UnusableCrl::Malformed);
        };
        let issuer = crl.issuer().to_string();
        // webpki reports a missing version (version 1) as malformed DER.
        if crl.version().is_none() {
            return Err(UnusableCrl::Version(issuer));
        }
        let entries = OwnedCertRevocationList::from_der(&der)
            .map_err(|source| unusable(issuer.clone(), source))?;
        let epoch = |secs: i64| u64::try_from(secs).map_err(|_| UnusableCrl::Malformed);
        let this_update = epoch(crl.last_update().timestamp())?;
        let next_update = crl.next_update().map(|time| epoch(time.timestamp()));
        let status = CrlStatus {
            issuer,
            number: crl
                .crl_number()
                .map(|number| CrlNumber::from_bytes(&number.to_bytes_be())),
            this_update,
            next_update: next_update.transpose()?.unwrap_or(this_update),
            is_required: false,
            is_concurrent: false,
        };
        Ok(Self {
            entries: Arc::new(entries.into()),
            scope: CrlScope::of(&crl),
            signer: None,
            status,
            der,
        })
    }

    /// Parses all CRLs of a PEM text, or one DER CRL. Fails if there is none, and at the first
    /// error. Ignores certificates in the same file.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, UnusableCrl> {
        let found: Vec<_> = Self::read_each(bytes).collect::<Result<_, _>>()?;
        match found.is_empty() {
            true => Err(PemError::Absent { wanted: "CRL" }.into()),
            false => Ok(found),
        }
    }

    /// Yields each CRL and each error of a PEM text, or the result for one DER CRL, in order.
    fn read_each(bytes: &[u8]) -> impl Iterator<Item = Result<Self, UnusableCrl>> {
        let is_der = matches!(pem::sections(bytes).next(), Some(Err(PemError::Der)));
        let of_der = is_der.then(|| Self::from_der(bytes.to_vec().into()));
        let sections = (!is_der).then(|| pem::sections(bytes));
        let of_pem = sections.into_iter().flatten().filter_map(|section| {
            let section = match section {
                Ok(section) => section,
                Err(error) => return Some(Err(error.into())),
            };
            match section.kind {
                PemKind::Crl => Some(Self::from_section(section)),
                PemKind::Certificate => None,
                _ => Some(Err(section.misplaced("CRLs").into())),
            }
        });
        of_der.into_iter().chain(of_pem)
    }

    /// Returns the usable CRLs, and the errors of the others.
    pub fn read_usable(bytes: &[u8]) -> (Vec<Self>, Vec<UnusableCrl>) {
        let (mut usable, mut unusable) = (Vec::new(), Vec::new());
        for crl in Self::read_each(bytes) {
            match crl {
                Ok(crl) => usable.push(crl),
                Err(why) => unusable.push(why),
            }
        }
        (usable, unusable)
    }

    fn from_section(section: Section) -> Result<Self, UnusableCrl> {
        let line = section.line;
        Self::from_der(section.der.into()).map_err(|source| UnusableCrl::At {
            line,
            source: Box::new(source),
        })
    }

    /// Issuer, number, dates and what else it says about itself.
    pub fn status(&self) -> &CrlStatus {
        &self.status
    }

    pub(crate) fn status_mut(&mut self) -> &mut CrlStatus {
        &mut self.status
    }

    /// The signed CRL, DER.
    pub fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }

    /// The content of the issuer's name, DER.
    pub fn issuer_name(&self) -> &[u8] {
        self.entries.issuer()
    }

    /// The public key of the signer, if known.
    pub fn signer(&self) -> Option<&Arc<[u8]>> {
        self.signer.as_ref()
    }

    /// Finds the authority that signed this CRL, and stores its key.
    pub fn find_signer(&mut self, authorities: &[AuthorityCertificate]) {
        let mut of_name = authorities
            .iter()
            .filter(|authority| *authority.name == *self.issuer_name() && authority.signs_crls());
        let signer = of_name.find(|authority| self.is_signed_by(&authority.key));
        self.signer = signer.map(|authority| authority.key.clone());
    }

    /// Whether this key (SubjectPublicKeyInfo, DER) signed the CRL.
    pub fn is_signed_by(&self, key: &[u8]) -> bool {
        match &self.signer {
            Some(signer) => **signer == *key,
            None => verify(&self.der, key) == Signature::Good,
        }
    }

    /// Whether the CRL revokes this serial number, given as the content of its DER.
    pub fn revokes(&self, serial: &[u8]) -> bool {
        // An entry that cannot be parsed counts as revoked: it is part of the signed CRL.
        !matches!(self.entries.find_serial(serial), Ok(None))
    }

    /// Whether these CRLs together revoke everything that this one revokes.
    pub fn is_covered_by(&self, others: &[&Self]) -> bool {
        let Ok((_, crl)) = CertificateRevocationList::from_der(&self.der) else {
            return false;
        };
        crl.iter_revoked_certificates()
            .all(|entry| others.iter().any(|other| other.revokes(entry.raw_serial())))
    }

    /// Whether both CRLs have the same issuer and the same scope.
    pub(crate) fn is_of_same_scope(&self, other: &Self) -> bool {
        self.issuer_name() == other.issuer_name() && self.scope == other.scope
    }

    /// Whether the scope includes this certificate of the same issuer.
    pub(crate) fn covers(&self, certificate: &[u8]) -> bool {
        if self.scope == CrlScope::default() {
            return true;
        }
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, certificate)| self.scope.includes(&certificate))
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.issuer, self.status.numbered())
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der && self.status == other.status && self.signer == other.signer
    }
}

impl Eq for Crl {}

fn unusable(issuer: String, source: webpki::Error) -> UnusableCrl {
    use webpki::Error;
    match source {
        Error::UnsupportedDeltaCrl => UnusableCrl::Delta(issuer),
        Error::UnsupportedIndirectCrl => UnusableCrl::Indirect(issuer),
        Error::UnsupportedRevocationReasonsPartitioning
        | Error::UnsupportedCrlIssuingDistributionPoint => UnusableCrl::Partition(issuer),
        Error::UnsupportedCriticalExtension => UnusableCrl::CriticalExtension(issuer),
        Error::UnsupportedCrlVersion => UnusableCrl::Version(issuer),
        Error::InvalidCrlNumber => UnusableCrl::Number(issuer),
        source => UnusableCrl::WebPki { issuer, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        assert!(length < 128, "one byte tells the length");
        [&[tag, length as u8][..], content].concat()
    }

    /// A CRL with an empty issuer name. It is well-formed, but its signature is not valid.
    fn crl(version: Option<u8>, next_update: bool, revoked: bool) -> Vec<u8> {
        let algorithm = value(0x30, &value(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]));
        let date = |year: &str| value(0x17, format!("{year}0101000000Z").as_bytes());
        let entry = value(0x30, &[value(2, &[7]), date("16")].concat());
        let parts = [
            version.map_or_else(Vec::new, |version| value(2, &[version])),
            algorithm.clone(),
            value(0x30, &[]),
            date("16"),
            if next_update { date("17") } else { Vec::new() },
            if revoked {
                value(0x30, &entry)
            } else {
                Vec::new()
            },
        ];
        let signature = value(3, &[0, 1]);
        let signed = value(0x30, &parts.concat());
        value(0x30, &[signed, algorithm, signature].concat())
    }

    /// `openssl ca -gencrl` without `crl_extensions` writes a version 1 CRL. The error was
    /// `BadDer`.
    #[test]
    fn a_list_of_version_1_is_called_that() {
        for (next_update, revoked) in [(true, true), (true, false), (false, true)] {
            let der = crl(None, next_update, revoked);
            let refused = Crl::from_der(der.into()).unwrap_err();
            assert!(!refused.is_malformed(), "{refused}");
            assert!(refused.to_string().contains("version 1"), "{refused}");
        }
        let of_version_2 = crl(Some(1), true, true);
        let refused = Crl::from_der(of_version_2.into());
        let named = refused.map_err(|error| error.to_string());
        assert!(!named.unwrap_err().contains("version 1"));
    }
}
