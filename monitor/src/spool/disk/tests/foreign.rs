//! Spools of another host, of another machine, or of a newer program.

use rusqlite::config::DbConfig;

use super::super::database::VERSION;
use super::*;
use crate::spool::{Event, Machine, Origin};

const START: u64 = 1_465_001_814;

/// After a downgrade, the spool was taken for damaged, and set aside with all its records.
#[test]
fn a_newer_programs_spool_is_left_alone() {
    for (version, in_log) in [(2, false), (99, false), (i64::from(i32::MAX), true)] {
        let folder = TempDir::new().unwrap();
        let mut spool = open(folder.path(), 1);
        push(&mut spool, [START]);
        drop(spool);
        let newer = Connection::open(folder.path().join(DATABASE)).unwrap();
        let keeps_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        newer.set_db_config(keeps_log, in_log).unwrap();
        newer.pragma_update(None, "user_version", version).unwrap();
        drop(newer);
        let files = || [DATABASE, LOG, LOCK].map(|name| fs::read(folder.path().join(name)).ok());
        let before = files();
        assert_eq!(before[1].is_some(), in_log);
        match DiskBackend::open(folder.path()) {
            Err(OpenError::Newer { found, known, .. }) => {
                assert_eq!((found, known), (version, VERSION));
            }
            other => panic!("{version}: {other:?}"),
        }
        assert!(files() == before, "{version}: it was changed");
    }
}

/// A flipped bit was taken for a newer version: the monitor did not start, and advised to use a
/// program that does not exist.
#[test]
fn a_flipped_bit_is_not_a_newer_version() {
    const VERSION_AT: usize = 60;
    for in_log in [false, true] {
        for bit in 0..32 {
            let folder = TempDir::new().unwrap();
            let mut spool = open(folder.path(), 1);
            push(&mut spool, [START]);
            drop(spool);
            if in_log {
                let database = Connection::open(folder.path().join(DATABASE)).unwrap();
                let keeps_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
                database.set_db_config(keeps_log, true).unwrap();
                let flipped = VERSION ^ (1 << bit);
                let flipped = i64::from(flipped as i32);
                database
                    .pragma_update(None, "user_version", flipped)
                    .unwrap();
            } else {
                let file = folder.path().join(DATABASE);
                let mut bytes = fs::read(&file).unwrap();
                bytes[VERSION_AT + 3 - bit / 8] ^= 1 << (bit % 8);
                fs::write(file, bytes).unwrap();
            }
            let spool = open(folder.path(), 1);
            assert_eq!(spool.pending(0), 1, "bit {bit}, in the log: {in_log}");
        }
    }
}

/// After an image was cloned or a machine renamed, records of web1 were delivered as web2's.
#[test]
fn a_foreign_spool_is_set_aside_and_reported() {
    let at = |host: &str, id: &str| Origin {
        host: host.to_owned(),
        machine: Machine {
            id: Some(id.to_owned()),
            product: None,
        },
    };
    let cases = [
        ("web1", "a", None),
        ("web2", "a", Some(drop_reason::OTHER_HOST)),
        ("web1", "b", Some(drop_reason::OTHER_MACHINE)),
        ("web2", "b", Some(drop_reason::OTHER_HOST)),
    ];
    for (host, id, reason) in cases {
        let folder = TempDir::new().unwrap();
        let open = |origin: Origin, producer: u8| {
            let backend = DiskBackend::open(folder.path()).unwrap();
            let urls = vec!["https://a:1/api/perf".to_owned()];
            let new_producer = move || ProducerId::from_bytes([producer; 16]);
            Spool::open_at(
                Some(origin),
                backend,
                urls,
                SpoolLimits::new(1 << 20),
                new_producer,
            )
        };
        let mut spool = open(at("web1", "a"), 1);
        push(&mut spool, START..START + 5);
        drop(spool);
        let mut spool = open(at(host, id), 2);
        let told: Vec<_> = spool
            .take_events()
            .into_iter()
            .filter_map(|event| match event {
                Event::SetAside {
                    why, records, host, ..
                } => Some((why, records, host)),
                _ => None,
            })
            .collect();
        let is_kept = folder.path().join("spool.db.other-1").exists();
        let (given, lost) = match reason {
            None => (5, 0),
            Some(_) => (0, 5),
        };
        let expected: Vec<_> = reason
            .map(|why| (why, 5, "web1".to_owned()))
            .into_iter()
            .collect();
        assert_eq!(told, expected, "{host} on {id}");
        assert_eq!(is_kept, !expected.is_empty(), "{host} on {id}");
        // New records have another producer, and the old ones are reported.
        push(&mut spool, [START + 9]);
        let producer = spool.producer().unwrap();
        assert_eq!(producer.as_bytes()[0], 1 + u8::from(is_kept));
        let (mut records, mut dropped) = (0, 0);
        while let Some(batch) = spool.next_batch(0, 0, 100) {
            records += batch.records.len();
            for range in &batch.dropped {
                assert_eq!(Some(range.why.as_str()), reason, "{host} on {id}");
                dropped += range.to.get() - range.from.get() + 1;
            }
            spool.ack(0, &batch);
        }
        assert_eq!((records, dropped), (given + 1, lost), "{host} on {id}");
        // This happens only once.
        drop(spool);
        let mut again = open(at(host, id), 3);
        assert_eq!(again.take_events(), [], "{host} on {id}");
        assert_eq!(again.producer(), Some(producer));
    }
}
