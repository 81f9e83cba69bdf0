//! Events of the network.

use lizmon_client::ConnectFailure;

use super::event::Event;
use super::{InFlight, World};
use crate::wire::Answer;

/// How long a monitor waits for an answer.
const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// The longest delay of a message.
const LATE_MS_MAX: u64 = 60_000;

impl World {
    pub(super) fn send(&mut self, in_flight: InFlight) {
        let id = self.next_request();
        self.stats.requests += 1;
        let (monitor, receiver) = (in_flight.monitor, in_flight.receiver);
        let is_cut = self.cut(monitor, receiver);
        let payload = in_flight.payload.clone();
        self.in_flight.insert(id, in_flight);
        if is_cut == Some(true) {
            let after = self.latency();
            self.no_answer(id, after, ConnectFailure::Connect);
            return;
        }
        self.no_answer(id, REQUEST_TIMEOUT_MS, ConnectFailure::Timeout);
        if is_cut.is_none() && !self.chance(self.scenario.lost) {
            let copies = 1 + u8::from(self.chance(self.scenario.duplicated));
            for _ in 0..copies {
                let at = self.now_ms + self.latency();
                let payload = payload.clone();
                let event = Event::Arrive {
                    id,
                    monitor,
                    receiver,
                    payload,
                };
                self.at(at, event);
            }
        }
    }

    /// Sends an answer back, if a monitor still waits for it.
    pub(super) fn reply(&mut self, id: u64, answer: Answer) {
        let Some(in_flight) = self.in_flight.get(&id) else {
            return;
        };
        let is_cut = self.cut(in_flight.monitor, in_flight.receiver).is_some();
        if !is_cut && !self.chance(self.scenario.lost) {
            let at = self.now_ms + self.latency();
            let answer = Ok(answer);
            self.at(at, Event::Answered { id, answer });
        }
    }

    pub(super) fn no_answer(&mut self, id: u64, after_ms: u64, failure: ConnectFailure) {
        let answer = Err(failure);
        self.at(self.now_ms + after_ms, Event::Answered { id, answer });
    }

    /// Whether the two are cut off now; if so, whether connections are refused at once.
    pub(super) fn cut(&self, monitor: usize, receiver: usize) -> Option<bool> {
        let secs = self.now_ms / 1_000;
        let cut = self.scenario.cuts.iter().find(|cut| {
            cut.monitor.is_none_or(|m| m == monitor)
                && cut.receiver.is_none_or(|r| r == receiver)
                && (cut.span.from..cut.span.to).contains(&secs)
        });
        cut.filter(|_| !self.are_faults_over)
            .map(|cut| cut.is_refused)
    }

    fn latency(&mut self) -> u64 {
        if self.chance(self.scenario.late) {
            self.rng.u64(0..LATE_MS_MAX)
        } else {
            self.rng.u64(1..=self.scenario.latency_ms_max)
        }
    }
}
