//! What stands in the files of trust, when it has changed, and where lists are kept that were handed in.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lizmon_durable::Access;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::TrustError;
use crate::revocation::{RevocationList, newest, require};

/// The files that say what to show and whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// Our certificate, followed by those between it and the root: PEM.
    pub cert: PathBuf,
    /// Its key: PKCS#8 PEM.
    pub key: PathBuf,
    /// The roots we trust: PEM.
    pub ca: PathBuf,
    /// A current revocation list of every authority that may stand in a chain: PEM.
    pub crl: PathBuf,
}

/// What was read from the files.
pub(super) struct Parts {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) lists: Vec<RevocationList>,
}

impl Parts {
    /// Reads the files. Lists of `in_force` are kept unless there are newer ones.
    pub(super) fn read(
        files: &TrustFiles,
        kept_crl: Option<&Path>,
        in_force: &[RevocationList],
        now: u64,
    ) -> Result<Self, TrustError> {
        let key =
            PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TrustError::Unreadable {
                file: files.key.clone(),
                what: "a private key",
                source,
            })?;
        let mut lists = in_force.to_vec();
        lists.extend(revocation_lists(&files.crl)?);
        if let Some(kept) = kept_crl.filter(|kept| kept.exists()) {
            lists.extend(revocation_lists(kept)?);
        }
        let (chain, roots) = (certificates(&files.cert)?, certificates(&files.ca)?);
        let mut lists = newest(lists);
        require(&mut lists, &chain, &roots, now);
        Ok(Self {
            chain,
            key,
            roots,
            lists,
        })
    }

    pub(super) fn with_lists(&self, lists: Vec<RevocationList>) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots: self.roots.clone(),
            lists,
        }
    }
}

/// Puts the lists in the old file's place.
pub(super) fn keep(file: &Path, lists: &[RevocationList]) -> io::Result<()> {
    let pem = |list: &RevocationList| pem::encode(&pem::Pem::new("X509 CRL", list.der().to_vec()));
    let text: String = lists.iter().map(pem).collect();
    lizmon_durable::write(file, text.as_bytes(), Access::Secret)
}

pub(super) const REVOCATION_LIST: &str = "a certificate revocation list";

pub(super) type FileStamps = [Option<(SystemTime, u64, u64)>; 5];

/// Enough of each file's metadata to see that it was replaced or written to.
pub(super) fn stamps(files: &TrustFiles, kept_crl: Option<&Path>) -> FileStamps {
    [
        Some(&*files.cert),
        Some(&*files.key),
        Some(&*files.ca),
        Some(&*files.crl),
        kept_crl,
    ]
    .map(|file| {
        let metadata = std::fs::metadata(file?).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some((metadata.modified().ok()?, metadata.len(), inode))
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    all_of(file, "a certificate")
}

fn revocation_lists(file: &Path) -> Result<Vec<RevocationList>, TrustError> {
    let malformed = |source| TrustError::MalformedCrl {
        file: file.to_owned(),
        source,
    };
    all_of::<CertificateRevocationListDer<'static>>(file, REVOCATION_LIST)?
        .into_iter()
        .map(|der| RevocationList::from_der(der).map_err(malformed))
        .collect()
}

/// Everything of one kind in a PEM file; at least one.
fn all_of<T: PemObject>(file: &Path, what: &'static str) -> Result<Vec<T>, TrustError> {
    let unreadable = |source| TrustError::Unreadable {
        file: file.to_owned(),
        what,
        source,
    };
    let found: Vec<T> = T::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(unreadable)?;
    match found.is_empty() {
        true => Err(TrustError::Empty {
            file: file.to_owned(),
            what,
        }),
        false => Ok(found),
    }
}
