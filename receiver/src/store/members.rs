//! Who shares a store.

use uuid::Uuid;

use super::error::StoreError;

/// The processes that share a store, by what they do there. A member that does not attend for a
/// while is gone: time is the store's own, not the members'.
pub trait Members {
    /// This member is there, for so many milliseconds from now on. All that are there, with this
    /// one, in order.
    fn attend(
        &mut self,
        role: MemberRole,
        member: Uuid,
        millis: u64,
    ) -> Result<Vec<Uuid>, StoreError>;

    /// This member is gone.
    fn leave(&mut self, role: MemberRole, member: Uuid) -> Result<(), StoreError>;
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
