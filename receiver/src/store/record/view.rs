//! Reads submissions in place.

use std::ops::Range;

use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::sample::{ProducerId, Seq, Value};

use super::super::document::{DOCUMENT_BYTES_MAX, DocumentKind, StoredDocument};
use super::format::{
    HAS_DOCUMENT, HAS_POINTS, HAS_PRODUCER, HEAD_BYTES, IS_REPAIR, LONG_LABEL, REMOVES_AHEAD,
    VERSION,
};
use super::outline::Outline;
use super::point_number::PointNumber;

/// Bytes that this module did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journal record of this version, or a damaged one")]
pub struct Corrupt;

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
    /// The host of the records: a node name.
    pub host: &'a str,
    /// When the certificate they came with ends: epoch seconds.
    pub certificate_end: u64,
    /// When the receiver received them: epoch seconds.
    pub taken_at: u64,
    /// The producer that numbered them.
    pub producer: Option<ProducerId>,
    /// Whether the clock was known to be steady, and what lies further ahead of it than any sample
    /// may is removed first.
    pub removes_ahead: bool,
    /// Whether the records had been acknowledged here before, and were lost.
    pub is_repair: bool,
    /// Whether the records are points, which are numbered by their times.
    pub has_points: bool,
    has_document: bool,
    count: usize,
    records: Reader<'a>,
    behind_records: Reader<'a>,
    outline: Outline,
}

/// A record, read in place.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Its number, or that of its points; none without a producer.
    pub seq: Option<Seq>,
    /// The second it was measured at.
    pub epoch: u64,
    count: usize,
    values: Reader<'a>,
}

impl<'a> SubmissionView<'a> {
    /// What was encoded a moment ago: nothing is checked, and no record is read.
    pub(super) fn of_encoded(
        bytes: &'a [u8],
        records: Range<usize>,
        outline: Outline,
    ) -> Result<Self, Corrupt> {
        let (mut view, _) = Self::read_head(bytes)?;
        view.behind_records = Reader(bytes.get(records.end..).ok_or(Corrupt)?);
        view.outline = outline;
        Ok(view)
    }

    /// Reads everything once, so that the iterators cannot fail.
    pub(super) fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Corrupt> {
        let (mut view, rest) = Self::read_head(bytes)?;
        view.check()?;
        Ok((view, rest))
    }

    /// What comes before the records, and what is behind the submission.
    fn read_head(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Corrupt> {
        let mut outer = Reader(bytes);
        let length = outer.u32()? as usize;
        let mut reader = Reader(outer.take(length)?);
        let host = reader.text()?;
        let certificate_end = reader.u64()?;
        let taken_at = reader.u64()?;
        let flags = reader.u8()?;
        if flags > (HAS_PRODUCER | REMOVES_AHEAD | IS_REPAIR | HAS_DOCUMENT | HAS_POINTS) {
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
            removes_ahead: flags & REMOVES_AHEAD != 0,
            is_repair: flags & IS_REPAIR != 0,
            has_points: flags & HAS_POINTS != 0,
            has_document: flags & HAS_DOCUMENT != 0,
            count,
            records: reader,
            behind_records: reader,
            outline: Outline::default(),
        };
        Ok((view, outer.0))
    }

    fn check(&mut self) -> Result<(), Corrupt> {
        host_of(self.host)?;
        if self.is_repair && self.producer.is_none() || self.has_points && self.producer.is_some() {
            return Err(Corrupt);
        }
        let mut reader = self.records;
        let mut before = None;
        for _ in 0..self.count {
            let record = RecordView::read(&mut reader)?;
            if record.seq.is_some() != (self.producer.is_some() || self.has_points) {
                return Err(Corrupt);
            }
            let number = record.point_number().and_then(PointNumber::stored);
            if self.has_points && number.is_none_or(|(_, epoch)| epoch.secs() != record.epoch) {
                return Err(Corrupt);
            }
            let mut values = record.values;
            for _ in 0..record.count {
                let (label, value) = values.value()?;
                check_label(label, self.has_points)?;
                Value::new(value).ok_or(Corrupt)?;
            }
            let has_same_labels = before.is_some_and(|before| record.has_labels_of(&before));
            let seq = record.seq.map_or(0, Seq::get);
            self.outline.add(seq, record.epoch, has_same_labels);
            before = Some(record);
        }
        self.behind_records = reader;
        let count = usize::from(reader.u16()?);
        for _ in 0..count {
            let (from, to, why) = reader.dropped()?;
            Label::new(why).map_err(|_| Corrupt)?;
            if from == 0 || to < from || self.producer.is_none() {
                return Err(Corrupt);
            }
        }
        if self.has_document {
            reader.document()?;
        }
        if reader.0.is_empty() {
            Ok(())
        } else {
            Err(Corrupt)
        }
    }

    /// What is known of the records as a whole.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The numbers that were dropped: first, last, why.
    pub fn dropped(&self) -> impl Iterator<Item = (u64, u64, &'a str)> + use<'a> {
        let mut reader = self.behind_records;
        let count = reader.u16().map_or(0, usize::from);
        (0..count).map_while(move |_| reader.dropped().ok())
    }

    /// The document that was sent.
    pub fn document(&self) -> Option<StoredDocument> {
        if !self.has_document {
            return None;
        }
        let mut reader = self.behind_records;
        for _ in 0..reader.u16().ok()? {
            reader.dropped().ok()?;
        }
        let (kind, body) = reader.document().ok()?;
        Some(StoredDocument {
            kind,
            body: body.into(),
        })
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
            reader.number()?;
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

    /// The values alone, in the same order.
    pub fn numbers(&self) -> impl Iterator<Item = f64> + use<'a> {
        let mut reader = self.values;
        (0..self.count).map_while(move |_| reader.number().ok())
    }

    /// Time and kind of its points, where it has points.
    pub fn point_number(&self) -> Option<PointNumber> {
        self.seq.and_then(PointNumber::read)
    }

    fn has_labels_of(&self, other: &Self) -> bool {
        let labels = |of: &Self| of.values().map(|(label, _)| label);
        self.count == other.count && labels(self).eq(labels(other))
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

fn check_label(text: &str, is_of_points: bool) -> Result<(), Corrupt> {
    let checked = match is_of_points {
        true => Label::of_series(text),
        false => Label::new(text),
    };
    checked.map(drop).map_err(|_| Corrupt)
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

    fn document(&mut self) -> Result<(DocumentKind, &'a [u8]), Corrupt> {
        let kind = DocumentKind::from_number(self.u8()?).ok_or(Corrupt)?;
        let length = self.u32()? as usize;
        if length > DOCUMENT_BYTES_MAX {
            return Err(Corrupt);
        }
        Ok((kind, self.take(length)?))
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

    /// Passes a value over, and does not look at its label.
    fn number(&mut self) -> Result<f64, Corrupt> {
        self.label()?;
        self.array().map(f64::from_le_bytes)
    }

    fn label(&mut self) -> Result<&'a [u8], Corrupt> {
        let length = match self.u8()? {
            LONG_LABEL => usize::from(self.u16()?),
            short => usize::from(short),
        };
        self.take(length)
    }

    fn value(&mut self) -> Result<(&'a str, f64), Corrupt> {
        let label = std::str::from_utf8(self.label()?).map_err(|_| Corrupt)?;
        Ok((label, f64::from_le_bytes(self.array()?)))
    }
}
