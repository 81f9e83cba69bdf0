//! Who shares a store, and what they tell each other through it.

use std::time::Duration;

use uuid::Uuid;

use super::error::StoreError;
use super::signing::PublishedKey;

/// The processes that share a store, by what they do there. A member that does not attend for a
/// while is gone: time is the store's own, not the members'.
pub trait Members {
    /// This member is there, for so many milliseconds from now on, and tells the others this. All
    /// that are there, with this one, in order.
    fn attend(
        &mut self,
        role: MemberRole,
        member: Uuid,
        text: &str,
        millis: u64,
    ) -> Result<Vec<Member>, StoreError>;

    /// How many members with this role are there.
    fn present(&mut self, role: MemberRole) -> Result<usize, StoreError>;

    /// What the store's clock says; nothing if it has none.
    fn time(&mut self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    /// This member is gone.
    fn leave(&mut self, role: MemberRole, member: Uuid) -> Result<(), StoreError>;
}

/// A process that shares a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Which one: no other process has this identifier, nor this one after a restart.
    pub id: Uuid,
    /// What it tells the others. Whoever can write to the store can say this, too.
    pub text: String,
}

/// What members do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberRole {
    /// They append journal groups and answer queries.
    Receiver,
    /// They own shards.
    Summarizer,
}

impl MemberRole {
    /// Its name in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receiver => "receivers",
            Self::Summarizer => "summarizers",
        }
    }
}

/// What the receivers of a store must know to decide alike whom they trust. Nothing of it is
/// believed because it is in the store: statements and CRLs are signed.
pub trait SharedTrust {
    /// The store's identifier: statements are made for one store.
    fn store_id(&self) -> &str;

    /// Publishes these token keys for so many milliseconds from now on. All that are published.
    fn publish_keys(
        &mut self,
        keys: &[PublishedKey],
        millis: u64,
    ) -> Result<Vec<PublishedKey>, StoreError>;

    /// The names of the CRLs that are there.
    fn crl_names(&mut self) -> Result<Vec<String>, StoreError>;

    /// What is there under the name of a CRL (PEM); empty if it is too long to be one.
    fn crl(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Adds a CRL under a name that no other CRL has.
    fn add_crl(&mut self, name: &str, pem: &str) -> Result<(), StoreError>;

    /// Removes a CRL.
    fn remove_crl(&mut self, name: &str) -> Result<(), StoreError>;
}
