//! Makes and opens the CA, issues, revokes, and keeps the CRLs fresh.

mod backup;
mod crls;
mod revocation;
mod rotation;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lizmon_protocol::name::{NodeName, Role, SpiffeId, TrustDomain};
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use serde_json::json;

use crate::audit::{self, Deed, Event, Head, Holdings, Line};
use crate::disk::{self, Access};
use crate::error::Error;
use crate::founding;
use crate::key::{self, KeyAlg};
use crate::layout::{CaFiles, LeafFiles, folder_name};
use crate::ledger::{Book, Entry, Generation, Ledger, Phase, State};
use crate::passphrase::{Keyring, Unlock, is_sealed};
use crate::profile::{self, Facts, LEAF_LIFETIME_SECS, Profile, San, Serial, Validity, rfc3339};
use crate::signer::{CaCertificate, Signer};

pub use crate::founding::InitOptions;
pub use crls::SignedCrl;
pub use revocation::Revocation;
pub use rotation::{RotateOptions, Rotated, Rotation, Stage, UnknownCa, Waiting};

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
    pub fn is_there(certs: &Path) -> bool {
        CaFiles::new(certs).any_there().is_some()
    }

    /// Makes a CA: two keys, two certificates, two CRLs, a ledger. Where there is one, or half of one, nothing is
    /// touched; where it fails, none of its files is left.
    pub fn init(certs: &Path, options: &InitOptions, now: u64) -> Result<Self, Error> {
        let scaffold = founding::found(certs, options, now)?;
        let authority = Self::open_with(certs, options.unlock(), now)?;
        scaffold.keep();
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
        authority.refresh_crls(now)?;
        Ok(authority)
    }

    /// Opens the CA for someone who only wants to look: as [`Self::open_with`], but where nobody knows the passphrase,
    /// what would have to be signed stays as it is: see [`Self::lists_are_due`].
    pub fn open_to_read(certs: &Path, unlock: Unlock, now: u64) -> Result<Self, Error> {
        let authority = Self::load(certs, unlock)?;
        match authority.refresh_crls(now) {
            Err(Error::KeyLocked(_)) => {}
            done => done?,
        }
        Ok(authority)
    }

    /// The CA as it is now: what a program that holds it open does after [`Error::Rotated`].
    pub fn reopen(&self, now: u64) -> Result<Self, Error> {
        Self::open_with(&self.certs, self.keyring.unlock().clone(), now)
    }

    fn load(certs: &Path, unlock: Unlock) -> Result<Self, Error> {
        let files = CaFiles::new(certs);
        if !Self::is_there(certs) {
            return Err(Error::NotThere(certs.to_owned()));
        }
        if let Some(missing) = files.essential().into_iter().find(|path| !path.exists()) {
            return Err(Error::FileMissing(missing.clone()));
        }
        disk::refuse_if_open(certs)?;
        disk::refuse_if_shared(&files.ledger)?;
        if files.ledger.is_symlink() {
            return Err(Error::BadFile {
                path: files.ledger,
                why: "it is a symbolic link: put the file itself here",
            });
        }
        let ledger = Ledger::open(&files.ledger)?;
        let keyring = Keyring::new(unlock);
        for key in [&files.issuing_key, &files.root_key] {
            if disk::is_taken(key) {
                disk::refuse_if_shared(key)?;
            }
        }
        // Under the lock, so that no rotation changes one file after another was read.
        let (current, signer) = ledger.exclusive(|book| {
            rotation::settle(&files, book)?;
            let current = Current::read(&files, &book.generations()?)?;
            let signer = OnceLock::new();
            let path = &files.issuing_key;
            if !is_sealed(&zeroize::Zeroizing::new(disk::read(path)?)) {
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

    /// Which CA should be replaced by now, and when it ends: a third of its life is left, or less. Leaves never outlive it.
    pub fn ending(&self, now: u64) -> Option<(Rotated, u64)> {
        let cas = [
            (Rotated::Issuing, self.issuing.validity),
            (Rotated::Root, self.root.validity),
        ];
        cas.into_iter().find_map(|(which, validity)| {
            let life = validity.not_after.saturating_sub(validity.not_before);
            let is_late = now > validity.not_before + life / 3 * 2;
            is_late.then_some((which, validity.not_after))
        })
    }

    /// SHA-256 of the root's DER, lower-case hex: what `lizctl join --ca-fingerprint` is given.
    pub fn root_fingerprint(&self) -> String {
        key::sha256_hex(&self.root.der)
    }

    /// Every certificate ever signed here, in order.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.ledger.exclusive(|book| book.entries())
    }

    /// The CAs that ever were, the current ones first.
    pub fn generations(&self) -> Result<Vec<Generation>, Error> {
        self.ledger.exclusive(|book| book.generations())
    }

    /// The audit log.
    pub fn audit_log(&self) -> Result<Vec<Line>, Error> {
        self.ledger.exclusive(|book| book.lines())
    }

    /// Checks the audit log, also against a line of it that was kept elsewhere, and returns its newest.
    pub fn verify_audit(&self, kept: Option<&Head>) -> Result<Option<Head>, Error> {
        self.ledger.exclusive(|book| {
            let holdings = Holdings {
                entries: book.entries()?,
                generations: book.generations()?,
                crls: book.crls()?,
                tokens: book.token_marks()?,
            };
            audit::verify(&book.lines()?, &holdings, kept).map_err(|source| Error::Audit {
                path: self.files.ledger.clone(),
                source,
            })
        })
    }

    /// Writes a line into the audit log.
    pub fn note(&self, event: &Event<'_>, now: u64) -> Result<(), Error> {
        self.ledger.exclusive(|book| book.note(event, now))
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
            leaf_pem: self.signer()?.sign_certificate(&params, key)?.pem(),
            key_sha256: key::fingerprint(key),
            issuer: self.issuing.serial.clone(),
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
                subject: ca.common_name.clone(),
                not_after: rfc3339(ca.validity.not_after),
            });
        }
        Validity::new(lifetime.as_secs(), Some(ca.validity), now)
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
            revoked_reason: None,
            revoked_by: None,
            renews: None,
            pem: self.leaf_pem.clone(),
        }
    }
}

/// Enters a certificate and its line in the audit log, unless its holder's name is another spelling of one that is
/// there, or its issuer was replaced since it was signed.
pub(crate) fn enter(book: &Book<'_>, id: &SpiffeId, entry: &Entry) -> Result<(), Error> {
    refuse_case_twin(book, id.role, &id.name)?;
    let generations = book.generations()?;
    let is_issuer = |ca: &&Generation| ca.entry.serial == entry.issuer;
    let issuer = generations.iter().find(is_issuer);
    if issuer.is_none_or(|ca| ca.phase != Phase::Current) {
        return Err(Error::Rotated);
    }
    book.add(entry)?;
    let mut details = json!({
        "serial": entry.serial,
        "role": id.role.as_str(),
        "name": id.name.as_str(),
        "not-after": entry.not_after,
        "key-sha256": entry.key_sha256,
        "issuer": entry.issuer,
    });
    if let Some(renews) = &entry.renews {
        details["renews"] = json!(renews);
    }
    let event = Event {
        deed: entry.renews.as_ref().map_or(Deed::Issue, |_| Deed::Renew),
        who: &entry.issued_by,
        details,
    };
    book.note(&event, entry.issued_at)
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
