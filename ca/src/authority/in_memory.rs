//! Issues leaves whose keys are in no file: for programs that need many identities for a while.

use std::time::Duration;

use lizmon_protocol::name::{Attributes, NodeName, Role, SpiffeId};
use zeroize::Zeroizing;

use super::bulk::LeafTerms;
use super::ca::Authority;
use super::error::{Error, IssueError};
use crate::ledger::{Entry, LedgerTx};
use crate::pki::{BACKDATE_SECS, KeyAlg};

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
        let terms = LeafTerms {
            role,
            attributes: Attributes::default(),
            lifetime,
            key_alg: KeyAlg::default(),
        };
        let leaves = self.sign_group(&terms, names, now)?;
        self.transaction(|tx| {
            for name in names {
                refuse_holder(tx, role, name, lifetime)?;
            }
            self.record_group(tx, &leaves, now)
        })?;
        let issued = leaves.into_iter().map(|new| InMemory {
            chain_pem: self.chain_pem(&new.leaf),
            key_pem: new.key_pem(),
            spiffe_id: new.id,
        });
        Ok(issued.collect())
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
