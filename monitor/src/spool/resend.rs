//! Repair: a destination gets again what it had acknowledged and has lost.
//!
//! What it reports missing is not believed further than this spool knows better: only numbers that
//! it has acknowledged, and whose records are kept, are sent again.

use lizmon_protocol::delivery::{Delivery, ProducerDelivery};
use lizmon_protocol::sample::{Batch, ProducerId, Seq};

use super::backend::{BackendError, SpoolBackend, StoredRecord};
use super::drop_reason;
use super::event::Event;
use super::queue::{Spool, StoredBatch};
use super::ranges::Ranges;

/// Ranges of one producer that are considered: more than any receiver keeps. The next report has
/// the rest.
const RANGES_READ_MAX: usize = 4096;

impl<B: SpoolBackend> Spool<B> {
    /// Takes what a destination says it has, which is nothing at all of a producer that it does not
    /// name. Returns how many records will be sent to it again. Nothing that was sent to it may
    /// still be unanswered.
    pub fn plan_repair(&mut self, destination: usize, delivery: &Delivery) -> u64 {
        let mut planned = 0;
        for log in &mut self.logs {
            let of_log = |told: &&ProducerDelivery| told.producer == log.producer;
            let told: Vec<_> = delivery.producers.iter().filter(of_log).collect();
            let to_repair = absent(&log.destinations[destination].acknowledged, &told);
            planned += to_repair.count();
            log.to_repair[destination] = to_repair;
        }
        planned
    }

    /// A destination has forgotten that it was told what was dropped, by what it says: it is told
    /// again.
    pub fn repeat_reports(&mut self, destination: usize, delivery: &Delivery) {
        for log in &mut self.logs {
            let of_log = |told: &&ProducerDelivery| told.producer == log.producer;
            let told: Vec<_> = delivery.producers.iter().filter(of_log).collect();
            let mut reported = Ranges::default();
            for drop in &log.destinations[destination].reported_drops {
                reported.insert(drop.from, drop.to);
            }
            log.report_again(destination, &absent(&reported, &told));
        }
    }

    /// A destination has lost what it had, by what it says: its data began anew, or is older than
    /// it was. What is done and will not be sent again is reported to it. Returns how many records
    /// these are.
    pub fn report_lost(&mut self, destination: usize, delivery: &Delivery) -> u64 {
        let mut lost = 0;
        for log in &mut self.logs {
            let of_log = |told: &&ProducerDelivery| told.producer == log.producer;
            let told: Vec<_> = delivery.producers.iter().filter(of_log).collect();
            let mut beyond_repair = absent(&log.destinations[destination].done, &told);
            for (from, to) in log.to_repair[destination].as_slice() {
                beyond_repair.remove(*from, *to);
            }
            lost += log.report_missing(destination, &beyond_repair);
        }
        lost
    }

    /// The same of what was never delivered to a destination, as far as it is kept: a store that a
    /// failover set back has lost the report, and its receiver was not restarted. What was
    /// delivered and is lost is not called dropped then.
    pub fn report_drops_again(&mut self, destination: usize, delivery: &Delivery) {
        for log in &mut self.logs {
            let of_log = |told: &&ProducerDelivery| told.producer == log.producer;
            let told: Vec<_> = delivery.producers.iter().filter(of_log).collect();
            let progress = &log.destinations[destination];
            let mut dropped = absent(&progress.done, &told);
            if log.first > 1 {
                dropped.remove(1, log.first - 1);
            }
            for (from, to) in progress.acknowledged.as_slice() {
                dropped.remove(*from, *to);
            }
            log.report_missing(destination, &dropped);
        }
    }

    /// How many records are still to be sent again to a destination.
    pub fn to_repair(&self, destination: usize) -> u64 {
        let logs = self.logs.iter();
        logs.map(|log| log.to_repair[destination].count()).sum()
    }

    /// The next records to be sent again; none where there are none. Those of `too_old` and before
    /// are reported as dropped instead. They are given again until [`Spool::on_repaired`].
    pub fn next_repair(
        &mut self,
        destination: usize,
        records_max: usize,
        too_old: Option<u64>,
    ) -> Option<StoredBatch> {
        for at in 0..self.logs.len() {
            let ranges = self.logs[at].to_repair[destination].as_slice().to_vec();
            let mut records = Vec::new();
            for (from, to) in ranges {
                let left = records_max - records.len();
                if left == 0 {
                    break;
                }
                let Ok(more) = self.read_kept(at, from, to, left) else {
                    break;
                };
                let last = more.last().filter(|_| more.len() == left);
                let last = last.map_or(to, |record| record.seq.get());
                self.forget_unread(at, from, last, &more);
                records.extend(more);
            }
            let is_too_old =
                |record: &StoredRecord| too_old.is_some_and(|last| record.epoch.secs() <= last);
            let old = records.extract_if(.., |record| is_too_old(record));
            let old: Vec<_> = old.map(|record| record.seq).collect();
            let producer = self.logs[at].producer;
            self.refuse_repair(destination, producer, &old, drop_reason::TOO_OLD);
            if !old.is_empty() {
                self.events.push(Event::RecordsDropped {
                    records: old.len() as u64,
                    why: drop_reason::TOO_OLD,
                });
            }
            if !records.is_empty() {
                return Some(Batch {
                    producer,
                    records,
                    dropped: Vec::new(),
                    repair: true,
                });
            }
        }
        None
    }

    /// A destination has these again, or says that it had not lost them.
    pub fn on_repaired(&mut self, destination: usize, batch: &StoredBatch) {
        let seqs = batch.records.iter().map(|record| record.seq);
        self.postpone_repair(destination, batch.producer, seqs);
    }

    /// These are not sent again now. If they are missing at the next report, they are.
    pub fn postpone_repair(
        &mut self,
        destination: usize,
        producer: ProducerId,
        seqs: impl Iterator<Item = Seq>,
    ) {
        if let Some(log) = self.log_of(producer) {
            for seq in seqs {
                log.to_repair[destination].remove(seq.get(), seq.get());
            }
        }
    }

    /// A destination will never take these again. It is told so, with this reason.
    pub fn refuse_repair(
        &mut self,
        destination: usize,
        producer: ProducerId,
        seqs: &[Seq],
        why: &str,
    ) {
        let Some(log) = self.log_of(producer).filter(|_| !seqs.is_empty()) else {
            return;
        };
        for seq in seqs.iter().map(|seq| seq.get()) {
            log.to_repair[destination].remove(seq, seq);
            let progress = &mut log.destinations[destination];
            progress.acknowledged.remove(seq, seq);
            progress.add_report(seq, seq, why);
        }
        log.is_dirty = true;
        self.dropped_records += seqs.len() as u64;
    }

    /// Nothing is sent again before the destination has said once more what it misses.
    pub fn discard_repair_plan(&mut self, destination: usize) {
        for log in &mut self.logs {
            log.to_repair[destination] = Ranges::default();
        }
    }

    /// The first so many of these numbers' records, as far as they are there.
    fn read_kept(
        &mut self,
        at: usize,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<StoredRecord>, BackendError> {
        let log = &self.logs[at];
        let stored_to = to.min(log.first_unsaved() - 1);
        let mut records = Vec::new();
        if from <= stored_to {
            let read = self
                .backend
                .read(log.producer, from, stored_to, records_max);
            if let Err(error) = &read {
                self.report_unreadable(&error.to_string());
            }
            records = read?;
        }
        let left = records_max - records.len();
        let unsaved = self.logs[at].unsaved.iter();
        let unsaved = unsaved.filter(|record| (from..=to).contains(&record.seq.get()));
        records.extend(unsaved.take(left).cloned());
        Ok(records)
    }

    /// The numbers among these that have no record will not be sent to anybody.
    fn forget_unread(&mut self, at: usize, from: u64, to: u64, found: &[StoredRecord]) {
        let mut there = Ranges::default();
        for record in found {
            there.insert(record.seq.get(), record.seq.get());
        }
        for (from, to) in there.gaps(from, to) {
            self.logs[at].forget_acknowledged(from, to);
            self.logs[at].is_dirty = true;
        }
    }
}

/// Those `numbers` that a destination does not have, by what it `told` of their producer, and that
/// it does not know to be dropped.
fn absent(numbers: &Ranges, told: &[&ProducerDelivery]) -> Ranges {
    if told.is_empty() {
        return numbers.clone();
    }
    let mut absent = Ranges::default();
    for told in told {
        let above = told
            .highest
            .map(|highest| (highest.saturating_add(1), u64::MAX));
        let ranges = told.missing.iter().copied().take(RANGES_READ_MAX);
        for (from, to) in ranges.chain(above).filter(|(from, to)| from <= to) {
            for (from, to) in numbers.overlap(from, to) {
                absent.insert(from, to);
            }
        }
    }
    for (from, to, _) in told
        .iter()
        .flat_map(|told| told.dropped.iter().take(RANGES_READ_MAX))
    {
        absent.remove(*from, *to);
    }
    absent
}
