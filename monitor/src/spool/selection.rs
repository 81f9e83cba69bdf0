//! What a destination gets next: the newest at once, the oldest beside them.

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Dropped, Epoch, Record, SampleSet, Seq, parse_sample_set};

use super::backend::{SpoolBackend, StoredRecord};
use super::producer_log::LogKind;
use super::ranges::Ranges;
use super::{Event, Spool, StoredBatch, drop_reason};

/// While a destination has so many ranges settled, it gets the oldest records only: that closes gaps.
const RANGES_MAX: usize = 64;
/// Reports told at once.
const REPORTS_MAX: usize = 128;

impl<K: SpoolBackend> Spool<K> {
    /// At most so many of the newest records, if the very newest is among them, and so many of the oldest; nothing where there
    /// is nothing. A `newest_max` of 0 asks for the oldest only: the same ones each time, until they are settled.
    pub fn next_batch(
        &mut self,
        destination: usize,
        newest_max: usize,
        oldest_max: usize,
    ) -> Option<StoredBatch> {
        for at in (0..self.logs.len()).rev() {
            if let Some(newest) = self.newest(at, destination, newest_max)
                && let Some(batch) = self.batch_of(at, destination, Some(newest), oldest_max)
            {
                return Some(batch);
            }
        }
        if oldest_max == 0 {
            return None;
        }
        (0..self.logs.len()).find_map(|at| self.batch_of(at, destination, None, oldest_max))
    }

    /// The last of the numbers that may be sent, as far as they are not settled and go together.
    fn newest(&self, at: usize, destination: usize, records_max: usize) -> Option<(u64, u64)> {
        let log = &self.logs[at];
        let ranges = log.destinations[destination].done.as_slice().len();
        if log.kind == LogKind::Closed || records_max == 0 || ranges > RANGES_MAX {
            return None;
        }
        let (from, to) = log.pending_ranges(destination).next_back()?;
        let is_newest = to + 1 == log.sendable_below;
        is_newest.then(|| (from.max((to + 1).saturating_sub(records_max as u64)), to))
    }

    fn batch_of(
        &mut self,
        at: usize,
        destination: usize,
        newest: Option<(u64, u64)>,
        oldest_max: usize,
    ) -> Option<StoredBatch> {
        let newest_count = newest.map_or(0, |(from, to)| to - from + 1);
        let below = newest.map_or(u64::MAX, |(from, _)| from);
        let pending_ranges: Vec<_> = self.logs[at].pending_ranges(destination).collect();
        let mut room =
            oldest_max.saturating_sub(usize::try_from(newest_count).unwrap_or(oldest_max));
        let mut records = Vec::new();
        for (from, to) in pending_ranges {
            let to = to.min(below - 1);
            if room == 0 || to < from {
                break;
            }
            let more = self.fetch(at, from, to, room);
            room -= more.len();
            records.extend(more);
        }
        if let Some((from, to)) = newest {
            records.extend(self.fetch(at, from, to, usize::MAX));
        }
        let log = &self.logs[at];
        let reports = log.destinations[destination].unreported_drops.iter();
        let reports = reports.filter_map(|(from, to, why)| {
            Some(Dropped {
                from: Seq::new(*from)?,
                to: Seq::new(*to)?,
                why: Label::new(why.clone()).ok()?,
            })
        });
        let dropped: Vec<_> = reports.take(REPORTS_MAX).collect();
        let is_empty = records.is_empty() && dropped.is_empty();
        (!is_empty).then_some(StoredBatch {
            producer: log.producer,
            records,
            dropped,
        })
    }

    /// The first so many of these numbers' records. Those that should be there and are not are given up.
    fn fetch(&mut self, at: usize, from: u64, to: u64, records_max: usize) -> Vec<Record<'static>> {
        let log = &self.logs[at];
        let first_unsaved = log.first_unsaved();
        let stored_to = to.min(first_unsaved - 1);
        let mut records = Vec::new();
        if from <= stored_to {
            match self
                .backend
                .read(log.producer, from, stored_to, records_max)
            {
                Ok(kept) => {
                    self.unreadable = None;
                    let is_all = kept.len() < records_max;
                    let last = kept.last().map_or(0, |kept| kept.seq);
                    records.extend(kept.iter().filter_map(to_record));
                    self.drop_missing(at, from, if is_all { stored_to } else { last }, &records);
                }
                Err(error) => self.report_unreadable(&error.to_string()),
            }
        }
        let room = records_max - records.len();
        let in_tail = self.logs[at].unsaved.iter();
        let in_tail = in_tail.filter(|kept| (from..=to).contains(&kept.seq));
        records.extend(in_tail.filter_map(to_record).take(room));
        records
    }

    fn drop_missing(&mut self, at: usize, from: u64, to: u64, found: &[Record<'_>]) {
        let mut there = Ranges::default();
        for record in found {
            there.insert(record.seq.get(), record.seq.get());
        }
        let mut lost = 0;
        for (from, to) in there.gaps(from, to) {
            lost += self.logs[at].drop_everywhere(from, to, drop_reason::DAMAGED);
        }
        self.count_dropped(lost, drop_reason::DAMAGED);
        if lost > 0 {
            self.logs[at].trim();
        }
    }

    fn report_unreadable(&mut self, error: &str) {
        if self.unreadable.as_deref() != Some(error) {
            self.unreadable = Some(error.to_owned());
            self.events.push(Event::Unreadable(error.to_owned()));
        }
    }
}

/// None where it is not what we write.
fn to_record(kept: &StoredRecord) -> Option<Record<'static>> {
    let values = parse_sample_set(&kept.values).ok()?;
    let owned = values
        .iter()
        .map(|(label, value)| (label.clone().into_owned(), *value));
    Some(Record {
        seq: Seq::new(kept.seq)?,
        epoch: Epoch::new(kept.epoch)?,
        values: SampleSet::new(owned.collect()),
    })
}
