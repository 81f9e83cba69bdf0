//! The trust files, and how changes to them are detected.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lizmon_pki::anchors::{self, Anchors};
use lizmon_pki::file_stamp::FileStamp;
use lizmon_pki::pem;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use super::error::TrustError;

/// The paths of the trust files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// Our certificate, followed by the intermediates up to the root: PEM.
    pub cert: PathBuf,
    /// The key of the certificate: PKCS#8 PEM.
    pub key: PathBuf,
    /// The trusted roots, and intermediates that help to build chains: PEM.
    pub ca: PathBuf,
    /// A current CRL of every CA that may be in a chain: PEM.
    pub crl: PathBuf,
}

/// Reads the roots and intermediates. rustls must accept each root.
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

pub(super) fn read(file: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(file).map_err(|source| TrustError::File {
        file: file.to_owned(),
        source,
    })
}

/// Text outside the PEM sections, such as the output of OpenSSL's `-text`. Files that cannot be
/// read are reported elsewhere.
pub(super) fn ignored_text(files: &TrustFiles) -> Vec<String> {
    let mut said = Vec::new();
    let mut files = vec![&files.cert, &files.key, &files.ca, &files.crl];
    files.dedup();
    for file in files {
        let bytes = std::fs::read(file).unwrap_or_default();
        let lines = pem::text_outside(&bytes);
        // A CRL in DER contains no text.
        if let (Some(first), Ok(_)) = (lines.first(), pem::read(&bytes)) {
            said.push(format!(
                "{}: line {first} is text outside the PEM sections and is ignored, as are {} lines in all",
                file.display(),
                lines.len()
            ));
        }
    }
    said
}

/// The versions of all trust files.
pub(super) type TrustStamps = [Option<FileStamp>; 5];

/// Returns the current versions of the files.
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
