//! One run: a queue of events under one virtual clock, with one random number generator.

mod checks;
mod clocks;
mod event;
mod group;
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
use lizmon_receiver::store::memory::MemoryBackup;

use self::event::Event;
use self::group::Group;
use crate::Violation;
use crate::model::Model;
use crate::monitor::Monitor;
use crate::receiver::{Node, Receiver};
use crate::scenario::{DRAIN_SECS_MAX, Scenario, Span};

/// When the virtual clock starts: in the middle of an hour and of a minute.
const START_SECS: u64 = 1_465_001_814;
/// Most samples without a number that one receiver gets.
const UNNUMBERED_MAX: u8 = 40;

/// What a run has done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct RunStats {
    pub(crate) simulated_secs: u64,
    pub(crate) records: u64,
    /// Over all receivers.
    pub(crate) taken: u64,
    /// Dropped, with a reason that the receiver knows.
    pub(crate) dropped: u64,
    /// Lost with the memory of a process, or with the checkpoints of a damaged disk.
    pub(crate) excused: u64,
    pub(crate) requests: u64,
    pub(crate) monitor_crashes: u64,
    pub(crate) receiver_crashes: u64,
    pub(crate) found_after_crash: u64,
    /// Acknowledged records that a receiver forgot, and those that it got again.
    pub(crate) forgotten: u64,
    pub(crate) repaired: u64,
    /// What shared stores have committed, and how often a shard had another owner than before.
    pub(crate) commits: u64,
    pub(crate) takeovers: u64,
    pub(crate) checks: u64,
    /// Over all events, in order: two runs of one seed have the same.
    pub(crate) digest: u64,
}

struct Host {
    node: Node,
    monitor: Monitor,
    ticker: Ticker,
    /// Incremented by each start and each step of the clock: older ticks are ignored.
    generation: u64,
    clock_wrong_ms: i64,
    /// How wrong the receivers' time is, while samples are stamped with that.
    stamped_wrong_ms: Option<i64>,
    exits: usize,
    /// By receiver: the publisher's turn. Events of earlier turns are ignored.
    turns: Vec<u64>,
    is_sending: Vec<bool>,
    /// By receiver: whether it has said what it has since the faults ended.
    has_checked: Vec<bool>,
}

/// What a monitor sends.
#[derive(Debug, Clone)]
enum Payload {
    /// A POST.
    Batch(Rc<StoredBatch>),
    /// `GET /api/delivery/{host}`
    DeliveryQuery,
}

/// A request whose answer a monitor waits for.
struct InFlight {
    monitor: usize,
    receiver: usize,
    turn: u64,
    payload: Payload,
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
    /// The node that sends samples without a number.
    manual_sender: Node,
    receivers: Vec<Receiver>,
    /// Where they share a store: the rest of what shares it.
    group: Option<Group>,
    /// By receiver: copies of its disk, and when they were made.
    backups: Vec<Vec<(u64, MemoryBackup)>>,
    in_flight: BTreeMap<u64, InFlight>,
    next_request: u64,
    are_faults_over: bool,
    model: Model,
    stats: RunStats,
    is_verbose: bool,
}

impl World {
    pub(crate) fn new(seed: u64, is_verbose: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::of(seed, &mut rng);
        let hosts = (0..scenario.monitors)
            .map(|at| Host::new(at, &scenario, &mut rng))
            .collect();
        let group = scenario.shared.as_ref().map(Group::new);
        let receivers: Vec<_> = match &group {
            Some(group) => group.receivers(&mut rng),
            None => (0..scenario.receivers).map(|_| Receiver::new()).collect(),
        };
        let mut world = Self {
            model: Model::new(scenario.monitors, scenario.receivers),
            rng,
            now_ms: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            hosts,
            manual_sender: Node::new("db1".to_owned()),
            backups: vec![Vec::new(); receivers.len()],
            receivers,
            group,
            in_flight: BTreeMap::new(),
            next_request: 0,
            are_faults_over: false,
            stats: RunStats::default(),
            is_verbose,
            scenario,
        };
        world.begin();
        world
    }

    /// Handles all events. Returns what was done, or what is violated.
    pub(crate) fn run(mut self) -> Result<RunStats, Violation> {
        let end_ms = (self.scenario.sampling_secs + DRAIN_SECS_MAX) * 1_000;
        while let Some(Reverse((at, event))) = self.queue.pop() {
            self.now_ms = at;
            if let Some(group) = &self.group {
                group.set_now(at);
            }
            if let Some(event) = self.events.remove(&event) {
                self.handle(event)?;
                self.follow_engine()?;
            }
            if self.are_faults_over && self.is_quiet() {
                return self.end();
            }
            if self.now_ms > end_ms {
                break;
            }
        }
        Err(Violation(format!(
            "after {DRAIN_SECS_MAX} s without faults not everything is delivered"
        )))
    }

    fn begin(&mut self) {
        if self.is_verbose {
            eprintln!("{:#?}", self.scenario);
        }
        for receiver in 0..self.receivers.len() {
            self.set_fates(receiver);
            self.at(0, Event::ReceiverStarts { receiver });
            self.at(0, Event::Maintenance { receiver });
            for _ in 0..self.rng.u8(0..UNNUMBERED_MAX) {
                let at = self.rng.u64(0..self.scenario.sampling_secs * 1_000);
                self.at(at, Event::Unnumbered { receiver });
            }
            self.schedule_receiver_crash(receiver);
            self.schedule_forgetting(receiver);
        }
        self.begin_group();
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
            self.schedule_monitor_exit(monitor);
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
        self.at(self.scenario.sampling_secs * 1_000, Event::FaultsEnd);
    }

    fn begin_and_end(&mut self, spans: Vec<(usize, Span)>, event: fn(usize, bool) -> Event) {
        for (at, Span { from, to }) in spans {
            self.at(from * 1_000, event(at, true));
            self.at(to * 1_000, event(at, false));
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        if self.is_verbose {
            self.print_event(&event);
        }
        self.add_to_digest(event.code());
        let are_faults_over = self.are_faults_over;
        match event {
            Event::Tick {
                monitor,
                generation,
            } => self.tick(monitor, generation)?,
            Event::PublisherTurn {
                monitor,
                receiver,
                turn,
            } => self.publisher_turn(monitor, receiver, turn),
            Event::Arrive {
                id,
                monitor,
                receiver,
                payload,
            } => self.arrive(id, (monitor, receiver), payload),
            Event::Reached {
                id,
                monitor,
                receiver,
                payload,
            } => self.reached(id, (monitor, receiver), payload),
            Event::Take {
                receiver,
                generation,
            } if self.receivers[receiver].generation == generation => {
                self.take_unless_paused(receiver, generation)?;
            }
            Event::Answered { id, answer } => self.answered(id, &answer),
            Event::Maintenance { receiver } => self.maintain(receiver),
            Event::Unnumbered { receiver } => self.send_unnumbered(receiver),
            Event::MonitorEnds { monitor } => self.end_monitor(monitor),
            Event::MonitorStarts { monitor } => self.start_monitor(monitor),
            Event::ReceiverCrashes { receiver } if !are_faults_over => {
                self.schedule_receiver_crash(receiver);
                self.crash_receiver(receiver);
            }
            Event::ReceiverStops { receiver } if !are_faults_over => {
                self.schedule_receiver_crash(receiver);
                self.stop_receiver(receiver)?;
            }
            Event::ReceiverForgets { receiver } if !are_faults_over => {
                self.schedule_forgetting(receiver);
                self.forget(receiver)?;
            }
            Event::ReceiverStarts { receiver } => self.start_receiver(receiver)?,
            Event::Busy { receiver, is_busy } => {
                self.receivers[receiver].is_busy = is_busy && !are_faults_over;
            }
            Event::Full { receiver, is_full } => {
                let disk = &self.receivers[receiver].disk;
                disk.set_failing(is_full && !are_faults_over);
            }
            Event::Disk { monitor, faults } => self.set_disk(monitor, faults),
            Event::Clock { monitor, wrong_ms } => self.set_clock(monitor, wrong_ms),
            Event::ReceiverClock {
                receiver,
                wrong_ms,
                is_shared,
            } => self.set_receiver_clock(receiver, wrong_ms, is_shared),
            Event::GroupTurn { member } => self.group_turn(member),
            Event::SummarizerStarts { member } => self.start_summarizer(member),
            Event::SummarizerEnds { member, is_killed } if !are_faults_over => {
                self.end_summarizer(member, is_killed);
            }
            Event::MemberPauses { member } if !are_faults_over => self.pause_member(member),
            Event::FailsOver if !are_faults_over => self.fail_over(),
            Event::PrimaryAway { primary, is_away } => self.set_away(primary, is_away),
            Event::FaultsEnd => self.end_faults(),
            Event::Take { .. }
            | Event::ReceiverCrashes { .. }
            | Event::ReceiverForgets { .. }
            | Event::ReceiverStops { .. }
            | Event::SummarizerEnds { .. }
            | Event::MemberPauses { .. }
            | Event::FailsOver => (),
        }
        Ok(())
    }

    fn print_event(&mut self, event: &Event) {
        let is_regular = matches!(
            event,
            Event::Maintenance { .. } | Event::Tick { .. } | Event::GroupTurn { .. }
        );
        if !is_regular {
            eprintln!("{:>12} {}", self.now_ms, event.summary_line(self));
        }
        for (at, host) in self.hosts.iter_mut().enumerate() {
            for said in host.monitor.events() {
                eprintln!("             monitor {at} says {said}");
            }
        }
    }

    /// From here on there are no faults. Nothing is sampled, but by a monitor that has not loaded
    /// its spool yet: each sample makes it try.
    fn end_faults(&mut self) {
        self.are_faults_over = true;
        self.scenario.lost = 0.0;
        self.scenario.late = 0.0;
        self.scenario.duplicated = 0.0;
        self.calm_group();
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
            self.wake_publishers(monitor);
        }
    }

    fn is_quiet(&mut self) -> bool {
        let is_calm = |group: &Group| group.is_up() && group.is_calm(self.now_ms);
        self.in_flight.is_empty()
            && self.receivers.iter().all(Receiver::is_up)
            && self.group.as_ref().is_none_or(is_calm)
            && (0..self.hosts.len()).all(|monitor| {
                let now = self.monitor_time(monitor);
                let has_checked = !self.scenario.forgets()
                    || self.hosts[monitor]
                        .has_checked
                        .iter()
                        .all(|checked| *checked);
                has_checked && self.hosts[monitor].monitor.is_done(now)
            })
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

    fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.rng.f64() < of
    }

    /// A random moment after now, on average after so many seconds; none where these are 0.
    fn random_time_around(&mut self, secs: u64) -> Option<u64> {
        (secs > 0).then(|| self.now_ms + self.rng.u64(0..=secs * 2_000))
    }

    /// FNV-1a over the run.
    fn add_to_digest(&mut self, what: u64) {
        for part in [self.now_ms, what] {
            self.stats.digest = (self.stats.digest ^ part).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Host {
    fn new(at: usize, scenario: &Scenario, rng: &mut Rng) -> Self {
        let interval = scenario.interval_secs.try_into().unwrap();
        Self {
            monitor: Monitor::new(
                format!("web{at}").parse().unwrap(),
                scenario.spool,
                scenario.receivers,
                rng.fork(),
            ),
            node: Node::new(format!("web{at}")),
            ticker: Ticker::new(interval, Duration::from_secs(START_SECS)),
            generation: 0,
            clock_wrong_ms: 0,
            stamped_wrong_ms: None,
            exits: 0,
            turns: vec![0; scenario.receivers],
            is_sending: vec![false; scenario.receivers],
            has_checked: vec![false; scenario.receivers],
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
