//! Detects whether a file was replaced or modified since it was last read.

use std::path::Path;
use std::time::SystemTime;

/// Identifies one version of a file. A change goes undetected only if it is written in place, with
/// the same length, and within the resolution of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl FileStamp {
    /// The stamp of a file. `None` if the file does not exist or its metadata cannot be read.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self {
            modified: metadata.modified().ok(),
            len: metadata.len(),
            inode,
        })
    }
}
