//! What must hold after each start of a receiver, and at the end.

use lizmon_protocol::delivery::Delivery;

use super::{RunStats, World};
use crate::Violation;

impl World {
    pub(super) fn end(mut self) -> Result<RunStats, Violation> {
        if self.group.is_some() {
            self.end_group()?;
        } else {
            for receiver in 0..self.receivers.len() {
                self.check_receiver(receiver)?;
                self.check_records(receiver)?;
                // What is in memory must be in the journal as well.
                self.receivers[receiver].crash(false);
                self.start_receiver(receiver)?;
            }
        }
        for receiver in 0..self.scenario.receivers {
            for host in &mut self.hosts {
                self.stats.repaired += host.monitor.repaired(receiver);
            }
        }
        self.stats.simulated_secs = self.now_ms / 1_000;
        self.stats.records = self.model.records();
        self.stats.found_after_crash = self.model.found_after_crash;
        Ok(self.stats)
    }

    /// Every acknowledged record is there once, in the numbers and in the summaries.
    pub(super) fn check_receiver(&mut self, receiver: usize) -> Result<(), Violation> {
        self.stats.checks += 1;
        let now = self.secs();
        let at = &self.receivers[receiver];
        let send_unnumbered = at.summaries(&self.manual_sender, now);
        self.model
            .check_unnumbered(receiver, &send_unnumbered, now, !at.has_waiting())?;
        for (monitor, host) in self.hosts.iter().enumerate() {
            let held = at.held(&host.node);
            self.model.reconcile(monitor, receiver, &held, now)?;
            let summaries = at.summaries(&host.node, now);
            self.model
                .check_summaries(monitor, receiver, &summaries, now)?;
            let read = |label: &str, tier| at.history(&host.node, label, tier, now);
            self.model.check_history(monitor, receiver, &read)?;
        }
        Ok(())
    }

    /// Nothing is lost, and the receiver knows what was dropped.
    pub(super) fn check_records(&mut self, receiver: usize) -> Result<(), Violation> {
        for (monitor, host) in self.hosts.iter().enumerate() {
            let delivery = self.receivers[receiver].delivery(&host.node, 0);
            let nothing = || Delivery {
                as_of: None,
                producers: Vec::new(),
                removed: None,
                clock: None,
            };
            let delivery = delivery.unwrap_or_else(nothing);
            let scenario = &self.scenario;
            let age = |epoch: u64| self.secs().saturating_sub(epoch);
            let may_be_dropped =
                |why: &str, epoch| scenario.may_be_dropped((monitor, host.exits), why, age(epoch));
            let counts = self
                .model
                .check_records(monitor, receiver, &delivery, may_be_dropped)?;
            self.stats.taken += counts.taken;
            self.stats.dropped += counts.dropped;
            self.stats.excused += counts.excused;
        }
        Ok(())
    }
}
