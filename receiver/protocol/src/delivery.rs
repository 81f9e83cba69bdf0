//! Which numbers of a producer have arrived: `GET /api/delivery/{host}`.

use serde::{Deserialize, Serialize};

use crate::sample::ProducerId;

/// On the answer to a single POST whose number was known already, and which changed nothing: of the value `true`.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";
/// Why numbers are not missing: their producer was told to send to this receiver only after them.
pub const BEFORE_ASKED: &str = "before this receiver was asked";
/// The same: the receiver had them, and its data began anew, or came back older than it was.
pub const BEFORE_DATA: &str = "before its data began anew";
/// With this begins the reason where a person has settled what was missing.
pub const ACKNOWLEDGED: &str = "acknowledged";

/// What an operator sends to settle what is missing of a host: `POST /api/delivery/{host}/acknowledged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// Why it is put up with.
    pub why: String,
}

/// The answer to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// How many numbers were missing, and are no longer.
    pub acknowledged: u64,
}

/// The answer for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Everyone who ever numbered this host's records and is still remembered.
    pub producers: Vec<ProducerDelivery>,
    /// Samples that were taken out of the summaries, because they lay ahead of the receiver's steady clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
    /// Whose time its samples are stamped by, where that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<StampClock>,
}

/// A host whose clock is so far off that its monitor stamps samples by the receivers' time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampClock {
    /// How far its own clock is ahead of that; behind it where negative.
    #[serde(rename = "ahead-secs")]
    pub ahead_secs: i64,
    /// When it said so last: epoch seconds.
    pub at: u64,
}

/// Samples that were written while the receiver's clock ran ahead, and are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// How many, over all labels.
    pub samples: u64,
    /// When that was last: epoch seconds.
    pub at: u64,
}

/// What one producer delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerDelivery {
    /// Whose numbers these are.
    pub producer: ProducerId,
    /// How many different numbers have arrived.
    pub received: u64,
    /// How many records came again and changed nothing.
    pub duplicate: u64,
    /// Numbers below the highest received one that have not arrived, as inclusive ranges.
    pub missing: Vec<(u64, u64)>,
    /// Numbers the producer itself gave up, as inclusive ranges, and why.
    pub dropped: Vec<(u64, u64, String)>,
}
