//! What is known of the clock, as JSON in a shard's `meta`.

use serde::{Deserialize, Serialize};

use crate::clock::StoredClock;

#[derive(Debug, Serialize, Deserialize)]
struct ClockRecord {
    /// Hexadecimal.
    boot: String,
    offset: i64,
    since: u64,
    floor: u64,
    floor_at: u64,
}

pub(super) fn encode(clock: &StoredClock) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&ClockRecord {
        boot: hex::encode(clock.boot),
        offset: clock.offset,
        since: clock.since,
        floor: clock.floor,
        floor_at: clock.floor_at,
    })
}

pub(super) fn decode(json: &[u8]) -> Result<StoredClock, serde_json::Error> {
    let record: ClockRecord = serde_json::from_slice(json)?;
    let mut boot = [0; 16];
    hex::decode_to_slice(&record.boot, &mut boot).map_err(serde::de::Error::custom)?;
    Ok(StoredClock {
        boot,
        offset: record.offset,
        since: record.since,
        floor: record.floor,
        floor_at: record.floor_at,
    })
}
