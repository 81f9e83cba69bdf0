//! A host that an operator has silenced: a document of the host.

use serde::{Deserialize, Serialize};

pub use lizmon_protocol::alarm::{SILENCE_SECS_MAX, WHY_BYTES_MAX};

/// Alarms of a host that are not told for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Until when: epoch seconds.
    pub until: u64,
    /// Since when.
    pub since: u64,
    /// Why.
    pub why: String,
    /// Who said so.
    pub by: String,
}

impl Silence {
    /// Reads a stored document.
    pub fn from_bytes(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// Until when alarms are not told; none if they are.
    pub fn until(&self, now: u64) -> Option<u64> {
        (now < self.until).then_some(self.until)
    }
}
