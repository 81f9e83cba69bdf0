//! What is given up because there is no room, or because nobody would take it any more. Oldest first.

use super::keep::{Keep, Kept, UNKNOWN_EPOCH};
use super::tape::{Kind, Tape};
use super::{Spool, TAPES_MAX, why};

/// For how long a clock must have run on before it may call a record too old.
const STEADY_SECS: u64 = 600;
/// A clock that moves on by more from one sample to the next was set, or the machine slept.
const JUMP_SECS: u64 = 7200;

/// How long an ended tape is kept for what a receiver has not been told of it: as long as receivers remember its
/// producer, for an outage may last longer than records do.
const REPORTS_KEPT_SECS: u64 = 7 * 86_400;

/// Since when the clock has run on without a jump: one that is wrong for a moment, as after a start, makes nothing old.
#[derive(Debug, Default)]
pub(crate) struct Steadiness {
    since: u64,
    last: u64,
}

impl Steadiness {
    pub(crate) fn is_steady_at(&mut self, now: u64) -> bool {
        if now < self.last || now - self.last > JUMP_SECS {
            self.since = now;
        }
        self.last = now;
        now - self.since >= STEADY_SECS
    }
}

/// Records read at once where only their sizes and ages are wanted.
const LOOK_RECORDS: usize = 64;

impl<K: Keep> Spool<K> {
    /// Gives up what is too old, and tapes that nobody needs to hear of any more.
    pub(super) fn drop_old(&mut self, now: u64) {
        self.drop_tapes_beyond_max();
        if !self.steadiness.is_steady_at(now) {
            return;
        }
        let limit = now.saturating_sub(self.limits.age_secs_max);
        for at in 0..self.tapes.len() {
            let newest = &mut self.tapes[at].newest_epoch;
            if *newest == UNKNOWN_EPOCH {
                *newest = now;
            }
            while self.oldest_epoch(at).is_some_and(|epoch| epoch < limit) {
                let look = self.look(at);
                let old = look.iter().take_while(|kept| kept.epoch < limit);
                let Some(last) = old.last() else {
                    break;
                };
                self.drop_through(at, last.seq, why::OLD);
            }
        }
        let untold = now.saturating_sub(REPORTS_KEPT_SECS);
        for tape in &mut self.tapes {
            let is_over = tape.kind == Kind::Closed && tape.first >= tape.next;
            if is_over && tape.newest_epoch < untold {
                tape.forget_reports();
            }
        }
    }

    fn drop_tapes_beyond_max(&mut self) {
        let closed = |tape: &Tape| tape.kind == Kind::Closed;
        if self.tapes.len() > TAPES_MAX
            && let Some(oldest) = self.tapes.iter().position(closed)
        {
            self.drop_through(oldest, self.tapes[oldest].next - 1, why::FULL);
            self.tapes[oldest].forget_reports();
        }
    }

    /// Makes room in the keep, a little more than is needed, so that it is not done for each record.
    pub(super) fn drop_beyond_room(&mut self, now: u64) {
        let bytes_max = self.limits.bytes_max;
        // While nothing can be written, nothing is freed either, and nothing is added.
        if self.held_bytes <= bytes_max || self.trouble.is_some() {
            return;
        }
        let mut excess = self.held_bytes - (bytes_max - bytes_max / 64);
        for at in 0..self.tapes.len() {
            while excess > 0 {
                let look = self.look(at);
                let mut last = None;
                for kept in look {
                    if excess == 0 {
                        break;
                    }
                    excess = excess.saturating_sub(kept.bytes());
                    last = Some(kept.seq);
                }
                let Some(last) = last else {
                    break;
                };
                self.drop_through(at, last, why::FULL);
            }
        }
        self.try_save(now);
    }

    /// Keeps what the keep has not taken within its limit.
    pub(super) fn bound_tail(&mut self, at: usize) {
        let bytes_max = self.limits.tail_bytes_max;
        let tape = &mut self.tapes[at];
        let mut bytes = tape.tail_bytes();
        let mut lost = 0;
        while bytes > bytes_max
            && let Some(kept) = tape.tail.pop_front()
        {
            bytes -= kept.bytes();
            lost += tape.give_up_everywhere(kept.seq, kept.seq, why::DISK);
        }
        if lost > 0 {
            tape.release();
        }
        self.count_given_up(lost, why::DISK);
    }

    fn drop_through(&mut self, at: usize, seq: u64, why: &'static str) {
        let tape = &mut self.tapes[at];
        let lost = tape.give_up_everywhere(tape.first, seq, why);
        tape.release();
        self.count_given_up(lost, why);
    }

    fn oldest_epoch(&mut self, at: usize) -> Option<u64> {
        if self.tapes[at].oldest_epoch.is_none() {
            let oldest = self.look(at).first().map(|kept| kept.epoch);
            self.tapes[at].oldest_epoch = oldest;
        }
        self.tapes[at].oldest_epoch
    }

    /// Some of the oldest records; none where there are none, or they cannot be read.
    fn look(&mut self, at: usize) -> Vec<Kept> {
        let tape = &self.tapes[at];
        let held_to = tape.tail_first() - 1;
        if tape.first <= held_to {
            let read = self
                .keep
                .read(tape.producer, tape.first, held_to, LOOK_RECORDS);
            match read {
                Ok(look) if look.is_empty() => (),
                Ok(look) => return look,
                Err(_) => return Vec::new(),
            }
        }
        tape.tail.iter().take(LOOK_RECORDS).cloned().collect()
    }
}
