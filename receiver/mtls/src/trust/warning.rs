//! What is wrong with a file of trust that is in use, or should be.

use std::fmt;
use std::path::{Path, PathBuf};

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
