//! Why the CA did not do what was requested: an enum for each operation, and [`Error`] for all of
//! them.

use std::path::PathBuf;

use lizmon_protocol::name::Role;

use crate::files::CaFileError;
use crate::ledger::LedgerError;
use crate::ledger::audit::AuditError;
use crate::pki::{
    CaKind, CrlError, CsrError, DAY_SECS, KeyFileError, KeyGenError, PassphraseError, ProfileError,
    RandomError, SerialError, SignError, ValidityError,
};

use super::lifetimes::TOKEN_TTL_MAX;

/// Why the CA did not do what was requested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no CA in the folder.
    #[error("no CA in {}: create one with `lizctl init-ca`", .0.display())]
    NotFound(PathBuf),
    /// The root's key is needed and not there.
    #[error("the root's key {} is not there: put it back, or give its path with --root-key", .0.display())]
    RootKeyMissing(PathBuf),
    /// Another process has rotated the CA since it was opened.
    #[error("the issuing CA was rotated meanwhile: try again")]
    Rotated,
    /// The audit log was changed.
    #[error("the audit log of {} is broken", .path.display())]
    Audit {
        /// The ledger.
        path: PathBuf,
        /// Where, and how.
        source: AuditError,
    },
    /// No CA was created.
    #[error(transparent)]
    Init(#[from] InitError),
    /// Nothing was issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Nothing was revoked.
    #[error(transparent)]
    Revoke(#[from] RevokeError),
    /// No step of a rotation was taken.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// Nothing was restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A signing request is refused.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// A file or folder cannot be used.
    #[error(transparent)]
    File(#[from] CaFileError),
    /// A key file cannot be used.
    #[error(transparent)]
    KeyFile(KeyFileError),
    /// There is no passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(LedgerError),
    /// A certificate cannot be made from its template.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A validity period cannot be made.
    #[error(transparent)]
    Validity(#[from] ValidityError),
    /// A serial number is malformed.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// No key was generated.
    #[error(transparent)]
    KeyGen(#[from] KeyGenError),
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A certificate was not signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A CRL was not signed.
    #[error(transparent)]
    Crl(#[from] CrlError),
}

impl Error {
    /// Whether only writing is impossible here, so that a caller that only reads can go on.
    pub(crate) fn is_write_failure(&self) -> bool {
        match self {
            Self::File(error) => error.is_write_failure(),
            Self::Ledger(error) => error.is_write_failure(),
            _ => false,
        }
    }

    /// Whether a key file that is needed is kept elsewhere.
    pub(crate) fn is_missing_key(&self) -> bool {
        matches!(
            self,
            Self::RootKeyMissing(_) | Self::File(CaFileError::Missing(_))
        )
    }
}

/// What is wrong with a file is [`Error::File`], whichever module finds it.
impl From<KeyFileError> for Error {
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::File(error) => Self::File(error),
            error => Self::KeyFile(error),
        }
    }
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::File(error) => Self::File(error),
            error => Self::Ledger(error),
        }
    }
}

/// Why no CA was created.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder holds a complete CA.
    #[error(
        "{} already contains a CA: nothing was changed; use it, or choose another folder",
        .0.display()
    )]
    AlreadyExists(PathBuf),
    /// The folder holds a part of a CA.
    #[error(
        "{} exists but {} does not, so the CA is incomplete: nothing was changed; move it away, or choose another folder",
        .present.display(), .missing.display()
    )]
    Partial {
        /// A file that exists.
        present: PathBuf,
        /// A file that a complete CA would have.
        missing: PathBuf,
    },
}

/// Why no certificate or join token was issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A name that differs from an issued one only by case.
    #[error(
        "{role} `{name}` differs only by case from `{taken}`, which was issued: choose another name"
    )]
    CaseConflict {
        /// The role.
        role: Role,
        /// The requested name.
        name: String,
        /// The issued name.
        taken: String,
    },
    /// A name that is listed twice.
    #[error("`{0}` is named twice: name it once")]
    NamedTwice(String),
    /// A name whose certificate is for longer use than the requested one.
    #[error("{0} `{1}` has a certificate that is in use: choose another name")]
    NameInUse(Role, String),
    /// The key file beside the new certificate is another key's.
    #[error("{} is not the key of the request: move it away first", .0.display())]
    OtherKeyPresent(PathBuf),
    /// A CA cannot join with a token: its bearer could pose as the CA to all that join.
    #[error(
        "a {0} cannot join with a token: liz-ca issues its own certificate, on the machine with the CA's folder"
    )]
    RoleCannotJoin(Role),
    /// A join token that ends at once, or lives as long as a password.
    #[error("a join token cannot be valid for {0} s: give it at least a second and at most {max} days", max = TOKEN_TTL_MAX.as_secs() / DAY_SECS)]
    JoinTokenTtl(u64),
    /// The CA has expired.
    #[error(
        "the CA `{subject}` expired at {not_after}: run `lizctl rotate {which} --next` three times to replace it"
    )]
    IssuerExpired {
        /// Which one has to be replaced: an issuing CA expires with its root.
        which: CaKind,
        /// Its common name.
        subject: String,
        /// When, RFC 3339.
        not_after: String,
    },
    /// The clock is before the issuing CA's start.
    #[error(
        "the CA `{subject}` is not valid before {not_before}: check the clock; if it is right now and was ahead when the CA \
         was created, run `lizctl rotate issuing --next` twice to replace it (root, if that starts too late as well)"
    )]
    IssuerNotStarted {
        /// Its common name.
        subject: String,
        /// When, RFC 3339.
        not_before: String,
    },
}

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The ledger has no such certificate.
    #[error("no certificate with serial {0} was issued here")]
    UnknownSerial(String),
    /// Nothing was ever issued to this holder.
    #[error("no certificate was issued to {role} `{name}` here: see `lizctl list`, and --role")]
    UnknownHolder {
        /// The role.
        role: Role,
        /// The name.
        name: String,
    },
    /// A root cannot revoke itself.
    #[error("{0} is a root, which no CRL can revoke: replace it with `lizctl rotate root --next`")]
    RootNotRevocable(String),
}

/// Why no step of a rotation was taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The other CA is being rotated.
    #[error("the {0} CA is being rotated: finish that, or revert it, with `lizctl rotate {0}`")]
    OtherInProgress(CaKind),
    /// `--back` without a retired CA.
    #[error("there is no retired CA to reinstate: see `lizctl rotate {0} --status`")]
    NothingToTakeBack(CaKind),
    /// The new CA has expired before it was used.
    #[error(
        "the CA `{subject}` expired at {not_after}, before it was used: run `lizctl rotate {which} --back` to remove it"
    )]
    NextExpired {
        /// Which rotation it belongs to.
        which: CaKind,
        /// Its common name.
        subject: String,
        /// When, RFC 3339.
        not_after: String,
    },
    /// Holders whose certificates would be refused.
    #[error(
        "{count} holders still use a certificate of the old CA, {first} first: renew them, or leave them behind with --force"
    )]
    StillInUse {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// Holders who would refuse others.
    #[error(
        "{count} holders have not renewed since the new root was published and may not have it, {first} first: wait for them, or give them root.crt and continue with --force"
    )]
    RootUnknown {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The CA in the folder has records that the backup does not have.
    #[error(
        "{} has {lines} log lines that are not in the backup, the last of {last}, and a restore would lose them: use --force to restore anyway; the replaced files are kept",
        .path.display()
    )]
    WouldLoseRecords {
        /// The ledger in the folder.
        path: PathBuf,
        /// How many lines of the audit log.
        lines: usize,
        /// When the last was written, RFC 3339.
        last: String,
    },
    /// The folder holds another CA.
    #[error(
        "{} belongs to another CA than the backup: choose another folder with --certs, or replace it with --force; the replaced files are kept",
        .0.display()
    )]
    OtherCa(PathBuf),
}
