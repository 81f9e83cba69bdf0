//! Makes and opens the CA, issues, revokes, and keeps the CRLs fresh.

mod backup;
mod copies;
mod crls;
mod ending;
mod issue;
mod restore;
mod revocation;
mod rotation;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use lizmon_protocol::name::TrustDomain;

use crate::audit::{self, AuditEvent, AuditHead, AuditLine, LedgerSnapshot};
use crate::disk;
use crate::error::Error;
use crate::founding;
use crate::key;
use crate::layout::CaFiles;
use crate::ledger::{Entry, Generation, Ledger, Phase};
use crate::passphrase::{Keyring, Unlock, is_encrypted};
use crate::profile::{Profile, Validity};
use crate::signer::{CaCertificate, Signer};

pub use crate::founding::InitOptions;
pub use crls::SignedCrl;
pub use ending::CaExpiry;
pub(crate) use issue::record_issued;
pub use issue::{Issued, KeySource, Request};
pub use restore::RestoreOutcome;
pub use revocation::Revocation;
pub use rotation::{CaKind, PendingHolder, RotateOptions, Rotation, Stage, UnknownCaKind};

/// An open CA. Several, in several processes, may be open on one folder.
#[derive(Debug)]
pub struct Authority {
    certs: PathBuf,
    files: CaFiles,
    keyring: Keyring,
    root: CaCertificate,
    issuing: CaCertificate,
    issuing_pem: String,
    /// Opened at once, but for an encrypted key: nobody is asked for a passphrase who only wants to read.
    signer: OnceLock<Arc<Signer>>,
    ledger: Ledger,
    operator: String,
}

impl Authority {
    /// Whether `certs` holds anything of a CA.
    pub fn exists(certs: &Path) -> bool {
        CaFiles::new(certs).first_present().is_some()
    }

    /// Makes a CA: two keys, two certificates, two CRLs, a ledger. Where there is one, or half of one, nothing is
    /// touched; where it fails, none of its files is left.
    pub fn init(certs: &Path, options: &InitOptions, now: u64) -> Result<Self, Error> {
        let rollback = founding::found(certs, options, now)?;
        let authority = Self::open_with(certs, options.unlock(), now)?;
        rollback.disarm();
        Ok(authority)
    }

    /// Opens a CA whose keys are where they belong and not encrypted.
    pub fn open(certs: &Path, now: u64) -> Result<Self, Error> {
        Self::open_with(certs, Unlock::default(), now)
    }

    /// Opens the CA, checks that its files belong together and are its owner's alone, and signs CRLs again that are
    /// past half their life.
    pub fn open_with(certs: &Path, unlock: Unlock, now: u64) -> Result<Self, Error> {
        let authority = Self::load(certs, unlock)?;
        authority.detect_copy(now)?;
        authority.refresh_crls(now)?;
        Ok(authority)
    }

    /// Opens the CA for someone who only wants to look: as [`Self::open_with`], but where nobody knows the passphrase,
    /// what would have to be signed stays as it is: see [`Self::crls_are_due`].
    ///
    /// Where nothing can be written, on a full disk or a medium that is read-only, or as a user who may not, all of it is
    /// read as it is there: see [`Self::is_read_only`]. That needs the ledger alone, and none of the keys.
    pub fn open_read_only(certs: &Path, unlock: Unlock, now: u64) -> Result<Self, Error> {
        let keyless = unlock.clone();
        let opened = Self::load(certs, unlock).and_then(|authority| {
            let refreshed = authority
                .detect_copy(now)
                .and_then(|()| authority.refresh_crls(now));
            match refreshed {
                Err(Error::KeyLocked(_)) => {}
                done => done?,
            }
            Ok(authority)
        });
        match opened {
            Err(error) if error.is_write_failure() => Self::load_read_only(certs, keyless),
            done => done,
        }
    }

    fn load_read_only(certs: &Path, unlock: Unlock) -> Result<Self, Error> {
        let files = CaFiles::new(certs);
        let ledger = Ledger::open_read_only(&files.ledger)?;
        let current = ledger.transaction(|tx| Current::of(&files, &tx.generations()?))?;
        Ok(Self {
            certs: certs.to_owned(),
            files,
            keyring: Keyring::new(unlock),
            root: current.root,
            issuing: current.issuing,
            issuing_pem: current.issuing_pem,
            signer: OnceLock::new(),
            ledger,
            operator: disk::operator(),
        })
    }

    /// Whether nothing can be changed: it was opened to be read, where nothing can be written.
    pub fn is_read_only(&self) -> bool {
        self.ledger.is_read_only()
    }

    /// The CA as it is now: what a program that holds it open does after [`Error::Rotated`].
    pub fn reopen(&self, now: u64) -> Result<Self, Error> {
        Self::open_with(&self.certs, self.keyring.unlock().clone(), now)
    }

    fn load(certs: &Path, unlock: Unlock) -> Result<Self, Error> {
        let files = CaFiles::new(certs);
        disk::refuse_if_hidden(&files.ledger)?;
        if !Self::exists(certs) {
            return Err(Error::NotThere(certs.to_owned()));
        }
        if let Some(missing) = files.essential().into_iter().find(|path| !path.exists()) {
            return Err(Error::FileMissing(missing.clone()));
        }
        disk::refuse_if_others_can_write(certs)?;
        disk::refuse_if_shared(&files.ledger)?;
        if files.ledger.is_symlink() {
            return Err(Error::BadFile {
                path: files.ledger,
                why: "it is a symbolic link: put the file itself here",
            });
        }
        if disk::is_empty(&files.ledger) {
            return Err(Error::BadFile {
                path: files.ledger,
                why: "it is empty: put the last backup back, with `lizctl restore DIR`",
            });
        }
        let ledger = Ledger::open(&files.ledger)?;
        let keyring = Keyring::new(unlock);
        for key in [&files.issuing_key, &files.root_key] {
            if disk::is_present(key) {
                disk::refuse_if_shared(key)?;
            }
        }
        // Under the lock, so that no rotation changes one file after another was read.
        let (current, signer) = ledger.transaction(|tx| {
            rotation::reconcile(&files, tx)?;
            let current = Current::read(&files, &tx.generations()?)?;
            let signer = OnceLock::new();
            let path = &files.issuing_key;
            if !is_encrypted(&zeroize::Zeroizing::new(disk::read(path)?)) {
                let key = keyring.read(path)?;
                let opened = Signer::new(current.issuing.clone(), path, key)?;
                signer.get_or_init(|| Arc::new(opened));
            }
            Ok((current, signer))
        })?;
        Ok(Self {
            certs: certs.to_owned(),
            files,
            keyring,
            root: current.root,
            issuing: current.issuing,
            issuing_pem: current.issuing_pem,
            signer,
            ledger,
            operator: disk::operator(),
        })
    }

    /// Opens the issuing CA's key now rather than when it is first needed.
    pub fn unlock(&self) -> Result<(), Error> {
        self.signer().map(drop)
    }

    /// Below which all identities live.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.issuing.trust_domain
    }

    /// Where the CA's own files are.
    pub fn files(&self) -> &CaFiles {
        &self.files
    }

    /// From when until when the issuing CA can sign.
    pub fn issuing_validity(&self) -> Validity {
        self.issuing.validity
    }

    /// From when until when the root is trusted.
    pub fn root_validity(&self) -> Validity {
        self.root.validity
    }

    /// SHA-256 of the root's DER, lower-case hex: what `lizctl join --ca-fingerprint` is given.
    pub fn root_fingerprint(&self) -> String {
        key::sha256_hex(&self.root.der)
    }

    /// Every certificate ever signed here, in order.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.ledger.transaction(|tx| tx.entries())
    }

    /// The CAs that ever were, the current ones first.
    pub fn generations(&self) -> Result<Vec<Generation>, Error> {
        self.ledger.transaction(|tx| tx.generations())
    }

    /// The audit log.
    pub fn audit_log(&self) -> Result<Vec<AuditLine>, Error> {
        self.ledger.transaction(|tx| tx.lines())
    }

    /// Checks the audit log, also against a line of it that was kept elsewhere, and returns its newest.
    pub fn verify_audit(&self, kept: Option<&AuditHead>) -> Result<Option<AuditHead>, Error> {
        self.ledger.transaction(|tx| {
            let holdings = LedgerSnapshot {
                entries: tx.entries()?,
                generations: tx.generations()?,
                crls: tx.crls()?,
                tokens: tx.token_ids()?,
                unknown: tx.unknown_revoked()?,
            };
            audit::verify(&tx.lines()?, &holdings, kept).map_err(|source| Error::Audit {
                path: self.files.ledger.clone(),
                source,
            })
        })
    }

    /// Writes a line into the audit log.
    pub fn record_event(&self, event: &AuditEvent<'_>, now: u64) -> Result<(), Error> {
        self.ledger.transaction(|tx| tx.record(event, now))
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Who runs this program, as the ledger has it.
    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    fn signer(&self) -> Result<Arc<Signer>, Error> {
        if let Some(signer) = self.signer.get() {
            return Ok(signer.clone());
        }
        let path = &self.files.issuing_key;
        let signer = Signer::new(self.issuing.clone(), path, self.keyring.read(path)?)?;
        Ok(self.signer.get_or_init(|| Arc::new(signer)).clone())
    }
}

/// What the files say that the CA is, held against the ledger.
struct Current {
    root: CaCertificate,
    issuing: CaCertificate,
    issuing_pem: String,
}

impl Current {
    /// What the ledger alone says.
    fn of(files: &CaFiles, generations: &[Generation]) -> Result<Self, Error> {
        let of = |profile: Profile| {
            let current = generations
                .iter()
                .find(|ca| ca.entry.profile == profile && ca.phase == Phase::Current);
            current.ok_or_else(|| Error::BadFile {
                path: files.ledger.clone(),
                why: "there is no CA in it",
            })
        };
        let (root, issuing) = (of(Profile::Root)?, of(Profile::Issuing)?);
        let read = |ca: &Generation, parent: Option<&CaCertificate>| {
            CaCertificate::from_pem(&files.ledger, ca.entry.pem.as_bytes(), parent)
        };
        let root = read(root, None)?;
        Ok(Self {
            issuing: read(issuing, Some(&root))?,
            root,
            issuing_pem: issuing.entry.pem.clone(),
        })
    }

    fn read(files: &CaFiles, generations: &[Generation]) -> Result<Self, Error> {
        let roots = CaCertificate::all_from_pem(
            &files.root_certificate,
            &disk::read(&files.root_certificate)?,
        )?;
        let path = &files.issuing_certificate;
        let (issuing, root) = CaCertificate::below(path, &disk::read(path)?, &roots)?;
        let current = |profile: Profile, serial: &str| {
            generations.iter().find(|generation| {
                generation.entry.profile == profile
                    && generation.phase == Phase::Current
                    && generation.entry.serial == serial
            })
        };
        let unknown = |path: &Path| Error::BadFile {
            path: path.to_owned(),
            why: "the ledger does not know it",
        };
        let entry = current(Profile::Issuing, &issuing.serial).ok_or_else(|| unknown(path))?;
        current(Profile::Root, &root.serial).ok_or_else(|| unknown(&files.root_certificate))?;
        Ok(Self {
            issuing_pem: entry.entry.pem.clone(),
            root,
            issuing,
        })
    }
}
