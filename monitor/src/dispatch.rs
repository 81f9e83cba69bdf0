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
use lizmon_protocol::sample::{Epoch, IdempotencyKey, SampleSet, Seq};

use crate::publish::{
    Decision, Dropped, HELPLESS_WAIT, Pace, is_about_the_body, may_have_arrived, names_records,
};
use crate::skew::{Correction, CorrectionNews, News, Skew};
use crate::spool::{Keep, KeepError, Lot, Spool, Steadiness};

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
pub struct Dispatch<K> {
    spool: Spool<K>,
    couriers: Vec<Courier>,
    is_hurried: bool,
    correction: Correction,
    /// Whether our own clock may call a record too old.
    own_clock: Steadiness,
}

/// What a destination does not take for now, because it is another time there.
#[derive(Debug, Clone, Copy)]
struct PutOff {
    rest: Rest,
    /// How far our clock was ahead of theirs.
    ahead_secs: Option<f64>,
}

/// How it goes with one destination.
#[derive(Debug, Default)]
struct Courier {
    pace: Pace,
    /// Nothing is sent before this is over.
    rest: Option<Rest>,
    /// Nothing old is sent before this is over.
    backlog_rest: Option<Rest>,
    put_off: Option<PutOff>,
    /// Which start of the receiver answered last.
    run: u64,
    /// It has started anew since it was last asked what it misses: its data may have, too.
    may_have_lost: bool,
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
    /// So many were refused because it is another time there: they are kept, and sent again later.
    PutOff(usize),
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
            correction: Correction::default(),
            own_clock: Steadiness::default(),
        }
    }

    /// A sample was taken: for all destinations. Who numbered it, and its number.
    pub fn sampled(
        &mut self,
        epoch: Epoch,
        values: &SampleSet<'_>,
        now: Duration,
    ) -> Option<IdempotencyKey> {
        self.own_clock.is_steady_at(self.own_time(now));
        let now = self.least_time(now);
        self.spool.push(epoch, values, now)
    }

    /// What to do now for this destination.
    pub fn next(&mut self, destination: usize, now: Duration) -> Next {
        self.take_up_if_due(destination, now);
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
            (None, None) => {
                let put_off = self.couriers[destination].put_off;
                let wait = put_off.and_then(|put_off| put_off.rest.left(now));
                wait.map_or(Next::Idle, Next::Wait)
            }
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
        let now = self.least_time(now);
        self.spool.save_if_due(now);
        done
    }

    /// How many of a lot's numbers the destination says it knew: before [`Self::done`].
    pub fn heard_known(&mut self, destination: usize, lot: &Lot, known: u64, now: Duration) {
        let now = self.least_time(now);
        self.spool.heard_known(destination, lot, known, now);
    }

    /// What was put off is sent again after a while, when the clocks have come to differ by something else, and before a stop.
    fn take_up_if_due(&mut self, destination: usize, now: Duration) {
        let courier = &mut self.couriers[destination];
        let Some(PutOff { rest, ahead_secs }) = courier.put_off else {
            return;
        };
        let has_changed = match (ahead_secs, courier.skew.ahead_secs()) {
            (Some(then), Some(now)) => (then - now).abs() > OTHER_TIME_SECS,
            (then, now) => then.is_some() != now.is_some(),
        };
        if has_changed || rest.left(now).is_none() {
            courier.put_off = None;
            self.spool.take_up(destination);
        }
    }

    /// What a receiver's clock said, in an answer to a request sent and answered at these times of ours.
    pub fn heard_clock(
        &mut self,
        destination: usize,
        theirs: ServerClock,
        sent: Duration,
        answered: Duration,
    ) -> (Option<News>, Option<CorrectionNews>) {
        let courier = &mut self.couriers[destination];
        if courier.run != theirs.run {
            courier.run = theirs.run;
            courier.may_have_lost = true;
        }
        let news = courier.skew.heard(theirs, sent, answered);
        let settled = self.couriers.iter();
        let settled = settled.filter_map(|courier| courier.skew.settled_secs());
        (news, self.correction.look(settled.collect()))
    }

    /// How far our clock is ahead of the time that samples are to be stamped by; none where that is our own.
    pub fn corrected_secs(&self) -> Option<f64> {
        self.correction.ahead_secs()
    }

    /// How far our clock is ahead of this destination's, once that has answered.
    pub fn ahead_of_secs(&self, destination: usize) -> Option<f64> {
        self.couriers[destination].skew.ahead_secs()
    }

    /// Whether this destination is to be asked what it misses, once more records have arrived there. Says so once.
    pub fn take_may_have_lost(&mut self, destination: usize) -> bool {
        std::mem::take(&mut self.couriers[destination].may_have_lost)
    }

    /// To be asked again: there was no answer.
    pub fn still_may_have_lost(&mut self, destination: usize) {
        self.couriers[destination].may_have_lost = true;
    }

    /// What it says it misses. How many records of those it once had: it is told that it has lost them.
    pub fn missed(&mut self, destination: usize, delivery: &Delivery) -> u64 {
        let of =
            |told: &ProducerDelivery| self.spool.missed(destination, told.producer, &told.missing);
        delivery.producers.iter().map(of).sum()
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

    /// The time that samples are stamped by.
    fn own_time(&self, now: Duration) -> u64 {
        set_back(now, self.corrected_secs())
    }

    /// The earlier of our time and the receivers': what one of them does not call too old may still be taken.
    fn least_time(&self, now: Duration) -> u64 {
        set_back(now, self.clock_ahead_secs()).min(self.own_time(now))
    }

    /// Whether a record is too old for a receiver by our own clock, and that may be believed.
    fn is_too_old(&mut self, epoch: u64, now: Duration) -> bool {
        let now = self.own_time(now);
        let day_begins = (now - now % HOUR_SECS).saturating_sub(DAY_SECS);
        self.own_clock.is_steady_at(now) && epoch <= day_begins
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
            let (later, dropped) = self.sort_out(lot, dropped, told_now(error), now);
            if !later.is_empty() {
                self.put_off(destination, lot, &later, now, chance);
            }
            if dropped.is_empty() {
                return Done::PutOff(later.len());
            }
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

    /// Which of the refused records are refused for good. A record is not ahead of its time for ever, and one that is too old
    /// by their clock is so by ours as well, or one of the two is wrong. Receivers name the first hundred: what is later than
    /// what they find ahead, or earlier than what they find too old, they would refuse as well.
    fn sort_out(
        &mut self,
        lot: &Lot,
        mut refused: Vec<Dropped>,
        theirs: Option<u64>,
        now: Duration,
    ) -> (Vec<Seq>, Vec<Dropped>) {
        let epoch_of = |dropped: &Dropped| Some(lot.records.get(dropped.at)?.epoch.secs());
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
        let records = lot.records.iter();
        let later: Vec<Seq> = records
            .filter(|record| is_later(self, record.epoch.secs()))
            .map(|record| record.seq)
            .collect();
        let is_final = |dropped: &Dropped| {
            let record = lot.records.get(dropped.at);
            record.is_none_or(|record| !later.contains(&record.seq))
        };
        let dropped = refused.into_iter().filter(is_final).collect();
        (later, dropped)
    }

    fn put_off(
        &mut self,
        destination: usize,
        lot: &Lot,
        later: &[Seq],
        now: Duration,
        chance: f64,
    ) {
        self.spool.put_off(destination, lot.producer, later);
        let courier = &mut self.couriers[destination];
        let ahead_secs = courier.skew.ahead_secs();
        let wait = |longest: Duration| Rest {
            since: now,
            lasts: longest.mul_f64(0.5 + chance / 2.0),
        };
        courier.put_off.get_or_insert(PutOff {
            rest: wait(HELPLESS_WAIT),
            ahead_secs,
        });
        // Where the whole lot is refused, the next one may well be: not thousands in a second.
        if later.len() == lot.records.len() {
            courier.rest = Some(wait(BACKLOG_EVERY));
        }
    }

    /// Something has changed that makes another attempt worth while: new certificates.
    pub fn end_rest(&mut self, destination: usize) {
        self.couriers[destination].rest = None;
    }

    /// We are about to stop: a backlog waits no more between its lots.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
        for destination in 0..self.couriers.len() {
            self.couriers[destination].put_off = None;
            self.spool.take_up(destination);
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
    pub fn into_keep(self) -> K {
        self.spool.into_keep()
    }

    /// Writes down everything, before a stop.
    pub fn close(&mut self) -> Result<(), KeepError> {
        self.spool.save()
    }
}

/// What the receiver's clock said when it refused records.
fn told_now(error: &Error) -> Option<u64> {
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
