//! Events of the monitors.

use std::rc::Rc;
use std::time::Duration;

use lizmon_client::ConnectFailure;
use lizmon_monitor::scheduler::NextStep;
use lizmon_monitor::spool::memory::Faults;
use lizmon_monitor::tick::{Tick, Ticker};
use lizmon_protocol::sample::Epoch;

use super::event::Event;
use super::group::Group;
use super::{InFlight, Payload, World, millis};
use crate::Violation;
use crate::monitor::Exit;
use crate::scenario::ScenarioKind;
use crate::wire::Answer;

/// A publisher that has nothing to do tries again after so long, as the agent's do.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Waits longer than that are multiplied by this after the faults are over: records ahead of the
/// true time may stay so for days, and would be tried each minute.
const CALM_WAIT_FACTOR: u32 = 20;
/// The same while the monitor is cut off for a day.
const CUT_WAIT_FACTOR: u32 = 4;

impl World {
    pub(super) fn tick_now(&mut self, monitor: usize) {
        let host = &mut self.hosts[monitor];
        if host.monitor.is_alive() {
            host.generation += 1;
            let generation = host.generation;
            self.at(
                self.now_ms,
                Event::Tick {
                    monitor,
                    generation,
                },
            );
        }
    }

    pub(super) fn tick(&mut self, monitor: usize, generation: u64) -> Result<(), Violation> {
        let now = self.stamp_time(monitor);
        let host = &mut self.hosts[monitor];
        // A spool that could not be loaded at the start is tried with each sample.
        let is_over = self.are_faults_over && host.monitor.has_loaded_spool();
        if is_over || host.generation != generation || !host.monitor.is_alive() {
            return Ok(());
        }
        let wait = match host.ticker.at(now) {
            Tick::Wait(wait) => wait,
            Tick::SteppedBack(_) => Duration::ZERO,
            Tick::Sample { epoch, .. } => {
                self.sample(monitor, epoch)?;
                Duration::ZERO
            }
        };
        let at = self.now_ms + millis(wait);
        self.at(
            at,
            Event::Tick {
                monitor,
                generation,
            },
        );
        Ok(())
    }

    fn sample(&mut self, monitor: usize, epoch: u64) -> Result<(), Violation> {
        const LABELS: [&str; 3] = ["cpu", "mem", "disk:/ used"];
        let values: Vec<(&'static str, f64)> = LABELS[..self.scenario.labels]
            .iter()
            .map(|label| (*label, f64::from(self.rng.u32(0..10_000)) / 100.0))
            .collect();
        let now = self.monitor_time(monitor);
        let host = &mut self.hosts[monitor];
        let recorded = host
            .monitor
            .record(Epoch::new(epoch).unwrap(), &values, now);
        if let Some(id) = recorded {
            self.model.record(monitor, id, epoch, values)?;
            self.add_to_digest(id.1);
            self.wake_publishers(monitor);
        }
        Ok(())
    }

    /// Lets those publishers act that do not wait for an answer.
    pub(super) fn wake_publishers(&mut self, monitor: usize) {
        for receiver in 0..self.scenario.receivers {
            if !self.hosts[monitor].is_sending[receiver] {
                self.schedule_publisher(monitor, receiver, 0);
            }
        }
    }

    fn schedule_publisher(&mut self, monitor: usize, receiver: usize, wait_ms: u64) {
        self.hosts[monitor].turns[receiver] += 1;
        let turn = self.hosts[monitor].turns[receiver];
        let event = Event::PublisherTurn {
            monitor,
            receiver,
            turn,
        };
        self.at(self.now_ms + wait_ms, event);
    }

    pub(super) fn publisher_turn(&mut self, monitor: usize, receiver: usize, turn: u64) {
        let now = self.monitor_time(monitor);
        let wait_factor = self.wait_factor(monitor, receiver);
        let host = &mut self.hosts[monitor];
        if host.turns[receiver] != turn || !host.monitor.is_alive() {
            return;
        }
        match host.monitor.next(receiver, now) {
            NextStep::Wait(wait) if wait < CHECK_INTERVAL => {
                self.schedule_publisher(monitor, receiver, millis(wait).max(1));
            }
            NextStep::Wait(wait) if wait_factor > 1 => {
                self.schedule_publisher(monitor, receiver, millis(wait * wait_factor));
            }
            NextStep::Wait(_) | NextStep::Idle => {
                self.schedule_publisher(monitor, receiver, millis(CHECK_INTERVAL * wait_factor));
            }
            NextStep::CheckDelivery if !self.scenario.forgets() => {
                self.check_delivery_now(monitor, receiver);
                self.publisher_turn(monitor, receiver, turn);
            }
            NextStep::CheckDelivery => {
                self.request((monitor, receiver), turn, Payload::DeliveryQuery, now);
            }
            NextStep::Send(batch) => {
                let payload = Payload::Batch(Rc::new(batch));
                self.request((monitor, receiver), turn, payload, now);
            }
        }
    }

    fn request(
        &mut self,
        (monitor, receiver): (usize, usize),
        turn: u64,
        payload: Payload,
        sent: Duration,
    ) {
        self.hosts[monitor].is_sending[receiver] = true;
        self.send(InFlight {
            monitor,
            receiver,
            turn,
            payload,
            sent,
        });
    }

    /// Where no receiver forgets anything, what it answers changes nothing, and needs no network.
    fn check_delivery_now(&mut self, monitor: usize, receiver: usize) {
        let now = self.monitor_time(monitor);
        let at = self.receiver_time(receiver);
        let (host, receivers) = (&mut self.hosts[monitor], &self.receivers[receiver]);
        let answer = match receivers.is_up() {
            true => Ok(receivers.answer_delivery(&host.node, at)),
            false => Err(ConnectFailure::Connect),
        };
        host.monitor.told(receiver, &answer, now, 0.5);
    }

    fn wait_factor(&self, monitor: usize, receiver: usize) -> u32 {
        let is_day_long = self.scenario.kind == ScenarioKind::DayOutage;
        if self.are_faults_over && self.group.is_some() {
            1
        } else if self.are_faults_over {
            CALM_WAIT_FACTOR
        } else if is_day_long && self.cut(monitor, receiver).is_some() {
            CUT_WAIT_FACTOR
        } else {
            1
        }
    }

    pub(super) fn answered(&mut self, id: u64, answer: &Result<Answer, ConnectFailure>) {
        let Some(in_flight) = self.in_flight.remove(&id) else {
            return;
        };
        self.add_to_digest(answer.as_ref().map_or(0, |answer| answer.status.into()));
        let (monitor, receiver) = (in_flight.monitor, in_flight.receiver);
        let now = self.monitor_time(monitor);
        let chance = self.rng.f64();
        let now_ms = self.now_ms;
        let host = &mut self.hosts[monitor];
        if host.turns[receiver] != in_flight.turn || !host.monitor.is_alive() {
            return;
        }
        host.is_sending[receiver] = false;
        let times = (in_flight.sent, now);
        match &in_flight.payload {
            Payload::Batch(batch) => host.monitor.done(receiver, batch, answer, times, chance),
            Payload::DeliveryQuery => {
                let is_told = host.monitor.told(receiver, answer, now, chance);
                let is_calm = |group: &Group| group.is_calm(now_ms);
                let is_final = self.are_faults_over && self.group.as_ref().is_none_or(is_calm);
                host.has_checked[receiver] |= is_told && is_final;
            }
        }
        let ahead_ms = host
            .monitor
            .correction_secs()
            .map(|secs| (secs * 1_000.0) as i64);
        // From here on its monotonic clock, which is the virtual clock, continues the receivers'
        // time.
        host.stamped_wrong_ms = ahead_ms.map(|ahead| host.clock_wrong_ms - ahead);
        self.schedule_publisher(monitor, receiver, 0);
    }

    pub(super) fn set_disk(&mut self, monitor: usize, faults: Faults) {
        let faults = match self.are_faults_over {
            true => Faults::default(),
            false => faults,
        };
        self.hosts[monitor].monitor.set_faults(faults);
    }

    pub(super) fn set_clock(&mut self, monitor: usize, wrong_ms: i64) {
        if !self.are_faults_over {
            self.hosts[monitor].clock_wrong_ms = wrong_ms;
            self.tick_now(monitor);
        }
    }

    /// Sets a receiver's clock, and those of all monitors if they run on the same machine.
    pub(super) fn set_receiver_clock(&mut self, receiver: usize, wrong_ms: i64, is_shared: bool) {
        if self.are_faults_over {
            return;
        }
        self.receivers[receiver].clock_wrong_ms = wrong_ms;
        if is_shared {
            for monitor in 0..self.hosts.len() {
                self.set_clock(monitor, wrong_ms);
            }
        }
    }

    pub(super) fn schedule_monitor_exit(&mut self, monitor: usize) {
        if let Some(after) = self.random_time_around(self.scenario.monitor_crash_every) {
            self.at(after, Event::MonitorEnds { monitor });
        }
    }

    pub(super) fn end_monitor(&mut self, monitor: usize) {
        if self.are_faults_over {
            return;
        }
        self.schedule_monitor_exit(monitor);
        let host = &mut self.hosts[monitor];
        if !host.monitor.is_alive() {
            return;
        }
        for receiver in 0..self.scenario.receivers {
            self.stats.repaired += host.monitor.repaired(receiver);
        }
        let damaged = self.rng.f64() < self.scenario.disk_damaged;
        let exit = match (damaged, self.rng.u8(0..3)) {
            (false, 0) => Exit::Stopped,
            (false, 1) => Exit::Killed,
            (false, _) => Exit::PowerFailed,
            (true, 0) => Exit::RecordDamaged,
            (true, 1) => Exit::RolledBack,
            (true, _) => Exit::CheckpointsLost,
        };
        if self.is_verbose {
            eprintln!("    {exit:?}");
        }
        let excused = host.monitor.end(exit, &mut self.rng);
        host.generation += 1;
        host.exits += 1;
        self.model.excuse(monitor, &excused);
        self.stats.monitor_crashes += u64::from(exit != Exit::Stopped);
        let down_ms = self.rng.u64(0..=self.scenario.down_secs_max * 1_000);
        self.at(self.now_ms + down_ms, Event::MonitorStarts { monitor });
    }

    pub(super) fn start_monitor(&mut self, monitor: usize) {
        let now = self.monitor_time(monitor);
        let interval = self.scenario.interval_secs.try_into().unwrap();
        let host = &mut self.hosts[monitor];
        if host.monitor.is_alive() {
            return;
        }
        host.monitor.start();
        host.ticker = Ticker::new(interval, now);
        host.stamped_wrong_ms = None;
        host.is_sending.fill(false);
        self.wake_publishers(monitor);
        self.tick_now(monitor);
    }
}
