//! What the ledger stores, as plain values.

use lizmon_pki::pem;
use lizmon_protocol::name::Role;
use rustls_pki_types::CertificateDer;

use crate::files::CaFileError;
use crate::pki::Profile;

/// How [`Entry::issued_by`] begins where a join token was used.
const TOKEN_PREFIX: &str = "join token ";
const UNREADABLE: &str = "a certificate in it cannot be read";

/// The state of a certificate, apart from its dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertState {
    /// Not revoked.
    Valid,
    /// Revoked: on the CRL until it ends.
    Revoked,
}

impl CertState {
    pub(super) const ALL: [Self; 2] = [Self::Valid, Self::Revoked];

    /// As the ledger stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Revoked => "revoked",
        }
    }
}

/// A certificate in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Lower-case hex.
    pub serial: String,
    /// Its template.
    pub profile: Profile,
    /// The holder's name, or a CA's common name.
    pub name: String,
    /// Serial of the signer.
    pub issuer: String,
    /// SHA-256 of the subject public key info, lower-case hex.
    pub key_sha256: String,
    /// Epoch seconds.
    pub not_before: u64,
    /// Epoch seconds.
    pub not_after: u64,
    /// Epoch seconds.
    pub issued_at: u64,
    /// Who asked.
    pub issued_by: String,
    /// Whether it is revoked.
    pub state: CertState,
    /// When it was revoked: epoch seconds.
    pub revoked_at: Option<u64>,
    /// Why it was revoked: RFC 5280 section 5.3.1.
    pub revoked_reason: Option<u8>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
    /// Serial of the certificate that this one renews, if it is a renewal.
    pub renews: Option<String>,
    /// The certificate.
    pub pem: String,
}

impl Entry {
    /// Whether it is neither revoked nor expired at `now`.
    pub fn is_live(&self, now: u64) -> bool {
        self.state == CertState::Valid && now <= self.not_after
    }

    /// Whether a join token was used to get it.
    pub(crate) fn is_enrolled_by_token(&self) -> bool {
        self.issued_by.starts_with(TOKEN_PREFIX)
    }

    /// The certificate in DER.
    pub(crate) fn der(&self) -> Result<CertificateDer<'static>, CaFileError> {
        let unreadable = || CaFileError::invalid("ledger.db".as_ref(), UNREADABLE);
        let found = pem::certificates(self.pem.as_bytes()).map_err(|_| unreadable())?;
        found.into_iter().next().ok_or_else(unreadable)
    }

    /// Whether its holder renews it automatically, as far as is known: it was issued for a join
    /// token, was renewed before, or is `liz-ca`'s own.
    pub fn renews_automatically(&self) -> bool {
        self.renews.is_some()
            || self.is_enrolled_by_token()
            || self.profile == Profile::Leaf(Role::Ca)
    }
}

/// The phase of a CA generation. The first three are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It signs.
    Current,
    /// It is published and will sign.
    Next,
    /// It signs no more, and what it signed is still in use.
    Old,
    /// No longer trusted. Its key is kept, so it can be reinstated.
    Retired,
    /// No longer trusted, and its key is deleted.
    Gone,
}

impl Phase {
    pub(super) const ALL: [Self; 5] = [
        Self::Current,
        Self::Next,
        Self::Old,
        Self::Retired,
        Self::Gone,
    ];

    /// As the ledger stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Old => "old",
            Self::Retired => "retired",
            Self::Gone => "gone",
        }
    }

    /// Whether certificates that it signed are accepted.
    pub fn is_trusted(self) -> bool {
        self <= Self::Old
    }
}

/// A generation of a CA: its certificate and its phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The certificate.
    pub entry: Entry,
    /// Its phase.
    pub phase: Phase,
    /// When it entered that phase: epoch seconds.
    pub since: u64,
}

/// A revoked certificate that is not in the ledger: it was issued after the backup from which the
/// ledger was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRevoked {
    /// Lower-case hex.
    pub serial: String,
    /// Serial of the CA that signed it.
    pub issuer: String,
    /// Epoch seconds.
    pub revoked_at: u64,
    /// RFC 5280 section 5.3.1.
    pub reason: Option<u8>,
    /// Who revoked it.
    pub revoked_by: String,
}

/// What [`Entry::issued_by`] says of a certificate that was issued for a join token.
pub(crate) fn issued_by_token(short_id: &str, created_by: &str) -> String {
    format!("{TOKEN_PREFIX}{short_id} of {created_by}")
}

#[cfg(test)]
impl Entry {
    pub(crate) fn for_test(serial: &str, profile: Profile) -> Self {
        Self {
            serial: serial.to_owned(),
            profile,
            name: "name".to_owned(),
            issuer: "ca".to_owned(),
            key_sha256: String::new(),
            not_before: 1,
            not_after: 1000,
            issued_at: 2,
            issued_by: "test".to_owned(),
            state: CertState::Valid,
            revoked_at: None,
            revoked_reason: None,
            revoked_by: None,
            renews: None,
            pem: String::new(),
        }
    }
}
