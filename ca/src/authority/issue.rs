//! Issues a leaf: signs it from its template, enters it in the ledger, writes it with its key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lizmon_pki::pem;
use lizmon_protocol::name::{NodeName, Role, SpiffeId};
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use serde_json::json;

use super::{Authority, CaKind};
use crate::audit::{AuditAction, AuditEvent};
use crate::disk::{self, Access};
use crate::error::Error;
use crate::key::{self, KeyAlg};
use crate::layout::{LeafFiles, folder_name};
use crate::ledger::{CertState, Entry, Generation, LedgerTx, Phase};
use crate::profile::{
    self, CertFields, LEAF_LIFETIME_SECS, Profile, San, Serial, Validity, rfc3339,
};

/// A certificate that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As what.
    pub role: Role,
    /// For whom.
    pub name: NodeName,
    /// DNS names and addresses: at least one for a server, none for others.
    pub sans: Vec<San>,
    /// From now on; cut at the issuing CA's end.
    pub lifetime: Duration,
    /// Whose key.
    pub key: KeySource,
}

impl Request {
    /// A client's certificate for 90 days with a new P-256 key.
    pub fn new(role: Role, name: NodeName) -> Self {
        Self {
            role,
            name,
            sans: Vec::new(),
            lifetime: Duration::from_secs(LEAF_LIFETIME_SECS),
            key: KeySource::New(KeyAlg::default()),
        }
    }
}

/// Where the key of a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Made here and written beside the certificate.
    New(KeyAlg),
    /// The holder's own: a PKCS #10 request in DER, of which the public key is taken and nothing else.
    Csr(Vec<u8>),
}

/// A certificate that was issued and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Who it speaks for.
    pub spiffe_id: SpiffeId,
    /// Its number.
    pub serial: Serial,
    /// From when until when.
    pub validity: Validity,
    /// Whether the issuing CA's end cut its life short.
    pub cut_short: bool,
    /// The leaf followed by the issuing certificate, PEM.
    pub chain_pem: String,
    /// Where that was written.
    pub certificate_path: PathBuf,
    /// Where the key was written, if it was made here.
    pub key_path: Option<PathBuf>,
}

impl Authority {
    /// Whether these names could be issued, each of them and side by side: asked before a long list is begun.
    pub fn check_names(&self, role: Role, names: &[NodeName]) -> Result<(), Error> {
        let mut seen = std::collections::HashMap::new();
        for name in names {
            match seen.insert(name.as_str().to_ascii_lowercase(), name) {
                Some(other) if other == name => return Err(Error::NamedTwice(name.to_string())),
                Some(other) => return Err(case_conflict(role, name, other.to_string())),
                None => {}
            }
        }
        self.ledger.transaction(|tx| {
            names
                .iter()
                .try_for_each(|name| refuse_case_conflict(tx, role, name))
        })
    }

    /// Signs a certificate, enters it in the ledger, and writes it with its key into its role's folder.
    pub fn issue(&self, request: Request, now: u64) -> Result<Issued, Error> {
        let key = Subject::new(&request.key)?;
        let id = self.id(request.role, request.name);
        let lifetime = request.lifetime;
        let signed = self.sign_leaf(&id, &request.sans, lifetime, &key, now)?;
        let files = LeafFiles::new(&self.certs, id.role, &id.name);
        disk::create_folder(&self.certs.join(folder_name(id.role)))?;
        if let Subject::Theirs(key) = &key {
            refuse_stray_key(&files.key, key)?;
        }
        let entry = signed.entry(&id, &self.operator, now);
        self.ledger
            .transaction(|tx| record_issued(tx, &id, &entry, None))?;
        let chain_pem = signed.leaf_pem + &self.issuing_pem;
        self.write_pair(&files, &key, &chain_pem)?;
        Ok(Issued {
            spiffe_id: id,
            serial: signed.serial,
            validity: signed.validity,
            cut_short: signed.validity.not_after < now + lifetime.as_secs(),
            chain_pem,
            certificate_path: files.certificate,
            key_path: matches!(key, Subject::Ours(_)).then_some(files.key),
        })
    }

    /// Who a holder of this CA's is.
    pub(crate) fn id(&self, role: Role, name: NodeName) -> SpiffeId {
        SpiffeId {
            trust_domain: self.trust_domain().clone(),
            role,
            name,
        }
    }

    /// Signs a leaf from its template. Nothing is entered or written yet: it must not leave before [`record_issued`].
    pub(crate) fn sign_leaf(
        &self,
        id: &SpiffeId,
        sans: &[San],
        lifetime: Duration,
        key: &impl PublicKeyData,
        now: u64,
    ) -> Result<SignedLeaf, Error> {
        profile::check_sans(id.role, sans)?;
        let validity = self.leaf_validity(lifetime, now)?;
        let serial = Serial::random()?;
        let facts = CertFields {
            serial: &serial,
            validity,
            key_id: &key::identifier(key),
        };
        let params = profile::leaf(id, sans, facts)?;
        Ok(SignedLeaf {
            leaf_pem: self.signer()?.sign_certificate(&params, key)?.pem(),
            key_sha256: key::fingerprint(key),
            issuer: self.issuing.serial.clone(),
            serial,
            validity,
        })
    }

    /// Under the lock, so that the pair on disk is one process's and not a mixture of two's.
    fn write_pair(&self, files: &LeafFiles, key: &Subject, chain_pem: &str) -> Result<(), Error> {
        self.ledger.transaction(|_| {
            if let Subject::Ours(pair) = key {
                disk::write(&files.key, pair.serialize_pem().as_bytes(), Access::Secret)?;
            }
            disk::write(&files.certificate, chain_pem.as_bytes(), Access::Public)
        })
    }

    pub(crate) fn leaf_validity(&self, lifetime: Duration, now: u64) -> Result<Validity, Error> {
        let ca = &self.issuing;
        if now < ca.validity.not_before {
            return Err(Error::IssuerNotStarted {
                subject: ca.common_name.clone(),
                not_before: rfc3339(ca.validity.not_before),
            });
        }
        if now >= ca.validity.not_after {
            return Err(Error::IssuerEnded {
                which: match now >= self.root.validity.not_after {
                    true => CaKind::Root,
                    false => CaKind::Issuing,
                },
                subject: ca.common_name.clone(),
                not_after: rfc3339(ca.validity.not_after),
            });
        }
        Validity::new(lifetime.as_secs(), Some(ca.validity), now)
    }
}

/// A leaf that was signed and is in no ledger yet.
pub(crate) struct SignedLeaf {
    pub(crate) serial: Serial,
    pub(crate) validity: Validity,
    pub(crate) leaf_pem: String,
    key_sha256: String,
    issuer: String,
}

impl SignedLeaf {
    /// What the ledger says of it.
    pub(crate) fn entry(&self, id: &SpiffeId, issued_by: &str, now: u64) -> Entry {
        Entry {
            serial: self.serial.to_string(),
            profile: Profile::Leaf(id.role),
            name: id.name.to_string(),
            issuer: self.issuer.clone(),
            key_sha256: self.key_sha256.clone(),
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
            issued_at: now,
            issued_by: issued_by.to_owned(),
            state: CertState::Valid,
            revoked_at: None,
            revoked_reason: None,
            revoked_by: None,
            renews: None,
            pem: self.leaf_pem.clone(),
        }
    }
}

/// Enters a certificate and its one line in the audit log, unless its holder's name is another spelling of one that is
/// there, or its issuer was replaced since it was signed. `token` is the mark of the join token that it was given for.
pub(crate) fn record_issued(
    tx: &LedgerTx<'_>,
    id: &SpiffeId,
    entry: &Entry,
    token: Option<&str>,
) -> Result<(), Error> {
    refuse_case_conflict(tx, id.role, &id.name)?;
    let generations = tx.generations()?;
    let is_issuer = |ca: &&Generation| ca.entry.serial == entry.issuer;
    let issuer = generations.iter().find(is_issuer);
    if issuer.is_none_or(|ca| ca.phase != Phase::Current) {
        return Err(Error::Rotated);
    }
    tx.add(entry)?;
    let mut details = json!({
        "serial": entry.serial,
        "role": id.role.as_str(),
        "name": id.name.as_str(),
        "not-after": entry.not_after,
        "key-sha256": entry.key_sha256,
        "issuer": entry.issuer,
    });
    let holder = id.to_string();
    let (deed, who) = match (&entry.renews, token) {
        (Some(renews), _) => {
            details["renews"] = json!(renews);
            (AuditAction::Renew, &entry.issued_by)
        }
        (None, Some(short_id)) => {
            details["token"] = json!(short_id);
            (AuditAction::TokenUsed, &holder)
        }
        (None, None) => (AuditAction::Issue, &entry.issued_by),
    };
    let event = AuditEvent { deed, who, details };
    tx.record(&event, entry.issued_at)
}

fn refuse_case_conflict(tx: &LedgerTx<'_>, role: Role, name: &NodeName) -> Result<(), Error> {
    match tx.case_conflict(role, name)? {
        Some(taken) => Err(case_conflict(role, name, taken)),
        None => Ok(()),
    }
}

fn case_conflict(role: Role, name: &NodeName, taken: String) -> Error {
    Error::CaseConflict {
        role,
        name: name.to_string(),
        taken,
    }
}

/// The public key that a certificate is for.
enum Subject {
    Ours(Box<KeyPair>),
    Theirs(SubjectPublicKeyInfo),
}

impl Subject {
    fn new(source: &KeySource) -> Result<Self, Error> {
        Ok(match source {
            KeySource::New(alg) => Self::Ours(Box::new(key::generate(*alg)?)),
            KeySource::Csr(der) => Self::Theirs(key::from_request(der)?),
        })
    }
}

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Ours(key) => key.der_bytes(),
            Self::Theirs(key) => key.der_bytes(),
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::Ours(key) => PublicKeyData::algorithm(key.as_ref()),
            Self::Theirs(key) => key.algorithm(),
        }
    }
}

/// A key file of an earlier issue would no longer fit the certificate beside it.
fn refuse_stray_key(path: &Path, requested: &SubjectPublicKeyInfo) -> Result<(), Error> {
    let Some(bytes) = disk::read_if_there(path)? else {
        return Ok(());
    };
    let there = pem::private_key(&bytes)
        .ok()
        .and_then(|der| KeyPair::try_from(&der).ok());
    let same = there
        .is_some_and(|key| key.subject_public_key_info() == requested.subject_public_key_info());
    same.then_some(())
        .ok_or_else(|| Error::KeyInTheWay(path.to_owned()))
}
