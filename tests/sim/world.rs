//! One run: a queue of events under one virtual clock, and one source of chance.

mod event;
mod monitors;
mod network;
mod receivers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use lizmon_monitor::spool::StoredBatch;
use lizmon_monitor::spool::memory::Faults;
use lizmon_monitor::tick::Ticker;
use lizmon_protocol::delivery::Delivery;
use lizmon_receiver::clock::ClockReading;

use self::event::Event;
use crate::Wrong;
use crate::model::Model;
use crate::monitor::Monitor;
use crate::receiver::{Node, Receiver};
use crate::scenario::{DRAIN_SECS_MAX, Scenario, Span};

/// When the virtual clock starts: somewhere in the middle of an hour, and of a minute.
const START_SECS: u64 = 1_465_001_814;
/// How many samples without a number one receiver gets at most.
const BY_HAND_MAX: u8 = 40;

/// What a run has done, to be told and to be compared.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) simulated_secs: u64,
    pub(crate) records: u64,
    /// Over all receivers.
    pub(crate) taken: u64,
    /// Given up, with a reason that the receiver knows.
    pub(crate) dropped: u64,
    /// Gone with the memory they stood in, or with the note of a damaged disk.
    pub(crate) excused: u64,
    pub(crate) requests: u64,
    pub(crate) monitor_crashes: u64,
    pub(crate) receiver_crashes: u64,
    pub(crate) found_after_crash: u64,
    pub(crate) checks: u64,
    /// Over everything that happened, in order: two runs of one seed have the same.
    pub(crate) digest: u64,
}

struct Host {
    node: Node,
    monitor: Monitor,
    ticker: Ticker,
    /// Rises with each start and each step of the clock: an older look at it is not taken.
    life: u64,
    clock_wrong_ms: i64,
    /// The same of what samples are stamped by, where that is the receivers' time.
    stamped_wrong_ms: Option<i64>,
    deaths: usize,
    /// By receiver: which turn of the courier this is. What an earlier one was to do is not done.
    turns: Vec<u64>,
    is_sending: Vec<bool>,
}

/// A request whose answer somebody waits for.
struct UnderWay {
    monitor: usize,
    receiver: usize,
    turn: u64,
    batch: Rc<StoredBatch>,
    /// When it was sent, by the monitor's clock.
    sent: Duration,
}

pub(crate) struct World {
    scenario: Scenario,
    rng: Rng,
    now_ms: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    hosts: Vec<Host>,
    /// Whoever sends by hand.
    somebody: Node,
    receivers: Vec<Receiver>,
    under_way: BTreeMap<u64, UnderWay>,
    next_request: u64,
    is_healed: bool,
    model: Model,
    figures: Figures,
    is_told: bool,
}

impl World {
    pub(crate) fn new(seed: u64, is_told: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::of(seed, &mut rng);
        let hosts = (0..scenario.monitors)
            .map(|at| Host::new(at, &scenario, &mut rng))
            .collect();
        let receivers = (0..scenario.receivers).map(|_| Receiver::new()).collect();
        let mut world = Self {
            model: Model::new(scenario.monitors, scenario.receivers),
            rng,
            now_ms: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            hosts,
            somebody: Node::new("db1".to_owned()),
            receivers,
            under_way: BTreeMap::new(),
            next_request: 0,
            is_healed: false,
            figures: Figures::default(),
            is_told,
            scenario,
        };
        world.begin();
        world
    }

    /// Lets everything happen. What was done, or what is wrong.
    pub(crate) fn run(mut self) -> Result<Figures, Wrong> {
        let end_ms = (self.scenario.sampling_secs + DRAIN_SECS_MAX) * 1_000;
        while let Some(Reverse((at, event))) = self.queue.pop() {
            self.now_ms = at;
            if let Some(event) = self.events.remove(&event) {
                self.happen(event)?;
            }
            if self.is_healed && self.is_quiet() {
                return self.end();
            }
            if self.now_ms > end_ms {
                break;
            }
        }
        Err(Wrong(format!(
            "after {DRAIN_SECS_MAX} s of peace not everything is delivered"
        )))
    }

    fn begin(&mut self) {
        if self.is_told {
            eprintln!("{:#?}", self.scenario);
        }
        for receiver in 0..self.receivers.len() {
            self.set_fates(receiver);
            self.at(0, Event::ReceiverStarts { receiver });
            self.at(0, Event::Upkeep { receiver });
            for _ in 0..self.rng.u8(0..BY_HAND_MAX) {
                let at = self.rng.u64(0..self.scenario.sampling_secs * 1_000);
                self.at(at, Event::ByHand { receiver });
            }
            self.receiver_will_die(receiver);
        }
        for (monitor, at, wrong_ms) in self.scenario.clock.clone() {
            self.at(at * 1_000, Event::Clock { monitor, wrong_ms });
        }
        for (receiver, at, wrong_ms, is_shared) in self.scenario.receiver_clock.clone() {
            let event = Event::ReceiverClock {
                receiver,
                wrong_ms,
                is_shared,
            };
            self.at(at, event);
        }
        for monitor in 0..self.hosts.len() {
            self.at(0, Event::MonitorStarts { monitor });
            self.monitor_will_die(monitor);
        }
        self.begin_and_end(self.scenario.full.clone(), |receiver, is_full| {
            Event::Full { receiver, is_full }
        });
        self.begin_and_end(self.scenario.busy.clone(), |receiver, is_busy| {
            Event::Busy { receiver, is_busy }
        });
        for (monitor, Span { from, to }, faults) in self.scenario.monitor_disk.clone() {
            self.at(from * 1_000, Event::Disk { monitor, faults });
            let faults = Faults::default();
            self.at(to * 1_000, Event::Disk { monitor, faults });
        }
        self.at(self.scenario.sampling_secs * 1_000, Event::Heal);
    }

    fn begin_and_end(&mut self, spans: Vec<(usize, Span)>, event: fn(usize, bool) -> Event) {
        for (whose, Span { from, to }) in spans {
            self.at(from * 1_000, event(whose, true));
            self.at(to * 1_000, event(whose, false));
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Wrong> {
        if self.is_told {
            self.tell(&event);
        }
        self.note(event.code());
        let is_healed = self.is_healed;
        match event {
            Event::Look { monitor, life } => self.look(monitor, life)?,
            Event::Publisher {
                monitor,
                receiver,
                turn,
            } => self.publisher(monitor, receiver, turn),
            Event::Arrive {
                id,
                monitor,
                receiver,
                batch,
            } => self.arrive(id, (monitor, receiver), &batch),
            Event::Take { receiver, life } if self.receivers[receiver].life == life => {
                self.take(receiver)?;
            }
            Event::Answered { id, answer } => self.answered(id, &answer),
            Event::Upkeep { receiver } => self.upkeep(receiver),
            Event::ByHand { receiver } => self.by_hand(receiver),
            Event::MonitorDies { monitor } => self.monitor_dies(monitor),
            Event::MonitorStarts { monitor } => self.monitor_starts(monitor),
            Event::ReceiverDies { receiver } if !is_healed => {
                self.receiver_will_die(receiver);
                self.receiver_dies(receiver);
            }
            Event::ReceiverStops { receiver } if !is_healed => {
                self.receiver_will_die(receiver);
                self.receiver_stops(receiver)?;
            }
            Event::ReceiverStarts { receiver } => self.receiver_starts(receiver)?,
            Event::Busy { receiver, is_busy } => {
                self.receivers[receiver].is_busy = is_busy && !is_healed;
            }
            Event::Full { receiver, is_full } => {
                let disk = &self.receivers[receiver].disk;
                disk.set_failing(is_full && !is_healed);
            }
            Event::Disk { monitor, faults } => self.set_disk(monitor, faults),
            Event::Clock { monitor, wrong_ms } => self.set_clock(monitor, wrong_ms),
            Event::ReceiverClock {
                receiver,
                wrong_ms,
                is_shared,
            } => self.set_receivers_clock(receiver, wrong_ms, is_shared),
            Event::Heal => self.heal(),
            Event::Take { .. } | Event::ReceiverDies { .. } | Event::ReceiverStops { .. } => (),
        }
        Ok(())
    }

    fn tell(&mut self, event: &Event) {
        if !matches!(event, Event::Upkeep { .. } | Event::Look { .. }) {
            eprintln!("{:>12} {}", self.now_ms, event.in_short(self));
        }
        for (at, host) in self.hosts.iter_mut().enumerate() {
            for said in host.monitor.events() {
                eprintln!("             monitor {at} says {said}");
            }
        }
    }

    /// From here on there are no faults, and nothing is sampled but by whom it makes look at its disk again.
    fn heal(&mut self) {
        self.is_healed = true;
        self.scenario.lost = 0.0;
        self.scenario.late = 0.0;
        self.scenario.duplicated = 0.0;
        for receiver in 0..self.receivers.len() {
            self.receivers[receiver].disk.set_failing(false);
            self.receivers[receiver].is_busy = false;
            self.receivers[receiver].clock_wrong_ms = 0;
            self.set_fates(receiver);
            self.at(self.now_ms, Event::ReceiverStarts { receiver });
        }
        for monitor in 0..self.hosts.len() {
            self.hosts[monitor].clock_wrong_ms = 0;
            self.hosts[monitor].stamped_wrong_ms = None;
            self.set_disk(monitor, Faults::default());
            self.at(self.now_ms, Event::MonitorStarts { monitor });
            self.wake_couriers(monitor);
        }
    }

    fn is_quiet(&mut self) -> bool {
        self.under_way.is_empty()
            && self.receivers.iter().all(Receiver::is_up)
            && (0..self.hosts.len()).all(|monitor| {
                let now = self.monitors_time(monitor);
                self.hosts[monitor].monitor.is_done(now)
            })
    }

    fn end(mut self) -> Result<Figures, Wrong> {
        for receiver in 0..self.receivers.len() {
            self.check_receiver(receiver)?;
            self.check_fates(receiver)?;
            // Whatever is only in memory by now is in the journal as well.
            self.receivers[receiver].crash(false);
            self.receiver_starts(receiver)?;
        }
        self.figures.simulated_secs = self.now_ms / 1_000;
        self.figures.records = self.model.records();
        self.figures.found_after_crash = self.model.found_after_crash;
        Ok(self.figures)
    }

    /// Everything acknowledged is there, once, in numbers and in summaries.
    fn check_receiver(&mut self, receiver: usize) -> Result<(), Wrong> {
        self.figures.checks += 1;
        let now = self.secs();
        let at = &self.receivers[receiver];
        let by_hand = at.summaries(&self.somebody, now);
        self.model
            .check_unnumbered(receiver, &by_hand, now, !at.has_waiting())?;
        for (monitor, host) in self.hosts.iter().enumerate() {
            let held = at.held(&host.node);
            self.model.reconcile(monitor, receiver, &held, now)?;
            let summaries = at.summaries(&host.node, now);
            self.model
                .check_summaries(monitor, receiver, &summaries, now)?;
        }
        Ok(())
    }

    /// Nothing is lost, and the receiver knows what it will never get.
    fn check_fates(&mut self, receiver: usize) -> Result<(), Wrong> {
        for (monitor, host) in self.hosts.iter().enumerate() {
            let delivery = self.receivers[receiver].delivery(&host.node);
            let nothing = || Delivery {
                producers: Vec::new(),
                removed: None,
                clock: None,
            };
            let delivery = delivery.unwrap_or_else(nothing);
            let scenario = &self.scenario;
            let age = |epoch: u64| self.secs().saturating_sub(epoch);
            let may_be_dropped =
                |why: &str, epoch| scenario.may_be_dropped((monitor, host.deaths), why, age(epoch));
            let fates = self
                .model
                .check_fates(monitor, receiver, &delivery, may_be_dropped)?;
            self.figures.taken += fates.taken;
            self.figures.dropped += fates.dropped;
            self.figures.excused += fates.excused;
        }
        Ok(())
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.insert(id, event);
        self.queue.push(Reverse((at_ms, id)));
    }

    fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn secs(&self) -> u64 {
        START_SECS + self.now_ms / 1_000
    }

    /// What a receiver's clocks say.
    fn reading(&self, receiver: usize) -> ClockReading {
        ClockReading {
            wall: self.receivers_time(receiver).as_secs(),
            monotonic: self.now_ms / 1_000,
            boot: Some([1; 16]),
        }
    }

    fn receivers_time(&self, receiver: usize) -> Duration {
        let right = START_SECS * 1_000 + self.now_ms;
        let wrong = self.receivers[receiver].clock_wrong_ms;
        Duration::from_millis(right.saturating_add_signed(wrong))
    }

    /// What a monitor stamps samples by.
    fn stamp_time(&self, monitor: usize) -> Duration {
        match self.hosts[monitor].stamped_wrong_ms {
            Some(wrong) => {
                let right = START_SECS * 1_000 + self.now_ms;
                Duration::from_millis(right.saturating_add_signed(wrong))
            }
            None => self.monitors_time(monitor),
        }
    }

    fn monitors_time(&self, monitor: usize) -> Duration {
        let right = START_SECS * 1_000 + self.now_ms;
        let wrong = self.hosts[monitor].clock_wrong_ms;
        Duration::from_millis(right.saturating_add_signed(wrong))
    }

    fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.rng.f64() < of
    }

    /// A moment from now on, after this many seconds on average; none where there is no average.
    fn some_time_about(&mut self, secs: u64) -> Option<u64> {
        (secs > 0).then(|| self.now_ms + self.rng.u64(0..=secs * 2_000))
    }

    /// FNV-1a over the run.
    fn note(&mut self, what: u64) {
        for part in [self.now_ms, what] {
            self.figures.digest = (self.figures.digest ^ part).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Host {
    fn new(at: usize, scenario: &Scenario, rng: &mut Rng) -> Self {
        let interval = scenario.interval_secs.try_into().unwrap();
        Self {
            node: Node::new(format!("web{at}")),
            monitor: Monitor::new(scenario.spool, scenario.receivers, rng.fork()),
            ticker: Ticker::new(interval, Duration::from_secs(START_SECS)),
            life: 0,
            clock_wrong_ms: 0,
            stamped_wrong_ms: None,
            deaths: 0,
            turns: vec![0; scenario.receivers],
            is_sending: vec![false; scenario.receivers],
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
