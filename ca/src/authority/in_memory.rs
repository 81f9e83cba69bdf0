//! Issues leaves whose keys are in no file: for programs that need many identities for a while.

use std::time::Duration;

use lizmon_protocol::name::{Attributes, NodeName, Role, SpiffeId};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use super::ca::Authority;
use super::error::{Error, IssueError};
use super::issue::{SignedLeaf, record_issued};
use crate::ledger::{Entry, LedgerTx};
use crate::pki::{BACKDATE_SECS, KeyAlg, key};

/// A certificate whose key only the caller has.
pub struct InMemory {
    /// The holder's identity.
    pub spiffe_id: SpiffeId,
    /// The leaf followed by the issuing certificate, PEM.
    pub chain_pem: String,
    /// Its key, PKCS #8 in PEM.
    pub key_pem: Zeroizing<String>,
}

impl Authority {
    /// Issues certificates without attributes to these names, with new P-256 keys, and records them
    /// all or none. No file is written. A name that has a longer certificate is somebody else's: an
    /// error.
    pub fn issue_in_memory(
        &self,
        role: Role,
        names: &[NodeName],
        lifetime: Duration,
        now: u64,
    ) -> Result<Vec<InMemory>, Error> {
        self.check_names(role, names)?;
        let signed = names
            .iter()
            .map(|name| self.sign_in_memory(role, name, lifetime, now))
            .collect::<Result<Vec<_>, Error>>()?;
        self.transaction(|tx| {
            for name in names {
                refuse_holder(tx, role, name, lifetime)?;
            }
            signed.iter().try_for_each(|(id, leaf, _)| {
                record_issued(tx, id, &leaf.entry(id, &self.operator, now), None)
            })
        })?;
        let issued = signed.into_iter().map(|(spiffe_id, leaf, pair)| InMemory {
            spiffe_id,
            chain_pem: leaf.leaf_pem + &self.issuing_pem,
            key_pem: Zeroizing::new(pair.serialize_pem()),
        });
        Ok(issued.collect())
    }

    fn sign_in_memory(
        &self,
        role: Role,
        name: &NodeName,
        lifetime: Duration,
        now: u64,
    ) -> Result<(SpiffeId, SignedLeaf, KeyPair), Error> {
        let (id, pair) = (
            self.id(role, name.clone()),
            key::generate(KeyAlg::default())?,
        );
        let leaf = self.sign_leaf(&id, &[], &Attributes::default(), lifetime, &pair, now)?;
        Ok((id, leaf, pair))
    }
}

/// A name in use is not given a second holder.
fn refuse_holder(
    tx: &LedgerTx<'_>,
    role: Role,
    name: &NodeName,
    lifetime: Duration,
) -> Result<(), Error> {
    let of_caller_secs = lifetime.as_secs() + BACKDATE_SECS;
    let is_other =
        |entry: &Entry| entry.not_after.saturating_sub(entry.not_before) != of_caller_secs;
    // Those that have ended count as well: their holder has a history.
    match tx.certificates(role, name)?.iter().any(is_other) {
        true => Err(IssueError::NameInUse(role, name.to_string()).into()),
        false => Ok(()),
    }
}
