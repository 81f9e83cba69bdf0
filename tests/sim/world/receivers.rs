//! The receivers' part of what happens.

use lizmon_client::ConnectFailure;
use lizmon_monitor::spool::StoredBatch;
use lizmon_protocol::sample::Epoch;
use lizmon_receiver::store::memory::WriteOutcome;
use lizmon_summary::AHEAD_SECS_MAX;

use super::World;
use super::event::Event;
use crate::Wrong;
use crate::monitor::encode;
use crate::wire::{Request, Target};

/// Once nothing goes wrong any more it may be seldom.
const HEALED_UPKEEP_SECS: u64 = 60;
/// How long the journal's sync takes at most.
const SYNC_MS_MAX: u64 = 20;

impl World {
    pub(super) fn arrive(&mut self, id: u64, between: (usize, usize), batch: &StoredBatch) {
        let (monitor, receiver) = between;
        let now = self.receivers_time(receiver);
        let at = &mut self.receivers[receiver];
        if !at.is_up() {
            return self.nothing_comes(id, 1, ConnectFailure::Connect);
        }
        let node = &self.hosts[monitor].node;
        let request = encode(batch);
        match at.accept(id, Some(monitor), node, &request, now) {
            Err(answer) => self.reply(id, answer),
            Ok(is_first) => self.take_soon(receiver, is_first),
        }
    }

    pub(super) fn by_hand(&mut self, receiver: usize) {
        let at = self.receivers_time(receiver);
        let (now, true_now) = (at.as_secs(), self.secs());
        let id = self.next_request();
        let receivers = &mut self.receivers[receiver];
        if !receivers.is_up() {
            return;
        }
        let label = format!("by hand {id}");
        let request = Request {
            body: format!("{{\"{label}\":1}}").into_bytes(),
            target: Target::Unnumbered {
                epoch: Epoch::new(now).unwrap(),
            },
        };
        // One that is stamped by a wrong clock may be taken out again.
        if now.abs_diff(true_now) <= AHEAD_SECS_MAX {
            self.model.send_unnumbered(receiver, label, now);
        }
        if let Ok(is_first) = receivers.accept(id, None, &self.somebody, &request, at) {
            self.take_soon(receiver, is_first);
        }
    }

    fn take_soon(&mut self, receiver: usize, is_first: bool) {
        if is_first {
            let life = self.receivers[receiver].life;
            let sync_ms = self.rng.u64(0..=SYNC_MS_MAX);
            self.at(self.now_ms + sync_ms, Event::Take { receiver, life });
        }
    }

    pub(super) fn take(&mut self, receiver: usize) -> Result<(), Wrong> {
        let at = self.reading(receiver);
        self.model.takes_at(receiver, at.wall);
        let judged = self.receivers[receiver].take(at);
        if self.receivers[receiver].disk.is_crashed() {
            self.receiver_dies(receiver);
            return Ok(());
        }
        for one in &judged {
            let Ok(answer) = &one.result else {
                continue;
            };
            let view = one.waiting.submission.view().unwrap();
            match one.waiting.monitor {
                Some(monitor) => {
                    let between = (monitor, receiver);
                    self.model.take(between, &view, *answer, self.secs())?;
                }
                None => self.model.take_unnumbered(receiver, &view),
            }
            self.note(answer.accepted << 32 | answer.duplicate);
        }
        if !self.is_healed && self.chance(self.scenario.answer_crashes) {
            self.receiver_dies(receiver);
            return Ok(());
        }
        let clock = self.receivers_time(receiver);
        let clock = self.receivers[receiver].clock(clock);
        for one in judged {
            let id = one.waiting.id;
            let answer = one.answer(clock);
            self.reply(id, answer);
        }
        Ok(())
    }

    pub(super) fn upkeep(&mut self, receiver: usize) {
        let at = self.reading(receiver);
        self.receivers[receiver].upkeep(at);
        if self.receivers[receiver].disk.is_crashed() {
            self.receiver_dies(receiver);
        }
        let every = match self.is_healed {
            true => HEALED_UPKEEP_SECS,
            false => self.scenario.upkeep_every,
        };
        let at = self.now_ms + every * 1_000;
        self.at(at, Event::Upkeep { receiver });
    }

    pub(super) fn receiver_will_die(&mut self, receiver: usize) {
        if let Some(after) = self.some_time_about(self.scenario.receiver_crash_every) {
            let event = match self.rng.u8(0..5) {
                0 => Event::ReceiverStops { receiver },
                _ => Event::ReceiverDies { receiver },
            };
            self.at(after, event);
        }
    }

    pub(super) fn receiver_dies(&mut self, receiver: usize) {
        if self.receivers[receiver].is_up() {
            self.figures.receiver_crashes += 1;
            let is_unsynced_there = self.rng.bool();
            self.receivers[receiver].crash(is_unsynced_there);
            self.receiver_comes_back(receiver);
        }
    }

    /// What it has accepted is taken and answered before it ends.
    pub(super) fn receiver_stops(&mut self, receiver: usize) -> Result<(), Wrong> {
        self.take(receiver)?;
        if self.receivers[receiver].is_up() {
            self.receivers[receiver].stop();
            self.receiver_comes_back(receiver);
        }
        Ok(())
    }

    fn receiver_comes_back(&mut self, receiver: usize) {
        let down_ms = self.rng.u64(0..=self.scenario.down_secs_max * 1_000);
        let event = Event::ReceiverStarts { receiver };
        self.at(self.now_ms + down_ms, event);
        // Most clients see their connection break; some only wait.
        let waiting = self.under_way.iter();
        let waiting: Vec<u64> = waiting
            .filter(|(_, under_way)| under_way.receiver == receiver)
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if self.rng.u8(0..4) != 0 {
                let after = self.rng.u64(0..50);
                self.nothing_comes(id, after, ConnectFailure::Broken);
            }
        }
    }

    pub(super) fn receiver_starts(&mut self, receiver: usize) -> Result<(), Wrong> {
        if self.receivers[receiver].is_up() {
            return Ok(());
        }
        let at = self.reading(receiver);
        self.receivers[receiver]
            .start(at)
            .map_err(|error| Wrong(format!("receiver {receiver} does not start: {error}")))?;
        self.check_receiver(receiver)
    }

    pub(super) fn set_fates(&mut self, receiver: usize) {
        let scenario = &self.scenario;
        let (fails, unsynced, crashes) = match self.is_healed {
            true => (0.0, 0.0, 0.0),
            false => (
                scenario.write_fails,
                scenario.write_unsynced,
                scenario.write_crashes,
            ),
        };
        let mut rng = self.rng.fork();
        self.receivers[receiver].disk.set_outcomes(move || {
            let chance = rng.f64();
            if chance < fails {
                WriteOutcome::Fails
            } else if chance < fails + unsynced {
                WriteOutcome::Unsynced
            } else if chance < fails + unsynced + crashes {
                [
                    WriteOutcome::CrashBefore,
                    WriteOutcome::CrashTorn,
                    WriteOutcome::CrashAfter,
                ][rng.usize(0..3)]
            } else {
                WriteOutcome::Done
            }
        });
    }
}
