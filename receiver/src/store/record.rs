//! The binary format of the journal: groups of submissions, each with the records of one request.
//! This module alone reads and writes it, for every store.
//!
//! ```text
//! group       version u8 = 1 | CRC-32 of the rest u32 | submission…
//! submission  length of the rest u32 | host: length u8, bytes | certificate end u64 | taken at u64 | flags u8 | producer: 16 bytes, if there is one
//!             | records u32 | record… | dropped ranges u16 | dropped… | document, if there is one
//! record      seq u64 (0 without a producer) | epoch u64 | values u16 | value…
//! value       label | f64
//! label       length u8, bytes; from 255 bytes on 255 | length u16, bytes
//! dropped     from u64 | to u64 | why: length u8, bytes
//! document    kind u8 | body: length u32, bytes
//! ```
//!
//! Flags are 1 for a producer, 2 if the clock was known to be steady and samples ahead of it are
//! removed first, 4 if a producer's records are a repair, 8 for a document, and 16 for points: records whose
//! seq is a [`PointNumber`]. All numbers are little-endian.
//! Whatever is not exactly so is [`Corrupt`], and never a panic.

mod divide;
mod format;
mod groups;
mod outline;
mod point_number;
mod view;
mod write;

pub use self::divide::divide_group;
pub use self::groups::ShardGroups;
pub use self::outline::Outline;
pub use self::point_number::PointNumber;
pub use self::view::{Corrupt, RecordView, SubmissionView, read_group};
pub use self::write::{Group, RecordEncoder, Submission};

#[cfg(test)]
mod tests {
    use super::format::{HEAD_BYTES, VERSION};
    use super::*;
    use crate::store::{DocumentKind, StoredDocument};
    use lizmon_protocol::name::Label;
    use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value, parse_batch};
    use lizmon_summary::PointKind;
    use proptest::prelude::*;

    fn submission(host: &str) -> Submission {
        let body = br#"{"producer":"1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b","records":[
            {"seq":1,"epoch":1465001814,"values":{"cpu":4.98,"disk:/":-0.0}},{"seq":2,"epoch":1465001815,"values":{}}],
            "dropped":[[3,5,"too old"],[9,9,"the disk was full"]]}"#;
        let batch = parse_batch(body).unwrap();
        let records = batch
            .records
            .iter()
            .map(|record| (Some(record.seq), record.epoch, &record.values));
        Submission::new(&host.parse().unwrap(), 7, Some(batch.producer), 8)
            .with_records_and_dropped(records, &batch.dropped)
    }

    fn group() -> Vec<u8> {
        let mut group = Group::default();
        assert!(group.is_empty());
        group.push(&submission("web1"));
        group.push(&submission("db1"));
        group.seal().to_vec()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = group();
        let submissions = read_group(&bytes).unwrap();
        assert_eq!(
            submissions.iter().map(|s| s.host).collect::<Vec<_>>(),
            ["web1", "db1"]
        );
        let first = submissions[0];
        assert_eq!(
            (first.certificate_end, first.len(), first.producer.is_some()),
            (7, 2, true)
        );
        assert_eq!(first.taken_at, 8);
        let records: Vec<_> = first.records().collect();
        assert_eq!(
            (records[0].seq.unwrap().get(), records[0].epoch),
            (1, 1_465_001_814)
        );
        let values: Vec<_> = records[0]
            .values()
            .map(|(label, value)| (label, value.to_bits()))
            .collect();
        assert_eq!(
            values,
            [
                ("cpu", 4.98_f64.to_bits()),
                ("disk:/", (-0.0_f64).to_bits())
            ]
        );
        assert!(records[1].is_empty());
        let dropped: Vec<_> = first.dropped().collect();
        assert_eq!(dropped, [(3, 5, "too old"), (9, 9, "the disk was full")]);
    }

    #[test]
    fn a_submission_that_cuts_says_so() {
        let unnumbered = Submission::new(&"a".parse().unwrap(), 7, None, 8)
            .with_records(std::iter::empty::<(Option<Seq>, Epoch, &SampleSet<'_>)>());
        let mut group = Group::default();
        group.push(&submission("web1"));
        group.push_removing_ahead(&submission("db1"));
        group.push_removing_ahead(&unnumbered);
        let bytes = group.seal();
        let told: Vec<_> = read_group(bytes)
            .unwrap()
            .iter()
            .map(|s| (s.host, s.removes_ahead, s.producer.is_some(), s.len()))
            .collect();
        let expected = [
            ("web1", false, true, 2),
            ("db1", true, true, 2),
            ("a", true, false, 0),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let host = "web1".parse().unwrap();
        let document = StoredDocument {
            kind: DocumentKind::Facts,
            body: br#"{"os":"Debian"}"#[..].into(),
        };
        let mut group = Group::default();
        group.push(&Submission::of_document(&host, 7, 8, &document));
        group.push_removing_ahead(&submission("db1"));
        let bytes = group.seal().to_vec();
        let read = read_group(&bytes).unwrap();
        assert_eq!(read[0].document(), Some(document));
        assert_eq!((read[0].host, read[0].len()), ("web1", 0));
        assert_eq!((read[0].dropped().count(), read[1].document()), (0, None));
        let kind_at = bytes.windows(5).position(|at| at == [1, 15, 0, 0, 0]);
        let reseal = |mut bytes: Vec<u8>| {
            let checksum = crc32fast::hash(&bytes[HEAD_BYTES..]).to_le_bytes();
            bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
            bytes
        };
        let mut unknown = bytes.clone();
        unknown[kind_at.unwrap()] = 99;
        assert!(read_group(&reseal(unknown)).is_err(), "no kind has it");
    }

    #[test]
    fn points_are_read_as_they_were_written() {
        let value = |value| Value::new(value).unwrap();
        // Either side of the length that has two bytes more.
        let long = [254, 255, 1_024].map(|bytes| Label::of_series("m".repeat(bytes)).unwrap());
        let up = Label::of_series("up{job=\"node\"}").unwrap();
        let gauges: Vec<_> = long
            .iter()
            .map(|label| (label.clone(), value(1.5)))
            .collect();
        let ends = [(up.clone(), value(0.0))];
        let number = |millis, kind| PointNumber { millis, kind };
        let points = [
            (number(1_465_001_814_001, PointKind::Gauge), &gauges[..]),
            (number(1_465_001_814_001, PointKind::End), &ends[..]),
            // It cannot be stored.
            (number(u64::MAX, PointKind::Gauge), &ends[..]),
        ];
        let host = "web1".parse().unwrap();
        let mut group = Group::default();
        group.push(&Submission::of_points(&host, 7, 8, points.into_iter()));
        group.push(&submission("web1"));
        let bytes = group.seal().to_vec();
        let read = read_group(&bytes).unwrap();
        assert_eq!(
            read.iter().map(|read| read.has_points).collect::<Vec<_>>(),
            [true, false]
        );
        assert_eq!(
            (read[0].len(), read[0].taken_at, read[0].producer),
            (2, 8, None)
        );
        let told: Vec<_> = read[0]
            .records()
            .map(|record| {
                (
                    record.point_number().unwrap(),
                    record.epoch,
                    record.values().collect(),
                )
            })
            .collect();
        let expected: [(_, _, Vec<_>); 2] = [
            (
                points[0].0,
                1_465_001_815,
                long.iter().map(|label| (label.as_str(), 1.5)).collect(),
            ),
            (points[1].0, 1_465_001_815, vec![(up.as_str(), 0.0)]),
        ];
        assert_eq!(told, expected);
        for at in 0..bytes.len() {
            assert!(read_group(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_repair_says_so() {
        let mut group = Group::default();
        group.push(&submission("web1"));
        group.push(&submission("db1").as_repair());
        group.push_removing_ahead(&submission("a").as_repair());
        let told: Vec<_> = read_group(group.seal())
            .unwrap()
            .iter()
            .map(|s| (s.host, s.is_repair, s.removes_ahead, s.len()))
            .collect();
        let expected = [
            ("web1", false, false, 2),
            ("db1", true, false, 2),
            ("a", true, true, 2),
        ];
        assert_eq!(told, expected);
    }

    type Records = Vec<(u64, u64, Vec<&'static str>)>;

    fn of_records(records: &Records) -> Submission {
        let value = Value::new(1.5).unwrap();
        let set = |labels: &Vec<&'static str>| {
            let values = labels
                .iter()
                .map(|label| (Label::new(*label).unwrap(), value));
            SampleSet::new(values.collect())
        };
        let sets: Vec<_> = records.iter().map(|(.., labels)| set(labels)).collect();
        let records = records.iter().zip(&sets);
        let records = records
            .map(|((seq, epoch, _), set)| (Seq::new(*seq), Epoch::new(*epoch).unwrap(), set));
        let producer = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b".parse().unwrap();
        Submission::new(&"web1".parse().unwrap(), 7, Some(producer), 8).with_records(records)
    }

    #[test]
    fn what_an_outline_says() {
        let check = |records: &[(u64, u64, &[&'static str])], expected| {
            let records = records.iter();
            let records = records.map(|(seq, epoch, labels)| (*seq, *epoch, labels.to_vec()));
            let submission = of_records(&records.collect());
            let view = submission.view().unwrap();
            let outline = view.outline();
            let (ascending, run) = (outline.ascending(), outline.run());
            let told = (outline.has_same_labels(), ascending, run, outline.epochs());
            assert_eq!(told, expected);
        };
        let (a, b, ab): (&[_], &[_], &[_]) = (&["a"], &["b"], &["a", "b"]);
        check(&[], (true, None, None, None));
        check(
            &[(3, 9, ab)],
            (true, Some(3..=3), Some(3..=3), Some((9, 9))),
        );
        let in_order = (true, Some(3..=4), Some(3..=4), Some((5, 9)));
        check(&[(3, 9, ab), (4, 5, ab)], in_order);
        check(
            &[(3, 9, a), (5, 9, a)],
            (true, Some(3..=5), None, Some((9, 9))),
        );
        check(&[(4, 9, a), (3, 9, a)], (true, None, None, Some((9, 9))));
        check(&[(3, 9, a), (3, 9, a)], (true, None, None, Some((9, 9))));
        let other = (false, Some(3..=4), Some(3..=4), Some((9, 9)));
        for [first, second] in [
            [a, b],
            [a, ab],
            [ab, a],
            [ab, b],
            [ab, &["b", "a"]],
            [&[], a],
        ] {
            check(&[(3, 9, first), (4, 9, second)], other.clone());
        }
        let first_again = (false, Some(3..=5), Some(3..=5), Some((9, 9)));
        check(&[(3, 9, a), (4, 9, b), (5, 9, a)], first_again);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let good = group();
        for at in 0..good.len() {
            assert!(read_group(&good[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << bit;
                assert!(read_group(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
        assert!(
            read_group(&[good, vec![0]].concat()).is_err(),
            "bytes behind"
        );
    }

    proptest! {
        /// What is known of records while they are encoded is what is found in the journal later.
        #[test]
        fn an_outline_is_the_same_in_the_journal(
            records in prop::collection::vec(
                (1..9_u64, 0..9_u64, prop::sample::subsequence(vec!["a", "b", "cc"], 0..=3)),
                0..6,
            ),
        ) {
            let submission = of_records(&records);
            let mut group = Group::default();
            group.push(&submission);
            let bytes = group.seal().to_vec();
            let read = read_group(&bytes).unwrap();
            let view = submission.view().unwrap();
            prop_assert_eq!(view.outline(), read[0].outline());
            let numbers = |view: &SubmissionView<'_>| -> Vec<_> {
                view.records().map(|record| (record.seq, record.epoch, record.len())).collect()
            };
            prop_assert_eq!(numbers(&view), numbers(&read[0]));
            prop_assert_eq!(view.dropped().count(), 0);
        }

        /// Bytes with a good checksum, whatever they say: read or refused, never a panic.
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 5..400)) {
            bytes[0] = VERSION;
            let checksum = crc32fast::hash(&bytes[HEAD_BYTES..]).to_le_bytes();
            bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
            if let Ok(submissions) = read_group(&bytes) {
                for submission in submissions {
                    prop_assert_eq!(submission.records().count(), submission.len());
                }
            }
        }

        /// The same with a real submission that was changed in one place.
        #[test]
        fn any_change_is_survived(at in 5_usize..200, to in any::<u8>()) {
            let mut bytes = group();
            let at = at % bytes.len();
            bytes[at.max(HEAD_BYTES)] = to;
            let checksum = crc32fast::hash(&bytes[HEAD_BYTES..]).to_le_bytes();
            bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
            if let Ok(submissions) = read_group(&bytes) {
                prop_assert!(submissions.iter().all(|s| s.records().count() == s.len()));
            }
        }
    }
}
