//! A new CA, from nothing to its files.

use std::io::ErrorKind;
use std::path::Path;

use lizmon_protocol::name::TrustDomain;
use rcgen::{Certificate, Issuer, KeyPair};

use crate::disk::{self, Access, Scaffold};
use crate::error::Error;
use crate::key::{self, KeyAlg};
use crate::layout::CaFiles;
use crate::ledger::{Entry, Ledger, State};
use crate::profile::{self, DAY_SECS, Facts, Profile, Serial, Validity};

/// What a new CA is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// Below which all its identities live.
    pub trust_domain: TrustDomain,
    /// How long the root lives, in days.
    pub root_days: u32,
    /// How long the issuing CA lives, in days; never past the root's end.
    pub issuing_days: u32,
    /// Kind of both CAs' keys.
    pub key_alg: KeyAlg,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            root_days: 3650,
            issuing_days: 365,
            key_alg: KeyAlg::default(),
        }
    }
}

/// Writes keys, certificates and ledger. They disappear again unless what is returned is kept.
pub(crate) fn found(certs: &Path, options: &InitOptions, now: u64) -> Result<Scaffold, Error> {
    let files = CaFiles::new(certs);
    files.refuse_if_there(certs)?;
    let (root, issuing) = make(options, now)?;
    disk::certs_folder(certs)?;
    let mut scaffold = Scaffold::default();
    // Whoever creates the ledger makes the CA; a second one at the same moment fails here.
    match disk::claim(&files.ledger) {
        Ok(()) => scaffold.add(files.ledger.clone()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::AlreadyThere(certs.to_owned()));
        }
        Err(source) => return Err(Error::io("create", &files.ledger)(source)),
    }
    for beside in ["ledger.db-wal", "ledger.db-shm"] {
        scaffold.add(certs.join(beside));
    }
    let ledger = Ledger::open(&files.ledger)?;
    ledger.exclusive(|book| {
        book.add(&root.entry(&root, Profile::Root, now))?;
        book.add(&issuing.entry(&root, Profile::Issuing, now))
    })?;
    let contents = [
        (&files.root_key, root.key.serialize_pem(), Access::Secret),
        (
            &files.root_certificate,
            root.certificate.pem(),
            Access::Public,
        ),
        (
            &files.issuing_key,
            issuing.key.serialize_pem(),
            Access::Secret,
        ),
        (
            &files.issuing_certificate,
            issuing.certificate.pem(),
            Access::Public,
        ),
    ];
    // Written when the CA is opened, from the ledger.
    scaffold.add(files.crl.clone());
    for (path, pem, access) in contents {
        scaffold.add(path.clone());
        disk::write(path, pem.as_bytes(), access)?;
    }
    Ok(scaffold)
}

/// A CA that was just made.
struct NewCa {
    serial: Serial,
    validity: Validity,
    common_name: String,
    key: KeyPair,
    certificate: Certificate,
}

impl NewCa {
    fn entry(&self, issuer: &Self, profile: Profile, now: u64) -> Entry {
        Entry {
            serial: self.serial.to_string(),
            profile,
            name: self.common_name.clone(),
            issuer: issuer.serial.to_string(),
            key_sha256: key::fingerprint(&self.key),
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
            issued_at: now,
            issued_by: disk::operator(),
            state: State::Valid,
            revoked_at: None,
            pem: self.certificate.pem(),
        }
    }
}

fn make(options: &InitOptions, now: u64) -> Result<(NewCa, NewCa), Error> {
    let days = |days: u32| u64::from(days) * DAY_SECS;
    let domain = &options.trust_domain;

    let root_validity = Validity::new(days(options.root_days), None, now)?;
    let (serial, key) = (Serial::random()?, key::generate(options.key_alg)?);
    let root_params = profile::root(
        domain,
        Facts {
            serial: &serial,
            validity: root_validity,
            key_id: &key::identifier(&key),
        },
    )?;
    let root = NewCa {
        serial,
        validity: root_validity,
        common_name: profile::common_name_of(&root_params),
        certificate: root_params.self_signed(&key)?,
        key,
    };

    let validity = Validity::new(days(options.issuing_days), Some(root_validity), now)?;
    let (serial, key) = (Serial::random()?, key::generate(options.key_alg)?);
    let params = profile::issuing(
        domain,
        Facts {
            serial: &serial,
            validity,
            key_id: &key::identifier(&key),
        },
    )?;
    let signer = Issuer::from_params(&root_params, &root.key);
    let issuing = NewCa {
        serial,
        validity,
        common_name: profile::common_name_of(&params),
        certificate: params.signed_by(&key, &signer)?,
        key,
    };
    Ok((root, issuing))
}
