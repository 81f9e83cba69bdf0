//! Issues a leaf: signs it from its template, records it in the ledger, writes it with its key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lizmon_pki::pem;
use lizmon_protocol::name::{Attributes, NodeName, Role, SpiffeId};
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use serde_json::json;

use super::ca::Authority;
use super::error::{Error, IssueError};
use crate::files::layout::role_folder;
use crate::files::{Access, LeafFiles, disk};
use crate::ledger::audit::{AuditAction, AuditEvent};
use crate::ledger::{CertState, Entry, Generation, LedgerTx, Phase};
use crate::pki::{
    self, CaKind, CertFields, KeyAlg, LEAF_LIFETIME_SECS, Profile, ProfileError, San, Serial,
    Validity, csr, key, rfc3339,
};

/// A request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The role of the holder.
    pub role: Role,
    /// The name of the holder.
    pub name: NodeName,
    /// DNS names and addresses: at least one for a server, none for others.
    pub sans: Vec<San>,
    /// A node's tags, or the hosts that a reader is limited to.
    pub attributes: Attributes,
    /// From now; cut to the issuing CA's end.
    pub lifetime: Duration,
    /// Where the key comes from.
    pub key: KeySource,
}

impl Request {
    /// A client's certificate for 90 days with a new P-256 key.
    pub fn new(role: Role, name: NodeName) -> Self {
        Self {
            role,
            name,
            sans: Vec::new(),
            attributes: Attributes::default(),
            lifetime: Duration::from_secs(LEAF_LIFETIME_SECS),
            key: KeySource::New(KeyAlg::default()),
        }
    }
}

/// Where the key of a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Generated here and written beside the certificate.
    New(KeyAlg),
    /// The holder's own: a PKCS #10 request in DER, from which only the public key is used.
    Csr(Vec<u8>),
}

/// A certificate that was issued and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The holder's identity.
    pub spiffe_id: SpiffeId,
    /// Its serial number.
    pub serial: Serial,
    /// Its validity.
    pub validity: Validity,
    /// Whether the issuing CA's end cut its lifetime short.
    pub cut_short: bool,
    /// The leaf followed by the issuing certificate, PEM.
    pub chain_pem: String,
    /// The file with that chain.
    pub certificate_path: PathBuf,
    /// The key file, if the key was generated here.
    pub key_path: Option<PathBuf>,
}

impl Authority {
    /// Whether all of these names can be issued: checked before a long list is started.
    pub fn check_names(&self, role: Role, names: &[NodeName]) -> Result<(), Error> {
        let mut names_seen = std::collections::HashMap::new();
        for name in names {
            match names_seen.insert(name.as_str().to_ascii_lowercase(), name) {
                Some(other) if other == name => {
                    return Err(IssueError::NamedTwice(name.to_string()).into());
                }
                Some(other) => return Err(case_conflict(role, name, other.to_string())),
                None => {}
            }
        }
        self.transaction(|tx| {
            names
                .iter()
                .try_for_each(|name| refuse_case_conflict(tx, role, name))
        })
    }

    /// Signs a certificate, records it in the ledger, and writes it with its key into its role's
    /// folder.
    pub fn issue(&self, request: Request, now: u64) -> Result<Issued, Error> {
        let key = SubjectKey::new(&request.key)?;
        let id = self.id(request.role, request.name);
        let lifetime = request.lifetime;
        let signed =
            self.sign_leaf(&id, &request.sans, &request.attributes, lifetime, &key, now)?;
        let files = LeafFiles::new(&self.certs, id.role, &id.name);
        disk::create_folder(&self.certs.join(role_folder(id.role)))?;
        if let SubjectKey::Theirs(key) = &key {
            refuse_stray_key(&files.key, key)?;
        }
        let entry = signed.entry(&id, &self.operator, now);
        self.ledger
            .transaction(|tx| record_issued(tx, &id, &entry, None))?;
        let chain_pem = self.chain_pem(&signed);
        self.write_pair(&files, &key, &chain_pem)?;
        Ok(Issued {
            spiffe_id: id,
            serial: signed.serial,
            validity: signed.validity,
            cut_short: signed.validity.not_after < now + lifetime.as_secs(),
            chain_pem,
            certificate_path: files.certificate,
            key_path: matches!(key, SubjectKey::Ours(_)).then_some(files.key),
        })
    }

    /// The identity of a holder of this CA.
    pub(crate) fn id(&self, role: Role, name: NodeName) -> SpiffeId {
        SpiffeId {
            trust_domain: self.trust_domain().clone(),
            role,
            name,
        }
    }

    /// Signs a leaf from its template. It must not be given out before [`record_issued`].
    pub(crate) fn sign_leaf(
        &self,
        id: &SpiffeId,
        sans: &[San],
        attributes: &Attributes,
        lifetime: Duration,
        key: &impl PublicKeyData,
        now: u64,
    ) -> Result<SignedLeaf, Error> {
        pki::check_sans(id.role, sans)?;
        attributes.check(id.role).map_err(ProfileError::from)?;
        let validity = self.leaf_validity(lifetime, now)?;
        let serial = Serial::random()?;
        let facts = CertFields {
            serial: &serial,
            validity,
            key_id: &key::identifier(key),
        };
        let params = pki::leaf(id, sans, attributes, facts)?;
        Ok(SignedLeaf {
            leaf_pem: self.signer()?.sign_certificate(&params, key)?.pem(),
            key_sha256: key::fingerprint(key),
            issuer: self.issuing.serial.clone(),
            serial,
            validity,
        })
    }

    /// Under the lock, so that key and certificate on disk come from the same process.
    fn write_pair(
        &self,
        files: &LeafFiles,
        key: &SubjectKey,
        chain_pem: &str,
    ) -> Result<(), Error> {
        self.transaction(|_| {
            if let SubjectKey::Ours(pair) = key {
                disk::write(&files.key, pair.serialize_pem().as_bytes(), Access::Secret)?;
            }
            Ok(disk::write(
                &files.certificate,
                chain_pem.as_bytes(),
                Access::Public,
            )?)
        })
    }

    pub(crate) fn leaf_validity(&self, lifetime: Duration, now: u64) -> Result<Validity, Error> {
        let ca = &self.issuing;
        if now < ca.validity.not_before {
            return Err(IssueError::IssuerNotStarted {
                subject: ca.common_name.clone(),
                not_before: rfc3339(ca.validity.not_before),
            }
            .into());
        }
        if now >= ca.validity.not_after {
            return Err(IssueError::IssuerExpired {
                which: match now >= self.root.validity.not_after {
                    true => CaKind::Root,
                    false => CaKind::Issuing,
                },
                subject: ca.common_name.clone(),
                not_after: rfc3339(ca.validity.not_after),
            }
            .into());
        }
        Ok(pki::validity_from(
            now,
            lifetime.as_secs(),
            Some(ca.validity),
        )?)
    }
}

/// A leaf that was signed and is not in the ledger yet.
pub(crate) struct SignedLeaf {
    pub(crate) serial: Serial,
    pub(crate) validity: Validity,
    pub(crate) leaf_pem: String,
    key_sha256: String,
    issuer: String,
}

impl SignedLeaf {
    /// Its ledger entry.
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

/// Records a certificate in the ledger and in the audit log. An error if its name differs from an
/// issued one only by case, or if its issuer was replaced since it was signed. `token` is the short
/// id of the join token that it was issued for.
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
    let (action, who) = match (&entry.renews, token) {
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
    let event = AuditEvent {
        action,
        who,
        details,
    };
    Ok(tx.record(&event, entry.issued_at)?)
}

fn refuse_case_conflict(tx: &LedgerTx<'_>, role: Role, name: &NodeName) -> Result<(), Error> {
    match tx.case_conflict(role, name)? {
        Some(taken) => Err(case_conflict(role, name, taken)),
        None => Ok(()),
    }
}

fn case_conflict(role: Role, name: &NodeName, taken: String) -> Error {
    IssueError::CaseConflict {
        role,
        name: name.to_string(),
        taken,
    }
    .into()
}

/// The public key of a new certificate.
enum SubjectKey {
    Ours(Box<KeyPair>),
    Theirs(SubjectPublicKeyInfo),
}

impl SubjectKey {
    fn new(source: &KeySource) -> Result<Self, Error> {
        Ok(match source {
            KeySource::New(alg) => Self::Ours(Box::new(key::generate(*alg)?)),
            KeySource::Csr(der) => Self::Theirs(csr::public_key(der)?),
        })
    }
}

impl PublicKeyData for SubjectKey {
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

/// A key file from an earlier issue would not match the new certificate beside it.
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
        .ok_or_else(|| IssueError::OtherKeyPresent(path.to_owned()).into())
}
