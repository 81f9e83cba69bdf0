//! A new CA, from nothing to its files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lizmon_protocol::name::TrustDomain;
use rcgen::{Certificate, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use crate::audit::{AuditAction, AuditEvent};
use crate::disk::{self, Access, Rollback};
use crate::error::Error;
use crate::key::{self, KeyAlg};
use crate::layout::CaFiles;
use crate::ledger::{CertState, Entry, Ledger, Phase};
use crate::passphrase::{self, Passphrase, Unlock};
use crate::profile::{self, CertFields, DAY_SECS, Profile, Serial, Validity};
use crate::signer::{CaCertificate, Signer};

/// What a new CA is like.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Below which all its identities live.
    pub trust_domain: TrustDomain,
    /// How long the root lives, in days.
    pub root_days: u32,
    /// How long the issuing CA lives, in days; never past the root's end.
    pub issuing_days: u32,
    /// How long the issuing CA's revocation lists live, in days, if not [`CRL_DAYS`](crate::crl::CRL_DAYS).
    pub crl_days: Option<u32>,
    /// Kind of both CAs' keys.
    pub key_alg: KeyAlg,
    /// What both keys are encrypted with, if they are.
    pub passphrase: Option<Passphrase>,
    /// An existing folder, on a stick for instance, where the root's key is written instead.
    pub offline_root: Option<PathBuf>,
}

impl InitOptions {
    /// Where the root's key comes to be.
    pub fn root_key(&self, files: &CaFiles) -> PathBuf {
        match &self.offline_root {
            Some(folder) => folder.join("root.key"),
            None => files.root_key.clone(),
        }
    }

    /// How the CA is opened right after it was made.
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

/// Writes keys, certificates and ledger. They disappear again unless what is returned is kept.
pub(crate) fn found(certs: &Path, options: &InitOptions, now: u64) -> Result<Rollback, Error> {
    let files = CaFiles::new(certs);
    files.refuse_if_there(certs)?;
    let root_key = options.root_key(&files);
    if disk::is_present(&root_key) {
        return Err(Error::InTheWay(root_key));
    }
    let domain = &options.trust_domain;
    let root = NewCa::root(domain, options.key_alg, options.root_days, now)?;
    let signer = root.signer(&files.root_certificate, None)?;
    let issuing = NewCa::issuing(domain, &signer, options.key_alg, options.issuing_days, now)?;
    disk::create_certs_folder(certs)?;
    let mut rollback = Rollback::default();
    // Whoever creates the ledger makes the CA; a second one at the same moment fails here.
    match disk::create_secret(&files.ledger) {
        Ok(()) => rollback.add(files.ledger.clone()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::AlreadyThere(certs.to_owned()));
        }
        Err(source) => return Err(Error::io("create", &files.ledger)(source)),
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
        tx.record(
            &init_event(options, &root, &issuing, &disk::operator()),
            now,
        )
    })?;
    // Written when the CA is opened, from the ledger.
    rollback.add(files.crl.clone());
    for (path, ca) in [(&root_key, &root), (&files.issuing_key, &issuing)] {
        rollback.add(path.clone());
        passphrase::write_key(path, &ca.key, options.passphrase.as_ref())?;
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

fn init_event<'a>(
    options: &InitOptions,
    root: &NewCa,
    issuing: &NewCa,
    who: &'a str,
) -> AuditEvent<'a> {
    AuditEvent {
        deed: AuditAction::Init,
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

/// A CA that was just made.
pub(crate) struct NewCa {
    pub(crate) serial: Serial,
    pub(crate) key: KeyPair,
    pub(crate) certificate: Certificate,
    profile: Profile,
    issuer: String,
    validity: Validity,
    common_name: String,
}

impl NewCa {
    /// A root for so long.
    pub(crate) fn root(
        domain: &TrustDomain,
        alg: KeyAlg,
        days: u32,
        now: u64,
    ) -> Result<Self, Error> {
        let validity = Validity::new(u64::from(days) * DAY_SECS, None, now)?;
        let (serial, key) = (Serial::random()?, key::generate(alg)?);
        let facts = CertFields {
            serial: &serial,
            validity,
            key_id: &key::identifier(&key),
        };
        let params = profile::root(domain, facts)?;
        Ok(Self {
            profile: Profile::Root,
            issuer: serial.to_string(),
            common_name: profile::common_name_of(&params),
            certificate: params.self_signed(&key)?,
            serial,
            key,
            validity,
        })
    }

    /// An issuing CA for so long, but not past its root's end.
    pub(crate) fn issuing(
        domain: &TrustDomain,
        root: &Signer,
        alg: KeyAlg,
        days: u32,
        now: u64,
    ) -> Result<Self, Error> {
        let above = root.certificate();
        let validity = Validity::new(u64::from(days) * DAY_SECS, Some(above.validity), now)?;
        let (serial, key) = (Serial::random()?, key::generate(alg)?);
        let facts = CertFields {
            serial: &serial,
            validity,
            key_id: &key::identifier(&key),
        };
        let params = profile::issuing(domain, facts)?;
        Ok(Self {
            profile: Profile::Issuing,
            issuer: above.serial.clone(),
            common_name: profile::common_name_of(&params),
            certificate: root.sign_certificate(&params, &key)?,
            serial,
            key,
            validity,
        })
    }

    /// The certificate with its key, so that it can sign.
    pub(crate) fn signer(
        &self,
        path: &Path,
        above: Option<&CaCertificate>,
    ) -> Result<Signer, Error> {
        let pem = self.certificate.pem();
        let certificate = CaCertificate::from_pem(path, pem.as_bytes(), above)?;
        let der = PrivatePkcs8KeyDer::from(self.key.serialized_der());
        let key = KeyPair::try_from(&PrivateKeyDer::Pkcs8(der))?;
        Signer::new(certificate, path, key)
    }

    /// What the ledger says of it.
    pub(crate) fn entry(&self, now: u64) -> Entry {
        Entry {
            serial: self.serial.to_string(),
            profile: self.profile,
            name: self.common_name.clone(),
            issuer: self.issuer.clone(),
            key_sha256: key::fingerprint(&self.key),
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
            issued_at: now,
            issued_by: disk::operator(),
            state: CertState::Valid,
            revoked_at: None,
            revoked_reason: None,
            revoked_by: None,
            renews: None,
            pem: self.certificate.pem(),
        }
    }
}
