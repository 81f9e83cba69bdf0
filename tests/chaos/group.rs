//! Receivers, summarizers and a cluster under kills, stops and cuts of the network.
//!
//! ```text
//!                 bridge 10.78.0.254
//!  monitors ──┬── 10.78.0.11 …  liz-receiver     each in a network namespace of its own,
//!  clients    ├── 10.78.0.21 …  liz-summarizer   which is cut off and mended
//!  a reader   └── 10.78.0.1 …   a server of the cluster: three primaries, a replica each
//! ```
//!
//! Three threads break one receiver, one summarizer and one primary at a time, each at its own
//! seeded moments. [`load`] keeps sending and reading, [`verdict`] compares the end with what was
//! sent.

mod load;
mod network;
mod verdict;

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use lizmon_engines::{EngineCluster, EngineNode, EngineSettings, SLOTS};
use lizmon_protocol::name::Role;

use self::load::Load;
use self::network::{GroupNetwork, Place};
use crate::programs::Program;

const RECEIVERS: u8 = 3;
const SUMMARIZERS: u8 = 3;
const PRIMARIES: usize = 3;
const ENGINES: u8 = 6;
/// From one fault to the next of the same kind of process.
const PAUSE_MS: (u64, u64) = (300, 1_500);
/// How long something is broken: shorter and longer than a lease and a failover take.
const BROKEN_MS: (u64, u64) = (1_500, 9_000);
/// The same where each fault comes once.
const BROKEN_ONCE_MS: (u64, u64) = (2_500, 4_500);
/// What a member says with exit code 1 if a primary is away when it ends.
const UNCOMMITTED: &str = "the next start counts them from the journal";
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long, with how many, and in which order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) secs: u64,
    pub(crate) monitors: usize,
    pub(crate) clients: usize,
    pub(crate) seed: u64,
    /// How many replicas must have a sample before it is acknowledged.
    pub(crate) min_replicas: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// kill -9.
    Kill,
    /// SIGSTOP, later SIGCONT.
    Stop,
    /// Off the network.
    Cut,
    /// SIGTERM.
    End,
}

const OF_MEMBERS: [Fault; 4] = [Fault::Kill, Fault::Stop, Fault::Cut, Fault::End];
const OF_SERVERS: [Fault; 3] = [Fault::Kill, Fault::Stop, Fault::Cut];

/// Each of them at least once, then again until the time is over.
fn faults(
    plan: Plan,
    kinds: &[Fault],
    salt: u64,
    mut injure: impl FnMut(&mut fastrand::Rng, Fault, Duration),
) {
    let mut rng = fastrand::Rng::with_seed(plan.seed ^ salt);
    let until = Instant::now() + Duration::from_secs(plan.secs);
    loop {
        let mut deck = kinds.to_vec();
        rng.shuffle(&mut deck);
        for fault in deck {
            sleep(between(&mut rng, PAUSE_MS));
            let time = if plan.secs == 0 {
                BROKEN_ONCE_MS
            } else {
                BROKEN_MS
            };
            let time = between(&mut rng, time);
            injure(&mut rng, fault, time);
        }
        if Instant::now() > until {
            return;
        }
    }
}

fn between(rng: &mut fastrand::Rng, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(rng.u64(from..=to))
}

pub(crate) fn run(plan: Plan) {
    let network = GroupNetwork::new();
    let servers = servers(&network);
    let store = servers
        .nodes()
        .iter()
        .map(|node| node.address().to_string());
    let store = format!("redis://{}", store.collect::<Vec<_>>().join(","));
    let mut receivers = members(&network, RECEIVERS, |at| network.receiver(at, &store, plan));
    let mut summarizers = members(&network, SUMMARIZERS, |at| network.summarizer(at, &store));
    let load = Load::start(&network, plan);
    load.wait_until_it_flows();
    scope(|threads| {
        let (receivers, summarizers) = (&mut receivers, &mut summarizers);
        threads.spawn(|| {
            faults(plan, &OF_MEMBERS, 1, |rng, fault, time| {
                injure_member(receivers, rng, fault, time)
            })
        });
        threads.spawn(|| {
            faults(plan, &OF_MEMBERS, 2, |rng, fault, time| {
                injure_member(summarizers, rng, fault, time)
            })
        });
        threads.spawn(|| {
            faults(plan, &OF_SERVERS, 3, |rng, fault, time| {
                injure_primary(&servers, &network, rng, fault, time)
            })
        });
    });
    let restarts: u64 = receivers
        .iter()
        .chain(&summarizers)
        .map(|member| member.ended_by_itself)
        .sum();
    eprintln!(
        "the faults have ended; {restarts} members ended by themselves and were started again"
    );
    verdict::check(&network, load, plan);
    for member in receivers.iter_mut().chain(&mut summarizers) {
        member.end();
    }
}

/// A cluster whose servers are in namespaces of their own.
fn servers(network: &GroupNetwork) -> EngineCluster {
    let settings = (0..ENGINES).map(|at| {
        let place = network.server_place(at);
        EngineSettings {
            address: place.address.into(),
            launcher: place.launcher(),
            ..EngineSettings::valkey()
        }
    });
    EngineCluster::start_each(&settings.collect::<Vec<_>>(), PRIMARIES)
}

/// A receiver or a summarizer.
struct Member {
    program: Program,
    place: Place,
    /// As a service manager would, this test starts one again that has ended.
    ended_by_itself: u64,
}

fn members(
    network: &GroupNetwork,
    count: u8,
    command: impl Fn(u8) -> (Place, std::process::Command),
) -> Vec<Member> {
    let member = |at| {
        let (place, command) = command(at);
        let log = network.path(&format!("{}.log", place.name));
        let mut program = Program::new(&place.name, command, log);
        program.start();
        Member {
            program,
            place,
            ended_by_itself: 0,
        }
    };
    (0..count).map(member).collect()
}

fn injure_member(members: &mut [Member], rng: &mut fastrand::Rng, fault: Fault, time: Duration) {
    let at = rng.usize(0..members.len());
    let member = &mut members[at];
    eprintln!("{fault:?} {} for {time:?}", member.place.name);
    match fault {
        Fault::Kill => member.program.kill(),
        Fault::Stop => member.program.stop(),
        Fault::Cut => member.place.cut(),
        Fault::End => member.end(),
    }
    let until = Instant::now() + time;
    while Instant::now() < until {
        for member in members.iter_mut() {
            member.start_again();
        }
        sleep(POLL_INTERVAL);
    }
    let member = &mut members[at];
    match fault {
        Fault::Kill | Fault::End => member.program.start(),
        Fault::Stop => member.program.resume(),
        Fault::Cut => member.place.mend(),
    }
}

impl Member {
    /// Ends cleanly, once it has started: that may need every shard's primary.
    fn end(&mut self) {
        let by = Instant::now() + READY_TIMEOUT;
        while !self.program.is_ready() {
            assert!(Instant::now() < by, "{} does not start", self.place.name);
            self.start_again();
            sleep(POLL_INTERVAL);
        }
        self.program.end_or_say(UNCOMMITTED);
    }

    fn start_again(&mut self) {
        if let Some(status) = self.program.ended() {
            eprintln!("{} ended by itself: {status}", self.place.name);
            self.ended_by_itself += 1;
            self.program.start();
        }
    }
}

fn injure_primary(
    servers: &EngineCluster,
    network: &GroupNetwork,
    rng: &mut fastrand::Rng,
    fault: Fault,
    time: Duration,
) {
    let primary: &EngineNode = servers.primary_of(rng.u16(0..SLOTS));
    let place = network.place_of(primary.address().ip());
    eprintln!("{fault:?} {} for {time:?}", place.name);
    match fault {
        Fault::Kill | Fault::End => primary.kill(),
        Fault::Stop => primary.pause(),
        Fault::Cut => place.cut(),
    }
    sleep(time);
    match fault {
        Fault::Kill | Fault::End => primary.restart(),
        Fault::Stop => primary.resume(),
        Fault::Cut => place.mend(),
    }
    // With two shards without a primary there is nobody to elect a new one.
    servers.wait_until_whole();
}

/// Where a role's certificates are.
fn folder_of(role: Role) -> &'static str {
    match role {
        Role::Node => "nodes",
        Role::Summarizer => "summarizers",
        Role::Receiver => "receivers",
        _ => "readers",
    }
}
