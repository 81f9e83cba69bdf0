//! When a destination is asked what it misses, and what it gets again.

use std::time::Duration;

use lizmon_client::Error;
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::problem::Code;

use super::pause::Pause;
use super::{BACKLOG_INTERVAL, DeliveryScheduler, NextStep, Outcome};
use crate::retry::{Decision, RefusedRecord, is_body_error, server_now};
use crate::spool::{SpoolBackend, StoredBatch};

/// How often each destination is asked, if acknowledged records are kept.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// It is not asked more often than this: behind a proxy each request may reach another receiver of
/// a group, which looks like a restart.
const CHECK_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// When it is asked again if it did not answer, on average: twice as late each time, as nothing is
/// sent to it while it is asked.
const CHECK_RETRY: Duration = Duration::from_secs(10);
/// A destination that reports records missing which it has is not believed for this long; twice as
/// long each time.
const FALSE_REPORT_PAUSE: Duration = Duration::from_secs(60);
/// The longest such time.
const FALSE_REPORT_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What a destination's report of what it has means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Records that are sent again.
    pub repairable: u64,
    /// Records that it once had, and will not get again: it is told so.
    pub lost: u64,
}

/// Which of the monitor's own minutes it is.
fn minute(now: Duration, offset: Duration) -> u64 {
    (now + CHECK_INTERVAL.saturating_sub(offset)).as_secs() / CHECK_INTERVAL.as_secs()
}

impl<B: SpoolBackend> DeliveryScheduler<B> {
    /// How many records were sent again to this destination since the start, because it had lost
    /// them.
    pub fn repaired_records(&self, destination: usize) -> u64 {
        self.states[destination].check.repaired
    }

    /// The same over all destinations.
    pub fn repaired_records_total(&self) -> u64 {
        self.states.iter().map(|state| state.check.repaired).sum()
    }

    /// Whether this destination may have lost records since it was last asked: it has just come
    /// back, or does not say.
    pub fn may_have_losses(&self, destination: usize) -> bool {
        self.states[destination].check.is_due()
    }

    /// Whether this destination is to be asked now. While nobody knows whether it is there, it is
    /// asked only where nothing else is to be done: new records go first.
    pub(super) fn is_check_due(&self, destination: usize, is_idle: bool, now: Duration) -> bool {
        let check = &self.states[destination].check;
        let is_new_minute = check.asked_in != Some(minute(now, self.check_offset));
        let is_wanted = check.is_due || (self.spool.keeps_acknowledged() && is_new_minute);
        let is_paused = check.pause.is_some_and(|pause| pause.left(now).is_some());
        is_wanted && (check.is_connected || is_idle) && !is_paused && !self.is_flushing
    }

    /// Takes the answer to [`NextStep::CheckDelivery`]: what the destination has of this host. That
    /// is nothing, if it does not know the host.
    pub fn on_delivery(
        &mut self,
        destination: usize,
        answer: Result<&Delivery, &Error>,
        now: Duration,
        chance: f64,
    ) -> Losses {
        let nothing = Delivery {
            as_of: None,
            producers: Vec::new(),
            removed: None,
            clock: None,
        };
        let delivery = match answer {
            // It has more than it says.
            Ok(delivery) if delivery.as_of.is_some() => {
                self.check_failed(destination, false, now, chance);
                return Losses::default();
            }
            Ok(delivery) => delivery,
            Err(error) if error.code() == Some(Code::UnknownHost) => &nothing,
            Err(error) => {
                self.check_failed(destination, is_final(error), now, chance);
                return Losses::default();
            }
        };
        let keeps = self.spool.keeps_acknowledged();
        let check = &mut self.states[destination].check;
        check.asked_in = Some(minute(now, self.check_offset));
        check.is_due = false;
        check.failures = 0;
        check.pause = Some(Pause::new(now, CHECK_INTERVAL_MIN));
        let is_restarted = std::mem::take(&mut check.is_restarted);
        let repairable = match keeps {
            true => self.spool.plan_repair(destination, delivery),
            false => 0,
        };
        self.spool.repeat_reports(destination, delivery);
        let mut lost = 0;
        if is_restarted {
            lost = self.spool.report_lost(destination, delivery);
        } else if keeps {
            self.spool.report_drops_again(destination, delivery);
        }
        Losses { repairable, lost }
    }

    /// There is no answer that says what the destination has.
    fn check_failed(&mut self, destination: usize, is_final: bool, now: Duration, chance: f64) {
        let keeps = self.spool.keeps_acknowledged();
        let check = &mut self.states[destination].check;
        check.asked_in = Some(minute(now, self.check_offset));
        let wait = CHECK_RETRY * 2_u32.saturating_pow(check.failures.min(10));
        let wait = wait.min(CHECK_INTERVAL).mul_f64(0.5 + chance);
        check.pause = Some(Pause::new(now, wait));
        check.failures += 1;
        check.is_due = !is_final && (check.is_due || keeps);
    }

    /// The next records to be sent again to a destination, or how long to wait for that.
    pub(super) fn next_repair(&mut self, destination: usize, now: Duration) -> NextStep {
        if self.spool.to_repair(destination) == 0 {
            return NextStep::Idle;
        }
        let pause = self.states[destination].check.repair_pause;
        if let Some(left) = pause.and_then(|pause| pause.left(now)) {
            return match self.is_flushing {
                true => NextStep::Idle,
                false => NextStep::Wait(left),
            };
        }
        let records_max = self.states[destination].backoff.batch_records_max();
        let too_old = self.too_old_through(now);
        let next = self.spool.next_repair(destination, records_max, too_old);
        next.map_or(NextStep::Idle, NextStep::Send)
    }

    /// So many of the repair's records had not been lost.
    pub(super) fn on_repair_duplicates(&mut self, destination: usize, duplicates: u64) {
        self.states[destination].check.duplicates = duplicates;
    }

    pub(super) fn repaired(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        now: Duration,
        chance: f64,
    ) -> Outcome {
        self.spool.on_repaired(destination, batch);
        let records = batch.records.len() as u64;
        let check = &mut self.states[destination].check;
        let new = records.saturating_sub(std::mem::take(&mut check.duplicates));
        check.repaired += new;
        let mut wait = BACKLOG_INTERVAL;
        if new > 0 {
            check.false_reports = 0;
        } else {
            // It will be asked again at the earliest then.
            wait = FALSE_REPORT_PAUSE * 2_u32.saturating_pow(check.false_reports.min(10));
            wait = wait.min(FALSE_REPORT_PAUSE_MAX);
            check.false_reports += 1;
            check.pause = Some(Pause::new(now, wait));
            self.spool.discard_repair_plan(destination);
        }
        let check = &mut self.states[destination].check;
        check.repair_pause = Some(Pause::new(now, wait.mul_f64(0.5 + chance)));
        Outcome::Repaired {
            records: new,
            left: self.spool.to_repair(destination),
        }
    }

    /// Takes the error of a repair. Whether it has arrived is not guessed: the destination is asked
    /// once more before anything is sent again.
    pub(super) fn repair_failed(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        error: &Error,
        now: Duration,
        chance: f64,
    ) -> Outcome {
        let state = &mut self.states[destination];
        let decision = state.backoff.failed(error, batch.records.len(), chance);
        match decision {
            Decision::RenewToken | Decision::Split => Outcome::Retry(Duration::ZERO),
            Decision::Drop(refused) => self.repair_refused(destination, batch, refused, error, now),
            // The receiver keeps no more producers or ranges of this host. Its other records go on.
            Decision::Retry(wait) if is_body_error(error) => {
                state.check.repair_pause = Some(Pause::new(now, wait));
                self.spool.discard_repair_plan(destination);
                Outcome::RepairRefused(batch.records.len())
            }
            Decision::Retry(wait) => {
                self.spool.discard_repair_plan(destination);
                self.start_failing(destination, now, wait);
                Outcome::Retry(wait)
            }
        }
    }

    fn repair_refused(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        refused: Vec<RefusedRecord>,
        error: &Error,
        now: Duration,
    ) -> Outcome {
        let (later, refused) = self.split_refused(batch, refused, server_now(error), now);
        let producer = batch.producer;
        self.spool
            .postpone_repair(destination, producer, later.iter().copied());
        for one in &refused {
            if let Some(record) = batch.records.get(one.index) {
                let why = one.code.as_str();
                self.spool
                    .refuse_repair(destination, producer, &[record.seq], why);
            }
        }
        Outcome::RepairRefused(later.len() + refused.len())
    }
}

/// Whether asking again soon is of no use: the receiver does not have the route, or does not let us
/// ask.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused {
            status: 403..=405,
            ..
        }
    )
}
