//! Encrypted private keys: PKCS #8 with PBES2 (RFC 8018 section 6.2), which OpenSSL reads and
//! writes.

use pkcs8::der::Decode;
use pkcs8::der::pem::PemLabel;
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Salt, ScryptParams};
use pkcs8::{EncryptedPrivateKeyInfoOwned, LineEnding, SecretDocument};
use zeroize::Zeroizing;

use super::passphrase::Passphrase;
use super::random::{RandomError, fill_random};

/// scrypt's N, r and p: what OWASP lists for 16 MiB. OpenSSL refuses more than 32 MiB of memory.
const SCRYPT_COST: (u64, u16, u16) = (1 << 14, 8, 5);

/// Why a key was not encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// It cannot be encoded.
    #[error("the encrypted key cannot be encoded")]
    Encode,
}

/// Why a key was not decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecryptError {
    #[error("not an encrypted PEM private key")]
    NotAKey,
    #[error("wrong passphrase")]
    WrongPassphrase,
}

/// Whether a PEM file holds an encrypted key.
pub(crate) fn is_encrypted(pem: &[u8]) -> bool {
    let label = EncryptedPrivateKeyInfoOwned::PEM_LABEL.as_bytes();
    pem.windows(label.len()).any(|window| window == label)
}

/// The encryption scheme of a PKCS #8 key, `None` if it is not encrypted.
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

pub(super) fn encrypt(
    der: &[u8],
    passphrase: &Passphrase,
) -> Result<Zeroizing<String>, EncryptError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    for bytes in [&mut salt, &mut iv] {
        fill_random(bytes)?;
    }
    let (cost_parameter, block_size, parallelization) = SCRYPT_COST;
    let parameters = Parameters {
        kdf: ScryptParams {
            salt: Salt::new(salt).map_err(|_| EncryptError::Encode)?,
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
        .map_err(|_| EncryptError::Encode)?;
    let info = EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: parameters.into(),
        encrypted_data: pkcs8::der::asn1::OctetString::new(encrypted)
            .map_err(|_| EncryptError::Encode)?,
    };
    SecretDocument::try_from(info)
        .and_then(|document| {
            let pem = document.to_pem(EncryptedPrivateKeyInfoOwned::PEM_LABEL, LineEnding::LF);
            Ok(pem?)
        })
        .map_err(|_| EncryptError::Encode)
}

pub(super) fn decrypt(
    pem: &[u8],
    passphrase: &Passphrase,
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let text = std::str::from_utf8(pem).map_err(|_| DecryptError::NotAKey)?;
    let (_, document) = SecretDocument::from_pem(text).map_err(|_| DecryptError::NotAKey)?;
    let info: EncryptedPrivateKeyInfoOwned =
        document.decode_msg().map_err(|_| DecryptError::NotAKey)?;
    let key = info
        .decrypt(passphrase.as_bytes())
        .map_err(|_| DecryptError::WrongPassphrase)?;
    Ok(key.to_bytes())
}
