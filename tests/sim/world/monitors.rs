//! The monitors' part of what happens.

use std::rc::Rc;
use std::time::Duration;

use lizmon_client::ConnectFailure;
use lizmon_monitor::scheduler::NextStep;
use lizmon_monitor::spool::memory::Faults;
use lizmon_monitor::tick::{Tick, Ticker};
use lizmon_protocol::sample::Epoch;

use super::event::Event;
use super::{UnderWay, World, millis};
use crate::Wrong;
use crate::monitor::Death;
use crate::scenario::Kind;
use crate::wire::Answer;

/// A courier that has nothing to do looks again after so long, as the agent's do.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Whoever has to wait for longer than that, where trying again can change nothing for hours, waits so many times as long.
/// Once nothing goes wrong any more: what lies ahead of the true time may do so for days, and is tried each minute of them.
const HEALED_PATIENCE: u32 = 20;
/// While it is cut off for a day.
const CUT_PATIENCE: u32 = 4;

impl World {
    pub(super) fn check_now(&mut self, monitor: usize) {
        let host = &mut self.hosts[monitor];
        if host.monitor.is_alive() {
            host.life += 1;
            let life = host.life;
            self.at(self.now_ms, Event::Look { monitor, life });
        }
    }

    pub(super) fn look(&mut self, monitor: usize, life: u64) -> Result<(), Wrong> {
        let now = self.stamp_time(monitor);
        let host = &mut self.hosts[monitor];
        // A spool that could not be read at the start is looked at with each sample.
        let is_over = self.is_healed && host.monitor.has_read_its_disk();
        if is_over || host.life != life || !host.monitor.is_alive() {
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
        self.at(at, Event::Look { monitor, life });
        Ok(())
    }

    fn sample(&mut self, monitor: usize, epoch: u64) -> Result<(), Wrong> {
        const LABELS: [&str; 3] = ["cpu", "mem", "disk:/ used"];
        let values: Vec<(&'static str, f64)> = LABELS[..self.scenario.labels]
            .iter()
            .map(|label| (*label, f64::from(self.rng.u32(0..10_000)) / 100.0))
            .collect();
        let now = self.monitors_time(monitor);
        let host = &mut self.hosts[monitor];
        let recorded = host
            .monitor
            .record(Epoch::new(epoch).unwrap(), &values, now);
        if let Some(id) = recorded {
            self.model.record(monitor, id, epoch, values)?;
            self.note(id.1);
            self.wake_couriers(monitor);
        }
        Ok(())
    }

    /// Those that wait for an answer go on waiting.
    pub(super) fn wake_couriers(&mut self, monitor: usize) {
        for receiver in 0..self.receivers.len() {
            if !self.hosts[monitor].is_sending[receiver] {
                self.courier_after(monitor, receiver, 0);
            }
        }
    }

    fn courier_after(&mut self, monitor: usize, receiver: usize, wait_ms: u64) {
        self.hosts[monitor].turns[receiver] += 1;
        let turn = self.hosts[monitor].turns[receiver];
        let event = Event::Publisher {
            monitor,
            receiver,
            turn,
        };
        self.at(self.now_ms + wait_ms, event);
    }

    pub(super) fn publisher(&mut self, monitor: usize, receiver: usize, turn: u64) {
        let now = self.monitors_time(monitor);
        let patience = self.patience(monitor, receiver);
        let host = &mut self.hosts[monitor];
        if host.turns[receiver] != turn || !host.monitor.is_alive() {
            return;
        }
        match host.monitor.next(receiver, now) {
            NextStep::Wait(wait) if wait < CHECK_EVERY => {
                self.courier_after(monitor, receiver, millis(wait).max(1));
            }
            NextStep::Wait(wait) if patience > 1 => {
                self.courier_after(monitor, receiver, millis(wait * patience));
            }
            NextStep::Wait(_) | NextStep::Idle => {
                self.courier_after(monitor, receiver, millis(CHECK_EVERY * patience));
            }
            NextStep::Send(batch) => {
                host.is_sending[receiver] = true;
                self.send(UnderWay {
                    monitor,
                    receiver,
                    turn,
                    batch: Rc::new(batch),
                    sent: now,
                });
            }
        }
    }

    fn patience(&self, monitor: usize, receiver: usize) -> u32 {
        let is_day_long = self.scenario.kind == Kind::DayOutage;
        if self.is_healed {
            HEALED_PATIENCE
        } else if is_day_long && self.cut(monitor, receiver).is_some() {
            CUT_PATIENCE
        } else {
            1
        }
    }

    pub(super) fn answered(&mut self, id: u64, answer: &Result<Answer, ConnectFailure>) {
        let Some(under_way) = self.under_way.remove(&id) else {
            return;
        };
        self.note(answer.as_ref().map_or(0, |answer| answer.status.into()));
        let (monitor, receiver) = (under_way.monitor, under_way.receiver);
        let now = self.monitors_time(monitor);
        let chance = self.rng.f64();
        let host = &mut self.hosts[monitor];
        if host.turns[receiver] != under_way.turn || !host.monitor.is_alive() {
            return;
        }
        host.is_sending[receiver] = false;
        let times = (under_way.sent, now);
        host.monitor
            .done(receiver, &under_way.batch, answer, times, chance);
        let ahead_ms = host
            .monitor
            .correction_secs()
            .map(|secs| (secs * 1_000.0) as i64);
        // From here on its monotonic clock, which is this world's, says how the receivers' time goes on.
        host.stamped_wrong_ms = ahead_ms.map(|ahead| host.clock_wrong_ms - ahead);
        self.courier_after(monitor, receiver, 0);
    }

    pub(super) fn set_disk(&mut self, monitor: usize, faults: Faults) {
        let faults = match self.is_healed {
            true => Faults::default(),
            false => faults,
        };
        self.hosts[monitor].monitor.set_faults(faults);
    }

    pub(super) fn set_clock(&mut self, monitor: usize, wrong_ms: i64) {
        if !self.is_healed {
            self.hosts[monitor].clock_wrong_ms = wrong_ms;
            self.check_now(monitor);
        }
    }

    /// A receiver's clock, and with it those of whoever runs on the same machine.
    pub(super) fn set_receivers_clock(&mut self, receiver: usize, wrong_ms: i64, is_shared: bool) {
        if self.is_healed {
            return;
        }
        self.receivers[receiver].clock_wrong_ms = wrong_ms;
        if is_shared {
            for monitor in 0..self.hosts.len() {
                self.set_clock(monitor, wrong_ms);
            }
        }
    }

    pub(super) fn monitor_will_die(&mut self, monitor: usize) {
        if let Some(after) = self.some_time_about(self.scenario.monitor_crash_every) {
            self.at(after, Event::MonitorDies { monitor });
        }
    }

    pub(super) fn monitor_dies(&mut self, monitor: usize) {
        if self.is_healed {
            return;
        }
        self.monitor_will_die(monitor);
        let host = &mut self.hosts[monitor];
        if !host.monitor.is_alive() {
            return;
        }
        let damaged = self.rng.f64() < self.scenario.disk_damaged;
        let death = match (damaged, self.rng.u8(0..3)) {
            (false, 0) => Death::Stopped,
            (false, 1) => Death::Killed,
            (false, _) => Death::PowerFailed,
            (true, 0) => Death::RecordDamaged,
            (true, 1) => Death::RolledBack,
            (true, _) => Death::NoteLost,
        };
        if self.is_told {
            eprintln!("    {death:?}");
        }
        let excused = host.monitor.die(death, &mut self.rng);
        host.life += 1;
        host.deaths += 1;
        self.model.excuse(monitor, &excused);
        self.figures.monitor_crashes += u64::from(death != Death::Stopped);
        let down_ms = self.rng.u64(0..=self.scenario.down_secs_max * 1_000);
        self.at(self.now_ms + down_ms, Event::MonitorStarts { monitor });
    }

    pub(super) fn monitor_starts(&mut self, monitor: usize) {
        let now = self.monitors_time(monitor);
        let interval = self.scenario.interval_secs.try_into().unwrap();
        let host = &mut self.hosts[monitor];
        if host.monitor.is_alive() {
            return;
        }
        host.monitor.start();
        host.ticker = Ticker::new(interval, now);
        host.stamped_wrong_ms = None;
        host.is_sending.fill(false);
        self.wake_couriers(monitor);
        self.check_now(monitor);
    }
}
