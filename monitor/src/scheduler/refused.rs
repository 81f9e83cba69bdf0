//! Records that a destination refuses by name: dropped, or deferred where its clock and ours
//! differ.

use std::time::Duration;

use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::Seq;

use super::destination::Deferral;
use super::pause::Pause;
use super::{BACKLOG_INTERVAL, DeliveryScheduler, Outcome};
use crate::retry::{OPERATOR_WAIT, RefusedRecord};
use crate::spool::{SpoolBackend, StoredBatch};

impl<B: SpoolBackend> DeliveryScheduler<B> {
    /// Drops these records of a batch, or defers them. `theirs` is the destination's time.
    pub(super) fn refused(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        dropped: Vec<RefusedRecord>,
        theirs: Option<u64>,
        now: Duration,
        chance: f64,
    ) -> Outcome {
        let (later, dropped) = self.split_refused(batch, dropped, theirs, now);
        if !later.is_empty() {
            self.defer(destination, batch, &later, now, chance);
        }
        if dropped.is_empty() {
            return Outcome::Deferred(later.len());
        }
        let named: Vec<_> = dropped
            .iter()
            .filter_map(|refused| Some((batch.records.get(refused.index)?.seq, refused.code)))
            .collect();
        for (seq, code) in named {
            let why = code.as_str();
            self.spool
                .drop_records(destination, batch.producer, &[seq], why);
        }
        Outcome::Dropped(dropped)
    }

    /// What was deferred is sent again after a while, when the difference of the clocks has
    /// changed, and before a stop.
    pub(super) fn resume_deferred_if_due(&mut self, destination: usize, now: Duration) {
        let state = &mut self.states[destination];
        let Some(deferral) = state.deferred else {
            return;
        };
        if deferral.has_ended(state.skew.ahead_secs(), now) {
            state.deferred = None;
            self.spool.resume_deferred(destination);
        }
    }

    /// Separates the records that are to be sent again later from those that are refused for good.
    /// A record that is ahead of the receiver's clock will not be so forever. One that is too old
    /// by its clock must be so by ours as well, or one of the two clocks is wrong. Receivers name
    /// the first hundred records only: those that are later than a named one that is ahead, or
    /// earlier than a named one that is too old, they would refuse as well.
    pub(super) fn split_refused(
        &mut self,
        batch: &StoredBatch,
        mut refused: Vec<RefusedRecord>,
        theirs: Option<u64>,
        now: Duration,
    ) -> (Vec<Seq>, Vec<RefusedRecord>) {
        let epoch_of =
            |refused: &RefusedRecord| Some(batch.records.get(refused.index)?.epoch.secs());
        // All have the code of the first.
        for one in &mut refused {
            let is_of_time = matches!(one.code, Code::EpochInFuture | Code::EpochTooOld);
            if let (true, Some(epoch), Some(theirs)) = (is_of_time, epoch_of(one), theirs) {
                one.code = match epoch > theirs {
                    true => Code::EpochInFuture,
                    false => Code::EpochTooOld,
                };
            }
        }
        let of = |code: Code| {
            let named = refused.iter().filter(move |refused| refused.code == code);
            named.filter_map(epoch_of)
        };
        let ahead_from = of(Code::EpochInFuture).min().unwrap_or(u64::MAX);
        let old_through = of(Code::EpochTooOld).max().unwrap_or(0);
        let is_later = |this: &mut Self, epoch: u64| {
            epoch >= ahead_from || (epoch <= old_through && !this.is_too_old(epoch, now))
        };
        let records = batch.records.iter();
        let later: Vec<Seq> = records
            .filter(|record| is_later(self, record.epoch.secs()))
            .map(|record| record.seq)
            .collect();
        let is_final = |refused: &RefusedRecord| {
            let record = batch.records.get(refused.index);
            record.is_none_or(|record| !later.contains(&record.seq))
        };
        let dropped = refused.into_iter().filter(is_final).collect();
        (later, dropped)
    }

    fn defer(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        later: &[Seq],
        now: Duration,
        chance: f64,
    ) {
        self.spool.defer(destination, batch.producer, later);
        let state = &mut self.states[destination];
        let ahead_secs = state.skew.ahead_secs();
        let wait = |longest: Duration| Pause::new(now, longest.mul_f64(0.5 + chance / 2.0));
        state.deferred.get_or_insert(Deferral {
            pause: wait(OPERATOR_WAIT),
            ahead_secs,
        });
        // If the whole batch is refused, the next one may be as well: this bounds the rate.
        if later.len() == batch.records.len() {
            state.pause = Some(wait(BACKLOG_INTERVAL));
        }
    }
}
