//! Makes and opens the CA, issues, revokes, and keeps the CRLs fresh.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lizmon_protocol::name::{NodeName, Role, SpiffeId, TrustDomain};
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::crl::{self, CRL_LIFETIME_SECS, Reason};
use crate::disk::{self, Access};
use crate::error::Error;
use crate::founding;
use crate::key::{self, KeyAlg};
use crate::layout::{CaFiles, LeafFiles, folder_name};
use crate::ledger::{Book, CrlRow, Entry, Ledger, State};
use crate::profile::{self, Facts, LEAF_LIFETIME_SECS, Profile, San, Serial, Validity, rfc3339};
use crate::signer::{CaCertificate, Signer};

pub use crate::founding::InitOptions;

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

/// An open CA. Several, in several processes, may be open on one folder.
#[derive(Debug)]
pub struct Authority {
    certs: PathBuf,
    files: CaFiles,
    root: CaCertificate,
    issuing: Signer,
    issuing_pem: String,
    ledger: Ledger,
    operator: String,
}

impl Authority {
    /// Whether `certs` holds anything of a CA.
    pub fn is_there(certs: &Path) -> bool {
        CaFiles::new(certs).any_there().is_some()
    }

    /// Makes a CA: two keys, two certificates, two CRLs, a ledger. Where there is one, or half of one, nothing is
    /// touched; where it fails, none of its files is left.
    pub fn init(certs: &Path, options: &InitOptions, now: u64) -> Result<Self, Error> {
        let scaffold = founding::found(certs, options, now)?;
        let authority = Self::open(certs, now)?;
        scaffold.keep();
        Ok(authority)
    }

    /// Opens the CA, checks that its files belong together, and signs CRLs again that are past half their life.
    pub fn open(certs: &Path, now: u64) -> Result<Self, Error> {
        let files = CaFiles::new(certs);
        if !Self::is_there(certs) {
            return Err(Error::NotThere(certs.to_owned()));
        }
        if let Some(missing) = files.essential().into_iter().find(|path| !path.exists()) {
            return Err(Error::FileMissing(missing.clone()));
        }
        let root_pem = disk::read(&files.root_certificate)?;
        let root = CaCertificate::from_pem(&files.root_certificate, &root_pem, None)?;
        let path = &files.issuing_certificate;
        let issuing = CaCertificate::from_pem(path, &disk::read(path)?, Some(&root))?;
        let path = &files.issuing_key;
        let issuing = Signer::new(issuing, path, &disk::read(path)?)?;
        let ledger = Ledger::open(&files.ledger)?;
        let serial = issuing.certificate().serial.clone();
        let entry = ledger.exclusive(|book| book.find(&serial))?;
        let issuing_pem = entry.map(|entry| entry.pem).ok_or(Error::BadFile {
            path: files.issuing_certificate.clone(),
            why: "the ledger does not know it",
        })?;
        let authority = Self {
            certs: certs.to_owned(),
            files,
            root,
            issuing,
            issuing_pem,
            ledger,
            operator: disk::operator(),
        };
        authority.refresh_crls(now)?;
        Ok(authority)
    }

    /// Below which all identities live.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.issuing.certificate().trust_domain
    }

    /// Where the CA's own files are.
    pub fn files(&self) -> &CaFiles {
        &self.files
    }

    /// From when until when the issuing CA can sign.
    pub fn issuing_validity(&self) -> Validity {
        self.issuing.certificate().validity
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
        self.ledger.exclusive(|book| book.entries())
    }

    /// Whether these names could be issued, each of them and side by side: asked before a long list is begun.
    pub fn check_names(&self, role: Role, names: &[NodeName]) -> Result<(), Error> {
        let mut seen = std::collections::HashMap::new();
        for name in names {
            match seen.insert(name.as_str().to_ascii_lowercase(), name) {
                Some(other) if other == name => return Err(Error::NamedTwice(name.to_string())),
                Some(other) => return Err(case_twin(role, name, other.to_string())),
                None => {}
            }
        }
        self.ledger.exclusive(|book| {
            names
                .iter()
                .try_for_each(|name| refuse_case_twin(book, role, name))
        })
    }

    /// Signs a certificate, enters it in the ledger, and writes it with its key into its role's folder.
    pub fn issue(&self, request: Request, now: u64) -> Result<Issued, Error> {
        let key = Subject::new(&request.key)?;
        let id = self.id(request.role, request.name);
        let lifetime = request.lifetime;
        let signed = self.sign_leaf(&id, &request.sans, lifetime, &key, now)?;
        let files = LeafFiles::new(&self.certs, id.role, &id.name);
        disk::folder(&self.certs.join(folder_name(id.role)))?;
        if let Subject::Theirs(key) = &key {
            refuse_stray_key(&files.key, key)?;
        }
        let entry = signed.entry(&id, &self.operator, now);
        self.ledger.exclusive(|book| enter(book, &id, &entry))?;
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

    /// Revokes one certificate and publishes the CRL that says so. Revoking it again changes nothing.
    pub fn revoke(&self, serial: &Serial, reason: Reason, now: u64) -> Result<(), Error> {
        let serial = serial.to_string();
        self.ledger.exclusive(|book| {
            let entry = book
                .find(&serial)?
                .ok_or_else(|| Error::UnknownSerial(serial.clone()))?;
            if !book.revoke(&serial, reason.code(), now)? {
                return Ok(());
            }
            if entry.issuer == self.issuing.certificate().serial {
                self.sign_issuing_crl(book, now)
            } else {
                self.sign_root_crl(book, now)
            }
        })?;
        self.publish_crls()
    }

    /// Who a holder of this CA's is.
    pub(crate) fn id(&self, role: Role, name: NodeName) -> SpiffeId {
        SpiffeId {
            trust_domain: self.trust_domain().clone(),
            role,
            name,
        }
    }

    /// Signs a leaf from its template. Nothing is entered or written yet: it must not leave before [`enter`].
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
        let facts = Facts {
            serial: &serial,
            validity,
            key_id: &key::identifier(key),
        };
        let params = profile::leaf(id, sans, facts)?;
        Ok(SignedLeaf {
            leaf_pem: self.issuing.sign_certificate(&params, key)?.pem(),
            key_sha256: key::fingerprint(key),
            issuer: self.issuing.certificate().serial.clone(),
            serial,
            validity,
        })
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Who runs this program, as the ledger has it.
    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    /// Under the lock, so that the pair on disk is one process's and not a mixture of two's.
    fn write_pair(&self, files: &LeafFiles, key: &Subject, chain_pem: &str) -> Result<(), Error> {
        self.ledger.exclusive(|_| {
            if let Subject::Ours(pair) = key {
                disk::write(&files.key, pair.serialize_pem().as_bytes(), Access::Secret)?;
            }
            disk::write(&files.certificate, chain_pem.as_bytes(), Access::Public)
        })
    }

    fn leaf_validity(&self, lifetime: Duration, now: u64) -> Result<Validity, Error> {
        let ca = self.issuing.certificate();
        if now < ca.validity.not_before {
            return Err(Error::IssuerNotStarted {
                subject: ca.common_name.clone(),
                not_before: rfc3339(ca.validity.not_before),
            });
        }
        if now >= ca.validity.not_after {
            return Err(Error::IssuerEnded {
                subject: ca.common_name.clone(),
                not_after: rfc3339(ca.validity.not_after),
            });
        }
        Validity::new(lifetime.as_secs(), Some(ca.validity), now)
    }

    fn refresh_crls(&self, now: u64) -> Result<(), Error> {
        self.ledger.exclusive(|book| {
            let root = crl_of(book, &self.root.serial)?;
            let wanted = self.issuing_validity().not_after;
            let ends_early = root.as_ref().is_none_or(|crl| crl.next_update < wanted);
            let due = ends_early || crl::is_due(root.as_ref(), now);
            if due && disk::is_taken(&self.files.root_key) {
                self.sign_root_crl(book, now)?;
            }
            let issuing = crl_of(book, &self.issuing.certificate().serial)?;
            if crl::is_due(issuing.as_ref(), now) {
                self.sign_issuing_crl(book, now)?;
            }
            Ok(())
        })?;
        self.publish_crls()
    }

    fn sign_issuing_crl(&self, book: &Book<'_>, now: u64) -> Result<(), Error> {
        let end = self.issuing_validity();
        sign_crl(
            &self.issuing,
            crl::validity(end, CRL_LIFETIME_SECS, now),
            book,
            now,
        )
    }

    /// The root's CRL runs to the issuing CA's end, so that its key can be away until then.
    fn sign_root_crl(&self, book: &Book<'_>, now: u64) -> Result<(), Error> {
        let path = &self.files.root_key;
        let pem = disk::read_if_there(path)?.ok_or_else(|| Error::RootKeyAway(path.clone()))?;
        let root = Signer::new(self.root.clone(), path, &pem)?;
        let lifetime_secs = self.issuing_validity().not_after.saturating_sub(now);
        sign_crl(
            &root,
            crl::validity(self.root.validity, lifetime_secs, now),
            book,
            now,
        )
    }

    /// Brings `crl.pem` to what the ledger holds: under the lock, so that an older one never wins.
    fn publish_crls(&self) -> Result<(), Error> {
        self.ledger.exclusive(|book| {
            let current: String = book.crls()?.into_iter().map(|crl| crl.pem).collect();
            if disk::read_if_there(&self.files.crl)?.as_deref() == Some(current.as_bytes()) {
                return Ok(());
            }
            disk::write(&self.files.crl, current.as_bytes(), Access::Public)
        })
    }
}

fn crl_of(book: &Book<'_>, issuer: &str) -> Result<Option<CrlRow>, Error> {
    Ok(book.crls()?.into_iter().find(|crl| crl.issuer == issuer))
}

fn sign_crl(
    signer: &Signer,
    validity: Option<Validity>,
    book: &Book<'_>,
    now: u64,
) -> Result<(), Error> {
    // A CA that has ended signs nothing more; its last CRL stays what it is.
    let Some(validity) = validity else {
        return Ok(());
    };
    let serial = &signer.certificate().serial;
    let revoked = book.revoked(serial, crl::named_from(now))?;
    let current = crl_of(book, serial)?;
    book.put_crl(&crl::sign(signer, current.as_ref(), &revoked, validity)?)
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
            state: State::Valid,
            revoked_at: None,
            pem: self.leaf_pem.clone(),
        }
    }
}

/// Enters a certificate, unless its holder's name is another spelling of one that is there.
pub(crate) fn enter(book: &Book<'_>, id: &SpiffeId, entry: &Entry) -> Result<(), Error> {
    refuse_case_twin(book, id.role, &id.name)?;
    book.add(entry)
}

fn refuse_case_twin(book: &Book<'_>, role: Role, name: &NodeName) -> Result<(), Error> {
    match book.case_twin(role, name)? {
        Some(taken) => Err(case_twin(role, name, taken)),
        None => Ok(()),
    }
}

fn case_twin(role: Role, name: &NodeName, taken: String) -> Error {
    Error::CaseTwin {
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
    let Some(pem) = disk::read_if_there(path)? else {
        return Ok(());
    };
    let there = PrivateKeyDer::from_pem_slice(&pem)
        .ok()
        .and_then(|der| KeyPair::try_from(&der).ok());
    let same = there
        .is_some_and(|key| key.subject_public_key_info() == requested.subject_public_key_info());
    same.then_some(())
        .ok_or_else(|| Error::KeyInTheWay(path.to_owned()))
}
