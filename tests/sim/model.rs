//! What must be true: a plain list of what each monitor recorded, and of what each receiver has
//! taken.

mod engine_log;
mod history;
mod shared;
mod summaries;

use std::collections::{BTreeMap, HashMap};

use lizmon_monitor::spool::drop_reason;
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::sample::{BatchAnswer, ProducerId};
use lizmon_protocol::summary::Summaries;
use lizmon_receiver::store::record::SubmissionView;
use lizmon_summary::{AHEAD_SECS_MAX, TIERS};

pub(crate) use self::engine_log::{Counted, EngineLog};
use self::shared::SentOnceByLabel;
use crate::Violation;
use crate::monitor::RecordId;

/// One record, as its monitor recorded it.
#[derive(Debug)]
struct Recorded {
    epoch: u64,
    values: Vec<(&'static str, f64)>,
    /// By receiver: whether it was taken.
    is_taken: Vec<bool>,
    /// By receiver: whether it was ahead of the true time then. Such a record may be removed again,
    /// and that is reported.
    is_ahead: Vec<bool>,
    /// By receiver: whether the finest window was over for it then, by a clock that was ahead. It
    /// is counted by hour only.
    is_late: Vec<bool>,
    /// By receiver: whether it was taken once, and forgotten.
    was_forgotten: Vec<bool>,
    /// It may be lost: it was only in the memory of a process that died.
    is_excused: bool,
}

/// Everything about one host.
#[derive(Debug, Default)]
pub(crate) struct HostModel {
    records: BTreeMap<RecordId, Recorded>,
}

/// What the model knows of a sample without a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnnumberedState {
    /// It was sent, and there was no answer.
    Sent,
    /// It was taken, and must be there.
    Taken,
    /// It was not there at the last check, and must not appear any more.
    Gone,
}

/// The records of all monitors, and what the receivers have of them.
#[derive(Debug)]
pub(crate) struct Model {
    hosts: Vec<HostModel>,
    receivers: usize,
    /// By receiver: its time when it took records last.
    took_at: Vec<u64>,
    /// By receiver: the samples without a number that were sent to it, by their labels.
    unnumbered: Vec<HashMap<String, (u64, UnnumberedState)>>,
    /// The same where receivers share a store.
    sent_once: SentOnceByLabel,
    /// Records that a receiver had after a crash though they had not been acknowledged.
    pub(crate) found_after_crash: u64,
}

impl Model {
    pub(crate) fn new(monitors: usize, receivers: usize) -> Self {
        Self {
            hosts: (0..monitors).map(|_| HostModel::default()).collect(),
            receivers,
            took_at: vec![0; receivers],
            unnumbered: vec![HashMap::new(); receivers],
            sent_once: HashMap::new(),
            found_after_crash: 0,
        }
    }

    /// A receiver takes the requests that wait, at this time of its clock.
    pub(crate) fn takes_at(&mut self, receiver: usize, now: u64) {
        self.took_at[receiver] = now;
    }

    /// A monitor has recorded something under this number.
    pub(crate) fn record(
        &mut self,
        monitor: usize,
        id: RecordId,
        epoch: u64,
        values: Vec<(&'static str, f64)>,
    ) -> Result<(), Violation> {
        let recorded = Recorded {
            epoch,
            values,
            is_taken: vec![false; self.receivers],
            is_ahead: vec![false; self.receivers],
            is_late: vec![false; self.receivers],
            was_forgotten: vec![false; self.receivers],
            is_excused: false,
        };
        match self.hosts[monitor].records.insert(id, recorded) {
            None => Ok(()),
            Some(_) => Err(Violation(format!(
                "monitor {monitor} used the number {} twice",
                id.1
            ))),
        }
    }

    /// These may be lost.
    pub(crate) fn excuse(&mut self, monitor: usize, ids: &[RecordId]) {
        for id in ids {
            if let Some(record) = self.hosts[monitor].records.get_mut(id) {
                record.is_excused = true;
            }
        }
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.hosts
            .iter()
            .map(|host| host.records.len() as u64)
            .sum()
    }

    /// A receiver has answered a submission with success.
    pub(crate) fn take(
        &mut self,
        (monitor, receiver): (usize, usize),
        submission: &SubmissionView<'_>,
        answer: BatchAnswer,
        true_now: u64,
    ) -> Result<(), Violation> {
        let mut expected = BatchAnswer {
            accepted: 0,
            duplicate: 0,
        };
        let finest_from = TIERS[0].window_start(self.took_at[receiver]);
        for record in submission.records() {
            let Some(id) = submission.producer.zip(record.seq.map(|seq| seq.get())) else {
                return Err(Violation(format!(
                    "monitor {monitor} sent a record without a number"
                )));
            };
            let Some(known) = self.hosts[monitor].records.get_mut(&id) else {
                return Err(Violation(format!(
                    "monitor {monitor} sent {id:?}, which it never recorded"
                )));
            };
            let values: Vec<_> = record.values().collect();
            if known.epoch != record.epoch || known.values != values {
                return Err(Violation(format!(
                    "monitor {monitor} sent {id:?} with other contents than it recorded"
                )));
            }
            let is_taken = &mut known.is_taken[receiver];
            if *is_taken {
                expected.duplicate += 1;
            } else {
                expected.accepted += 1;
                *is_taken = true;
                known.is_ahead[receiver] = record.epoch > true_now + AHEAD_SECS_MAX;
                known.is_late[receiver] = record.epoch <= finest_from;
            }
        }
        if answer == expected {
            Ok(())
        } else {
            Err(Violation(format!(
                "receiver {receiver} answered {answer:?} to monitor {monitor}, the model says {expected:?}"
            )))
        }
    }

    /// A sample without a number is sent to a receiver, under a unique label.
    pub(crate) fn send_unnumbered(&mut self, receiver: usize, label: String, epoch: u64) {
        self.unnumbered[receiver].insert(label, (epoch, UnnumberedState::Sent));
    }

    /// It was taken.
    pub(crate) fn on_unnumbered_taken(&mut self, receiver: usize, submission: &SubmissionView<'_>) {
        for record in submission.records() {
            for (label, _) in record.values() {
                // Those that were stamped by a wrong clock are not checked.
                if let Some(known) = self.unnumbered[receiver].get_mut(label) {
                    known.1 = UnnumberedState::Taken;
                }
            }
        }
    }

    /// Samples without a number are counted once if they were acknowledged, and at most once
    /// otherwise. `is_settled`: whether none of them is in flight.
    pub(crate) fn check_unnumbered(
        &mut self,
        receiver: usize,
        told: &Summaries,
        now: u64,
        is_settled: bool,
    ) -> Result<(), Violation> {
        let oldest = TIERS.iter().map(|tier| tier.window_start(now)).min();
        self.unnumbered[receiver].retain(|_, (epoch, _)| Some(*epoch) > oldest);
        for (label, (_, known)) in &mut self.unnumbered[receiver] {
            let name = format!("summary:by-hour:{label}");
            let averages = told.get(&name).map_or(&[][..], |told| &told.averages);
            let count: u64 = averages.iter().map(|average| average.num_samples).sum();
            match (*known, count) {
                (UnnumberedState::Taken, 1)
                | (UnnumberedState::Sent | UnnumberedState::Gone, 0) => (),
                (UnnumberedState::Sent, 1) => *known = UnnumberedState::Taken,
                _ => {
                    return Err(Violation(format!(
                        "receiver {receiver} counts {label}, which is {known:?}, {count} times"
                    )));
                }
            }
            if is_settled && *known == UnnumberedState::Sent {
                *known = UnnumberedState::Gone;
            }
        }
        Ok(())
    }

    /// A receiver forgets what it has taken of a host, but these numbers. Returns how many records
    /// it has forgotten.
    pub(crate) fn forget(
        &mut self,
        monitor: usize,
        receiver: usize,
        left: &HashMap<ProducerId, Vec<(u64, u64)>>,
    ) -> u64 {
        let mut forgotten = 0;
        for ((producer, seq), record) in &mut self.hosts[monitor].records {
            let ranges = left.get(producer).into_iter().flatten();
            let is_left = ranges
                .into_iter()
                .any(|(from, to)| (from..=to).contains(&seq));
            if !is_left && std::mem::replace(&mut record.is_taken[receiver], false) {
                record.was_forgotten[receiver] = true;
                forgotten += 1;
            }
        }
        forgotten
    }

    /// The same of the samples without a number, which nobody sends again.
    pub(crate) fn forget_unnumbered(&mut self, receiver: usize) {
        for (_, known) in self.unnumbered[receiver].values_mut() {
            if *known == UnnumberedState::Taken {
                *known = UnnumberedState::Sent;
            }
        }
    }

    /// A receiver was restarted with these numbers of one host: what it had taken must be there.
    /// What it has beyond that came from a write that was not acknowledged.
    pub(crate) fn reconcile(
        &mut self,
        monitor: usize,
        receiver: usize,
        held: &HashMap<ProducerId, Vec<(u64, u64)>>,
        true_now: u64,
    ) -> Result<(), Violation> {
        let finest_from = TIERS[0].window_start(self.took_at[receiver]);
        let host = &mut self.hosts[monitor];
        for (producer, ranges) in held {
            for seq in ranges.iter().flat_map(|(from, to)| *from..=*to) {
                let Some(record) = host.records.get_mut(&(*producer, seq)) else {
                    return Err(Violation(format!(
                        "receiver {receiver} has number {seq} of monitor {monitor}, which was never recorded"
                    )));
                };
                if !std::mem::replace(&mut record.is_taken[receiver], true) {
                    self.found_after_crash += 1;
                    record.is_ahead[receiver] = record.epoch > true_now + AHEAD_SECS_MAX;
                    record.is_late[receiver] = record.epoch <= finest_from;
                }
            }
        }
        for ((producer, seq), record) in &self.hosts[monitor].records {
            let is_there = held
                .get(producer)
                .is_some_and(|ranges| ranges.iter().any(|(from, to)| (from..=to).contains(&seq)));
            if record.is_taken[receiver] && !is_there {
                return Err(Violation(format!(
                    "receiver {receiver} accepted number {seq} of monitor {monitor}, and does not have it"
                )));
            }
        }
        Ok(())
    }

    /// At the end each record was taken, or its monitor dropped it and has reported that to the
    /// receiver, and the receiver misses none.
    pub(crate) fn check_records(
        &self,
        monitor: usize,
        receiver: usize,
        delivery: &Delivery,
        may_be_dropped: impl Fn(&str, u64) -> bool,
    ) -> Result<RecordCounts, Violation> {
        let told: HashMap<_, _> = delivery
            .producers
            .iter()
            .map(|told| (told.producer, told))
            .collect();
        let mut counts = RecordCounts::default();
        for ((producer, seq), record) in &self.hosts[monitor].records {
            let told = told.get(producer);
            let why = told.and_then(|told| {
                let mut dropped = told.dropped.iter();
                let range = dropped.find(|(from, to, _)| (from..=to).contains(&seq))?;
                Some(range.2.as_str())
            });
            // The receiver has forgotten why it never got the record: it is told something else.
            let is_reason_forgotten =
                |why: &str| why == drop_reason::BEFORE_DATA && !record.was_forgotten[receiver];
            let is_wrong =
                |why: &&str| !is_reason_forgotten(why) && !may_be_dropped(why, record.epoch);
            if let Some(why) = why.filter(is_wrong) {
                return Err(Violation(format!(
                    "monitor {monitor} dropped number {seq} (epoch {}) without need, as {why}",
                    record.epoch
                )));
            }
            let is_dropped = why.is_some();
            let is_missing = told.is_some_and(|told| {
                let mut missing = told.missing.iter();
                missing.any(|(from, to)| (from..=to).contains(&seq))
            });
            let is_taken = record.is_taken[receiver];
            if is_taken && is_missing {
                return Err(Violation(format!(
                    "receiver {receiver} has taken number {seq} of monitor {monitor}, and misses it"
                )));
            }
            // What was forgotten may be too old by then for anybody to keep it.
            let is_too_old = record.was_forgotten[receiver]
                && may_be_dropped(drop_reason::TOO_OLD, record.epoch);
            if !is_taken && !is_dropped && !record.is_excused && !is_too_old {
                return Err(Violation(format!(
                    "number {seq} of monitor {monitor} (epoch {}) is lost on its way to receiver {receiver}: neither accepted nor reported as dropped",
                    record.epoch
                )));
            }
            counts.taken += u64::from(is_taken);
            counts.dropped += u64::from(!is_taken && is_dropped);
            counts.excused += u64::from(!is_taken && !is_dropped);
        }
        Ok(counts)
    }
}

/// How many of one monitor's records were taken by one receiver, dropped, or excused.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RecordCounts {
    pub(crate) taken: u64,
    pub(crate) dropped: u64,
    pub(crate) excused: u64,
}
