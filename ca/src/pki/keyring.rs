//! Key files, encrypted or not, and how they are unlocked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use super::encrypted_key::{DecryptError, EncryptError, decrypt, encrypt, is_encrypted};
use super::passphrase::{Passphrase, PassphraseError};
use crate::files::{Access, CaFileError, disk};

/// Why a key file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] CaFileError),
    /// An encrypted key, without a passphrase.
    #[error("{} is encrypted: give its passphrase with --passphrase-file", .0.display())]
    Locked(PathBuf),
    /// Another passphrase than the key's.
    #[error("wrong passphrase for {}", .0.display())]
    WrongPassphrase(PathBuf),
    /// The passphrase could not be asked for.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// The key could not be encrypted.
    #[error("cannot encrypt {}", .path.display())]
    Encrypt {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EncryptError,
    },
}

/// Asks for the passphrase of a key file; `None` if it cannot prompt.
pub type PassphrasePrompt =
    Arc<dyn Fn(&Path) -> Result<Option<Passphrase>, PassphraseError> + Send + Sync>;

/// How the CA's keys are found and unlocked. The default: in the CA's folder, not encrypted.
#[derive(Clone, Default)]
pub struct Unlock {
    /// The root's key file, if it is not in the CA's folder.
    pub root_key: Option<PathBuf>,
    /// Called once, when the first encrypted key is needed.
    pub ask: Option<PassphrasePrompt>,
}

impl Unlock {
    /// With a known passphrase.
    pub fn with(passphrase: Passphrase) -> Self {
        Self {
            root_key: None,
            ask: Some(Arc::new(move |_| Ok(Some(passphrase.clone())))),
        }
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unlock")
            .field("root_key", &self.root_key)
            .finish_non_exhaustive()
    }
}

/// Reads key files, and remembers the passphrase that decrypted one.
#[derive(Debug)]
pub(crate) struct Keyring {
    unlock: Unlock,
    known: Mutex<Option<Passphrase>>,
}

impl Keyring {
    pub(crate) fn new(unlock: Unlock) -> Self {
        Self {
            unlock,
            known: Mutex::new(None),
        }
    }

    pub(crate) fn unlock(&self) -> &Unlock {
        &self.unlock
    }

    /// Reads the key in a file.
    pub(crate) fn read(&self, path: &Path) -> Result<KeyPair, KeyFileError> {
        let pem = Zeroizing::new(disk::read(path)?);
        disk::refuse_if_shared(path)?;
        let der = if is_encrypted(&pem) {
            let passphrase = self.passphrase(path)?;
            let der = decrypt(&pem, &passphrase).map_err(|error| match error {
                DecryptError::WrongPassphrase => KeyFileError::WrongPassphrase(path.to_owned()),
                DecryptError::NotAKey => {
                    CaFileError::invalid(path, "not an encrypted PEM private key").into()
                }
            })?;
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(passphrase);
            PrivateKeyDer::Pkcs8(der.to_vec().into())
        } else {
            lizmon_pki::pem::private_key(&pem).map_err(CaFileError::pem(path))?
        };
        KeyPair::try_from(&der)
            .map_err(|_| CaFileError::invalid(path, "not a private key that can be used").into())
    }

    /// The passphrase of a key file, to encrypt another key with it. `None` if it is not encrypted.
    pub(crate) fn passphrase_of(&self, path: &Path) -> Result<Option<Passphrase>, KeyFileError> {
        if is_encrypted(&Zeroizing::new(disk::read(path)?)) {
            // Decrypt it too: a mistyped passphrase must not become the new key's.
            self.read(path)?;
            self.passphrase(path).map(Some)
        } else {
            Ok(None)
        }
    }

    fn passphrase(&self, path: &Path) -> Result<Passphrase, KeyFileError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passphrase) = known.as_ref() {
            return Ok(passphrase.clone());
        }
        drop(known);
        let asked = match &self.unlock.ask {
            Some(ask) => ask(path)?,
            None => None,
        };
        asked.ok_or_else(|| KeyFileError::Locked(path.to_owned()))
    }
}

/// Writes a key file with mode 0600, encrypted if there is a passphrase.
pub(crate) fn write_key(
    path: &Path,
    key: &KeyPair,
    passphrase: Option<&Passphrase>,
) -> Result<(), KeyFileError> {
    let pem = match passphrase {
        Some(passphrase) => {
            encrypt(key.serialized_der(), passphrase).map_err(|source| KeyFileError::Encrypt {
                path: path.to_owned(),
                source,
            })?
        }
        None => Zeroizing::new(key.serialize_pem()),
    };
    Ok(disk::write(path, pem.as_bytes(), Access::Secret)?)
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;
    use crate::pki::key::{self, KeyAlg};

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn an_encrypted_key_needs_its_own_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        for alg in [KeyAlg::P256, KeyAlg::Ed25519] {
            let path = dir.path().join(format!("{alg}.key"));
            let key = key::generate(alg).unwrap();
            write_key(&path, &key, Some(&passphrase("correct horse"))).unwrap();
            let pem = std::fs::read_to_string(&path).unwrap();
            assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
            assert!(!pem.contains(&key.serialize_pem()[40..80]));
            let read = |unlock| Keyring::new(unlock).read(&path);
            let opened = read(Unlock::with(passphrase("correct horse"))).unwrap();
            assert_eq!(
                opened.subject_public_key_info(),
                key.subject_public_key_info()
            );
            let wrong = read(Unlock::with(passphrase("wrong")));
            assert!(
                matches!(wrong, Err(KeyFileError::WrongPassphrase(_))),
                "{wrong:?}"
            );
            let nobody = read(Unlock::default());
            assert!(matches!(nobody, Err(KeyFileError::Locked(_))), "{nobody:?}");
        }
    }

    #[test]
    fn the_passphrase_is_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        let unlock = Unlock {
            root_key: None,
            ask: Some(Arc::new(move |_| {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Ok(Some(passphrase("p")))
            })),
        };
        let keyring = Keyring::new(unlock);
        for name in ["a", "b"] {
            let path = dir.path().join(name);
            let key = key::generate(KeyAlg::P256).unwrap();
            write_key(&path, &key, Some(&passphrase("p"))).unwrap();
            keyring.read(&path).unwrap();
            assert!(keyring.passphrase_of(&path).unwrap().is_some());
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
