//! Creates and opens the CA.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use super::ca::{Authority, operator};
use super::error::Error;
use super::init::{InitOptions, create_files};
use super::rotation::reconcile::reconcile;
use crate::files::{CaFileError, CaFiles, disk};
use crate::ledger::{Generation, Ledger, Phase};
use crate::pki::{CaCertificate, KeyFileError, Keyring, Profile, Signer, Unlock, is_encrypted};

impl Authority {
    /// Whether `certs` holds a CA or a part of one.
    pub fn exists(certs: &Path) -> bool {
        CaFiles::new(certs).first_present().is_some()
    }

    /// Creates a CA: two keys, two certificates, two CRLs, a ledger. If the folder holds a CA or a
    /// part of one, nothing is changed. If it fails, none of its files is left.
    pub fn init(certs: &Path, options: &InitOptions, now: u64) -> Result<Self, Error> {
        let rollback = create_files(certs, options, now)?;
        let authority = Self::open_with(certs, options.unlock(), now)?;
        rollback.disarm();
        Ok(authority)
    }

    /// Opens a CA whose keys are in its folder and not encrypted.
    pub fn open(certs: &Path, now: u64) -> Result<Self, Error> {
        Self::open_with(certs, Unlock::default(), now)
    }

    /// Opens the CA, checks that its files belong together and that no other user can read the
    /// keys, and signs CRLs again that are past half their life.
    pub fn open_with(certs: &Path, unlock: Unlock, now: u64) -> Result<Self, Error> {
        let authority = Self::load(certs, unlock)?;
        authority.detect_copy(now)?;
        authority.refresh_crls(now)?;
        Ok(authority)
    }

    /// Opens the CA to read it: as [`Self::open_with`], but if the passphrase is unknown, CRLs that
    /// are due stay unsigned: see [`Self::crls_are_due`].
    ///
    /// Where nothing can be written, on a full disk or a read-only medium, or as a user without
    /// permission, the CA is read as it is: see [`Self::is_read_only`]. That needs the ledger
    /// alone, and no key.
    pub fn open_read_only(certs: &Path, unlock: Unlock, now: u64) -> Result<Self, Error> {
        let keyless = unlock.clone();
        let opened = Self::load(certs, unlock).and_then(|authority| {
            let refreshed = authority
                .detect_copy(now)
                .and_then(|()| authority.refresh_crls(now));
            match refreshed {
                Err(Error::KeyFile(KeyFileError::Locked(_))) => {}
                done => done?,
            }
            Ok(authority)
        });
        match opened {
            Err(error) if error.is_write_failure() => Self::load_read_only(certs, keyless),
            done => done,
        }
    }

    pub(super) fn load_read_only(certs: &Path, unlock: Unlock) -> Result<Self, Error> {
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
            operator: operator(),
        })
    }

    /// Opens the CA again, as a program does that had it open and got [`Error::Rotated`].
    pub fn reopen(&self, now: u64) -> Result<Self, Error> {
        Self::open_with(&self.certs, self.keyring.unlock().clone(), now)
    }

    fn load(certs: &Path, unlock: Unlock) -> Result<Self, Error> {
        let files = CaFiles::new(certs);
        disk::refuse_if_hidden(&files.ledger)?;
        if !Self::exists(certs) {
            return Err(Error::NotFound(certs.to_owned()));
        }
        if let Some(missing) = files.essential().into_iter().find(|path| !path.exists()) {
            return Err(CaFileError::Missing(missing.clone()).into());
        }
        disk::refuse_if_others_can_write(certs)?;
        disk::refuse_if_shared(&files.ledger)?;
        if files.ledger.is_symlink() {
            let why = "it is a symbolic link: put the file itself here";
            return Err(CaFileError::invalid(&files.ledger, why).into());
        }
        if disk::is_empty(&files.ledger) {
            let why = "it is empty: put the last backup back, with `lizctl restore DIR`";
            return Err(CaFileError::invalid(&files.ledger, why).into());
        }
        let ledger = Ledger::open(&files.ledger)?;
        let keyring = Keyring::new(unlock);
        for key in [&files.issuing_key, &files.root_key] {
            if disk::is_present(key) {
                disk::refuse_if_shared(key)?;
            }
        }
        // Under the lock, so that no rotation changes a file while another is read.
        let (current, signer) = ledger.transaction(|tx| {
            reconcile(&files, tx)?;
            let current = Current::read(&files, &tx.generations()?)?;
            let signer = OnceLock::new();
            let path = &files.issuing_key;
            if !is_encrypted(&Zeroizing::new(disk::read(path)?)) {
                let key = keyring.read(path)?;
                let opened = Signer::new(current.issuing.clone(), path, key)?;
                signer.get_or_init(|| Arc::new(opened));
            }
            Ok::<_, Error>((current, signer))
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
            operator: operator(),
        })
    }
}

/// The current CA certificates, checked against the ledger.
pub(super) struct Current {
    root: CaCertificate,
    pub(super) issuing: CaCertificate,
    issuing_pem: String,
}

impl Current {
    /// From the ledger alone.
    fn of(files: &CaFiles, generations: &[Generation]) -> Result<Self, Error> {
        let of = |profile: Profile| {
            let current = generations
                .iter()
                .find(|ca| ca.entry.profile == profile && ca.phase == Phase::Current);
            current.ok_or_else(|| CaFileError::invalid(&files.ledger, "there is no CA in it"))
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

    /// From the files, which must match the ledger.
    pub(super) fn read(files: &CaFiles, generations: &[Generation]) -> Result<Self, Error> {
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
        let unknown = |path: &Path| CaFileError::invalid(path, "the ledger does not know it");
        let entry = current(Profile::Issuing, &issuing.serial).ok_or_else(|| unknown(path))?;
        current(Profile::Root, &root.serial).ok_or_else(|| unknown(&files.root_certificate))?;
        Ok(Self {
            issuing_pem: entry.entry.pem.clone(),
            root,
            issuing,
        })
    }
}
