//! What can go wrong, and what to do about it.

use std::io::ErrorKind;
use std::path::PathBuf;

use lizmon_pki::pem::PemError;
use lizmon_protocol::name::Role;

use crate::audit::AuditError;
use crate::authority::CaKind;
use crate::disk;
use crate::key::CsrError;
use crate::ledger::LedgerFailure;

/// Why the certificate authority did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `init` where a CA is complete.
    #[error(
        "a CA is in {} already: nothing was changed; use it, or choose another folder",
        .0.display()
    )]
    AlreadyThere(PathBuf),
    /// `init` where some files of a CA are.
    #[error(
        "{} is there already but {} is not, half of a CA: nothing was changed; move it away, or choose another folder",
        .present.display(), .missing.display()
    )]
    HalfThere {
        /// A file that is in the way.
        present: PathBuf,
        /// A file that a whole CA would have.
        missing: PathBuf,
    },
    /// `open` where no CA is.
    #[error("no CA in {}: make one with `lizctl init-ca`", .0.display())]
    NotThere(PathBuf),
    /// `open` where a file of the CA is missing.
    #[error("{} is missing: put it back", .0.display())]
    FileMissing(PathBuf),
    /// A file of the CA that does not hold what it should.
    #[error("{} is no file of this CA: {why}", .path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What was expected of it.
        why: &'static str,
    },
    /// A PEM file that is damaged, encrypted where nobody could open it, or of something else.
    #[error("{} cannot be used", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where, and why.
        source: PemError,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A symbolic link where a folder or file of ours belongs.
    #[error("{} is a symbolic link or no folder: move it away", .0.display())]
    NotAFolder(PathBuf),
    /// SQLite refused.
    #[error("the ledger {} cannot be used", .path.display())]
    Ledger {
        /// The ledger.
        path: PathBuf,
        /// Why, and what to do.
        source: LedgerFailure,
    },
    /// The ledger of a later version.
    #[error(
        "the ledger {} has schema {found}, this program knows {known}: use a newer one", .path.display()
    )]
    LedgerTooNew {
        /// The ledger.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Signing or encoding failed.
    #[error("cannot sign")]
    Sign(#[from] rcgen::Error),
    /// The system's random generator or key generator failed.
    #[error("cannot make a key: the system's random generator failed")]
    Random,
    /// A signing request or key that is not taken.
    #[error(transparent)]
    Key(#[from] CsrError),
    /// A name that differs from an issued one only by case.
    #[error(
        "{role} `{name}` differs only by case from `{taken}`, which was issued: choose another name"
    )]
    CaseConflict {
        /// As what.
        role: Role,
        /// The name asked for.
        name: String,
        /// The name there is.
        taken: String,
    },
    /// One name twice in one list.
    #[error("`{0}` is named twice: name each once")]
    NamedTwice(String),
    /// A key file beside which the certificate of another key would come to lie.
    #[error("{} is another key than the request's: move it away first", .0.display())]
    KeyInTheWay(PathBuf),
    /// A server without a name that its clients could check.
    #[error("a {0} needs at least one DNS name or IP address: say which with --san")]
    SanMissing(Role),
    /// A client with a DNS name.
    #[error("a {0} gets no DNS name or IP address: leave --san out")]
    SanUnwanted(Role),
    /// More names than anyone needs.
    #[error("{0} DNS names and IP addresses are too many: at most {max}", max = crate::profile::SANS_MAX)]
    SansTooMany(usize),
    /// Not a DNS name, not an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    San(String),
    /// A lifetime of nothing, or past every calendar.
    #[error("a lifetime of {0} s cannot be: give at least a minute and at most 100 years")]
    Lifetime(u64),
    /// A join token for a server, whose names somebody must vouch for.
    #[error(
        "a {0} does not join by token, as its names must be given here: issue it with --csr and --san"
    )]
    JoinRole(Role),
    /// A join token for no time, or for so long that it is a password.
    #[error("a join token cannot live for {0} s: give it more than nothing and at most {max} days", max = crate::enrol::TOKEN_TTL_MAX.as_secs() / crate::profile::DAY_SECS)]
    JoinTtl(u64),
    /// The issuing CA has ended.
    #[error(
        "the CA `{subject}` ended at {not_after}: `lizctl rotate {which} --next`, three times, puts a new one in its place"
    )]
    IssuerEnded {
        /// Which one has to be replaced: an issuing CA ends with its root.
        which: CaKind,
        /// Its common name.
        subject: String,
        /// When, RFC 3339.
        not_after: String,
    },
    /// A CA that was to come into use has ended meanwhile.
    #[error(
        "the CA `{subject}` ended at {not_after}, before it was used: `lizctl rotate {which} --back` takes it away"
    )]
    NextEnded {
        /// Which rotation it belongs to.
        which: CaKind,
        /// Its common name.
        subject: String,
        /// When, RFC 3339.
        not_after: String,
    },
    /// The clock is before the issuing CA's start.
    #[error(
        "the CA `{subject}` starts at {not_before}, later than now: set the clock; if the clock is right now and was ahead \
         when the CA was made, replace it: `lizctl rotate issuing --next` (root, if that begins too late as well), twice"
    )]
    IssuerNotStarted {
        /// Its common name.
        subject: String,
        /// When, RFC 3339.
        not_before: String,
    },
    /// A time that no certificate can hold.
    #[error("{0} s since 1970 is no time that a certificate can hold: set the clock")]
    Clock(u64),
    /// No such certificate.
    #[error("no certificate with serial {0} was issued here")]
    UnknownSerial(String),
    /// A list with the highest number there is.
    #[error(
        "a revocation list of `{0}` has the highest number that can be counted here: replace that CA with `lizctl rotate`"
    )]
    CrlNumbersUsedUp(String),
    /// The root's key is needed and not there.
    #[error("the root's key {} is away: bring it back for this, or say where it is with --root-key", .0.display())]
    RootKeyAway(PathBuf),
    /// A file where a new key would be written.
    #[error("{} is there already: move it away, or choose another folder", .0.display())]
    InTheWay(PathBuf),
    /// A restore over a CA that has done more since.
    #[error(
        "{} has {lines} lines in its log that the backup does not know, the last of {last}: they would be forgotten; restore all the same with --force, which keeps it aside",
        .path.display()
    )]
    NewerThere {
        /// The ledger that is there.
        path: PathBuf,
        /// How many.
        lines: usize,
        /// When the last was written, RFC 3339.
        last: String,
    },
    /// A restore over another CA.
    #[error(
        "{} is another CA's than the backup's: name another folder with --certs, or replace it with --force, which keeps it aside",
        .0.display()
    )]
    OtherCaThere(PathBuf),
    /// A root cannot take itself back.
    #[error(
        "{0} is a root, which no revocation list can end: replace it with `lizctl rotate root --next`"
    )]
    RootNotRevocable(String),
    /// Nothing was ever issued to this holder.
    #[error("no certificate was issued to {role} `{name}` here: see `lizctl list`, and --role")]
    UnknownHolder {
        /// As what.
        role: Role,
        /// For whom.
        name: String,
    },
    /// A rotation of the other CA is under way.
    #[error("the {0} CA is being rotated: finish that, or take it back, with `lizctl rotate {0}`")]
    OtherRotation(CaKind),
    /// `--back` where there is nothing before.
    #[error(
        "there is no retired CA to trust again: `lizctl rotate {0} --status` shows what there is"
    )]
    NothingToTakeBack(CaKind),
    /// Holders who would be refused.
    #[error(
        "{count} holders still show a certificate of the CA that would go, {first} first: renew them, or leave them behind with --force"
    )]
    StillInUse {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// Holders who would refuse others.
    #[error(
        "{count} holders have not renewed since the new root was published and may not know it, {first} first: wait for them, or give them root.crt and go on with --force"
    )]
    RootUnknown {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// The CA in use has changed since it was opened.
    #[error("the issuing CA was rotated meanwhile: try again")]
    Rotated,
    /// A secret that is none.
    #[error(
        "{} can be read or written by others (mode {mode:04o}): run `chmod {wanted} {}`", .path.display(), .path.display()
    )]
    Shared {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What to make of it, as chmod takes it.
        wanted: &'static str,
    },
    /// An encrypted key and nobody who knows the passphrase.
    #[error("{} is encrypted: give its passphrase with --passphrase-file", .0.display())]
    KeyLocked(PathBuf),
    /// Another passphrase than the key's.
    #[error("that is not the passphrase of {}", .0.display())]
    WrongPassphrase(PathBuf),
    /// No passphrase at all.
    #[error("the passphrase is empty: give at least one character")]
    PassphraseEmpty,
    /// The terminal does not do what it should.
    #[error("cannot ask for the passphrase: give it with --passphrase-file")]
    PassphraseAsk(#[source] std::io::Error),
    /// Encrypting failed.
    #[error("cannot encrypt the key")]
    Seal,
    /// The audit log is not what was written.
    #[error("the audit log of {} is broken", .path.display())]
    Audit {
        /// The ledger.
        path: PathBuf,
        /// Where, and how.
        source: AuditError,
    },
}

impl Error {
    /// Whether it is one of writing, so that who only wants to read may go on. What others can read is its owner's fault
    /// alone.
    pub(crate) fn is_write_failure(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
            ),
            Self::Ledger { source, .. } => matches!(
                source,
                LedgerFailure::DiskFull | LedgerFailure::ReadOnly | LedgerFailure::Disk
            ),
            Self::Shared { path, .. } => disk::is_owned_by_other(path),
            _ => false,
        }
    }

    /// For `map_err` after an I/O call.
    pub(crate) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
