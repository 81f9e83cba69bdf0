//! Issues leaves to many names: a group of names costs as many syncs of the disk as one name.
//!
//! ```text
//! names --> keys, signatures --> ledger: all of them, one sync --> files: one sync, then each in place
//! ```
//!
//! So a certificate is in the ledger before it is on disk, whenever the process or the machine
//! stops. What the ledger has and the disk does not is lost with its key, and is issued again.

use std::time::Duration;

use lizmon_protocol::name::{Attributes, NodeName, Role, SpiffeId};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use super::ca::Authority;
use super::error::Error;
use super::issue::{Issued, SignedLeaf, record_issued};
use crate::files::layout::role_folder;
use crate::files::{Access, LeafFiles, NewFile, disk, write_all};
use crate::ledger::LedgerTx;
use crate::pki::{KeyAlg, key};

/// The most names of a group. With fewer, the syncs cost more than everything else; with more, the
/// ledger is locked for longer, and more is issued in vain when the process is killed.
pub const GROUP_NAMES_MAX: usize = 500;

/// What the certificates of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafTerms {
    /// The role of the holders: one without DNS names.
    pub role: Role,
    /// The nodes' tags, or the hosts that the readers are limited to.
    pub attributes: Attributes,
    /// From now; cut to the issuing CA's end.
    pub lifetime: Duration,
    /// The algorithm of their new keys.
    pub key_alg: KeyAlg,
}

impl Authority {
    /// Issues certificates with new keys to a group of names, at most [`GROUP_NAMES_MAX`]. Records
    /// all or none of them in the ledger, and writes them with their keys into their role's folder.
    pub fn issue_group(
        &self,
        terms: &LeafTerms,
        names: &[NodeName],
        now: u64,
    ) -> Result<Vec<Issued>, Error> {
        let leaves = self.sign_group(terms, names, now)?;
        let folder = self.certs.join(role_folder(terms.role));
        disk::create_folder(&folder)?;
        self.transaction(|tx| self.record_group(tx, &leaves, now))?;
        let issued: Vec<Issued> = leaves
            .iter()
            .map(|new| self.issued(terms, new, now))
            .collect();
        let keys: Vec<_> = leaves.iter().map(NewLeaf::key_pem).collect();
        let mut files = Vec::with_capacity(2 * issued.len());
        for (one, key) in issued.iter().zip(&keys) {
            let key_file = one.key_path.iter();
            files.extend(key_file.map(|place| NewFile::new(place, key.as_bytes(), Access::Secret)));
            let (place, chain) = (&one.certificate_path, one.chain_pem.as_bytes());
            files.push(NewFile::new(place, chain, Access::Public));
        }
        // Under the lock, so that key and certificate of a name come from the same process.
        self.transaction(|_| Ok(write_all(&folder, &files)?))?;
        Ok(issued)
    }

    /// Signs certificates for new keys. None may be given out before [`Self::record_group`].
    pub(super) fn sign_group(
        &self,
        terms: &LeafTerms,
        names: &[NodeName],
        now: u64,
    ) -> Result<Vec<NewLeaf>, Error> {
        let sign = |name: &NodeName| {
            let (id, key) = (
                self.id(terms.role, name.clone()),
                key::generate(terms.key_alg)?,
            );
            let leaf = self.sign_leaf(&id, &[], &terms.attributes, terms.lifetime, &key, now)?;
            Ok(NewLeaf { id, leaf, key })
        };
        names.iter().map(sign).collect()
    }

    pub(super) fn record_group(
        &self,
        tx: &LedgerTx<'_>,
        leaves: &[NewLeaf],
        now: u64,
    ) -> Result<(), Error> {
        leaves.iter().try_for_each(|new| {
            let entry = new.leaf.entry(&new.id, &self.operator, now);
            record_issued(tx, &new.id, &entry, None)
        })
    }

    /// The leaf followed by the issuing certificate.
    pub(super) fn chain_pem(&self, leaf: &SignedLeaf) -> String {
        format!("{}{}", leaf.leaf_pem, self.issuing_pem)
    }

    fn issued(&self, terms: &LeafTerms, new: &NewLeaf, now: u64) -> Issued {
        let files = LeafFiles::new(&self.certs, terms.role, &new.id.name);
        Issued {
            spiffe_id: new.id.clone(),
            serial: new.leaf.serial.clone(),
            validity: new.leaf.validity,
            cut_short: new.leaf.validity.not_after < now + terms.lifetime.as_secs(),
            chain_pem: self.chain_pem(&new.leaf),
            certificate_path: files.certificate,
            key_path: Some(files.key),
        }
    }
}

/// A leaf that was signed for a new key.
pub(super) struct NewLeaf {
    pub(super) id: SpiffeId,
    pub(super) leaf: SignedLeaf,
    key: KeyPair,
}

impl NewLeaf {
    pub(super) fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }
}
