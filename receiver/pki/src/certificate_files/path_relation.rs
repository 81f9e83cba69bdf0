//! Whether two paths lead to the same file.

use std::fs;
use std::path::Path;
#[cfg(not(unix))]
use std::path::PathBuf;

/// How two paths are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathRelation {
    Apart,
    /// The same name in the same directory.
    Same,
    /// Two names of one file: a symbolic link or a hard link. Replacing one name does not change
    /// the other.
    Linked,
}

impl PathRelation {
    pub(super) fn of(one: &Path, other: &Path) -> Self {
        let folder = |path: &Path| fs::canonicalize(folder_of(path)).ok();
        if one == other || one.file_name() == other.file_name() && folder(one) == folder(other) {
            return Self::Same;
        }
        match (file_id(one), file_id(other)) {
            (Some(one), Some(other)) if one == other => Self::Linked,
            _ => Self::Apart,
        }
    }
}

/// Identifies a file. Follows symbolic links.
#[cfg(unix)]
fn file_id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn file_id(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// A path without a directory is in the current directory.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
