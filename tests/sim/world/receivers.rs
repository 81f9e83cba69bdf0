//! Events of the receivers.

use lizmon_client::ConnectFailure;
use lizmon_protocol::sample::Epoch;
use lizmon_receiver::store::memory::WriteOutcome;
use lizmon_summary::AHEAD_SECS_MAX;

use super::event::Event;
use super::{Payload, World};
use crate::Violation;
use crate::monitor::encode;
use crate::receiver::{Completed, Receiver};
use crate::scenario::FORGOTTEN_SECS_MAX;
use crate::wire::{Request, Target};

/// The interval after the faults are over.
const CALM_MAINTENANCE_SECS: u64 = 60;
/// The longest time of the journal's sync.
const SYNC_MS_MAX: u64 = 20;

impl World {
    pub(super) fn arrive(&mut self, id: u64, between: (usize, usize), payload: Payload) {
        let (monitor, destination) = between;
        if self.group.is_none() {
            return self.reached(id, (monitor, destination), payload);
        }
        match self.balance() {
            Some(receiver) => self.reached(id, (monitor, receiver), payload),
            None => self.no_answer(id, 1, ConnectFailure::Connect),
        }
    }

    /// Until when a receiver is paused, if it is.
    fn paused_until(&self, receiver: usize) -> Option<u64> {
        let group = self.group.as_ref()?;
        group.paused_until(receiver, self.now_ms)
    }

    pub(super) fn reached(&mut self, id: u64, between: (usize, usize), payload: Payload) {
        let (monitor, receiver) = between;
        if let Some(until) = self.paused_until(receiver) {
            let event = Event::Reached {
                id,
                monitor,
                receiver,
                payload,
            };
            return self.at(until, event);
        }
        let now = self.receiver_time(receiver);
        if matches!(payload, Payload::DeliveryQuery) {
            self.read_for_query(receiver);
        }
        let at = &mut self.receivers[receiver];
        if !at.is_up() {
            return self.no_answer(id, 1, ConnectFailure::Connect);
        }
        let node = &self.hosts[monitor].node;
        let request = match payload {
            Payload::Batch(batch) => encode(&batch),
            Payload::DeliveryQuery => {
                let answer = at.answer_delivery(node, now);
                return self.reply(id, answer);
            }
        };
        match at.accept(id, Some(monitor), node, &request, now) {
            Err(answer) => self.reply(id, answer),
            Ok(is_first) => self.schedule_take(receiver, is_first),
        }
    }

    pub(super) fn send_unnumbered(&mut self, receiver: usize) {
        let at = self.receiver_time(receiver);
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
        // A sample that is stamped by a wrong clock may be removed again.
        if now.abs_diff(true_now) <= AHEAD_SECS_MAX {
            match self.group {
                Some(_) => self.model.send_once(label, now),
                None => self.model.send_unnumbered(receiver, label, now),
            }
        }
        if let Ok(is_first) = receivers.accept(id, None, &self.manual_sender, &request, at) {
            self.schedule_take(receiver, is_first);
        }
    }

    fn schedule_take(&mut self, receiver: usize, is_first: bool) {
        if is_first {
            let generation = self.receivers[receiver].generation;
            let sync_ms = self.rng.u64(0..=SYNC_MS_MAX);
            self.at(
                self.now_ms + sync_ms,
                Event::Take {
                    receiver,
                    generation,
                },
            );
        }
    }

    pub(super) fn take_unless_paused(
        &mut self,
        receiver: usize,
        generation: u64,
    ) -> Result<(), Violation> {
        let Some(until) = self.paused_until(receiver) else {
            return self.take(receiver);
        };
        let event = Event::Take {
            receiver,
            generation,
        };
        self.at(until, event);
        Ok(())
    }

    pub(super) fn take(&mut self, receiver: usize) -> Result<(), Violation> {
        let at = self.reading(receiver);
        let forgot = self.forgot();
        if self.group.is_none() {
            self.model.takes_at(receiver, at.wall);
        }
        let completed = self.receivers[receiver].take(at);
        if self.group.is_some() {
            self.acknowledge(&completed, forgot)?;
            return self.answer(receiver, completed);
        }
        if self.receivers[receiver].disk.is_crashed() {
            self.crash_receiver(receiver);
            return Ok(());
        }
        for one in &completed {
            let Ok(answer) = &one.result else {
                continue;
            };
            let view = one.waiting.submission.view().unwrap();
            match one.waiting.monitor {
                Some(monitor) => {
                    let between = (monitor, receiver);
                    self.model.take(between, &view, *answer, self.secs())?;
                }
                None => self.model.on_unnumbered_taken(receiver, &view),
            }
            self.add_to_digest(answer.accepted << 32 | answer.duplicate);
        }
        self.answer(receiver, completed)
    }

    fn answer(&mut self, receiver: usize, completed: Vec<Completed>) -> Result<(), Violation> {
        if !self.are_faults_over && self.chance(self.scenario.answer_crashes) {
            self.crash_receiver(receiver);
            return Ok(());
        }
        let clock = self.receiver_time(receiver);
        let clock = self.receivers[receiver].clock(clock);
        for one in completed {
            let id = one.waiting.id;
            let answer = one.answer(clock);
            self.reply(id, answer);
        }
        Ok(())
    }

    pub(super) fn maintain(&mut self, receiver: usize) {
        let at = self.reading(receiver);
        self.receivers[receiver].maintain(at);
        if self.receivers[receiver].disk.is_crashed() {
            self.crash_receiver(receiver);
        }
        self.back_up(receiver);
        let every = match self.are_faults_over {
            true => CALM_MAINTENANCE_SECS,
            false => self.scenario.maintenance_interval,
        };
        let at = self.now_ms + every * 1_000;
        self.at(at, Event::Maintenance { receiver });
    }

    /// Copies what is durable there, if it may be put back.
    fn back_up(&mut self, receiver: usize) {
        if self.scenario.forgets_every == 0 || self.are_faults_over {
            return;
        }
        let now_ms = self.now_ms;
        let oldest = now_ms.saturating_sub(FORGOTTEN_SECS_MAX * 1_000);
        let backups = &mut self.backups[receiver];
        backups.retain(|(made_at, _)| *made_at >= oldest);
        backups.push((now_ms, self.receivers[receiver].disk.backup()));
    }

    pub(super) fn schedule_forgetting(&mut self, receiver: usize) {
        if let Some(after) = self.random_time_around(self.scenario.forgets_every) {
            self.at(after, Event::ReceiverForgets { receiver });
        }
    }

    /// It starts with an older copy of its disk: what it has acknowledged since is gone.
    pub(super) fn forget(&mut self, receiver: usize) -> Result<(), Violation> {
        let oldest = self.now_ms.saturating_sub(FORGOTTEN_SECS_MAX * 1_000);
        let backups = &mut self.backups[receiver];
        backups.retain(|(made_at, _)| *made_at >= oldest);
        if backups.is_empty() {
            return Ok(());
        }
        let chosen = self.rng.usize(0..backups.len());
        let (_, backup) = backups.swap_remove(chosen);
        // A copy of what is forgotten now must not come back later.
        backups.clear();
        if self.receivers[receiver].is_up() {
            self.stats.receiver_crashes += 1;
            self.receivers[receiver].crash(false);
            self.schedule_receiver_start(receiver);
        }
        self.receivers[receiver].disk.restore(backup);
        // Nothing is written while it is looked at.
        let mut left = Receiver::on(self.receivers[receiver].disk.clone());
        left.start(self.reading(receiver)).map_err(|error| {
            Violation(format!("receiver {receiver} cannot be restored: {error}"))
        })?;
        for (monitor, host) in self.hosts.iter_mut().enumerate() {
            let held = left.held(&host.node);
            self.stats.forgotten += self.model.forget(monitor, receiver, &held);
            host.has_checked[receiver] = false;
        }
        self.model.forget_unnumbered(receiver);
        Ok(())
    }

    pub(super) fn schedule_receiver_crash(&mut self, receiver: usize) {
        if let Some(after) = self.random_time_around(self.scenario.receiver_crash_every) {
            let event = match self.rng.u8(0..5) {
                0 => Event::ReceiverStops { receiver },
                _ => Event::ReceiverCrashes { receiver },
            };
            self.at(after, event);
        }
    }

    pub(super) fn crash_receiver(&mut self, receiver: usize) {
        if self.receivers[receiver].is_up() {
            self.stats.receiver_crashes += 1;
            let is_unsynced_there = self.rng.bool();
            let waiting = self.receivers[receiver].waiting();
            self.receivers[receiver].crash(is_unsynced_there);
            if self.group.is_some() {
                self.break_connections(waiting);
            }
            self.schedule_receiver_start(receiver);
        }
    }

    /// Accepted requests are taken and answered before it ends.
    pub(super) fn stop_receiver(&mut self, receiver: usize) -> Result<(), Violation> {
        self.take(receiver)?;
        if self.receivers[receiver].is_up() {
            self.receivers[receiver].stop();
            self.schedule_receiver_start(receiver);
        }
        Ok(())
    }

    fn schedule_receiver_start(&mut self, receiver: usize) {
        let down_ms = self.rng.u64(0..=self.scenario.down_secs_max * 1_000);
        let event = Event::ReceiverStarts { receiver };
        self.at(self.now_ms + down_ms, event);
        if self.group.is_some() {
            return;
        }
        // Most monitors see their connection break; some wait for the timeout.
        let waiting = self.in_flight.iter();
        let waiting: Vec<u64> = waiting
            .filter(|(_, in_flight)| in_flight.receiver == receiver)
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if self.rng.u8(0..4) != 0 {
                let after = self.rng.u64(0..50);
                self.no_answer(id, after, ConnectFailure::Broken);
            }
        }
    }

    pub(super) fn start_receiver(&mut self, receiver: usize) -> Result<(), Violation> {
        if self.receivers[receiver].is_up() {
            return Ok(());
        }
        let at = self.reading(receiver);
        let forgot = self.forgot();
        let started = self.receivers[receiver].start(at);
        if self.group.is_some() {
            self.follow_engine()?;
            return match started {
                Ok(()) if self.forgot() == forgot => self.check_shared_receiver(receiver),
                Ok(()) => Ok(()),
                Err(_) => {
                    self.schedule_receiver_start(receiver);
                    Ok(())
                }
            };
        }
        started
            .map_err(|error| Violation(format!("receiver {receiver} does not start: {error}")))?;
        self.check_receiver(receiver)
    }

    pub(super) fn set_fates(&mut self, receiver: usize) {
        let scenario = &self.scenario;
        let (fails, unsynced, crashes) = match self.are_faults_over {
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
