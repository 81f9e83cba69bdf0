//! Reads credential files. Each error names the file.

use std::path::Path;

use rustls_pki_types::CertificateDer;

use super::error::CredentialsError;
use crate::anchors::{self, Anchors, AnchorsError};
use crate::pem::{self, PemError};

pub(super) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|source| CredentialsError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

/// Reads the authorities in a file. One that is not self-signed only helps to build chains, and is
/// not trusted.
pub(super) fn read_roots(path: &Path) -> Result<Anchors, CredentialsError> {
    const WHAT: &str = "CA certificate";
    anchors::read(&read(WHAT, path)?).map_err(|error| match error {
        AnchorsError::Pem(error) => in_pem(WHAT, path)(error),
        source => CredentialsError::Anchors {
            path: path.to_owned(),
            source,
        },
    })
}

/// Converts an error in a PEM file.
pub(super) fn in_pem(what: &'static str, path: &Path) -> impl Fn(PemError) -> CredentialsError {
    move |source| {
        let path = path.to_owned();
        match source {
            PemError::Absent { .. } => CredentialsError::Absent { what, path },
            source => CredentialsError::Damaged { what, path, source },
        }
    }
}

pub(super) fn in_file(path: &Path) -> impl Fn(rustls::Error) -> CredentialsError {
    move |source| CredentialsError::Tls {
        path: path.to_owned(),
        source,
    }
}

/// Reads all certificates of a PEM file. Fails if there is none.
pub(super) fn read_certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    pem::certificates(&read(what, path)?).map_err(in_pem(what, path))
}
