//! What is acknowledged and kept is on the disk, and known as such after kill -9.

use std::collections::BTreeMap;

use lizmon_protocol::delivery::Delivery;

use super::super::super::backend::{DestinationProgress, LogState, ReportedDrop};
use super::*;
use crate::spool::Ranges;

const LIMITS: SpoolLimits = SpoolLimits::new(DISK_BYTES_MAX).keeping(600);

fn open_keeping(folder: &Path, first_producer: u8) -> Spool<DiskBackend> {
    let disk = DiskBackend::open(folder).unwrap();
    let urls = vec!["https://a:1/api/perf".to_owned()];
    let new_producer = move || ProducerId::from_bytes([first_producer; 16]);
    Spool::open(disk, urls, LIMITS, new_producer)
}

fn nothing() -> Delivery {
    Delivery {
        as_of: None,
        producers: Vec::new(),
        removed: None,
        clock: None,
    }
}

#[test]
fn kept_records_are_known_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut spool = open_keeping(folder.path(), 1);
    push(&mut spool, 1000..1020);
    let producer = spool.producer().unwrap();
    let refused = spool.next_batch(0, 0, 1).unwrap().records[0].seq;
    spool.drop_records(0, producer, &[refused], "invalid_values");
    let batch = spool.next_batch(0, 0, 14).unwrap();
    spool.ack(0, &batch);
    spool.save().unwrap();
    for first_producer in 2..5 {
        // Nothing more is written: the files are as a kill leaves them.
        drop(spool);
        spool = open_keeping(folder.path(), first_producer);
        assert_eq!((spool.kept_records(), spool.pending(0)), (15, 5));
        assert_eq!(spool.plan_repair(0, &nothing()), 14);
        let again = spool.next_repair(0, 100, None).unwrap();
        assert_eq!((again.producer, again.repair), (producer, true));
        assert_eq!(again.records, batch.records, "the same numbers and values");
    }
    // Without the flag they go at the next start.
    drop(spool);
    let mut spool = open(folder.path(), 9);
    assert_eq!((spool.kept_records(), spool.pending(0)), (0, 5));
    assert_eq!(drain(&mut spool).0.len(), 5);
}

/// A spool of which nothing is kept is stored as ever.
#[test]
fn the_state_of_a_log() {
    let state = |acknowledged: Vec<(u64, u64)>, is_shared, reported_drops| {
        let progress = DestinationProgress {
            done: Ranges::from(vec![(1, 9)]),
            acknowledged: Ranges::from(acknowledged),
            is_shared,
            reported_drops,
            ..DestinationProgress::default()
        };
        LogState {
            producer: ProducerId::from_bytes([7; 16]),
            active: true,
            first: 4,
            next: 12,
            newest_epoch: 1_465_001_814,
            destinations: BTreeMap::from([("https://a:1/api/perf".to_owned(), progress)]),
            origin: None,
        }
    };
    let reported = ReportedDrop {
        from: 2,
        to: 3,
        why: "the spool was full".to_owned(),
        at: 0,
    };
    for (acknowledged, is_shared, reported, more) in [
        (vec![], false, vec![], ""),
        (
            vec![(4, 7), (9, 9)],
            false,
            vec![],
            r#","acknowledged":[[4,7],[9,9]]"#,
        ),
        (vec![], true, vec![], r#","is_shared":true"#),
        (
            vec![],
            false,
            vec![reported],
            r#","reported_drops":[{"from":2,"to":3,"why":"the spool was full"}]"#,
        ),
    ] {
        let golden = format!(
            r#"{{"producer":"07070707-0707-0707-0707-070707070707","active":true,"first":4,"next":12,"newest_epoch":1465001814,"destinations":{{"https://a:1/api/perf":{{"done":[[1,9]],"unreported_drops":[],"gaps":0{more}}}}}}}"#
        );
        let state = state(acknowledged, is_shared, reported);
        assert_eq!(serde_json::to_string(&state).unwrap(), golden);
        assert_eq!(serde_json::from_str::<LogState>(&golden).unwrap(), state);
    }
}
