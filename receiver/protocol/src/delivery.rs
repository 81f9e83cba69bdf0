//! The sequence numbers of a producer that have arrived: `GET /api/delivery/{host}`.

use serde::{Deserialize, Serialize};

use crate::sample::ProducerId;

/// The response header, with the value `true`, for a single POST that was a duplicate and changed
/// nothing.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";
/// A reason why numbers are not missing: the producer was told to use this receiver only after
/// them.
pub const BEFORE_ASKED: &str = "before this receiver was asked";
/// A reason why numbers are not missing: the receiver had them, but its data was deleted or
/// restored from an older copy.
pub const BEFORE_DATA: &str = "before its data was reset or restored";
/// The prefix of the reason if an operator acknowledged the missing numbers.
pub const ACKNOWLEDGED: &str = "acknowledged";

/// The body with which an operator acknowledges a host's missing numbers: `POST
/// /api/delivery/{host}/acknowledged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// Why the loss is acceptable.
    pub why: String,
}

/// The response to an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// How many numbers were missing and are now acknowledged.
    pub acknowledged: u64,
}

/// The response for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// All known producers of this host's records.
    pub producers: Vec<ProducerDelivery>,
    /// Samples that were removed from the summaries because they were ahead of the receiver's
    /// steady clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
    /// The clock of the host, if its samples are stamped by the receivers' time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<StampClock>,
    /// When the summaries were last read from a store that several processes share, if that is more
    /// than a moment ago: epoch seconds. What was acknowledged after that may be missing.
    #[serde(rename = "as-of", default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
}

/// A host whose clock is so wrong that its monitor stamps samples by the receivers' time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampClock {
    /// How far the host's clock is ahead of that time; negative if it is behind.
    #[serde(rename = "ahead-secs")]
    pub ahead_secs: i64,
    /// The time of the host's last such request: epoch seconds.
    pub at: u64,
}

/// Samples that were stored while the receiver's clock was ahead, and were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The number of samples, over all labels.
    pub samples: u64,
    /// The time of the last removal: epoch seconds.
    pub at: u64,
}

/// What one producer has delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerDelivery {
    /// The producer.
    pub producer: ProducerId,
    /// The number of distinct sequence numbers that have arrived.
    pub received: u64,
    /// The number of duplicate records.
    pub duplicate: u64,
    /// Numbers below the highest received one that have not arrived, as inclusive ranges.
    pub missing: Vec<(u64, u64)>,
    /// Numbers that the producer dropped, as inclusive ranges, each with a reason.
    pub dropped: Vec<(u64, u64, String)>,
    /// The number of records that arrived as a repair: the receiver had acknowledged them once, and
    /// had lost them.
    #[serde(default)]
    pub repaired: u64,
    /// The highest number that has arrived; 0 if none has. Receivers did not always say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let golden = r#"{"producers":[{"producer":"1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b","received":3,"duplicate":2,"missing":[[1,16],[19,19]],"dropped":[[18,18,"too old"]],"repaired":1,"highest":21}]}"#;
        let delivery: Delivery = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&delivery).unwrap(), golden);
        let older = golden.replace(r#","repaired":1,"highest":21"#, "");
        let delivery: Delivery = serde_json::from_str(&older).unwrap();
        let producer = &delivery.producers[0];
        assert_eq!((producer.repaired, producer.highest), (0, None));
    }
}
