//! An open CA: its files, its ledger, its certificates and the keyring.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use lizmon_protocol::name::TrustDomain;

use super::error::Error;
use crate::files::{CaFiles, disk};
use crate::ledger::audit::{self, AuditEvent, AuditHead, AuditLine};
use crate::ledger::{Entry, Generation, Ledger, LedgerTx, UnusedJoinToken};
use crate::pki::{CaCertificate, Keyring, Signer, Validity, key};

/// An open CA. Several processes may have the CA in one folder open.
#[derive(Debug)]
pub struct Authority {
    pub(super) certs: PathBuf,
    pub(super) files: CaFiles,
    pub(super) keyring: Keyring,
    pub(super) root: CaCertificate,
    pub(super) issuing: CaCertificate,
    pub(super) issuing_pem: String,
    /// Loaded when the CA is opened, except for an encrypted key: a reader is not asked for a
    /// passphrase.
    pub(super) signer: OnceLock<Arc<Signer>>,
    pub(super) ledger: Ledger,
    pub(super) operator: String,
}

impl Authority {
    /// Whether nothing can be changed, because it was opened to be read where nothing can be
    /// written.
    pub fn is_read_only(&self) -> bool {
        self.ledger.is_read_only()
    }

    /// Loads the issuing CA's key now rather than when it is first needed.
    pub fn unlock(&self) -> Result<(), Error> {
        self.signer().map(drop)
    }

    /// The trust domain of all identities.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.issuing.trust_domain
    }

    /// The paths of the CA's own files.
    pub fn files(&self) -> &CaFiles {
        &self.files
    }

    /// The validity of the issuing CA.
    pub fn issuing_validity(&self) -> Validity {
        self.issuing.validity
    }

    /// The validity of the root.
    pub fn root_validity(&self) -> Validity {
        self.root.validity
    }

    /// SHA-256 of the root's DER, lower-case hex: what `lizctl join --ca-fingerprint` is given.
    pub fn root_fingerprint(&self) -> String {
        key::sha256_hex(&self.root.der)
    }

    /// Every certificate ever signed here, in order of issue.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.ledger.transaction(|tx| tx.entries())?)
    }

    /// The join tokens that still let somebody join.
    pub fn unused_join_tokens(&self, now: u64) -> Result<Vec<UnusedJoinToken>, Error> {
        Ok(self.ledger.transaction(|tx| tx.unused_tokens(now))?)
    }

    /// Every generation of the CAs, the current ones first.
    pub fn generations(&self) -> Result<Vec<Generation>, Error> {
        Ok(self.ledger.transaction(|tx| tx.generations())?)
    }

    /// The audit log.
    pub fn audit_log(&self) -> Result<Vec<AuditLine>, Error> {
        Ok(self.ledger.transaction(|tx| tx.lines())?)
    }

    /// Verifies the audit log, also against a line of it that was kept elsewhere, and returns its
    /// newest.
    pub fn verify_audit(&self, kept: Option<&AuditHead>) -> Result<Option<AuditHead>, Error> {
        self.transaction(|tx| {
            audit::verify(&tx.lines()?, &tx.snapshot()?, kept).map_err(|source| Error::Audit {
                path: self.files.ledger.clone(),
                source,
            })
        })
    }

    /// Writes a line into the audit log.
    pub fn record_event(&self, event: &AuditEvent<'_>, now: u64) -> Result<(), Error> {
        Ok(self.ledger.transaction(|tx| tx.record(event, now))?)
    }

    pub(super) fn signer(&self) -> Result<Arc<Signer>, Error> {
        if let Some(signer) = self.signer.get() {
            return Ok(signer.clone());
        }
        let path = &self.files.issuing_key;
        let signer = Signer::new(self.issuing.clone(), path, self.keyring.read(path)?)?;
        Ok(self.signer.get_or_init(|| Arc::new(signer)).clone())
    }

    /// Runs `work` in a transaction of the ledger.
    pub(super) fn transaction<T>(
        &self,
        work: impl FnOnce(&LedgerTx<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.ledger.transaction(work)
    }

    /// The current CRLs, as `certs/crl.pem` has them.
    pub(crate) fn read_crls(&self) -> Result<Vec<u8>, Error> {
        Ok(disk::read(&self.files.crl)?)
    }
}

/// The user who runs this program, as the ledger records it: the name of the session, and the user
/// id.
pub(super) fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok())
        .unwrap_or_else(|| "unnamed".to_owned());
    #[cfg(unix)]
    let name = format!("{name} (uid {})", rustix::process::getuid().as_raw());
    name
}
