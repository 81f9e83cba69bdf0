//! Which numbers of a producer have arrived: `GET /api/delivery/{host}`.

use serde::{Deserialize, Serialize};

use crate::sample::ProducerId;

/// On the answer to a single POST whose number was known already, and which changed nothing: of the value `true`.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";

/// The answer for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Everyone who ever numbered this host's records and is still remembered.
    pub producers: Vec<ProducerDelivery>,
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
