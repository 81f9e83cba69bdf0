//! What is stored of a host beside its series, as JSON.

use lizmon_protocol::sample::ProducerId;
use serde::{Deserialize, Serialize};

use super::super::state::{RemovedSamples, StoredHost, StoredProducer};

/// A host's record in `lizmon:{p}:hosts`.
#[derive(Debug, Serialize, Deserialize)]
struct HostRecord {
    last_epoch: u64,
    certificate_end: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    removed_samples: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    removed_at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    producers: Vec<ProducerRecord>,
}

/// A producer of that host.
#[derive(Debug, Serialize, Deserialize)]
struct ProducerRecord {
    producer: ProducerId,
    ranges: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<(u64, u64, Box<str>)>,
    #[serde(default, skip_serializing_if = "is_zero")]
    duplicate: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    repaired: u64,
    last_taken: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// All of it but series and documents.
pub(super) fn encode(host: &StoredHost) -> Result<String, serde_json::Error> {
    let producers = host.producers.iter().map(|producer| ProducerRecord {
        producer: producer.producer,
        ranges: producer.ranges.clone(),
        dropped: producer.dropped.clone(),
        duplicate: producer.duplicate,
        repaired: producer.repaired,
        last_taken: producer.last_taken,
    });
    serde_json::to_string(&HostRecord {
        last_epoch: host.last_epoch,
        certificate_end: host.certificate_end,
        removed_samples: host.removed.samples,
        removed_at: host.removed.at,
        producers: producers.collect(),
    })
}

/// The host, without series and documents.
pub(super) fn decode(name: String, json: &[u8]) -> Result<StoredHost, serde_json::Error> {
    let record: HostRecord = serde_json::from_slice(json)?;
    let producers = record.producers.into_iter().map(|producer| StoredProducer {
        producer: producer.producer,
        ranges: producer.ranges,
        dropped: producer.dropped,
        duplicate: producer.duplicate,
        repaired: producer.repaired,
        last_taken: producer.last_taken,
    });
    Ok(StoredHost {
        name,
        last_epoch: record.last_epoch,
        certificate_end: record.certificate_end,
        removed: RemovedSamples {
            samples: record.removed_samples,
            at: record.removed_at,
        },
        series: Vec::new(),
        is_whole: false,
        producers: producers.collect(),
        documents: Vec::new(),
    })
}
