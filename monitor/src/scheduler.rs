//! Everything between a sample and a request, without I/O and without a clock: which records go next to which destination, and what becomes of
//! them after the answer.
//!
//! While all is well, each record goes by itself as soon as it is there. After an outage the newest go at once, and beside them the
//! oldest in lots, bounded in rate. While a destination fails, each attempt brings the same oldest records: an answer that got lost
//! makes no gaps.

use std::time::Duration;

use lizmon_client::{Error, ServerClock};
use lizmon_protocol::delivery::{Delivery, ProducerDelivery};
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::{EncodedSamples, Epoch, IdempotencyKey, Seq};

use crate::retry::{
    Backoff, Decision, OPERATOR_WAIT, RefusedRecord, is_body_error, may_be_delivered, names_records,
};
use crate::skew::{ClockCorrection, ClockSkew, CorrectionNotice, SkewNotice};
use crate::spool::{BackendError, ClockSteadiness, Spool, SpoolBackend, StoredBatch};

/// Newest records that go ahead of a backlog at once.
pub const NEWEST_MAX: usize = 10;
/// From one lot of a backlog to the next, on average: a day's records are delivered in a minute and a half, and a fleet that
/// comes back together is a thousand records a second for each of its hosts.
pub const BACKLOG_EVERY: Duration = Duration::from_secs(1);
/// Clocks that have come to differ by so much more or less may call other records too old, or ahead.
const OTHER_TIME_SECS: f64 = 30.0;
/// The longest window of a receiver, and to what its beginning is rounded down.
const DAY_SECS: u64 = 24 * HOUR_SECS;
const HOUR_SECS: u64 = 3600;

/// The spool, and how it goes with each destination.
pub struct DeliveryScheduler<K> {
    spool: Spool<K>,
    states: Vec<DestinationState>,
    is_flushing: bool,
    correction: ClockCorrection,
    /// Whether our own clock may call a record too old.
    own_clock: ClockSteadiness,
}

/// What a destination does not take for now, because it is another time there.
#[derive(Debug, Clone, Copy)]
struct Deferral {
    pause: Pause,
    /// How far our clock was ahead of theirs.
    ahead_secs: Option<f64>,
}

/// How it goes with one destination.
#[derive(Debug, Default)]
struct DestinationState {
    backoff: Backoff,
    /// Nothing is sent before this is over.
    pause: Option<Pause>,
    /// Nothing old is sent before this is over.
    backlog_pause: Option<Pause>,
    deferred: Option<Deferral>,
    /// Which start of the receiver answered last.
    run: u64,
    /// It has started anew since it was last asked what it misses: its data may have, too.
    is_delivery_check_due: bool,
    is_failing: bool,
    /// What was given up is told apart from records: together they were refused.
    sends_reports_alone: bool,
    skew: ClockSkew,
    delivered: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Duration,
    lasts: Duration,
}

impl Pause {
    /// Over at once where the clock was set back.
    fn left(self, now: Duration) -> Option<Duration> {
        let passed = now.checked_sub(self.since)?;
        let left = self.lasts.checked_sub(passed)?;
        (!left.is_zero()).then_some(left)
    }
}

/// What to do now for one destination.
#[derive(Debug, Clone, PartialEq)]
pub enum NextStep {
    /// Send this, and say how it went by [`DeliveryScheduler::on_result`]. Until then, ask no more.
    Send(StoredBatch),
    /// Ask again after this long, or when there is a new record.
    Wait(Duration),
    /// There is nothing to do until there is a new record.
    Idle,
}

/// What became of a lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// So many records have arrived.
    Delivered(usize),
    /// The same records will be sent again after this long, if not at once.
    Retry(Duration),
    /// These were refused by name, and are given up.
    Dropped(Vec<RefusedRecord>),
    /// So many were refused because it is another time there: they are kept, and sent again later.
    Deferred(usize),
    /// The destination does not want to know what was given up.
    ReportsRefused,
}

impl<K: SpoolBackend> DeliveryScheduler<K> {
    /// Goes on with what the spool holds, for its destinations, counted from 0.
    pub fn new(spool: Spool<K>) -> Self {
        let states = spool
            .destinations()
            .iter()
            .map(|_| DestinationState::default());
        Self {
            states: states.collect(),
            spool,
            is_flushing: false,
            correction: ClockCorrection::default(),
            own_clock: ClockSteadiness::default(),
        }
    }

    /// A sample was taken: for all destinations. Who numbered it, and its number.
    pub fn record(
        &mut self,
        epoch: Epoch,
        values: EncodedSamples,
        now: Duration,
    ) -> Option<IdempotencyKey> {
        self.own_clock.is_steady_at(self.sample_time(now));
        let now = self.earliest_time(now);
        self.spool.push(epoch, values, now)
    }

    /// What to do now for this destination.
    pub fn next_step(&mut self, destination: usize, now: Duration) -> NextStep {
        self.resume_deferred_if_due(destination, now);
        let state = &self.states[destination];
        if let Some(left) = state.pause.and_then(|pause| pause.left(now)) {
            return NextStep::Wait(left);
        }
        let backlog_pause = state.backlog_pause.filter(|_| !self.is_flushing);
        let backlog_wait = backlog_pause.and_then(|pause| pause.left(now));
        let batch_max = state.backoff.batch_records_max();
        let newest_max = match state.is_failing {
            true => 0,
            false => NEWEST_MAX.min(batch_max),
        };
        let oldest_max = backlog_wait.map_or(batch_max, |_| 0);
        let sends_reports_alone = state.sends_reports_alone;
        match (
            self.spool.next_batch(destination, newest_max, oldest_max),
            backlog_wait,
        ) {
            (Some(mut batch), _) => {
                if sends_reports_alone && !batch.records.is_empty() {
                    batch.dropped.clear();
                }
                NextStep::Send(batch)
            }
            (None, Some(wait)) => NextStep::Wait(wait),
            (None, None) => {
                let deferred = self.states[destination].deferred;
                let wait = deferred.and_then(|deferred| deferred.pause.left(now));
                wait.map_or(NextStep::Idle, NextStep::Wait)
            }
        }
    }

    /// How sending a lot went. `chance` is from 0 to 1, another each time.
    pub fn on_result(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        result: Result<(), &Error>,
        now: Duration,
        chance: f64,
    ) -> Outcome {
        let done = match result {
            Ok(()) => self.delivered(destination, batch, now, chance),
            Err(error) => self.failed(destination, batch, error, now, chance),
        };
        let now = self.earliest_time(now);
        self.spool.save_if_due(now);
        done
    }

    /// How many of a lot's numbers the destination says it knew: before [`Self::on_result`].
    pub fn on_duplicates(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        known: u64,
        now: Duration,
    ) {
        let now = self.earliest_time(now);
        self.spool.on_duplicates(destination, batch, known, now);
    }

    /// What was put off is sent again after a while, when the clocks have come to differ by something else, and before a stop.
    fn resume_deferred_if_due(&mut self, destination: usize, now: Duration) {
        let state = &mut self.states[destination];
        let Some(Deferral { pause, ahead_secs }) = state.deferred else {
            return;
        };
        let has_changed = match (ahead_secs, state.skew.ahead_secs()) {
            (Some(then), Some(now)) => (then - now).abs() > OTHER_TIME_SECS,
            (then, now) => then.is_some() != now.is_some(),
        };
        if has_changed || pause.left(now).is_none() {
            state.deferred = None;
            self.spool.resume_deferred(destination);
        }
    }

    /// What a receiver's clock said, in an answer to a request sent and answered at these times of ours.
    pub fn on_server_clock(
        &mut self,
        destination: usize,
        theirs: ServerClock,
        sent: Duration,
        answered: Duration,
    ) -> (Option<SkewNotice>, Option<CorrectionNotice>) {
        let state = &mut self.states[destination];
        if state.run != theirs.run {
            state.run = theirs.run;
            state.is_delivery_check_due = true;
        }
        let news = state.skew.observe(theirs, sent, answered);
        let steady = self.states.iter();
        let steady = steady.filter_map(|state| state.skew.steady_secs());
        (news, self.correction.update(steady.collect()))
    }

    /// How far our clock is ahead of the time that samples are to be stamped by; none where that is our own.
    pub fn correction_secs(&self) -> Option<f64> {
        self.correction.ahead_secs()
    }

    /// How far our clock is ahead of this destination's, once that has answered.
    pub fn ahead_of_secs(&self, destination: usize) -> Option<f64> {
        self.states[destination].skew.ahead_secs()
    }

    /// Whether this destination is to be asked what it misses, once more records have arrived there. Says so once.
    pub fn take_delivery_check_due(&mut self, destination: usize) -> bool {
        std::mem::take(&mut self.states[destination].is_delivery_check_due)
    }

    /// To be asked again: there was no answer.
    pub fn set_delivery_check_due(&mut self, destination: usize) {
        self.states[destination].is_delivery_check_due = true;
    }

    /// What it says it misses. How many records of those it once had: it is told that it has lost them.
    pub fn on_missing(&mut self, destination: usize, delivery: &Delivery) -> u64 {
        let of = |told: &ProducerDelivery| {
            self.spool
                .on_missing(destination, told.producer, &told.missing)
        };
        delivery.producers.iter().map(of).sum()
    }

    /// How many seconds our clock is ahead of the receivers', by the median of those that have answered.
    pub fn clock_ahead_secs(&self) -> Option<f64> {
        let known = self.states.iter();
        let mut known: Vec<f64> = known.filter_map(|state| state.skew.ahead_secs()).collect();
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }

    /// The time that samples are stamped by.
    fn sample_time(&self, now: Duration) -> u64 {
        set_back(now, self.correction_secs())
    }

    /// The earlier of our time and the receivers': what one of them does not call too old may still be taken.
    fn earliest_time(&self, now: Duration) -> u64 {
        set_back(now, self.clock_ahead_secs()).min(self.sample_time(now))
    }

    /// Whether a record is too old for a receiver by our own clock, and that may be believed.
    fn is_too_old(&mut self, epoch: u64, now: Duration) -> bool {
        let now = self.sample_time(now);
        let day_begins = (now - now % HOUR_SECS).saturating_sub(DAY_SECS);
        self.own_clock.is_steady_at(now) && epoch <= day_begins
    }

    /// How many records this destination has taken since the start.
    pub fn delivered_records(&self, destination: usize) -> u64 {
        self.states[destination].delivered
    }

    /// How many records wait for the destination that is furthest behind.
    pub fn pending_records_max(&self) -> u64 {
        let pending = (0..self.states.len()).map(|at| self.spool.pending(at));
        pending.max().unwrap_or(0)
    }

    fn delivered(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        now: Duration,
        chance: f64,
    ) -> Outcome {
        self.spool.ack(destination, batch);
        let pending = self.spool.pending(destination);
        let state = &mut self.states[destination];
        state.delivered += batch.records.len() as u64;
        state.backoff.delivered();
        state.is_failing = false;
        state.pause = None;
        let rests = state.backlog_pause.and_then(|pause| pause.left(now));
        state.backlog_pause = match (pending, rests) {
            (0, _) => None,
            (_, Some(_)) => state.backlog_pause,
            (_, None) => Some(Pause {
                since: now,
                lasts: BACKLOG_EVERY.mul_f64(0.5 + chance),
            }),
        };
        Outcome::Delivered(batch.records.len())
    }

    fn failed(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        error: &Error,
        now: Duration,
        chance: f64,
    ) -> Outcome {
        if may_be_delivered(error) {
            self.spool.mark_possibly_delivered(destination, batch);
        }
        let state = &mut self.states[destination];
        if is_body_error(error) && batch.records.is_empty() {
            self.spool.discard_reports(destination, batch);
            return Outcome::ReportsRefused;
        }
        // Records that are named are at fault by themselves; anything else may be the reports' doing.
        let may_be_reports = !batch.dropped.is_empty() && !state.sends_reports_alone;
        if may_be_reports && is_body_error(error) && !names_records(error) {
            state.sends_reports_alone = true;
            return Outcome::Retry(Duration::ZERO);
        }
        let decision = state.backoff.failed(error, batch.records.len(), chance);
        if let Decision::Drop(dropped) = decision {
            let (later, dropped) = self.split_refused(batch, dropped, server_now(error), now);
            if !later.is_empty() {
                self.deferred(destination, batch, &later, now, chance);
            }
            if dropped.is_empty() {
                return Outcome::Deferred(later.len());
            }
            let named: Vec<_> = dropped
                .iter()
                .filter_map(|dropped| Some((batch.records.get(dropped.at)?.seq, dropped.code)))
                .collect();
            for (seq, code) in named {
                let why = code.as_str();
                self.spool
                    .drop_records(destination, batch.producer, &[seq], why);
            }
            return Outcome::Dropped(dropped);
        }
        match decision {
            Decision::Retry(wait) => {
                state.is_failing = true;
                state.pause = Some(Pause {
                    since: now,
                    lasts: wait,
                });
                Outcome::Retry(wait)
            }
            Decision::RenewToken | Decision::Split | Decision::Drop(_) => {
                Outcome::Retry(Duration::ZERO)
            }
        }
    }

    /// Which of the refused records are refused for good. A record is not ahead of its time for ever, and one that is too old
    /// by their clock is so by ours as well, or one of the two is wrong. Receivers name the first hundred: what is later than
    /// what they find ahead, or earlier than what they find too old, they would refuse as well.
    fn split_refused(
        &mut self,
        batch: &StoredBatch,
        mut refused: Vec<RefusedRecord>,
        theirs: Option<u64>,
        now: Duration,
    ) -> (Vec<Seq>, Vec<RefusedRecord>) {
        let epoch_of = |dropped: &RefusedRecord| Some(batch.records.get(dropped.at)?.epoch.secs());
        // One word stands for all: that of the first.
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
            let named = refused.iter().filter(move |dropped| dropped.code == code);
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
        let is_final = |dropped: &RefusedRecord| {
            let record = batch.records.get(dropped.at);
            record.is_none_or(|record| !later.contains(&record.seq))
        };
        let dropped = refused.into_iter().filter(is_final).collect();
        (later, dropped)
    }

    fn deferred(
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
        let wait = |longest: Duration| Pause {
            since: now,
            lasts: longest.mul_f64(0.5 + chance / 2.0),
        };
        state.deferred.get_or_insert(Deferral {
            pause: wait(OPERATOR_WAIT),
            ahead_secs,
        });
        // Where the whole lot is refused, the next one may well be: not thousands in a second.
        if later.len() == batch.records.len() {
            state.pause = Some(wait(BACKLOG_EVERY));
        }
    }

    /// Something has changed that makes another attempt worth while: new certificates.
    pub fn clear_pause(&mut self, destination: usize) {
        self.states[destination].pause = None;
    }

    /// We are about to stop: a backlog waits no more between its lots.
    pub fn flush(&mut self) {
        self.is_flushing = true;
        for destination in 0..self.states.len() {
            self.states[destination].deferred = None;
            self.spool.resume_deferred(destination);
        }
    }

    /// What is not delivered.
    pub fn spool(&self) -> &Spool<K> {
        &self.spool
    }

    /// What is not delivered, to ask it for its events, or to break what keeps it.
    pub fn spool_mut(&mut self) -> &mut Spool<K> {
        &mut self.spool
    }

    /// Ends it, as a crash would: nothing more is written.
    pub fn into_backend(self) -> K {
        self.spool.into_backend()
    }

    /// Writes down everything, before a stop.
    pub fn close(&mut self) -> Result<(), BackendError> {
        self.spool.save()
    }
}

/// What the receiver's clock said when it refused records.
fn server_now(error: &Error) -> Option<u64> {
    match error {
        Error::Refused { problem, .. } => problem.as_ref()?.now,
        _ => None,
    }
}

fn set_back(now: Duration, ahead_secs: Option<f64>) -> u64 {
    let ahead = ahead_secs.unwrap_or(0.0) as i64;
    now.as_secs().saturating_add_signed(ahead.saturating_neg())
}

#[cfg(test)]
mod tests;
