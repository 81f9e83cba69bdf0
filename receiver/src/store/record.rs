//! The journal's format, and this module its one owner.
//!
//! ```text
//! group       version u8 = 1 | CRC-32 of the rest u32 | submission…
//! submission  length of the rest u32 | host: length u8, bytes | certificate end u64 | taken at u64 | flags u8 | producer: 16 bytes, if there is one
//!             | records u32 | record… | dropped ranges u16 | dropped…
//! record      seq u64 (0 without a producer) | epoch u64 | values u16 | value…
//! value       label: length u8, bytes | f64
//! dropped     from u64 | to u64 | why: length u8, bytes
//! ```
//!
//! Flags are 1 for a producer, and 2 if the clock was known to be steady and what lies ahead of it goes first.
//! All numbers are little-endian. Whatever is not exactly so is [`Corrupt`], and never a panic.

use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::sample::{Dropped, Epoch, ProducerId, SampleSet, Seq, Value};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;
/// A producer numbered the records.
const HAS_PRODUCER: u8 = 1;
/// What lies ahead of the moment the records were taken at goes.
const CUTS_AHEAD: u8 = 2;

/// Bytes that are not what this module wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journal record of this version, or a damaged one")]
pub struct Corrupt;

/// Everything one request sent, encoded: what waits for the journal, what stands in it, and what is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    bytes: Vec<u8>,
}

impl Submission {
    /// Begins a submission of a host's records.
    pub fn new(
        host: &NodeName,
        certificate_end: u64,
        producer: Option<ProducerId>,
        taken_at: u64,
    ) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        push_text(&mut bytes, host.as_str());
        bytes.extend_from_slice(&certificate_end.to_le_bytes());
        bytes.extend_from_slice(&taken_at.to_le_bytes());
        match producer {
            None => bytes.push(0),
            Some(producer) => {
                bytes.push(HAS_PRODUCER);
                bytes.extend_from_slice(producer.as_bytes());
            }
        }
        Self { bytes }
    }

    /// Adds the records, which ends the submission.
    pub fn with_records<'a, I>(self, records: I) -> Self
    where
        I: ExactSizeIterator<Item = (Option<Seq>, Epoch, &'a SampleSet<'a>)>,
    {
        self.with_records_and_dropped(records, &[])
    }

    /// Adds the records and the numbers that were given up, which ends the submission.
    pub fn with_records_and_dropped<'a, I>(mut self, records: I, dropped: &[Dropped]) -> Self
    where
        I: ExactSizeIterator<Item = (Option<Seq>, Epoch, &'a SampleSet<'a>)>,
    {
        push_u32(&mut self.bytes, records.len());
        for (seq, epoch, values) in records {
            self.push_u64(seq.map_or(0, Seq::get));
            self.push_u64(epoch.secs());
            let count = self.push_count(values.len());
            for (label, value) in values.iter().take(count) {
                push_text(&mut self.bytes, label.as_str());
                self.bytes.extend_from_slice(&value.get().to_le_bytes());
            }
        }
        let count = self.push_count(dropped.len());
        for Dropped { from, to, why } in &dropped[..count] {
            self.push_u64(from.get());
            self.push_u64(to.get());
            push_text(&mut self.bytes, why.as_str());
        }
        let length = u32::try_from(self.bytes.len() - 4).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn push_u64(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// Values of a record and dropped ranges of a batch are far fewer than fit: their limits are in the protocol.
    fn push_count(&mut self, count: usize) -> usize {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&count.to_le_bytes());
        usize::from(count)
    }

    /// The submission as it stands in a group.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was submitted. It was encoded from checked values, so it is not checked again.
    pub fn view(&self) -> Result<SubmissionView<'_>, Corrupt> {
        SubmissionView::parse(&self.bytes).map(|(view, _)| view)
    }
}

/// Several submissions made durable together, in the order they are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    bytes: Vec<u8>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            bytes: vec![VERSION, 0, 0, 0, 0],
        }
    }
}

impl Group {
    /// Adds a submission behind the others.
    pub fn push(&mut self, submission: &Submission) {
        self.bytes.extend_from_slice(submission.as_bytes());
    }

    /// The same, and what lies ahead of it goes first: see [`SubmissionView::cuts_ahead`].
    pub fn push_cutting(&mut self, submission: &Submission) {
        const HOST: usize = 4;
        let start = self.bytes.len();
        self.push(submission);
        let host_bytes = self
            .bytes
            .get(start + HOST)
            .map_or(0, |bytes| usize::from(*bytes));
        let flags = start + HOST + 1 + host_bytes + 8 + 8;
        if let Some(flags) = self.bytes.get_mut(flags) {
            *flags |= CUTS_AHEAD;
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// The group as it is stored, with its checksum.
    pub fn seal(mut self) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.bytes[HEAD_BYTES..]);
        self.bytes[1..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// Reads every submission of a stored group, or nothing of it.
pub fn read_group(bytes: &[u8]) -> Result<Vec<SubmissionView<'_>>, Corrupt> {
    let (head, mut rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(Corrupt)?;
    if head[0] != VERSION || head[1..] != crc32fast::hash(rest).to_le_bytes() {
        return Err(Corrupt);
    }
    let mut submissions = Vec::new();
    while !rest.is_empty() {
        let (submission, behind) = SubmissionView::read(rest)?;
        submissions.push(submission);
        rest = behind;
    }
    Ok(submissions)
}

/// A submission, read in place.
#[derive(Debug, Clone, Copy)]
pub struct SubmissionView<'a> {
    /// Whose records these are: a node name.
    pub host: &'a str,
    /// When the certificate they came with ends: epoch seconds.
    pub certificate_end: u64,
    /// When the receiver took them: epoch seconds.
    pub taken_at: u64,
    /// Who numbered them.
    pub producer: Option<ProducerId>,
    /// Whether the clock was known to be steady, and what lies further ahead of it than any sample may goes first.
    pub cuts_ahead: bool,
    count: usize,
    records: Reader<'a>,
}

/// A record, read in place.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Its number; none without a producer.
    pub seq: Option<Seq>,
    /// The second it was measured at.
    pub epoch: u64,
    count: usize,
    values: Reader<'a>,
}

impl<'a> SubmissionView<'a> {
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Corrupt> {
        let mut outer = Reader(bytes);
        let length = outer.u32()? as usize;
        let mut reader = Reader(outer.take(length)?);
        let host = reader.text()?;
        let certificate_end = reader.u64()?;
        let taken_at = reader.u64()?;
        let flags = reader.u8()?;
        if flags > (HAS_PRODUCER | CUTS_AHEAD) {
            return Err(Corrupt);
        }
        let producer = match flags & HAS_PRODUCER {
            0 => None,
            _ => Some(ProducerId::from_bytes(reader.array()?)),
        };
        let count = reader.u32()? as usize;
        let view = Self {
            host,
            certificate_end,
            taken_at,
            producer,
            cuts_ahead: flags & CUTS_AHEAD != 0,
            count,
            records: reader,
        };
        Ok((view, outer.0))
    }

    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Corrupt> {
        let (view, rest) = Self::parse(bytes)?;
        view.check()?;
        Ok((view, rest))
    }

    /// Walks through everything once, so that the iterators need not fail.
    fn check(&self) -> Result<(), Corrupt> {
        host_of(self.host)?;
        let mut reader = self.records;
        for _ in 0..self.count {
            let record = RecordView::read(&mut reader)?;
            if record.seq.is_some() != self.producer.is_some() {
                return Err(Corrupt);
            }
            let mut values = record.values;
            for _ in 0..record.count {
                let (label, value) = values.value()?;
                Label::new(label).map_err(|_| Corrupt)?;
                Value::new(value).ok_or(Corrupt)?;
            }
        }
        let count = usize::from(reader.u16()?);
        for _ in 0..count {
            let (from, to, why) = reader.dropped()?;
            Label::new(why).map_err(|_| Corrupt)?;
            if from == 0 || to < from || self.producer.is_none() {
                return Err(Corrupt);
            }
        }
        if reader.0.is_empty() {
            Ok(())
        } else {
            Err(Corrupt)
        }
    }

    /// The numbers that were given up: first, last, why.
    pub fn dropped(&self) -> impl Iterator<Item = (u64, u64, &'a str)> + use<'a> {
        let mut reader = self.records;
        for _ in 0..self.count {
            let _skipped = RecordView::read(&mut reader);
        }
        let count = reader.u16().map_or(0, usize::from);
        (0..count).map_while(move |_| reader.dropped().ok())
    }

    /// The records, in the order they were sent.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'a>> + use<'a> {
        let mut reader = self.records;
        (0..self.count).map_while(move |_| RecordView::read(&mut reader).ok())
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> RecordView<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Corrupt> {
        let seq = match reader.u64()? {
            0 => None,
            number => Some(Seq::new(number).ok_or(Corrupt)?),
        };
        let epoch = reader.u64()?;
        let count = usize::from(reader.u16()?);
        let values = *reader;
        for _ in 0..count {
            reader.value()?;
        }
        Ok(Self {
            seq,
            epoch,
            count,
            values,
        })
    }

    /// Label and value, in the order they were sent.
    pub fn values(&self) -> impl Iterator<Item = (&'a str, f64)> + use<'a> {
        let mut reader = self.values;
        (0..self.count).map_while(move |_| reader.value().ok())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn host_of(text: &str) -> Result<NodeName, Corrupt> {
    text.parse().map_err(|_| Corrupt)
}

#[derive(Debug, Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Corrupt)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        self.take(N)?.try_into().map_err(|_| Corrupt)
    }

    fn u8(&mut self) -> Result<u8, Corrupt> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Corrupt> {
        self.array().map(u16::from_le_bytes)
    }

    fn dropped(&mut self) -> Result<(u64, u64, &'a str), Corrupt> {
        Ok((self.u64()?, self.u64()?, self.text()?))
    }

    fn u32(&mut self) -> Result<u32, Corrupt> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Corrupt> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a str, Corrupt> {
        let length = usize::from(self.u8()?);
        std::str::from_utf8(self.take(length)?).map_err(|_| Corrupt)
    }

    fn value(&mut self) -> Result<(&'a str, f64), Corrupt> {
        Ok((self.text()?, f64::from_le_bytes(self.array()?)))
    }
}

/// Names and labels are at most 200 and 128 bytes by their types, so their length always fits.
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

fn push_u32(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use lizmon_protocol::sample::parse_batch;
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
        group.seal()
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
        group.push_cutting(&submission("db1"));
        group.push_cutting(&unnumbered);
        let bytes = group.seal();
        let told: Vec<_> = read_group(&bytes)
            .unwrap()
            .iter()
            .map(|s| (s.host, s.cuts_ahead, s.producer.is_some(), s.len()))
            .collect();
        let expected = [
            ("web1", false, true, 2),
            ("db1", true, true, 2),
            ("a", true, false, 0),
        ];
        assert_eq!(told, expected);
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
