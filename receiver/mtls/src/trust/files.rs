//! Reading the files of trust, when they have changed, and where lists are kept that were handed in.
//!
//! Our own pair, the roots and the lists are read each for itself, and each list alone: what is wrong with one holds back no
//! other.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lizmon_pki::anchors::{self, Anchors};
use lizmon_pki::atomic_file::{self, Access};
use lizmon_pki::file_stamp::FileStamp;
use lizmon_pki::list::{RevocationList, UnusableCrl};
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
    /// A current revocation list of every authority that may stand in a chain: PEM.
    pub crl: PathBuf,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Our own certificate and key.
    Own,
    /// Whom we trust.
    Roots,
    /// The revocation lists.
    Lists,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Own, Self::Roots, Self::Lists];

    /// As a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Roots => "roots",
            Self::Lists => "lists",
        }
    }
}

/// A file, or a part of one, that is not in use as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Which file.
    pub file: PathBuf,
    /// What it is for.
    pub part: Part,
    /// Why, and what is in force instead.
    pub reason: String,
    /// Whether it is a list that is older than the one in force, by number and date: where lists are fetched, files only say
    /// what to begin with.
    pub is_older_list: bool,
}

impl Complaint {
    pub(super) fn new(file: &Path, part: Part, reason: String) -> Self {
        Self {
            file: file.to_owned(),
            part,
            reason,
            is_older_list: false,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

/// What we show.
pub(super) struct Own {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Own {
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

/// What stands in a file of lists.
#[derive(Default)]
pub(super) struct ListsRead {
    pub(super) lists: Vec<RevocationList>,
    /// Certificates beside them, among which may be those of who signed them.
    pub(super) beside: Vec<CertificateDer<'static>>,
    pub(super) unusable: Vec<UnusableCrl>,
}

impl ListsRead {
    pub(super) fn from_file(file: &Path) -> Result<Self, TrustError> {
        let bytes = read(file)?;
        let mut found = Self::default();
        for list in RevocationList::read_each(&bytes) {
            match list {
                Ok(list) => found.lists.push(list),
                Err(why) => found.unusable.push(why),
            }
        }
        let sections = pem::sections(&bytes).filter_map(Result::ok);
        found.beside = sections
            .filter(|section| section.kind == pem::Kind::Certificate)
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

/// Puts the lists in the old file's place, and beside them the certificates that say who signed them.
pub(super) fn keep(
    file: &Path,
    lists: &[RevocationList],
    authorities: &[CertificateDer<'static>],
) -> io::Result<()> {
    let list = |list: &RevocationList| pem_text("X509 CRL", list.der());
    let authority = |der: &CertificateDer<'static>| pem_text("CERTIFICATE", der);
    let text: String = lists
        .iter()
        .map(list)
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
pub(super) fn text_passed_over(files: &TrustFiles) -> Vec<String> {
    let mut said = Vec::new();
    let mut files = vec![&files.cert, &files.key, &files.ca, &files.crl];
    files.dedup();
    for file in files {
        let bytes = std::fs::read(file).unwrap_or_default();
        let lines = pem::text_outside(&bytes);
        // Of a list in DER nothing is text.
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
