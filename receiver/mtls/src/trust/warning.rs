//! Warnings about trust files.

use std::fmt;
use std::path::{Path, PathBuf};

/// The purpose of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustPart {
    /// Our own certificate and key.
    Own,
    /// The trusted roots.
    Roots,
    /// The CRLs.
    Crls,
}

impl TrustPart {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Own, Self::Roots, Self::Crls];

    /// The label value for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Roots => "roots",
            Self::Crls => "crls",
        }
    }
}

/// A file, or a part of one, that is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustWarning {
    /// The path of the file.
    pub file: PathBuf,
    /// The purpose of the file.
    pub part: TrustPart,
    /// The reason, and what is in force instead.
    pub reason: String,
    /// Whether it is a CRL that is older than the one in force by number and date. If CRLs are
    /// fetched, files only provide the initial CRLs.
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
