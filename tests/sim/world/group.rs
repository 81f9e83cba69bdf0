//! Several receivers and summarizers on one engine.
//!
//! A monitor's requests reach any of the receivers, as through a balancer. Members are the
//! receivers and, after them, the processes that only summarize.

use std::num::NonZeroU16;

use lizmon_client::ConnectFailure;
use lizmon_receiver::clock::ClockReading;
use lizmon_receiver::store::Shard;
use lizmon_receiver::store::memory::engine::{
    Disturbance, EngineEvent, MemoryEngine, RequestFate, RequestKind,
};
use lizmon_receiver::summarize::group::GroupRole;

use super::event::Event;
use super::{START_SECS, World};
use crate::Violation;
use crate::model::{Counted, EngineLog};
use crate::receiver::{Completed, Receiver};
use crate::scenario::{LATE_MILLIS_MAX, SharedScenario};
use crate::summarizer::SharedSummarizer;

/// How much of the past is kept in the engine, so that it can be gone back to: milliseconds.
const REVISIONS_KEPT_MS: u64 = 70_000;
/// How often requests make a primary fail over, at most.
const FAILOVERS_MAX: u32 = 8;
/// How often each member acts after the faults are over: milliseconds. Leases last longer.
const CALM_TURN_MS: u64 = 2_000;
/// After the faults are over every member has read what there is, and what was late has arrived:
/// milliseconds.
const CALM_AFTER_MS: u64 = 90_000;

/// What the members share.
pub(super) struct Group {
    scenario: SharedScenario,
    engine: MemoryEngine,
    log: EngineLog,
    /// The processes that only summarize, while they run.
    summarizers: Vec<Option<SharedSummarizer>>,
    /// By member: it does nothing until then.
    paused_until_ms: Vec<u64>,
    calm_from_ms: u64,
}

impl Group {
    pub(super) fn new(scenario: &SharedScenario) -> Self {
        let number = |number| NonZeroU16::new(number).unwrap();
        let engine = MemoryEngine::new(number(scenario.shards), number(scenario.primaries));
        engine.keep_revisions(REVISIONS_KEPT_MS);
        let _from_here_on = engine.take_events();
        Self {
            log: EngineLog::new(scenario.shards),
            summarizers: (0..scenario.summarizers).map(|_| None).collect(),
            paused_until_ms: vec![0; scenario.receivers + scenario.summarizers],
            calm_from_ms: u64::MAX,
            engine,
            scenario: scenario.clone(),
        }
    }

    /// The receivers, not running yet.
    pub(super) fn receivers(&self, rng: &mut fastrand::Rng) -> Vec<Receiver> {
        let role = GroupRole {
            reads: true,
            summarizes: self.scenario.receivers_summarize,
        };
        let receiver = |at| Receiver::sharing(at, self.engine.clone(), role, rng.fork());
        (0..self.scenario.receivers).map(receiver).collect()
    }

    /// The engine's clock is its own.
    pub(super) fn set_now(&self, now_ms: u64) {
        self.engine.set_now(START_SECS * 1_000 + now_ms);
    }

    fn is_receiver(&self, member: usize) -> bool {
        member < self.scenario.receivers
    }

    /// Until when a member is paused, if it is.
    pub(super) fn paused_until(&self, member: usize, now_ms: u64) -> Option<u64> {
        Some(self.paused_until_ms[member]).filter(|until| *until > now_ms)
    }

    pub(super) fn is_calm(&self, now_ms: u64) -> bool {
        now_ms >= self.calm_from_ms
    }

    pub(super) fn is_up(&self) -> bool {
        self.summarizers.iter().all(Option::is_some)
    }

    fn shards_of(scenario: &SharedScenario, primary: u16) -> impl Iterator<Item = Shard> {
        let primaries = scenario.primaries;
        let shards = (0..scenario.shards).map(Shard::new);
        shards.filter(move |shard| shard.number() % primaries == primary)
    }
}

/// What the shards of a primary forget at a failover: each something else.
fn forgets(scenario: &SharedScenario, rng: &mut fastrand::Rng, primary: u16) -> Vec<(Shard, u64)> {
    let is_even = rng.bool();
    let most = rng.u64(0..=scenario.forgotten_ms_max);
    Group::shards_of(scenario, primary)
        .map(|shard| match is_even {
            true => (shard, most),
            false => (shard, rng.u64(0..=most)),
        })
        .collect()
}

impl World {
    pub(super) fn begin_group(&mut self) {
        let Some(group) = &self.group else { return };
        let scenario = group.scenario.clone();
        self.disturb_engine();
        for member in 0..scenario.skew_ms.len() {
            if let Some(receiver) = self.receivers.get_mut(member) {
                receiver.clock_wrong_ms = scenario.skew_ms[member];
            } else {
                let at = self.rng.u64(0..=30_000);
                self.at(at, Event::SummarizerStarts { member });
                self.schedule_summarizer_end(member);
            }
            let at = self.rng.u64(0..scenario.read_every_ms);
            self.at(at, Event::GroupTurn { member });
            self.schedule_pause(member);
        }
        for (primary, span) in scenario.away.clone() {
            for (at, is_away) in [(span.from, true), (span.to, false)] {
                self.at(at * 1_000, Event::PrimaryAway { primary, is_away });
            }
        }
        self.schedule_failover();
    }

    /// What becomes of requests.
    fn disturb_engine(&mut self) {
        let Some(group) = &self.group else { return };
        let scenario = group.scenario.clone();
        let mut rng = self.rng.fork();
        let mut failovers = 0;
        group.engine.set_fates(move |kind, primary| {
            let chance = rng.f64();
            let mut refused = scenario.unknown + scenario.refused;
            if kind == RequestKind::Load {
                refused += scenario.load_refused;
            }
            let unconfirmed = refused + scenario.unconfirmed;
            let fate = if chance < scenario.unknown {
                RequestFate::Unknown {
                    is_done: rng.bool(),
                }
            } else if chance < refused {
                RequestFate::Refused
            } else if kind == RequestKind::Append && chance < unconfirmed {
                RequestFate::Unconfirmed
            } else if kind == RequestKind::Append && chance < unconfirmed + scenario.delayed {
                RequestFate::Delayed
            } else {
                RequestFate::Answered
            };
            let mut disturbance = Disturbance {
                fate,
                ..Disturbance::NONE
            };
            if rng.f64() < scenario.late {
                disturbance.late_millis = rng.u64(0..=LATE_MILLIS_MAX);
            }
            if failovers < FAILOVERS_MAX && rng.f64() < scenario.fails_over {
                failovers += 1;
                disturbance.forgets = forgets(&scenario, &mut rng, primary);
            }
            disturbance
        });
    }

    /// Takes note of what the engine has done since.
    pub(super) fn follow_engine(&mut self) -> Result<(), Violation> {
        let Some(group) = &mut self.group else {
            return Ok(());
        };
        let true_now = START_SECS + self.now_ms / 1_000;
        let mut has_forgotten = false;
        for event in group.engine.take_events() {
            if self.is_verbose {
                print_engine_event(&event);
            }
            match group.log.apply(event)? {
                Counted::Same => (),
                Counted::One(bytes) => self.model.appended(&bytes, true_now)?,
                Counted::Fewer => {
                    self.stats.forgotten += self.model.forget_all_but(group.log.counted())?;
                    has_forgotten = true;
                }
            }
        }
        if has_forgotten {
            for host in &mut self.hosts {
                host.has_checked.fill(false);
            }
        }
        Ok(())
    }

    /// How often the engine has forgotten something.
    pub(super) fn forgot(&self) -> u64 {
        self.group.as_ref().map_or(0, |group| group.log.forgot)
    }

    /// The receiver that a request reaches: any that runs.
    pub(super) fn balance(&mut self) -> Option<usize> {
        let up: Vec<_> = (0..self.receivers.len())
            .filter(|at| self.receivers[*at].is_up())
            .collect();
        (!up.is_empty()).then(|| up[self.rng.usize(0..up.len())])
    }

    /// These were appended, and are about to be answered.
    pub(super) fn acknowledge(
        &mut self,
        completed: &[Completed],
        forgot_before: u64,
    ) -> Result<(), Violation> {
        self.follow_engine()?;
        let has_forgotten = self.forgot() != forgot_before;
        for one in completed.iter().filter(|one| one.result.is_ok()) {
            let view = one.waiting.submission.view().unwrap();
            self.model.acknowledged(&view, has_forgotten)?;
        }
        Ok(())
    }

    /// A query waits until the host's shard was read on.
    pub(super) fn read_for_query(&mut self, receiver: usize) {
        let at = self.reading(receiver);
        if let Some(summarizer) = self.receivers[receiver].summarizer() {
            summarizer.read_on(at);
        }
    }

    fn member_reading(&self, member: usize) -> ClockReading {
        if self.receivers.get(member).is_some() {
            return self.reading(member);
        }
        let group = self.group.as_ref();
        let skew = group.map_or(0, |group| group.scenario.skew_ms[member]);
        let skew = if self.are_faults_over { 0 } else { skew };
        let wall_ms = (START_SECS * 1_000 + self.now_ms).saturating_add_signed(skew);
        ClockReading {
            wall: wall_ms / 1_000,
            monotonic: self.now_ms / 1_000,
            boot: Some([1; 16]),
        }
    }

    /// A round of a member's thread: it reads on, keeps leases, commits.
    pub(super) fn group_turn(&mut self, member: usize) {
        let at = self.member_reading(member);
        let now_ms = self.now_ms;
        let Some(group) = &mut self.group else { return };
        let paused = group.paused_until(member, now_ms);
        if paused.is_none() {
            let summarizer = match group.is_receiver(member) {
                true => self.receivers[member].summarizer(),
                false => group.summarizers[member - group.scenario.receivers].as_mut(),
            };
            if let Some(summarizer) = summarizer {
                summarizer.turn(at, now_ms);
            }
        }
        let every = match self.are_faults_over {
            true => CALM_TURN_MS,
            false => group.scenario.read_every_ms,
        };
        let next = paused.unwrap_or(now_ms + every);
        self.at(next, Event::GroupTurn { member });
    }

    fn schedule_pause(&mut self, member: usize) {
        let every = self.group.as_ref().map(|group| group.scenario.pauses_every);
        if let Some(at) = self.random_time_around(every.unwrap_or(0)) {
            self.at(at, Event::MemberPauses { member });
        }
    }

    /// SIGSTOP, and some time later SIGCONT.
    pub(super) fn pause_member(&mut self, member: usize) {
        self.schedule_pause(member);
        let now_ms = self.now_ms;
        if let Some(group) = &mut self.group {
            let longest = group.scenario.pause_secs_max * 1_000;
            group.paused_until_ms[member] = now_ms + self.rng.u64(0..longest);
        }
    }

    fn schedule_summarizer_end(&mut self, member: usize) {
        let group = self.group.as_ref();
        let every = group.map_or(0, |group| group.scenario.summarizer_ends_every);
        if let Some(at) = self.random_time_around(every) {
            let is_killed = self.rng.u8(0..3) != 0;
            self.at(at, Event::SummarizerEnds { member, is_killed });
        }
    }

    /// It is killed, or stopped by SIGTERM; some time later it starts again.
    pub(super) fn end_summarizer(&mut self, member: usize, is_killed: bool) {
        self.schedule_summarizer_end(member);
        let Some(group) = &mut self.group else { return };
        let at = member - group.scenario.receivers;
        if let Some(mut summarizer) = group.summarizers[at].take() {
            match is_killed {
                true => summarizer.kill(),
                false => return self.finish_summarizer(member, summarizer),
            }
        }
        self.schedule_summarizer_start(member);
    }

    fn finish_summarizer(&mut self, member: usize, summarizer: SharedSummarizer) {
        summarizer.finish();
        self.schedule_summarizer_start(member);
    }

    fn schedule_summarizer_start(&mut self, member: usize) {
        let down_ms = self.rng.u64(0..=self.scenario.down_secs_max * 1_000);
        self.at(self.now_ms + down_ms, Event::SummarizerStarts { member });
    }

    pub(super) fn start_summarizer(&mut self, member: usize) {
        let at = self.member_reading(member);
        let mut names = self.rng.fork();
        let Some(group) = &mut self.group else { return };
        let role = GroupRole {
            reads: false,
            summarizes: true,
        };
        let index = member - group.scenario.receivers;
        if group.summarizers[index].is_none() {
            let started = SharedSummarizer::start(&group.engine, role, &mut names, at);
            group.summarizers[index] = started.ok();
        }
    }

    fn schedule_failover(&mut self) {
        let group = self.group.as_ref();
        let every = group.map_or(0, |group| group.scenario.fails_over_every);
        if let Some(at) = self.random_time_around(every) {
            self.at(at, Event::FailsOver);
        }
    }

    /// A primary fails over; sometimes it has been away for a while.
    pub(super) fn fail_over(&mut self) {
        self.schedule_failover();
        let Some(group) = &self.group else { return };
        let primary = self.rng.u16(0..group.scenario.primaries);
        let forgets = forgets(&group.scenario, &mut self.rng, primary);
        group.engine.fail_over(&forgets);
        if self.rng.bool() {
            group.engine.set_away(primary, true);
            let back = self.now_ms + self.rng.u64(0..15_000);
            let is_away = false;
            self.at(back, Event::PrimaryAway { primary, is_away });
        }
    }

    pub(super) fn set_away(&mut self, primary: u16, is_away: bool) {
        let is_away = is_away && !self.are_faults_over;
        if let Some(group) = &self.group {
            group.engine.set_away(primary, is_away);
        }
    }

    /// Nothing is wrong with the engine from here on, and all members run.
    pub(super) fn calm_group(&mut self) {
        let Some(group) = &mut self.group else { return };
        group.engine.set_fates(|_, _| Disturbance::NONE);
        group.calm_from_ms = self.now_ms + CALM_AFTER_MS;
        group.paused_until_ms.fill(0);
        for primary in 0..group.scenario.primaries {
            group.engine.set_away(primary, false);
        }
        for member in group.scenario.receivers..group.paused_until_ms.len() {
            self.at(self.now_ms, Event::SummarizerStarts { member });
        }
    }

    /// The connections of these requests break, or some of them.
    pub(super) fn break_connections(&mut self, waiting: Vec<u64>) {
        for id in waiting {
            if self.rng.u8(0..4) != 0 {
                let after = self.rng.u64(0..50);
                self.no_answer(id, after, ConnectFailure::Broken);
            }
        }
    }

    /// All receivers answer alike, and as the journals say; also when everything was committed, and
    /// when everything was killed.
    pub(super) fn end_group(&mut self) -> Result<(), Violation> {
        for end in 0..3 {
            for member in 0..self.receivers.len() {
                let at = self.member_reading(member);
                match end {
                    0 => (),
                    1 => self.receivers[member].stop(),
                    _ => self.receivers[member].crash(false),
                }
                if end == 1 && member == 0 {
                    self.stop_summarizers();
                }
                if end > 0 {
                    self.start_receiver(member)?;
                }
                if let Some(summarizer) = self.receivers[member].summarizer() {
                    summarizer.turn(at, self.now_ms);
                }
                self.follow_engine()?;
                self.check_shared_receiver(member)?;
                self.check_same(member)?;
            }
        }
        self.check_records(0)?;
        let group = self.group.as_ref();
        let group = group.ok_or_else(|| Violation("no group".to_owned()))?;
        self.stats.commits = group.log.commits;
        self.stats.takeovers = group.log.takeovers;
        Ok(())
    }

    fn stop_summarizers(&mut self) {
        let Some(group) = &mut self.group else { return };
        for summarizer in &mut group.summarizers {
            if let Some(summarizer) = summarizer.take() {
                summarizer.finish();
            }
        }
    }

    /// What a receiver has read is what the journals have.
    pub(super) fn check_shared_receiver(&mut self, receiver: usize) -> Result<(), Violation> {
        self.stats.checks += 1;
        let now = self.secs();
        let at = &self.receivers[receiver];
        let told = at.summaries(&self.manual_sender, now);
        self.model.check_sent_once(&told, now)?;
        for (monitor, host) in self.hosts.iter().enumerate() {
            let held = at.held(&host.node);
            self.model.reconcile(monitor, 0, &held, now)?;
            let summaries = at.summaries(&host.node, now);
            self.model.check_summaries(monitor, 0, &summaries, now)?;
        }
        if self.model.found_after_crash > 0 {
            return Err(Violation(format!(
                "receiver {receiver} has {} records that no journal has",
                self.model.found_after_crash
            )));
        }
        Ok(())
    }

    /// It answers as the first one.
    fn check_same(&self, receiver: usize) -> Result<(), Violation> {
        let now = self.secs();
        let nodes = self.hosts.iter().map(|host| &host.node);
        for node in nodes.chain([&self.manual_sender]) {
            let answers = |at: usize| {
                let receiver = &self.receivers[at];
                let delivery = receiver.delivery(node, 0);
                let summaries = serde_json::to_value(receiver.summaries(node, now)).unwrap();
                (serde_json::to_value(delivery).unwrap(), summaries)
            };
            if answers(0) != answers(receiver) {
                return Err(Violation(format!(
                    "receivers 0 and {receiver} answer differently for {}",
                    node.name
                )));
            }
        }
        Ok(())
    }
}

fn print_engine_event(event: &EngineEvent) {
    let mut said = format!("{:?}", event.change);
    said.truncate(150);
    eprintln!(
        "             engine at {} shard {} revision {}: {said}",
        event.at_millis,
        event.shard.number(),
        event.revision
    );
}
