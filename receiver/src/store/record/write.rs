//! Encodes submissions, and groups of them.

use lizmon_protocol::name::NodeName;
use lizmon_protocol::sample::{Dropped, Epoch, ProducerId, SampleSet, Seq};

use super::super::document::StoredDocument;
use super::format::{HAS_DOCUMENT, HAS_PRODUCER, HEAD_BYTES, IS_REPAIR, REMOVES_AHEAD, VERSION};
use super::view::{Corrupt, SubmissionView};

/// Everything one request sent, encoded as it is queued, journaled and applied.
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

    /// Adds the records, which ends the submission.
    pub fn with_records<'a, I>(self, records: I) -> Self
    where
        I: ExactSizeIterator<Item = (Option<Seq>, Epoch, &'a SampleSet<'a>)>,
    {
        self.with_records_and_dropped(records, &[])
    }

    /// Adds the records and the dropped numbers, which ends the submission.
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
        self.end();
        self
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

    fn push_u64(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// Values of a record and dropped ranges of a batch are far fewer than fit: their limits are in
    /// the protocol.
    fn push_count(&mut self, count: usize) -> usize {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&count.to_le_bytes());
        usize::from(count)
    }

    /// The submission as it is encoded in a group.
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

/// Names and labels are at most 200 and 128 bytes by their types, so their length always fits.
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

fn push_u32(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}
