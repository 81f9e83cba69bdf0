//! Breaks things at seeded moments, mends them, and asks for the account.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lizmon_client::Client;
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::{NodeName, Role};
use tokio::runtime::Runtime;

use crate::account::{Diary, Reference, Tally};
use crate::land::{End, Land, SmallDisk, set_line};
use crate::load::{Counts, Load};
use crate::programs::{Program, built, epoch_now, without_settings};

const MONITORS: usize = 8;
/// Small, and still several times what a run needs.
const RECEIVER_DISK_KIB: u64 = 64 << 10;
const SPOOL_DISK_KIB: u64 = 4 << 10;
/// Longest wait for anything that should happen, as long as it is not a matter of the schedule.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Two requests of each client, and some of the reader.
const GO_ON: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillReceiver,
    EndReceiver,
    StopReceiver,
    FillReceiver,
    CutLine,
    KillMonitor,
    StopMonitor,
    FillSpool,
    DamageSpool,
}

/// Each as often as it stands here in one round.
const ROUND: [Fault; 14] = [
    Fault::KillReceiver,
    Fault::KillReceiver,
    Fault::EndReceiver,
    Fault::StopReceiver,
    Fault::FillReceiver,
    Fault::CutLine,
    Fault::CutLine,
    Fault::KillMonitor,
    Fault::KillMonitor,
    Fault::KillMonitor,
    Fault::StopMonitor,
    Fault::FillSpool,
    Fault::DamageSpool,
    Fault::KillMonitor,
];

#[derive(Debug, Clone, Copy)]
enum Cure {
    StartReceiver,
    WakeReceiver,
    MendLine(End),
    StartMonitor(usize),
    WakeMonitor(usize),
    EmptySpool(usize),
}

/// How often each was done.
#[derive(Debug, Default)]
struct Done {
    receiver_kills: u64,
    receiver_ends: u64,
    receiver_stops: u64,
    receiver_fills: u64,
    line_cuts: u64,
    monitor_kills: u64,
    monitor_stops: u64,
    spool_fills: u64,
    spool_damages: u64,
}

pub(crate) fn run(lasting: Duration, seed: u64) {
    let mut chaos = Chaos::new(seed);
    let until = Instant::now() + lasting;
    let mut cards: VecDeque<Fault> = VecDeque::new();
    while Instant::now() < until {
        if cards.is_empty() {
            let mut round = ROUND;
            chaos.rng.shuffle(&mut round);
            cards.extend(round);
        }
        let fault = cards.pop_front().unwrap();
        if !chaos.try_fault(fault) {
            cards.push_back(fault);
        }
        let pause = chaos.between(100, 1_000);
        chaos.tend_for(pause);
    }
    chaos.heal();
    chaos.settle();
}

struct Monitor {
    host: NodeName,
    program: Program,
    disk: SmallDisk,
    is_full: bool,
}

impl Monitor {
    fn spool(&self) -> PathBuf {
        self.disk.mount.join("spool")
    }
}

struct Chaos {
    rng: fastrand::Rng,
    receiver: Program,
    data: SmallDisk,
    monitors: Vec<Monitor>,
    is_line_cut: bool,
    cures: Vec<(Instant, Cure)>,
    done: Done,
    load: Option<Load>,
    reader: Client,
    runtime: Runtime,
    land: Land,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let land = Land::new();
        let data = land.disk("receiver", RECEIVER_DISK_KIB);
        let mut receiver = Program::new(
            "liz-receiver",
            land.receiver(&data),
            land.path("receiver.log"),
        );
        receiver.start();
        let monitors = (0..MONITORS).map(|at| {
            let name = format!("m{at}");
            let disk = land.disk(&name, SPOOL_DISK_KIB);
            let command = monitor(&land, &name, &disk);
            let mut program = Program::new(&name, command, land.path(&format!("{name}.log")));
            program.start();
            Monitor {
                host: name.parse().unwrap(),
                program,
                disk,
                is_full: false,
            }
        });
        Self {
            rng: fastrand::Rng::with_seed(seed),
            receiver,
            data,
            monitors: monitors.collect(),
            is_line_cut: false,
            cures: Vec::new(),
            done: Done::default(),
            load: Some(Load::start(&land, seed)),
            reader: land.client(Role::Reader, "chaos-reader"),
            runtime: Runtime::new().unwrap(),
            land,
        }
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from_ms..=to_ms))
    }

    fn cure_after(&mut self, from_ms: u64, to_ms: u64, cure: Cure) {
        let after = self.between(from_ms, to_ms);
        self.cures.push((Instant::now() + after, cure));
    }

    /// Whether it could be done now.
    fn try_fault(&mut self, fault: Fault) -> bool {
        let at = self.rng.usize(0..MONITORS);
        let is_ready = match fault {
            Fault::KillReceiver => self.receiver.id().is_some(),
            Fault::EndReceiver | Fault::StopReceiver => self.receiver.runs(),
            Fault::FillReceiver => self.receiver.runs() && !self.is_line_cut,
            Fault::CutLine => !self.is_line_cut,
            Fault::KillMonitor | Fault::DamageSpool => {
                self.monitors[at].program.id().is_some() && !self.monitors[at].is_full
            }
            Fault::StopMonitor | Fault::FillSpool => {
                self.monitors[at].program.runs() && !self.monitors[at].is_full
            }
        };
        if is_ready {
            match fault {
                Fault::KillReceiver | Fault::EndReceiver | Fault::StopReceiver => {
                    self.break_receiver(fault)
                }
                Fault::FillReceiver => self.fill_receiver(),
                Fault::CutLine => self.cut_line(),
                Fault::KillMonitor | Fault::StopMonitor | Fault::FillSpool | Fault::DamageSpool => {
                    self.break_monitor(fault, at)
                }
            }
        }
        is_ready
    }

    fn break_receiver(&mut self, fault: Fault) {
        match fault {
            Fault::StopReceiver => {
                self.receiver.stop();
                self.done.receiver_stops += 1;
                return self.cure_after(300, 4_000, Cure::WakeReceiver);
            }
            Fault::EndReceiver => {
                self.receiver.end();
                self.done.receiver_ends += 1;
            }
            _ => {
                self.receiver.kill();
                self.done.receiver_kills += 1;
            }
        }
        self.cure_after(0, 1_500, Cure::StartReceiver);
    }

    fn break_monitor(&mut self, fault: Fault, at: usize) {
        let monitor = &mut self.monitors[at];
        match fault {
            Fault::StopMonitor => {
                monitor.program.stop();
                self.done.monitor_stops += 1;
                return self.cure_after(300, 4_000, Cure::WakeMonitor(at));
            }
            Fault::FillSpool => {
                monitor.disk.fill();
                monitor.is_full = true;
                self.done.spool_fills += 1;
                return self.cure_after(2_000, 15_000, Cure::EmptySpool(at));
            }
            Fault::DamageSpool => {
                monitor.program.kill();
                damage(&monitor.spool(), &mut self.rng);
                self.done.spool_damages += 1;
            }
            _ => {
                monitor.program.kill();
                self.done.monitor_kills += 1;
            }
        }
        self.cure_after(0, 2_500, Cure::StartMonitor(at));
    }

    fn cut_line(&mut self) {
        let end = if self.rng.bool() {
            End::Field
        } else {
            End::Receiver
        };
        set_line(end, "down");
        self.is_line_cut = true;
        self.done.line_cuts += 1;
        self.cure_after(300, 6_000, Cure::MendLine(end));
    }

    /// While its disk is full, the receiver refuses what it cannot keep, and answers who reads. Once there is room it
    /// takes again: the same process.
    fn fill_receiver(&mut self) {
        let counts = self.load.as_ref().unwrap().counts.clone();
        let before = self.receiver.id();
        let refused = Counts::of(&counts.store_unavailable);
        self.data.fill();
        self.done.receiver_fills += 1;
        self.wait_for("503 store_unavailable with a full disk", || {
            Counts::of(&counts.store_unavailable) >= refused + GO_ON
        });
        let [taken, read, not_read] =
            [&counts.taken, &counts.read, &counts.not_read].map(Counts::of);
        self.wait_for("reads with a full disk", || {
            Counts::of(&counts.read) >= read + GO_ON
        });
        assert_eq!(
            Counts::of(&counts.not_read),
            not_read,
            "a read fails with a full disk"
        );
        assert_eq!(Counts::of(&counts.taken), taken, "taken with a full disk");
        let longer = self.between(0, 2_000);
        self.tend_for(longer);
        self.data.empty();
        let taken = Counts::of(&counts.taken);
        self.wait_for("batches taken once there is room", || {
            Counts::of(&counts.taken) > taken
        });
        assert_eq!(self.receiver.id(), before);
    }

    fn wait_for(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let by = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < by, "no {what}");
            self.tend();
            sleep(LOOK_EVERY);
        }
    }

    fn tend_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.tend();
            sleep(LOOK_EVERY);
        }
    }

    /// Cures what is due, and sees that nothing ends by itself.
    fn tend(&mut self) {
        let now = Instant::now();
        for (_, cure) in self
            .cures
            .extract_if(.., |(due, _)| *due <= now)
            .collect::<Vec<_>>()
        {
            self.cure(cure);
        }
        self.receiver.check();
        for monitor in &mut self.monitors {
            monitor.program.check();
        }
    }

    fn cure(&mut self, cure: Cure) {
        match cure {
            Cure::StartReceiver => self.receiver.start(),
            Cure::WakeReceiver => self.receiver.go_on(),
            Cure::MendLine(end) => {
                set_line(end, "up");
                self.is_line_cut = false;
            }
            Cure::StartMonitor(at) => self.monitors[at].program.start(),
            Cure::WakeMonitor(at) => self.monitors[at].program.go_on(),
            Cure::EmptySpool(at) => {
                self.monitors[at].disk.empty();
                self.monitors[at].is_full = false;
            }
        }
    }

    fn heal(&mut self) {
        for (_, cure) in std::mem::take(&mut self.cures) {
            self.cure(cure);
        }
    }

    /// Everything is delivered, and what the receiver says is what was measured.
    fn settle(&mut self) {
        let load = self.load.take().unwrap();
        let counts = load.counts.clone();
        let posted = load.end();
        let by = Instant::now() + PATIENCE;
        loop {
            self.tend();
            let waiting = self.waiting();
            if waiting == 0 {
                break;
            }
            assert!(
                Instant::now() < by,
                "{waiting} records were not delivered in time"
            );
            sleep(Duration::from_millis(500));
        }
        for monitor in &mut self.monitors {
            monitor.program.end();
        }
        self.check_all(&posted);
        // What is kept says the same as what was in memory.
        self.receiver.end();
        self.receiver.start();
        let tally = self.check_all(&posted);
        self.receiver.end();
        let posted: u64 = posted.iter().map(|(_, reference)| reference.values()).sum();
        self.say(&tally, posted, &counts);
    }

    /// How many numbered records of the monitors nobody has heard of.
    fn waiting(&mut self) -> usize {
        let unheard = self.monitors.iter().map(|monitor| {
            let diary = Diary::read(monitor.program.log());
            diary.unheard(&self.delivery(&monitor.host)).len()
        });
        unheard.sum()
    }

    fn delivery(&self, host: &NodeName) -> Delivery {
        self.ask(|| {
            self.runtime
                .block_on(self.reader.delivery(host, epoch_now()))
        })
    }

    fn ask<T>(&self, question: impl Fn() -> Result<T, lizmon_client::Error>) -> T {
        let by = Instant::now() + PATIENCE;
        loop {
            match question() {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < by, "{error}"),
            }
            sleep(LOOK_EVERY);
        }
    }

    fn check_all(&self, posted: &[(NodeName, Reference)]) -> Tally {
        for (host, reference) in posted {
            self.audit(host);
            self.check(host, reference, true);
        }
        let mut sum = Tally::default();
        for monitor in &self.monitors {
            self.audit(&monitor.host);
            let delivery = self.delivery(&monitor.host);
            let (reference, tally) =
                Diary::read(monitor.program.log()).settle(monitor.host.as_str(), &delivery);
            self.check(&monitor.host, &reference, false);
            sum.sampled += tally.sampled;
            sum.received += tally.received;
            sum.dropped += tally.dropped;
            sum.producers += tally.producers;
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

    /// `lizctl audit` says so too.
    fn audit(&self, host: &NodeName) {
        let mut command = Command::new(built("lizctl"));
        without_settings(&mut command);
        let credentials = self.land.credentials(Role::Reader, "chaos-reader");
        command.args([
            "audit",
            host.as_str(),
            "--json",
            "--wait",
            "30s",
            "--receiver",
            &self.land.url(),
        ]);
        command
            .arg("--cert")
            .arg(credentials.cert)
            .arg("--key")
            .arg(credentials.key)
            .arg("--ca")
            .arg(credentials.ca);
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success(),
            "audit of {host}: {}{said}",
            String::from_utf8_lossy(&done.stderr)
        );
        let account: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&account["lost"], &account["twice"]),
            (&0.into(), &0.into()),
            "{host}: {account}"
        );
    }

    fn say(&self, tally: &Tally, posted: u64, counts: &Counts) {
        eprintln!("{:?}", self.done);
        eprintln!(
            "monitors: {} samples, {} received, {} dropped and told, {} of {} producers; lost 0, twice 0",
            tally.sampled,
            tally.received,
            tally.dropped,
            self.monitors.len(),
            tally.producers
        );
        eprintln!("clients: {posted} values; {counts:?}");
    }
}

fn monitor(land: &Land, name: &str, disk: &SmallDisk) -> Command {
    let credentials = land.credentials(Role::Node, name);
    let mut command = Command::new(built("liz-monitor"));
    without_settings(&mut command);
    command.env("RUST_LOG", "info,lizmon_monitor=trace");
    command.args([
        "--this-host",
        name,
        "--publish",
        &format!("{}/api/perf", land.url()),
    ]);
    command.args([
        "--log-format",
        "json",
        "--collect",
        "cpu,mem,clock-skew,spool-records,spool-dropped",
    ]);
    command
        .arg("--cert")
        .arg(credentials.cert)
        .arg("--key")
        .arg(credentials.key)
        .arg("--ca")
        .arg(credentials.ca);
    command.arg("--spool").arg(disk.mount.join("spool"));
    command
}

/// A flipped bit, a block of zeros, or a lost end, at a random place of the spool's database or its log.
fn damage(spool: &Path, rng: &mut fastrand::Rng) {
    let files = ["spool.db", "spool.db-wal"].map(|name| spool.join(name));
    let files: Vec<_> = files
        .iter()
        .filter(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 0))
        .collect();
    let Some(path) = rng.choice(files) else {
        return;
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let len = file.metadata().unwrap().len();
    let at = rng.u64(0..len);
    match rng.u8(0..3) {
        0 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << rng.u8(0..8);
            file.write_all_at(&byte, at).unwrap();
        }
        1 => file.write_all_at(&[0; 512], at).unwrap(),
        _ => file.set_len(at).unwrap(),
    }
}
