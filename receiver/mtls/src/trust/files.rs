//! Reading the files of trust, when they have changed, and where CRLs are kept that were handed in.
//!
//! Our own pair, the roots and the CRLs are read each for itself, and each CRL alone: what is wrong with one holds back no
//! other.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lizmon_pki::anchors::{self, Anchors};
use lizmon_pki::atomic_file::{self, Access};
use lizmon_pki::crl::{Crl, UnusableCrl};
use lizmon_pki::file_stamp::FileStamp;
use lizmon_pki::pem;
use lizmon_pki::provider::provider;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TrustError;
use crate::identity::Identity;

/// The files that say what to show and whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// Our certificate, followed by those between it and the root: PEM.
    pub cert: PathBuf,
    /// Its key: PKCS#8 PEM.
    pub key: PathBuf,
    /// The roots we trust, and authorities below them that help to build chains: PEM.
    pub ca: PathBuf,
    /// A current CRL of every authority that may stand in a chain: PEM.
    pub crl: PathBuf,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustPart {
    /// Our own certificate and key.
    Own,
    /// Whom we trust.
    Roots,
    /// The CRLs.
    Crls,
}

impl TrustPart {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Own, Self::Roots, Self::Crls];

    /// As a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Roots => "roots",
            Self::Crls => "lists",
        }
    }
}

/// A file, or a part of one, that is not in use as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustWarning {
    /// Which file.
    pub file: PathBuf,
    /// What it is for.
    pub part: TrustPart,
    /// Why, and what is in force instead.
    pub reason: String,
    /// Whether it is a CRL that is older than the one in force, by number and date: where CRLs are fetched, files only say
    /// what to begin with.
    pub is_older_crl: bool,
}

impl TrustWarning {
    pub(super) fn new(file: &Path, part: TrustPart, reason: String) -> Self {
        Self {
            file: file.to_owned(),
            part,
            reason,
            is_older_crl: false,
        }
    }
}

impl fmt::Display for TrustWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

/// What we show.
pub(super) struct ServerPair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl ServerPair {
    /// Certificate and key, of a server, and fitting each other.
    pub(super) fn read(files: &TrustFiles) -> Result<Self, TrustError> {
        let certificate = |source| TrustError::Unreadable {
            file: files.cert.clone(),
            what: "a certificate",
            source,
        };
        let chain = pem::certificates(&read(&files.cert)?).map_err(certificate)?;
        let key =
            pem::private_key(&read(&files.key)?).map_err(|source| TrustError::Unreadable {
                file: files.key.clone(),
                what: "a private key",
                source,
            })?;
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let own = Identity::from_der(leaf).map_err(|source| TrustError::Identity {
            file: files.cert.clone(),
            source,
        })?;
        if !own.spiffe_id.role.is_server() {
            return Err(TrustError::WrongRole {
                file: files.cert.clone(),
                role: own.spiffe_id.role,
            });
        }
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|source| {
            TrustError::Unusable {
                file: files.cert.clone(),
                source,
            }
        })?;
        Ok(Self { chain, key })
    }

    pub(super) fn same(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// The roots, each one that rustls can use.
pub(super) fn anchors(files: &TrustFiles) -> Result<Anchors, TrustError> {
    let anchors = anchors::read(&read(&files.ca)?).map_err(|source| TrustError::Anchors {
        file: files.ca.clone(),
        source,
    })?;
    root_store(&anchors.roots, files)?;
    Ok(anchors)
}

pub(super) fn root_store(
    roots: &[CertificateDer<'static>],
    files: &TrustFiles,
) -> Result<Arc<RootCertStore>, TrustError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|source| TrustError::Unusable {
                file: files.ca.clone(),
                source,
            })?;
    }
    Ok(Arc::new(store))
}

/// What stands in a file of CRLs.
#[derive(Default)]
pub(super) struct CrlFile {
    pub(super) crls: Vec<Crl>,
    /// Certificates beside them, among which may be those of who signed them.
    pub(super) beside: Vec<CertificateDer<'static>>,
    pub(super) unusable: Vec<UnusableCrl>,
}

impl CrlFile {
    pub(super) fn from_file(file: &Path) -> Result<Self, TrustError> {
        let bytes = read(file)?;
        let mut found = Self::default();
        for crl in Crl::read_each(&bytes) {
            match crl {
                Ok(crl) => found.crls.push(crl),
                Err(why) => found.unusable.push(why),
            }
        }
        let sections = pem::sections(&bytes).filter_map(Result::ok);
        found.beside = sections
            .filter(|section| section.kind == pem::PemKind::Certificate)
            .map(|section| section.der.into())
            .collect();
        Ok(found)
    }

    /// At a start nothing is in force yet that would hold instead of what is not understood.
    pub(super) fn refuse_malformed(&self, file: &Path) -> Result<(), TrustError> {
        match self.unusable.iter().find(|why| why.is_malformed()) {
            None => Ok(()),
            Some(source) => Err(TrustError::MalformedCrl {
                file: file.to_owned(),
                source: source.clone(),
            }),
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(file).map_err(|source| TrustError::File {
        file: file.to_owned(),
        source,
    })
}

/// Puts the CRLs in the old file's place, and beside them the certificates that say who signed them.
pub(super) fn keep(
    file: &Path,
    crls: &[Crl],
    authorities: &[CertificateDer<'static>],
) -> io::Result<()> {
    let crl = |crl: &Crl| pem_text("X509 CRL", crl.der());
    let authority = |der: &CertificateDer<'static>| pem_text("CERTIFICATE", der);
    let text: String = crls
        .iter()
        .map(crl)
        .chain(authorities.iter().map(authority))
        .collect();
    if std::fs::read(file).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    atomic_file::write(file, text.as_bytes(), Access::Secret)
}

fn pem_text(label: &str, der: &[u8]) -> String {
    ::pem::encode(&::pem::Pem::new(label, der))
}

/// What in the files is text beside their sections, as OpenSSL's `-text` writes it. A file that cannot be read is complained
/// of elsewhere.
pub(super) fn ignored_text(files: &TrustFiles) -> Vec<String> {
    let mut said = Vec::new();
    let mut files = vec![&files.cert, &files.key, &files.ca, &files.crl];
    files.dedup();
    for file in files {
        let bytes = std::fs::read(file).unwrap_or_default();
        let lines = pem::text_outside(&bytes);
        // Of a CRL in DER nothing is text.
        if let (Some(first), Ok(_)) = (lines.first(), pem::read(&bytes)) {
            said.push(format!(
                "{}: line {first} is text beside the sections, {} lines in all are, and is passed over",
                file.display(),
                lines.len()
            ));
        }
    }
    said
}

/// The versions of the files of trust.
pub(super) type TrustStamps = [Option<FileStamp>; 5];

/// The versions that the files have now.
pub(super) fn stamps(files: &TrustFiles, kept_crl: Option<&Path>) -> TrustStamps {
    [
        Some(&*files.cert),
        Some(&*files.key),
        Some(&*files.ca),
        Some(&*files.crl),
        kept_crl,
    ]
    .map(|file| FileStamp::of(file?))
}
