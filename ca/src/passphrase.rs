//! CA keys under a passphrase: PKCS #8 encrypted by PBES2 (RFC 8018 section 6.2), which OpenSSL reads and writes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pkcs8::der::Decode;
use pkcs8::der::pem::PemLabel;
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Salt, ScryptParams};
use pkcs8::{EncryptedPrivateKeyInfoOwned, LineEnding, SecretDocument};
use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::disk::{self, Access};
use crate::error::Error;

/// scrypt's N, r and p: what OWASP lists for 16 MiB. More memory than 32 MiB OpenSSL refuses.
const SCRYPT_COST: (u64, u16, u16) = (1 << 14, 8, 5);

/// What a key file is encrypted with. Never shown, overwritten when dropped.
#[derive(Clone)]
pub struct Passphrase(Arc<Zeroizing<Vec<u8>>>);

impl Passphrase {
    /// Any bytes but none.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::PassphraseEmpty);
        }
        Ok(Self(Arc::new(Zeroizing::new(bytes))))
    }

    /// The first line of a file that nobody else can read.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        disk::refuse_if_shared(path)?;
        let bytes = Zeroizing::new(disk::read(path)?);
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
        Self::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
    }

    /// For what has to be handed to another library.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Asks for the passphrase of a key file; `None` where there is nobody to ask.
pub type PassphrasePrompt = Arc<dyn Fn(&Path) -> Result<Option<Passphrase>, Error> + Send + Sync>;

/// How a CA's keys are come by. The default: they are where they belong, and not encrypted.
#[derive(Clone, Default)]
pub struct Unlock {
    /// Where the root's key is, if not in the CA's folder.
    pub root_key: Option<PathBuf>,
    /// Asked once, when the first encrypted key is needed.
    pub ask: Option<PassphrasePrompt>,
}

impl Unlock {
    /// With a passphrase that is known.
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

/// Reads and writes key files, and remembers the passphrase that opened one.
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

    /// The key in a file.
    pub(crate) fn read(&self, path: &Path) -> Result<KeyPair, Error> {
        let bad = |why| Error::BadFile {
            path: path.to_owned(),
            why,
        };
        let pem = Zeroizing::new(disk::read(path)?);
        disk::refuse_if_shared(path)?;
        let der = if is_encrypted(&pem) {
            let passphrase = self.passphrase(path)?;
            let der = open(path, &pem, &passphrase)?;
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(passphrase);
            PrivateKeyDer::Pkcs8(der.to_vec().into())
        } else {
            lizmon_pki::pem::private_key(&pem).map_err(|source| Error::Pem {
                path: path.to_owned(),
                source,
            })?
        };
        KeyPair::try_from(&der).map_err(|_| bad("not a private key we can use"))
    }

    /// The passphrase under which a new key belongs beside this one, `None` if that is not encrypted.
    pub(crate) fn passphrase_of(&self, path: &Path) -> Result<Option<Passphrase>, Error> {
        if is_encrypted(&Zeroizing::new(disk::read(path)?)) {
            // Opened, not only asked for: a typing error must not become the new key's passphrase.
            self.read(path)?;
            self.passphrase(path).map(Some)
        } else {
            Ok(None)
        }
    }

    fn passphrase(&self, path: &Path) -> Result<Passphrase, Error> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passphrase) = known.as_ref() {
            return Ok(passphrase.clone());
        }
        drop(known);
        let asked = match &self.unlock.ask {
            Some(ask) => ask(path)?,
            None => None,
        };
        asked.ok_or_else(|| Error::KeyLocked(path.to_owned()))
    }
}

/// Writes a key for its owner alone, encrypted if there is a passphrase.
pub(crate) fn write_key(
    path: &Path,
    key: &KeyPair,
    passphrase: Option<&Passphrase>,
) -> Result<(), Error> {
    let pem = match passphrase {
        Some(passphrase) => seal(key.serialized_der(), passphrase)?,
        None => Zeroizing::new(key.serialize_pem()),
    };
    disk::write(path, pem.as_bytes(), Access::Secret)
}

/// Whether a PEM file holds an encrypted key.
pub(crate) fn is_encrypted(pem: &[u8]) -> bool {
    let label = EncryptedPrivateKeyInfoOwned::PEM_LABEL.as_bytes();
    pem.windows(label.len()).any(|window| window == label)
}

/// How an encrypted key in PKCS #8 is encrypted, `None` if it is none.
pub(crate) fn scheme(der: &[u8]) -> Option<String> {
    let info = EncryptedPrivateKeyInfoOwned::from_der(der).ok()?;
    let Some(parameters) = info.encryption_algorithm.pbes2() else {
        return Some("PBES1".to_owned());
    };
    let derivation = match parameters.kdf {
        Kdf::Scrypt(_) => "scrypt",
        Kdf::Pbkdf2(_) => "PBKDF2",
        _ => "another derivation",
    };
    let cipher = match parameters.encryption {
        EncryptionScheme::Aes256Cbc { .. } => "AES-256-CBC",
        EncryptionScheme::Aes256Gcm { .. } => "AES-256-GCM",
        EncryptionScheme::Aes192Cbc { .. } => "AES-192-CBC",
        EncryptionScheme::Aes128Cbc { .. } => "AES-128-CBC",
        EncryptionScheme::Aes128Gcm { .. } => "AES-128-GCM",
        _ => "another cipher",
    };
    Some(format!("PBES2, {derivation}, {cipher}"))
}

fn seal(der: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<String>, Error> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    for bytes in [&mut salt, &mut iv] {
        aws_lc_rs::rand::fill(bytes).map_err(|_| Error::Random)?;
    }
    let (cost_parameter, block_size, parallelization) = SCRYPT_COST;
    let parameters = Parameters {
        kdf: ScryptParams {
            salt: Salt::new(salt).map_err(|_| Error::Random)?,
            cost_parameter,
            block_size,
            parallelization,
            key_length: None,
        }
        .into(),
        encryption: EncryptionScheme::Aes256Cbc { iv },
    };
    let encrypted = parameters
        .encrypt(passphrase.as_bytes(), der)
        .map_err(|_| Error::Seal)?;
    let info = EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: parameters.into(),
        encrypted_data: pkcs8::der::asn1::OctetString::new(encrypted).map_err(|_| Error::Seal)?,
    };
    SecretDocument::try_from(info)
        .and_then(|document| {
            let pem = document.to_pem(EncryptedPrivateKeyInfoOwned::PEM_LABEL, LineEnding::LF);
            Ok(pem?)
        })
        .map_err(|_| Error::Seal)
}

fn open(path: &Path, pem: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, Error> {
    let bad = || Error::BadFile {
        path: path.to_owned(),
        why: "not an encrypted PEM private key",
    };
    let text = std::str::from_utf8(pem).map_err(|_| bad())?;
    let (_, document) = SecretDocument::from_pem(text).map_err(|_| bad())?;
    let info: EncryptedPrivateKeyInfoOwned = document.decode_msg().map_err(|_| bad())?;
    let key = info
        .decrypt(passphrase.as_bytes())
        .map_err(|_| Error::WrongPassphrase(path.to_owned()))?;
    Ok(key.to_bytes())
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;
    use crate::key::{self, KeyAlg};

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_alone() {
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
            assert!(matches!(wrong, Err(Error::WrongPassphrase(_))), "{wrong:?}");
            let nobody = read(Unlock::default());
            assert!(matches!(nobody, Err(Error::KeyLocked(_))), "{nobody:?}");
        }
    }

    #[test]
    fn it_is_asked_for_once() {
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
        assert_eq!(format!("{:?}", passphrase("secret")), "Passphrase");
    }
}
