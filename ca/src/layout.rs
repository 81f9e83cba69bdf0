//! Which file lies where below `certs/`.

use std::path::{Path, PathBuf};

use lizmon_protocol::name::{NodeName, Role};

use crate::disk;
use crate::error::Error;

/// The folder below `certs/` that holds a role's certificates.
pub fn folder_name(role: Role) -> &'static str {
    match role {
        Role::Node => "nodes",
        Role::Reader => "readers",
        Role::Operator => "operators",
        Role::Receiver => "receivers",
        Role::Ca => "cas",
    }
}

/// Where one holder's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFiles {
    /// Leaf and issuing certificate, PEM.
    pub certificate: PathBuf,
    /// PKCS #8 PEM.
    pub key: PathBuf,
}

impl LeafFiles {
    /// `certs/nodes/NAME.crt` and `.key`, and so on for the other roles.
    pub fn new(certs: &Path, role: Role, name: &NodeName) -> Self {
        let folder = certs.join(folder_name(role));
        Self {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        }
    }
}

/// Where the CA's own files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// The trust anchor.
    pub root_certificate: PathBuf,
    /// Its key; may be away.
    pub root_key: PathBuf,
    /// The CA that signs leaves.
    pub issuing_certificate: PathBuf,
    /// Its key.
    pub issuing_key: PathBuf,
    /// One current CRL per trusted CA.
    pub crl: PathBuf,
    /// The ledger.
    pub ledger: PathBuf,
    /// Keys of generations that do not sign now, by serial; there only while a CA is rotated.
    pub generations: PathBuf,
}

impl CaFiles {
    /// All of them below one folder.
    pub fn new(certs: &Path) -> Self {
        Self {
            root_certificate: certs.join("root.crt"),
            root_key: certs.join("root.key"),
            issuing_certificate: certs.join("issuing.crt"),
            issuing_key: certs.join("issuing.key"),
            crl: certs.join("crl.pem"),
            ledger: certs.join("ledger.db"),
            generations: certs.join("generations"),
        }
    }

    /// Where the key of a generation is that does not sign now.
    pub(crate) fn generation_key(&self, serial: &str) -> PathBuf {
        self.generations.join(format!("{serial}.key"))
    }

    /// Without any of these there is no CA. The root's key may be away, the CRLs are in the ledger.
    pub(crate) fn essential(&self) -> [&PathBuf; 4] {
        [
            &self.root_certificate,
            &self.issuing_certificate,
            &self.issuing_key,
            &self.ledger,
        ]
    }

    fn optional(&self) -> [&PathBuf; 2] {
        [&self.root_key, &self.crl]
    }

    /// The first of them that is there, a dangling link included.
    pub(crate) fn first_present(&self) -> Option<&PathBuf> {
        let mut all = self.essential().into_iter().chain(self.optional());
        all.find(|path| disk::is_present(path))
    }

    /// An error if a CA is there, or a part of one.
    pub(crate) fn refuse_if_there(&self, certs: &Path) -> Result<(), Error> {
        let Some(present) = self.first_present() else {
            return Ok(());
        };
        match self
            .essential()
            .into_iter()
            .find(|path| !disk::is_present(path))
        {
            None => Err(Error::AlreadyThere(certs.to_owned())),
            Some(missing) => Err(Error::HalfThere {
                present: present.clone(),
                missing: missing.clone(),
            }),
        }
    }
}
