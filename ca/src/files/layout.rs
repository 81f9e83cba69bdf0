//! Paths below `certs/`.

use std::path::{Path, PathBuf};

use lizmon_protocol::name::{NodeName, Role};

use super::disk;

/// The folder below `certs/` for the certificates of a role.
pub fn role_folder(role: Role) -> &'static str {
    match role {
        Role::Node => "nodes",
        Role::Reader => "readers",
        Role::Operator => "operators",
        Role::Receiver => "receivers",
        Role::Ca => "cas",
        Role::Summarizer => "summarizers",
        Role::Proxy => "proxies",
        Role::Gateway => "gateways",
    }
}

/// The files of one holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFiles {
    /// The leaf followed by the issuing certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PKCS #8 PEM.
    pub key: PathBuf,
}

impl LeafFiles {
    /// `certs/nodes/NAME.crt` and `.key`, and so on for the other roles.
    pub fn new(certs: &Path, role: Role, name: &NodeName) -> Self {
        let folder = certs.join(role_folder(role));
        Self {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        }
    }
}

/// The CA's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// The trust anchor.
    pub root_certificate: PathBuf,
    /// Its key; may be kept elsewhere.
    pub root_key: PathBuf,
    /// The CA that signs leaves.
    pub issuing_certificate: PathBuf,
    /// Its key.
    pub issuing_key: PathBuf,
    /// One current CRL per trusted CA.
    pub crl: PathBuf,
    /// The ledger.
    pub ledger: PathBuf,
    /// Folder for the keys of generations that do not sign now, named by serial. It exists only
    /// during a rotation.
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

    /// The key file of a generation that does not sign now.
    pub(crate) fn generation_key(&self, serial: &str) -> PathBuf {
        self.generations.join(format!("{serial}.key"))
    }

    /// The files that every CA has. The root's key may be kept elsewhere, and the CRLs are in the
    /// ledger.
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

    /// The first of its files that exists, even as a dangling link.
    pub(crate) fn first_present(&self) -> Option<&PathBuf> {
        let mut all = self.essential().into_iter().chain(self.optional());
        all.find(|path| disk::is_present(path))
    }

    /// Whether a CA is there, or a part of one.
    pub(crate) fn presence(&self) -> Presence {
        let Some(present) = self.first_present() else {
            return Presence::Absent;
        };
        let is_missing = |path: &&PathBuf| !disk::is_present(path);
        match self.essential().into_iter().find(is_missing) {
            None => Presence::Complete,
            Some(missing) => Presence::Partial {
                present: present.clone(),
                missing: missing.clone(),
            },
        }
    }
}

/// How much of a CA is in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// None of its files.
    Absent,
    /// Some of its files.
    Partial {
        /// A file that exists.
        present: PathBuf,
        /// A file that a complete CA would have.
        missing: PathBuf,
    },
    /// All of the files that a CA needs.
    Complete,
}
