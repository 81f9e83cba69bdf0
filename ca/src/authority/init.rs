//! Creates the files of a new CA.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lizmon_protocol::name::TrustDomain;
use serde_json::json;

use super::ca::operator;
use super::error::{Error, InitError};
use super::new_ca::NewCa;
use crate::files::{Access, CaFileError, CaFiles, Presence, Rollback, disk};
use crate::ledger::audit::{AuditAction, AuditEvent};
use crate::ledger::{Ledger, Phase};
use crate::pki::{KeyAlg, Passphrase, Unlock, key, write_key};

/// The properties of a new CA.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The trust domain of all its identities.
    pub trust_domain: TrustDomain,
    /// Validity of the root, in days.
    pub root_days: u32,
    /// Validity of the issuing CA, in days; cut to the root's end.
    pub issuing_days: u32,
    /// Validity of the issuing CA's CRLs, in days, if not [`CRL_DAYS`](crate::pki::crl::CRL_DAYS).
    pub crl_days: Option<u32>,
    /// Key algorithm of both CAs.
    pub key_alg: KeyAlg,
    /// The passphrase of both keys, if they are encrypted.
    pub passphrase: Option<Passphrase>,
    /// An existing folder for the root's key, on a USB stick for instance.
    pub offline_root: Option<PathBuf>,
}

impl InitOptions {
    /// The file for the root's key.
    pub fn root_key(&self, files: &CaFiles) -> PathBuf {
        match &self.offline_root {
            Some(folder) => folder.join("root.key"),
            None => files.root_key.clone(),
        }
    }

    /// How the new CA is unlocked.
    pub(crate) fn unlock(&self) -> Unlock {
        Unlock {
            root_key: self
                .offline_root
                .as_ref()
                .map(|folder| folder.join("root.key")),
            ..self
                .passphrase
                .clone()
                .map(Unlock::with)
                .unwrap_or_default()
        }
    }
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            root_days: 3650,
            issuing_days: 365,
            crl_days: None,
            key_alg: KeyAlg::default(),
            passphrase: None,
            offline_root: None,
        }
    }
}

/// Writes keys, certificates and ledger. They are removed again unless the rollback is disarmed.
pub(super) fn create_files(
    certs: &Path,
    options: &InitOptions,
    now: u64,
) -> Result<Rollback, Error> {
    let files = CaFiles::new(certs);
    refuse_existing(&files, certs)?;
    let root_key = options.root_key(&files);
    if disk::is_present(&root_key) {
        return Err(CaFileError::AlreadyExists(root_key).into());
    }
    let domain = &options.trust_domain;
    let root = NewCa::root(domain, options.key_alg, options.root_days, now)?;
    let signer = root.signer(&files.root_certificate, None)?;
    let issuing = NewCa::issuing(domain, &signer, options.key_alg, options.issuing_days, now)?;
    disk::create_certs_folder(certs)?;
    let mut rollback = Rollback::default();
    // The process that creates the ledger creates the CA; a second one at the same moment fails
    // here.
    match disk::create_secret(&files.ledger) {
        Ok(()) => rollback.add(files.ledger.clone()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(InitError::AlreadyExists(certs.to_owned()).into());
        }
        Err(source) => return Err(CaFileError::io("create", &files.ledger)(source).into()),
    }
    for sibling in ["ledger.db-wal", "ledger.db-shm"] {
        rollback.add(certs.join(sibling));
    }
    let ledger = Ledger::open(&files.ledger)?;
    ledger.transaction(|tx| {
        for ca in [&root, &issuing] {
            tx.add(&ca.entry(now))?;
            tx.set_phase(&ca.serial.to_string(), Phase::Current, now)?;
        }
        if let Some(days) = options.crl_days {
            tx.set_crl_days(days)?;
        }
        let who = operator();
        let event = init_event(options, &root, &issuing, &who);
        Ok::<_, Error>(tx.record(&event, now)?)
    })?;
    // Written when the CA is opened.
    rollback.add(files.crl.clone());
    for (path, ca) in [(&root_key, &root), (&files.issuing_key, &issuing)] {
        rollback.add(path.clone());
        write_key(path, &ca.key, options.passphrase.as_ref())?;
    }
    for (path, ca) in [
        (&files.root_certificate, &root),
        (&files.issuing_certificate, &issuing),
    ] {
        rollback.add(path.clone());
        disk::write(path, ca.certificate.pem().as_bytes(), Access::Public)?;
    }
    Ok(rollback)
}

fn refuse_existing(files: &CaFiles, certs: &Path) -> Result<(), InitError> {
    match files.presence() {
        Presence::Absent => Ok(()),
        Presence::Complete => Err(InitError::AlreadyExists(certs.to_owned())),
        Presence::Partial { present, missing } => Err(InitError::Partial { present, missing }),
    }
}

fn init_event<'a>(
    options: &InitOptions,
    root: &NewCa,
    issuing: &NewCa,
    who: &'a str,
) -> AuditEvent<'a> {
    AuditEvent {
        action: AuditAction::Init,
        who,
        details: json!({
            "trust-domain": options.trust_domain.to_string(),
            "serial": [root.serial.to_string(), issuing.serial.to_string()],
            "root-sha256": key::sha256_hex(root.certificate.der()),
            "encrypted": options.passphrase.is_some(),
            "offline-root": options.offline_root.is_some(),
        }),
    }
}
