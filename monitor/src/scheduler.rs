//! Everything between a sample and a request, without I/O and without a clock: which records are
//! sent next to which destination, and what the answer changes.
//!
//! Without a backlog, each record is sent alone as soon as it is there. After an outage the newest
//! records are sent at once, and beside them the oldest in batches, at a bounded rate. While a
//! destination fails, each attempt sends the same oldest records, so that a lost answer leaves no
//! gaps.
//!
//! A record is sent at the monitor's own moment within the second, so that a fleet does not send at
//! once; the first one, and what follows a failure, is not delayed for that.

mod check;
mod delivery_check;
mod destination;
mod pause;
mod refused;

use std::time::Duration;

use lizmon_client::{Error, ServerClock};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::sample::{EncodedSamples, Epoch, IdempotencyKey};

pub use self::delivery_check::{CHECK_INTERVAL, Losses};
use self::destination::DestinationState;
use self::pause::Pause;
use crate::offset::{check_offset, send_offset};
use crate::retry::{
    Decision, RefusedRecord, is_body_error, may_be_delivered, names_records, server_now,
};
use crate::skew::{ClockCorrection, CorrectionNotice, SkewNotice};
use crate::spool::{BackendError, ClockSteadiness, Spool, SpoolBackend, StoredBatch};

/// Newest records that are sent ahead of a backlog at once.
pub const NEWEST_MAX: usize = 10;
/// From one batch of a backlog to the next, on average: a day's records are delivered in a minute
/// and a half, and a fleet that comes back together sends a thousand records a second for each of
/// its hosts.
pub const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);
/// What is kept gets older by no more than this from one record to the next.
const AGED_SECS_MAX: u64 = 60;
/// The longest window of a receiver, and to what its beginning is rounded down.
const DAY_SECS: u64 = 24 * HOUR_SECS;
const HOUR_SECS: u64 = 3600;

/// The spool, and the state of each destination.
pub struct DeliveryScheduler<B> {
    spool: Spool<B>,
    states: Vec<DestinationState>,
    is_flushing: bool,
    correction: ClockCorrection,
    /// Whether this machine's clock may call a record too old.
    own_clock: ClockSteadiness,
    /// How long after a whole second records are sent.
    send_offset: Duration,
    /// How long after a whole minute destinations are asked what they miss.
    check_offset: Duration,
    /// When the last record was taken.
    recorded_at: Option<u64>,
}

/// What to do now for one destination.
#[derive(Debug, Clone, PartialEq)]
pub enum NextStep {
    /// Send this, and report the result by [`DeliveryScheduler::on_result`] before the next call.
    Send(StoredBatch),
    /// Ask the destination what it has of this host, and report the answer by
    /// [`DeliveryScheduler::on_delivery`] before the next call.
    CheckDelivery,
    /// Call again after this long, or when there is a new record.
    Wait(Duration),
    /// Nothing is to be done until there is a new record.
    Idle,
}

/// What an answer changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// So many records were delivered.
    Delivered(usize),
    /// The same records are sent again after this long; zero means at once.
    Retry(Duration),
    /// These were refused by name, and dropped.
    Dropped(Vec<RefusedRecord>),
    /// So many were refused because the clocks differ: they are kept, and sent again later.
    Deferred(usize),
    /// The destination refused the reports of what was dropped.
    ReportsRefused,
    /// The destination has got back what it had lost.
    Repaired {
        /// So many records; others of the batch it had.
        records: u64,
        /// So many are still to be sent again.
        left: u64,
    },
    /// So many records of a repair were refused, and are not sent again now.
    RepairRefused(usize),
}

impl<B: SpoolBackend> DeliveryScheduler<B> {
    /// Continues with what the spool holds. Destinations are numbered from 0, in the order of the
    /// spool.
    pub fn new(spool: Spool<B>) -> Self {
        let keeps = spool.keeps_acknowledged();
        let states = spool
            .destinations()
            .iter()
            .map(|_| DestinationState::new(keeps));
        Self {
            states: states.collect(),
            spool,
            is_flushing: false,
            correction: ClockCorrection::default(),
            own_clock: ClockSteadiness::default(),
            send_offset: Duration::ZERO,
            check_offset: Duration::ZERO,
            recorded_at: None,
        }
    }

    /// The same at the moments that the host's name gives, so that a fleet does not act at once.
    pub fn spread(self, host: &NodeName) -> Self {
        Self {
            send_offset: send_offset(host),
            check_offset: check_offset(host),
            ..self
        }
    }

    /// Takes a record, for all destinations. Returns its producer and number.
    pub fn record(
        &mut self,
        epoch: Epoch,
        values: EncodedSamples,
        now: Duration,
    ) -> Option<IdempotencyKey> {
        self.own_clock.is_steady_at(self.sample_time(now));
        let due = Duration::from_secs(now.as_secs()) + self.send_offset;
        for state in &mut self.states {
            state.newest_due.get_or_insert(due);
        }
        self.age_kept(now);
        let now = self.earliest_time(now);
        self.spool.push(epoch, values, now)
    }

    /// What is kept gets older, but not while a destination may have lost some of it unnoticed.
    fn age_kept(&mut self, now: Duration) {
        let now = now.as_secs();
        let passed = now.saturating_sub(self.recorded_at.unwrap_or(now));
        self.recorded_at = Some(now);
        let is_known = self.states.iter().all(|state| !state.check.is_due());
        // A clock that is set forward must not end it all.
        let counts = if is_known { passed } else { 0 };
        self.spool.age_kept(counts.min(AGED_SECS_MAX));
    }

    /// What to do now for this destination.
    pub fn next_step(&mut self, destination: usize, now: Duration) -> NextStep {
        self.resume_deferred_if_due(destination, now);
        let state = &self.states[destination];
        if let Some(left) = state.pause.and_then(|pause| pause.left(now)) {
            return NextStep::Wait(left);
        }
        if self.is_check_due(destination, false, now) {
            return NextStep::CheckDelivery;
        }
        let held = self.newest_held(destination, now);
        let state = &self.states[destination];
        let backlog_pause = state.backlog_pause.filter(|_| !self.is_flushing);
        let backlog_wait = backlog_pause.and_then(|pause| pause.left(now));
        let batch_max = state.backoff.batch_records_max();
        let newest_max = match state.is_failing {
            true => 0,
            false => NEWEST_MAX.min(batch_max),
        };
        let oldest_max = backlog_wait.map_or(batch_max, |_| 0);
        let sends_reports_alone = state.sends_reports_alone;
        let batch = match held {
            Some(_) => self
                .spool
                .backlog_batch(destination, newest_max, oldest_max),
            None => self.spool.next_batch(destination, newest_max, oldest_max),
        };
        if let Some(mut batch) = batch {
            if sends_reports_alone && !batch.records.is_empty() {
                batch.dropped.clear();
            }
            if held.is_none() {
                self.states[destination].newest_due = None;
            }
            return NextStep::Send(batch);
        }
        let repair_wait = match self.next_repair(destination, now) {
            NextStep::Wait(wait) => Some(wait),
            NextStep::Idle => None,
            repair => return repair,
        };
        if self.is_check_due(destination, true, now) {
            return NextStep::CheckDelivery;
        }
        let deferred = self.states[destination].deferred;
        let deferred_wait = deferred.and_then(|deferred| deferred.pause.left(now));
        let backlog_wait = backlog_wait.or(deferred_wait);
        let waits = [held, backlog_wait, repair_wait];
        let first = waits.into_iter().flatten().min();
        first.map_or(NextStep::Idle, NextStep::Wait)
    }

    /// How long the newest records wait for the monitor's moment within the second. They do not
    /// wait for it at the start, after a failure, and before a stop.
    fn newest_held(&self, destination: usize, now: Duration) -> Option<Duration> {
        const SECOND: Duration = Duration::from_secs(1);
        let state = &self.states[destination];
        let left = state.newest_due?.checked_sub(now)?;
        let is_steady = state.delivered > 0 && !state.is_failing && !self.is_flushing;
        // A clock that was set back must not delay anything.
        (is_steady && !left.is_zero() && left < SECOND).then_some(left)
    }

    /// Takes the result of sending a batch. `chance` is a random number from 0 to 1.
    pub fn on_result(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        result: Result<(), &Error>,
        now: Duration,
        chance: f64,
    ) -> Outcome {
        let outcome = match result {
            Ok(()) => self.delivered(destination, batch, now, chance),
            Err(error) if batch.repair => {
                self.repair_failed(destination, batch, error, now, chance)
            }
            Err(error) => self.failed(destination, batch, error, now, chance),
        };
        let now = self.earliest_time(now);
        self.spool.save_if_due(now);
        outcome
    }

    /// The destination reports so many duplicates among a batch's records: to be called before
    /// [`Self::on_result`].
    pub fn on_duplicates(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        duplicates: u64,
        now: Duration,
    ) {
        if batch.repair {
            return self.on_repair_duplicates(destination, duplicates);
        }
        let now = self.earliest_time(now);
        self.spool
            .on_duplicates(destination, batch, duplicates, now);
    }

    /// Takes the time of a receiver's clock, from the answer to a request that was sent and
    /// answered at these times of our clock.
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
            state.check.restarted();
        }
        let notice = state.skew.observe(theirs, sent, answered);
        let steady = self.states.iter();
        let steady = steady.filter_map(|state| state.skew.steady_secs());
        (notice, self.correction.update(steady.collect()))
    }

    /// How far our clock is ahead of the time that samples are stamped with; none while that is our
    /// own.
    pub fn correction_secs(&self) -> Option<f64> {
        self.correction.ahead_secs()
    }

    /// How far our clock is ahead of this destination's; none before it has answered.
    pub fn ahead_of_secs(&self, destination: usize) -> Option<f64> {
        self.states[destination].skew.ahead_secs()
    }

    /// How many seconds our clock is ahead of the receivers': the median of those that have
    /// answered.
    pub fn clock_ahead_secs(&self) -> Option<f64> {
        let known = self.states.iter();
        let mut known: Vec<f64> = known.filter_map(|state| state.skew.ahead_secs()).collect();
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }

    /// The time that samples are stamped with.
    fn sample_time(&self, now: Duration) -> u64 {
        set_back(now, self.correction_secs())
    }

    /// The earlier of our time and the receivers': a record that is not too old by one of them may
    /// still be accepted.
    fn earliest_time(&self, now: Duration) -> u64 {
        set_back(now, self.clock_ahead_secs()).min(self.sample_time(now))
    }

    /// Whether a record is too old for a receiver by our own clock, and that clock is steady.
    fn is_too_old(&mut self, epoch: u64, now: Duration) -> bool {
        let too_old = self.too_old_through(now);
        too_old.is_some_and(|last| epoch <= last)
    }

    /// Through which epoch records are too old so; none where no clock may say that.
    fn too_old_through(&mut self, now: Duration) -> Option<u64> {
        let now = self.sample_time(now);
        let day_begins = (now - now % HOUR_SECS).saturating_sub(DAY_SECS);
        self.own_clock.is_steady_at(now).then_some(day_begins)
    }

    /// How many records were delivered to this destination since the start.
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
        let state = &mut self.states[destination];
        state.backoff.delivered();
        state.is_failing = false;
        state.pause = None;
        state.check.connected();
        if batch.repair {
            return self.repaired(destination, batch, now, chance);
        }
        state.delivered += batch.records.len() as u64;
        self.spool.ack(destination, batch);
        let pending = self.spool.pending(destination);
        let state = &mut self.states[destination];
        let left = state.backlog_pause.and_then(|pause| pause.left(now));
        state.backlog_pause = match (pending, left) {
            (0, _) => None,
            (_, Some(_)) => state.backlog_pause,
            (_, None) => Some(Pause::new(now, BACKLOG_INTERVAL.mul_f64(0.5 + chance))),
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
        // An error that names records is about these; any other may be about the reports.
        let may_be_reports = !batch.dropped.is_empty() && !state.sends_reports_alone;
        if may_be_reports && is_body_error(error) && !names_records(error) {
            state.sends_reports_alone = true;
            return Outcome::Retry(Duration::ZERO);
        }
        let decision = state.backoff.failed(error, batch.records.len(), chance);
        if let Decision::Drop(dropped) = decision {
            let theirs = server_now(error);
            return self.refused(destination, batch, dropped, theirs, now, chance);
        }
        match decision {
            Decision::Retry(wait) => {
                self.start_failing(destination, now, wait);
                Outcome::Retry(wait)
            }
            Decision::RenewToken | Decision::Split | Decision::Drop(_) => {
                Outcome::Retry(Duration::ZERO)
            }
        }
    }

    fn start_failing(&mut self, destination: usize, now: Duration, wait: Duration) {
        let keeps = self.spool.keeps_acknowledged();
        let state = &mut self.states[destination];
        state.is_failing = true;
        state.pause = Some(Pause::new(now, wait));
        state.check.failed(keeps);
    }

    /// The next attempt is made at once: there are new certificates.
    pub fn clear_pause(&mut self, destination: usize) {
        self.states[destination].pause = None;
    }

    /// Sends what is pending without pauses between batches, before a stop.
    pub fn flush(&mut self) {
        self.is_flushing = true;
        for destination in 0..self.states.len() {
            self.states[destination].deferred = None;
            self.spool.resume_deferred(destination);
        }
    }

    /// The records that are not delivered.
    pub fn spool(&self) -> &Spool<B> {
        &self.spool
    }

    /// The same, to take its events, or to damage its backend in a test.
    pub fn spool_mut(&mut self) -> &mut Spool<B> {
        &mut self.spool
    }

    /// Ends it, as a crash would: nothing more is written.
    pub fn into_backend(self) -> B {
        self.spool.into_backend()
    }

    /// Saves everything, before a stop.
    pub fn close(&mut self) -> Result<(), BackendError> {
        self.spool.save()
    }
}

fn set_back(now: Duration, ahead_secs: Option<f64>) -> u64 {
    let ahead = ahead_secs.unwrap_or(0.0) as i64;
    now.as_secs().saturating_add_signed(ahead.saturating_neg())
}

#[cfg(test)]
mod tests;
