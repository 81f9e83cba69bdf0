//! The end of a run: waits until everything is delivered, and compares it with the receiver.

use std::thread::sleep;
use std::time::{Duration, Instant};

use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::{NodeName, Role};

use super::{Chaos, FRAGILE, POLL_INTERVAL, TIMEOUT};
use crate::audit::audit;
use crate::load::Counts;
use crate::programs::epoch_now;
use crate::reference::{MonitorLog, Reference, Tally};

impl Chaos {
    /// Waits until everything is delivered, and checks that the receiver has what was sampled.
    pub(super) fn check_delivery(&mut self) {
        let load = self.load.take().unwrap();
        let counts = load.counts.clone();
        let posted = load.end();
        let by = Instant::now() + TIMEOUT;
        loop {
            self.poll();
            let waiting = self.waiting();
            if waiting.is_empty() {
                break;
            }
            assert!(
                Instant::now() < by,
                "not delivered in time, and not told to be dropped: {waiting:?}"
            );
            sleep(Duration::from_millis(500));
        }
        for monitor in &mut self.monitors {
            monitor.program.end();
        }
        self.check_all(&posted);
        // After a restart the stored state gives the same answers as the state in memory.
        self.receiver.end();
        self.receiver.start();
        let tally = self.check_all(&posted);
        self.receiver.end();
        let posted: u64 = posted.iter().map(|(_, reference)| reference.values()).sum();
        self.print(&tally, posted, &counts);
    }

    /// Spooled records of the monitors that the receiver does not know yet.
    fn waiting(&self) -> Vec<String> {
        let unaccounted = self.monitors.iter().flat_map(|monitor| {
            let log = MonitorLog::read(monitor.program.log());
            log.unaccounted(&self.delivery(&monitor.host))
        });
        unaccounted.collect()
    }

    fn delivery(&self, host: &NodeName) -> Delivery {
        self.ask(|| {
            self.runtime
                .block_on(self.reader.delivery(host, epoch_now()))
        })
    }

    fn ask<T>(&self, question: impl Fn() -> Result<T, lizmon_client::Error>) -> T {
        let by = Instant::now() + TIMEOUT;
        loop {
            match question() {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < by, "{error}"),
            }
            sleep(POLL_INTERVAL);
        }
    }

    fn check_all(&self, posted: &[(NodeName, Reference)]) -> Tally {
        for (host, reference) in posted {
            self.audit(host);
            self.check(host, reference, true);
        }
        let mut sum = Tally::default();
        for (at, monitor) in self.monitors.iter().enumerate() {
            let host = &monitor.host;
            self.audit(host);
            let delivery = self.delivery(host);
            let (reference, tally) =
                MonitorLog::read(monitor.program.log()).expected(host.as_str(), &delivery);
            self.check(host, &reference, false);
            assert!(
                at < FRAGILE || tally.kept_and_dropped == 0,
                "{host}: {tally:?}, {delivery:?}"
            );
            sum.add(&tally);
        }
        sum
    }

    fn check(&self, host: &NodeName, reference: &Reference, is_order_known: bool) {
        let found = self.ask(|| {
            self.runtime
                .block_on(self.reader.summaries(host, None, epoch_now()))
        });
        reference.check(host.as_str(), &found, is_order_known);
    }

    fn audit(&self, host: &NodeName) {
        let credentials = self.network.credentials(Role::Reader, "chaos-reader");
        audit(&credentials, &self.network.url(), host);
    }

    fn print(&self, tally: &Tally, posted: u64, counts: &Counts) {
        eprintln!("{:?}", self.fault_counts);
        eprintln!(
            "{} monitors: {tally:?}; lost 0, twice 0",
            self.monitors.len()
        );
        eprintln!("clients: {posted} values; {counts:?}");
    }
}
