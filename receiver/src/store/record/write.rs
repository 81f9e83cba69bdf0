//! Encodes submissions, and groups of them.

use std::ops::Range;

use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::sample::{Dropped, Epoch, ProducerId, RecordSink, SampleSet, Seq, Value};

use super::super::document::StoredDocument;
use super::format::{
    HAS_DOCUMENT, HAS_POINTS, HAS_PRODUCER, HEAD_BYTES, IS_REPAIR, LONG_LABEL, RECORD_HEAD_BYTES,
    REMOVES_AHEAD, VERSION,
};
use super::outline::Outline;
use super::point_number::PointNumber;
use super::view::{Corrupt, SubmissionView};

/// Everything one request sent, encoded as it is queued, journaled and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    bytes: Vec<u8>,
    /// Where the records begin, behind their number, and where they end.
    records: Range<usize>,
    outline: Outline,
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
        push_u32(&mut bytes, 0);
        Self {
            records: bytes.len()..bytes.len(),
            outline: Outline::default(),
            bytes,
        }
    }

    /// A submission of nothing but a document; one with an empty body removes it.
    pub fn of_document(
        host: &NodeName,
        certificate_end: u64,
        taken_at: u64,
        document: &StoredDocument,
    ) -> Self {
        let none = std::iter::empty::<(Option<Seq>, Epoch, &SampleSet<'_>)>();
        let mut submission = Self::new(host, certificate_end, None, taken_at).with_records(none);
        set_flag(&mut submission.bytes, HAS_DOCUMENT);
        submission.bytes.push(document.kind.number());
        push_u32(&mut submission.bytes, document.body.len());
        submission.bytes.extend_from_slice(&document.body);
        submission.end();
        submission
    }

    /// A submission of points: for each number, labels and values. A number that cannot be stored is
    /// left out.
    pub fn of_points<'a>(
        host: &NodeName,
        certificate_end: u64,
        taken_at: u64,
        points: impl Iterator<Item = (PointNumber, &'a [(Label<'a>, Value)])>,
    ) -> Self {
        let mut encoder = RecordEncoder::new(Self::new(host, certificate_end, None, taken_at));
        for (number, values) in points {
            let Some((seq, epoch)) = number.stored() else {
                continue;
            };
            // A record has so many at most.
            for values in values.chunks(usize::from(u16::MAX)) {
                for (label, value) in values {
                    encoder.push_value(label.as_str(), *value);
                }
                encoder.end(Some(seq), epoch);
            }
        }
        let mut submission = encoder.finish(&[]);
        set_flag(&mut submission.bytes, HAS_POINTS);
        submission
    }

    /// Adds the records, which ends the submission.
    pub fn with_records<'a, I>(self, records: I) -> Self
    where
        I: ExactSizeIterator<Item = (Option<Seq>, Epoch, &'a SampleSet<'a>)>,
    {
        self.with_records_and_dropped(records, &[])
    }

    /// Adds the records and the dropped numbers, which ends the submission.
    pub fn with_records_and_dropped<'a, I>(self, records: I, dropped: &[Dropped]) -> Self
    where
        I: ExactSizeIterator<Item = (Option<Seq>, Epoch, &'a SampleSet<'a>)>,
    {
        let mut encoder = RecordEncoder::new(self);
        for (seq, epoch, values) in records {
            for (label, value) in values.iter() {
                encoder.push_value(label.as_str(), *value);
            }
            encoder.end(seq, epoch);
        }
        encoder.finish(dropped)
    }

    /// Writes the length, which comes first.
    fn end(&mut self) {
        let length = u32::try_from(self.bytes.len() - 4).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
    }

    /// The same as a repair of a producer's records.
    pub fn as_repair(mut self) -> Self {
        set_flag(&mut self.bytes, IS_REPAIR);
        self
    }

    /// The submission as it is encoded in a group.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was submitted. It was encoded from checked values, so it is not checked again.
    pub fn view(&self) -> Result<SubmissionView<'_>, Corrupt> {
        SubmissionView::of_encoded(&self.bytes, self.records.clone(), self.outline)
    }
}

/// Encodes records as they are read: see [`Submission`].
#[derive(Debug)]
pub struct RecordEncoder {
    submission: Submission,
    /// Where the record before begins, and the one whose values come.
    before: usize,
    record: usize,
    /// How many values it has so far, and whether their labels are those of the record before.
    values: u16,
    has_same_labels: bool,
    count: u32,
}

impl RecordEncoder {
    /// Encodes the records of a new submission.
    pub fn new(submission: Submission) -> Self {
        let mut encoder = Self {
            before: submission.bytes.len(),
            record: submission.bytes.len(),
            submission,
            values: 0,
            has_same_labels: true,
            count: 0,
        };
        encoder.begin();
        encoder
    }

    /// The same, with room for what is usually in so many bytes of JSON.
    pub fn with_room(mut submission: Submission, json_bytes: usize) -> Self {
        submission.bytes.reserve(json_bytes / 3 * 2);
        Self::new(submission)
    }

    /// Makes room for the numbers before a record's values.
    fn begin(&mut self) {
        let bytes = &mut self.submission.bytes;
        self.before = std::mem::replace(&mut self.record, bytes.len());
        bytes.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
        (self.values, self.has_same_labels) = (0, true);
    }

    fn end(&mut self, seq: Option<Seq>, epoch: Epoch) {
        let (seq, epoch) = (seq.map_or(0, Seq::get), epoch.secs());
        let (head, _) = self.submission.bytes[self.record..].split_at_mut(RECORD_HEAD_BYTES);
        head[..8].copy_from_slice(&seq.to_le_bytes());
        head[8..16].copy_from_slice(&epoch.to_le_bytes());
        head[16..].copy_from_slice(&self.values.to_le_bytes());
        // One with fewer values than the one before has not the same.
        let values_before = &self.submission.bytes[self.before + 16..][..2];
        let has_same_labels = self.has_same_labels && values_before == self.values.to_le_bytes();
        self.submission.outline.add(seq, epoch, has_same_labels);
        self.count += 1;
        self.begin();
    }

    /// Numbered by this producer, as the submission must have been begun.
    pub fn set_producer(&mut self, producer: ProducerId) {
        let end = self.submission.records.start - size_of::<u32>();
        let bytes = producer.as_bytes();
        self.submission.bytes[end - bytes.len()..end].copy_from_slice(bytes);
    }

    /// Ends the submission with the dropped numbers.
    pub fn finish(self, dropped: &[Dropped]) -> Submission {
        let Self {
            mut submission,
            record,
            count,
            ..
        } = self;
        let Submission { bytes, records, .. } = &mut submission;
        bytes.truncate(record);
        records.end = record;
        bytes[records.start - size_of::<u32>()..records.start]
            .copy_from_slice(&count.to_le_bytes());
        // Far fewer than fit: the limit is in the protocol.
        let count = u16::try_from(dropped.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        for Dropped { from, to, why } in &dropped[..usize::from(count)] {
            bytes.extend_from_slice(&from.get().to_le_bytes());
            bytes.extend_from_slice(&to.get().to_le_bytes());
            push_text(bytes, why.as_str());
        }
        submission.end();
        submission
    }
}

impl RecordSink for RecordEncoder {
    fn push_value(&mut self, label: &str, value: Value) {
        // Far fewer than fit: the limit is in the protocol.
        let Some(values) = self.values.checked_add(1) else {
            return;
        };
        self.values = values;
        let bytes = &mut self.submission.bytes;
        let at = bytes.len();
        push_label(bytes, label);
        // With the same labels so far it would stand at the same place of the record before.
        let in_before = self.before + (at - self.record);
        let (end, len) = (bytes.len(), bytes.len() - at);
        self.has_same_labels &= bytes.get(in_before..in_before + len) == Some(&bytes[at..end]);
        bytes.extend_from_slice(&value.get().to_le_bytes());
    }

    fn end_record(&mut self, seq: Seq, epoch: Epoch) {
        self.end(Some(seq), epoch);
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
    /// Adds a submission after the others. The group must not be sealed.
    pub fn push(&mut self, submission: &Submission) {
        self.bytes.extend_from_slice(submission.as_bytes());
    }

    /// The same, and samples ahead of it are removed first: see [`SubmissionView::removes_ahead`].
    pub fn push_removing_ahead(&mut self, submission: &Submission) {
        let start = self.bytes.len();
        self.push(submission);
        set_flag(&mut self.bytes[start..], REMOVES_AHEAD);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// Adds an encoded submission, with its flags.
    pub(super) fn push_encoded(&mut self, submission: &[u8]) {
        self.bytes.extend_from_slice(submission);
    }

    /// The group as it was sealed.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The group as it is stored, with its checksum.
    pub fn seal(&mut self) -> &[u8] {
        let checksum = crc32fast::hash(&self.bytes[HEAD_BYTES..]);
        self.bytes[1..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        &self.bytes
    }

    /// Empties it and keeps up to so many bytes of its memory.
    pub(super) fn clear(&mut self, bytes_kept_max: usize) {
        self.bytes.truncate(HEAD_BYTES);
        self.bytes.shrink_to(bytes_kept_max);
    }
}

/// Sets a flag of an encoded submission.
fn set_flag(submission: &mut [u8], flag: u8) {
    const HOST: usize = 4;
    let host_bytes = submission.get(HOST).map_or(0, |bytes| usize::from(*bytes));
    if let Some(flags) = submission.get_mut(HOST + 1 + host_bytes + 8 + 8) {
        *flags |= flag;
    }
}

/// The limit of labels is far below what a length of two bytes says.
fn push_label(bytes: &mut Vec<u8>, label: &str) {
    match u8::try_from(label.len()) {
        Ok(length) if length < LONG_LABEL => bytes.push(length),
        _ => {
            bytes.push(LONG_LABEL);
            bytes.extend_from_slice(&(label.len() as u16).to_le_bytes());
        }
    }
    bytes.extend_from_slice(label.as_bytes());
}

/// Names and reasons are at most 200 and 128 bytes by their types, so their length always fits.
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

fn push_u32(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}
