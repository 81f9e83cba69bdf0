//! The passphrase of encrypted CA keys.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::files::{CaFileError, disk};

/// What a key file is encrypted with. It is never displayed, and overwritten when dropped.
#[derive(Clone)]
pub struct Passphrase(Arc<Zeroizing<Vec<u8>>>);

impl Passphrase {
    /// At least one byte.
    pub fn new(bytes: Vec<u8>) -> Result<Self, PassphraseError> {
        if bytes.is_empty() {
            return Err(PassphraseError::Empty);
        }
        Ok(Self(Arc::new(Zeroizing::new(bytes))))
    }

    /// The first line of a file that no other user can read.
    pub fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        disk::refuse_if_shared(path)?;
        let bytes = Zeroizing::new(disk::read(path)?);
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
        Self::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
    }

    /// For other libraries.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassphraseError {
    /// An empty passphrase.
    #[error("the passphrase is empty: give at least one character")]
    Empty,
    /// The passphrase file cannot be used.
    #[error(transparent)]
    File(#[from] CaFileError),
    /// The terminal failed.
    #[error("cannot ask for the passphrase: give it with --passphrase-file")]
    Prompt(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Access;

    #[test]
    fn the_first_line_of_a_file_is_the_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        for (content, expected) in [
            ("secret", Some("secret")),
            ("secret\n", Some("secret")),
            ("secret\r\n", Some("secret")),
            (" two words \nsecond line\n", Some(" two words ")),
            ("", None),
            ("\nsecret", None),
        ] {
            disk::write(&path, content.as_bytes(), Access::Secret).unwrap();
            let read = Passphrase::from_file(&path);
            let read = read.as_ref().ok().map(Passphrase::as_bytes);
            assert_eq!(read, expected.map(str::as_bytes), "{content:?}");
        }
        assert_eq!(
            format!("{:?}", Passphrase::new(b"secret".to_vec()).unwrap()),
            "Passphrase"
        );
    }
}
