//! X.509 and keys: what a certificate, a key, a CRL and a signing request are.
//!
//! This layer knows no ledger and no policy. It reads and writes key files, and nothing else on
//! disk.
//!
//! | module | what it does |
//! | --- | --- |
//! | `profile` | the only certificate templates there are |
//! | `validity`, `san`, `serial` | dates, names and serial numbers of a certificate |
//! | [`key`] | key pairs, their fingerprints and kinds |
//! | [`csr`] | signing requests: only the public key is taken from one |
//! | `passphrase`, `encrypted_key`, `keyring` | key files, encrypted or not |
//! | `ca_certificate`, `signer` | a CA's certificate, checked, and the key that signs with it |
//! | [`crl`] | when a CRL is signed again, and what it contains |
//! | [`inspect`] | what a file contains, as plain structs |
//! | [`verify`] | whether a receiver would accept a certificate |

mod ca_certificate;
pub mod crl;
pub mod csr;
mod encrypted_key;
pub mod inspect;
pub mod key;
mod keyring;
mod passphrase;
mod profile;
mod random;
mod san;
mod serial;
mod signer;
mod validity;
pub mod verify;

pub(crate) use self::ca_certificate::CaCertificate;
pub use self::crl::{CrlError, Reason};
pub use self::csr::{CsrError, CsrFormatError};
pub use self::encrypted_key::EncryptError;
pub(crate) use self::encrypted_key::is_encrypted;
pub use self::key::{KeyAlg, KeyGenError};
pub use self::keyring::{KeyFileError, PassphrasePrompt, Unlock};
pub(crate) use self::keyring::{Keyring, write_key};
pub use self::passphrase::{Passphrase, PassphraseError};
pub use self::profile::{CaKind, Profile, ProfileError, UnknownCaKind};
pub(crate) use self::profile::{CertFields, check_sans, common_name_of, issuing, leaf, root};
pub use self::random::RandomError;
pub(crate) use self::random::fill_random;
pub(crate) use self::san::sans_of;
pub use self::san::{SANS_MAX, San, SanError};
pub(crate) use self::serial::strip_sign;
pub use self::serial::{Serial, SerialError};
pub use self::signer::SignError;
pub(crate) use self::signer::Signer;
pub use self::validity::{
    BACKDATE_SECS, DAY_SECS, LEAF_LIFETIME_SECS, LIFETIME_SECS_MAX, LIFETIME_SECS_MIN, Validity,
    ValidityError,
};
pub(crate) use self::validity::{rfc3339, validity_from};
