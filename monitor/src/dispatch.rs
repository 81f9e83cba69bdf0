//! Everything between a sample and a request, without I/O and without a clock: which records go next to which destination, and what becomes of
//! them after the answer.
//!
//! While all is well, each record goes by itself as soon as it is there. After an outage the newest go at once, and beside them the
//! oldest in lots, bounded in rate. While a destination fails, each attempt brings the same oldest records: an answer that got lost
//! makes no gaps.

use std::time::Duration;

use lizmon_client::Error;
use lizmon_protocol::sample::{Epoch, IdempotencyKey, SampleSet};

use crate::publish::{Decision, Dropped, Pace, is_about_the_body, may_have_arrived, names_records};
use crate::skew::{News, Skew};
use crate::spool::{Keep, KeepError, Lot, Spool};

/// Newest records that go ahead of a backlog at once.
pub const NEWEST_MAX: usize = 10;
/// From one lot of a backlog to the next, on average: a day's records are delivered in a minute and a half, and a fleet that
/// comes back together is a thousand records a second for each of its hosts.
pub const BACKLOG_EVERY: Duration = Duration::from_secs(1);

/// The spool, and how it goes with each destination.
pub struct Dispatch<K> {
    spool: Spool<K>,
    couriers: Vec<Courier>,
    is_hurried: bool,
}

/// How it goes with one destination.
#[derive(Debug, Default)]
struct Courier {
    pace: Pace,
    /// Nothing is sent before this is over.
    rest: Option<Rest>,
    /// Nothing old is sent before this is over.
    backlog_rest: Option<Rest>,
    is_failing: bool,
    /// What was given up is told apart from records: together they were refused.
    reports_go_alone: bool,
    skew: Skew,
    delivered: u64,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    since: Duration,
    lasts: Duration,
}

impl Rest {
    /// Over at once where the clock was set back.
    fn left(self, now: Duration) -> Option<Duration> {
        let passed = now.checked_sub(self.since)?;
        let left = self.lasts.checked_sub(passed)?;
        (!left.is_zero()).then_some(left)
    }
}

/// What to do now for one destination.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Send this, and say how it went by [`Dispatch::done`]. Until then, ask no more.
    Send(Lot),
    /// Ask again after this long, or when there is a new record.
    Wait(Duration),
    /// There is nothing to do until there is a new record.
    Idle,
}

/// What became of a lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// So many records have arrived.
    Delivered(usize),
    /// The same records will be sent again after this long, if not at once.
    Again(Duration),
    /// These were refused by name, and are given up.
    GivenUp(Vec<Dropped>),
    /// The destination does not want to know what was given up.
    NotTold,
}

impl<K: Keep> Dispatch<K> {
    /// Goes on with what the spool holds, for its destinations, counted from 0.
    pub fn new(spool: Spool<K>) -> Self {
        let couriers = spool.destinations().iter().map(|_| Courier::default());
        Self {
            couriers: couriers.collect(),
            spool,
            is_hurried: false,
        }
    }

    /// A sample was taken: for all destinations. Who numbered it, and its number.
    pub fn sampled(
        &mut self,
        epoch: Epoch,
        values: &SampleSet<'_>,
        now: Duration,
    ) -> Option<IdempotencyKey> {
        let now = self.receivers_time(now);
        self.spool.push(epoch, values, now)
    }

    /// What to do now for this destination.
    pub fn next(&mut self, destination: usize, now: Duration) -> Next {
        let courier = &self.couriers[destination];
        if let Some(left) = courier.rest.and_then(|rest| rest.left(now)) {
            return Next::Wait(left);
        }
        let backlog_rest = courier.backlog_rest.filter(|_| !self.is_hurried);
        let backlog_wait = backlog_rest.and_then(|rest| rest.left(now));
        let lot_max = courier.pace.lot_records_max();
        let newest_max = match courier.is_failing {
            true => 0,
            false => NEWEST_MAX.min(lot_max),
        };
        let oldest_max = backlog_wait.map_or(lot_max, |_| 0);
        let reports_go_alone = courier.reports_go_alone;
        match (
            self.spool.lot(destination, newest_max, oldest_max),
            backlog_wait,
        ) {
            (Some(mut lot), _) => {
                if reports_go_alone && !lot.records.is_empty() {
                    lot.dropped.clear();
                }
                Next::Send(lot)
            }
            (None, Some(wait)) => Next::Wait(wait),
            (None, None) => Next::Idle,
        }
    }

    /// How sending a lot went. `chance` is from 0 to 1, another each time.
    pub fn done(
        &mut self,
        destination: usize,
        lot: &Lot,
        result: Result<(), &Error>,
        now: Duration,
        chance: f64,
    ) -> Done {
        let done = match result {
            Ok(()) => self.delivered(destination, lot, now, chance),
            Err(error) => self.failed(destination, lot, error, now, chance),
        };
        let now = self.receivers_time(now);
        self.spool.save_if_due(now);
        done
    }

    /// How many of a lot's numbers the destination says it knew: before [`Self::done`].
    pub fn heard_known(&mut self, destination: usize, lot: &Lot, known: u64, now: Duration) {
        let now = self.receivers_time(now);
        self.spool.heard_known(destination, lot, known, now);
    }

    /// What a receiver's clock said, in an answer to a request sent and answered at these times of ours.
    pub fn heard_clock(
        &mut self,
        destination: usize,
        theirs: u64,
        sent: Duration,
        answered: Duration,
    ) -> Option<News> {
        self.couriers[destination]
            .skew
            .heard(theirs, sent, answered)
    }

    /// How many seconds our clock is ahead of the receivers', by the median of those that have answered.
    pub fn clock_ahead_secs(&self) -> Option<f64> {
        let known = self.couriers.iter();
        let mut known: Vec<f64> = known
            .filter_map(|courier| courier.skew.ahead_secs())
            .collect();
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }

    /// Receivers judge by their own clock what is too old.
    fn receivers_time(&self, now: Duration) -> u64 {
        let ahead = self.clock_ahead_secs().unwrap_or(0.0) as i64;
        now.as_secs().saturating_add_signed(ahead.saturating_neg())
    }

    /// How many records this destination has taken since the start.
    pub fn delivered_records(&self, destination: usize) -> u64 {
        self.couriers[destination].delivered
    }

    /// How many records wait for the destination that is furthest behind.
    pub fn pending_max(&self) -> u64 {
        let pending = (0..self.couriers.len()).map(|at| self.spool.pending(at));
        pending.max().unwrap_or(0)
    }

    fn delivered(&mut self, destination: usize, lot: &Lot, now: Duration, chance: f64) -> Done {
        self.spool.settle(destination, lot);
        let pending = self.spool.pending(destination);
        let courier = &mut self.couriers[destination];
        courier.delivered += lot.records.len() as u64;
        courier.pace.delivered();
        courier.is_failing = false;
        courier.rest = None;
        let rests = courier.backlog_rest.and_then(|rest| rest.left(now));
        courier.backlog_rest = match (pending, rests) {
            (0, _) => None,
            (_, Some(_)) => courier.backlog_rest,
            (_, None) => Some(Rest {
                since: now,
                lasts: BACKLOG_EVERY.mul_f64(0.5 + chance),
            }),
        };
        Done::Delivered(lot.records.len())
    }

    fn failed(
        &mut self,
        destination: usize,
        lot: &Lot,
        error: &Error,
        now: Duration,
        chance: f64,
    ) -> Done {
        if may_have_arrived(error) {
            self.spool.may_have_arrived(destination, lot);
        }
        let courier = &mut self.couriers[destination];
        if is_about_the_body(error) && lot.records.is_empty() {
            self.spool.forget_reports(destination, lot);
            return Done::NotTold;
        }
        // Records that are named are at fault by themselves; anything else may be the reports' doing.
        let may_be_reports = !lot.dropped.is_empty() && !courier.reports_go_alone;
        if may_be_reports && is_about_the_body(error) && !names_records(error) {
            courier.reports_go_alone = true;
            return Done::Again(Duration::ZERO);
        }
        let decision = courier.pace.failed(error, lot.records.len(), chance);
        if let Decision::Drop(dropped) = decision {
            let named: Vec<_> = dropped
                .iter()
                .filter_map(|dropped| Some((lot.records.get(dropped.at)?.seq, dropped.code)))
                .collect();
            for (seq, code) in named {
                let why = code.as_str();
                self.spool.give_up(destination, lot.producer, &[seq], why);
            }
            return Done::GivenUp(dropped);
        }
        match decision {
            Decision::Retry(wait) => {
                courier.is_failing = true;
                courier.rest = Some(Rest {
                    since: now,
                    lasts: wait,
                });
                Done::Again(wait)
            }
            Decision::RenewToken | Decision::Split | Decision::Drop(_) => {
                Done::Again(Duration::ZERO)
            }
        }
    }

    /// Something has changed that makes another attempt worth while: new certificates.
    pub fn end_rest(&mut self, destination: usize) {
        self.couriers[destination].rest = None;
    }

    /// We are about to stop: a backlog waits no more between its lots.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
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
    pub fn into_keep(self) -> K {
        self.spool.into_keep()
    }

    /// Writes down everything, before a stop.
    pub fn close(&mut self) -> Result<(), KeepError> {
        self.spool.save()
    }
}

#[cfg(test)]
mod tests;
