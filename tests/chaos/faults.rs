//! Injects faults at seeded moments, and repairs them.

mod verdict;

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lizmon_client::Client;
use lizmon_protocol::name::{NodeName, Role};
use tokio::runtime::Runtime;

use crate::load::{Counts, Load};
use crate::netns::{End, SmallDisk, TestNetwork, set_link};
use crate::programs::{Program, epoch_now, program, without_lizmon_env};
use crate::reference::MonitorLog;

const MONITORS: usize = 8;
/// The first monitors also have their spools damaged, and are killed while or shortly after their
/// disks are full: their records may be dropped, but must then be reported. All records of the
/// others must arrive.
const FRAGILE: usize = 4;
/// Small, but several times what a run needs.
const RECEIVER_DISK_KIB: u64 = 64 << 10;
const SPOOL_DISK_KIB: u64 = 4 << 10;
/// A monitor retries a full disk with each record: a record sampled this long after space was freed
/// is spooled, and so are all before it.
const SAVED_AFTER_SECS: u64 = 2;
/// Maximum wait for anything that does not depend on the schedule.
const TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Two requests of each client, and some of the reader.
const MORE_REQUESTS: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillReceiver,
    EndReceiver,
    StopReceiver,
    FillReceiver,
    CutLink,
    KillMonitor,
    StopMonitor,
    FillSpool,
    DamageSpool,
}

/// One round of faults; they are shuffled.
const ROUND: [Fault; 14] = [
    Fault::KillReceiver,
    Fault::KillReceiver,
    Fault::EndReceiver,
    Fault::StopReceiver,
    Fault::FillReceiver,
    Fault::CutLink,
    Fault::CutLink,
    Fault::KillMonitor,
    Fault::KillMonitor,
    Fault::KillMonitor,
    Fault::StopMonitor,
    Fault::FillSpool,
    Fault::DamageSpool,
    Fault::KillMonitor,
];

#[derive(Debug, Clone, Copy)]
enum Repair {
    StartReceiver,
    ResumeReceiver,
    RestoreLink(End),
    StartMonitor(usize),
    ResumeMonitor(usize),
    FreeSpool(usize),
    /// As soon as it has spooled a sample of this time or later.
    MarkSaved(usize, u64),
}

/// How often each fault was injected.
#[derive(Debug, Default)]
struct FaultCounts {
    receiver_kills: u64,
    receiver_ends: u64,
    receiver_stops: u64,
    receiver_fills: u64,
    link_cuts: u64,
    monitor_kills: u64,
    monitor_stops: u64,
    spool_fills: u64,
    spool_damages: u64,
}

pub(crate) fn run(duration: Duration, seed: u64) {
    let mut chaos = Chaos::new(seed);
    let until = Instant::now() + duration;
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
        chaos.run_for(pause);
    }
    chaos.repair_all();
    chaos.check_delivery();
}

struct Monitor {
    host: NodeName,
    program: Program,
    disk: SmallDisk,
    /// Samples from when the disk was full may still be in memory only.
    is_unsaved: bool,
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
    is_link_cut: bool,
    repairs: Vec<(Instant, Repair)>,
    fault_counts: FaultCounts,
    load: Option<Load>,
    reader: Client,
    runtime: Runtime,
    network: TestNetwork,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let network = TestNetwork::new();
        let data = network.disk("receiver", RECEIVER_DISK_KIB);
        let mut receiver = Program::new(
            "liz-receiver",
            network.receiver(&data),
            network.path("receiver.log"),
        );
        receiver.start();
        let monitors = (0..MONITORS).map(|at| {
            let name = format!("m{at}");
            let disk = network.disk(&name, SPOOL_DISK_KIB);
            let command = monitor(&network, &name, &disk);
            let mut program = Program::new(&name, command, network.path(&format!("{name}.log")));
            program.start();
            Monitor {
                host: name.parse().unwrap(),
                program,
                disk,
                is_unsaved: false,
            }
        });
        Self {
            rng: fastrand::Rng::with_seed(seed),
            receiver,
            data,
            monitors: monitors.collect(),
            is_link_cut: false,
            repairs: Vec::new(),
            fault_counts: FaultCounts::default(),
            load: Some(Load::start(&network, seed)),
            reader: network.client(Role::Reader, "chaos-reader"),
            runtime: Runtime::new().unwrap(),
            network,
        }
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from_ms..=to_ms))
    }

    fn repair_after(&mut self, from_ms: u64, to_ms: u64, repair: Repair) {
        let after = self.between(from_ms, to_ms);
        self.repairs.push((Instant::now() + after, repair));
    }

    /// Injects the fault if possible, and returns whether it was.
    fn try_fault(&mut self, fault: Fault) -> bool {
        let at = match fault {
            Fault::DamageSpool => self.rng.usize(0..FRAGILE),
            _ => self.rng.usize(0..MONITORS),
        };
        let is_ready = match fault {
            Fault::KillReceiver => self.receiver.id().is_some(),
            Fault::EndReceiver | Fault::StopReceiver => self.receiver.runs(),
            Fault::FillReceiver => self.receiver.runs() && !self.is_link_cut,
            Fault::CutLink => !self.is_link_cut,
            Fault::KillMonitor => {
                let monitor = &self.monitors[at];
                monitor.program.id().is_some() && (at < FRAGILE || !monitor.is_unsaved)
            }
            Fault::DamageSpool => {
                self.monitors[at].program.id().is_some() && !self.monitors[at].is_unsaved
            }
            Fault::StopMonitor | Fault::FillSpool => {
                self.monitors[at].program.runs() && !self.monitors[at].is_unsaved
            }
        };
        if is_ready {
            match fault {
                Fault::KillReceiver | Fault::EndReceiver | Fault::StopReceiver => {
                    self.break_receiver(fault)
                }
                Fault::FillReceiver => self.fill_receiver(),
                Fault::CutLink => self.cut_link(),
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
                self.fault_counts.receiver_stops += 1;
                return self.repair_after(300, 4_000, Repair::ResumeReceiver);
            }
            Fault::EndReceiver => {
                self.receiver.end();
                self.fault_counts.receiver_ends += 1;
            }
            _ => {
                self.receiver.kill();
                self.fault_counts.receiver_kills += 1;
            }
        }
        self.repair_after(0, 1_500, Repair::StartReceiver);
    }

    fn break_monitor(&mut self, fault: Fault, at: usize) {
        let monitor = &mut self.monitors[at];
        match fault {
            Fault::StopMonitor => {
                monitor.program.stop();
                self.fault_counts.monitor_stops += 1;
                return self.repair_after(300, 4_000, Repair::ResumeMonitor(at));
            }
            Fault::FillSpool => {
                monitor.disk.fill();
                monitor.is_unsaved = true;
                self.fault_counts.spool_fills += 1;
                return self.repair_after(2_000, 15_000, Repair::FreeSpool(at));
            }
            Fault::DamageSpool => {
                monitor.program.kill();
                damage(&monitor.spool(), &mut self.rng);
                self.fault_counts.spool_damages += 1;
            }
            _ => {
                monitor.program.kill();
                self.fault_counts.monitor_kills += 1;
            }
        }
        self.repair_after(0, 2_500, Repair::StartMonitor(at));
    }

    fn cut_link(&mut self) {
        let end = if self.rng.bool() {
            End::Monitors
        } else {
            End::Receiver
        };
        set_link(end, "down");
        self.is_link_cut = true;
        self.fault_counts.link_cuts += 1;
        self.repair_after(300, 6_000, Repair::RestoreLink(end));
    }

    /// While its disk is full, the receiver refuses records and answers reads. Once space is freed,
    /// the same process accepts records again.
    fn fill_receiver(&mut self) {
        let counts = self.load.as_ref().unwrap().counts.clone();
        // A receiver that starts on a full disk exits with an error, so wait until it runs.
        let read = Counts::of(&counts.read);
        self.wait_for("reads before its disk is filled", || {
            Counts::of(&counts.read) > read
        });
        let before = self.receiver.id();
        let refused = Counts::of(&counts.store_unavailable);
        self.data.fill();
        self.fault_counts.receiver_fills += 1;
        self.wait_for("503 store_unavailable with a full disk", || {
            Counts::of(&counts.store_unavailable) >= refused + MORE_REQUESTS
        });
        let [taken, read, read_failed] =
            [&counts.taken, &counts.read, &counts.read_failed].map(Counts::of);
        self.wait_for("reads with a full disk", || {
            Counts::of(&counts.read) >= read + MORE_REQUESTS
        });
        assert_eq!(
            Counts::of(&counts.read_failed),
            read_failed,
            "a read fails with a full disk"
        );
        assert_eq!(Counts::of(&counts.taken), taken, "taken with a full disk");
        let longer = self.between(0, 2_000);
        self.run_for(longer);
        self.data.empty();
        let taken = Counts::of(&counts.taken);
        self.wait_for("batches taken once there is room", || {
            Counts::of(&counts.taken) > taken
        });
        assert_eq!(self.receiver.id(), before);
    }

    fn wait_for(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let by = Instant::now() + TIMEOUT;
        while !is_so() {
            assert!(Instant::now() < by, "no {what}");
            self.poll();
            sleep(POLL_INTERVAL);
        }
    }

    fn run_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.poll();
            sleep(POLL_INTERVAL);
        }
    }

    /// Makes the repairs that are due, and checks that no program has ended by itself.
    fn poll(&mut self) {
        let now = Instant::now();
        for (_, repair) in self
            .repairs
            .extract_if(.., |(due, _)| *due <= now)
            .collect::<Vec<_>>()
        {
            self.repair(repair);
        }
        self.receiver.check();
        for monitor in &mut self.monitors {
            monitor.program.check();
        }
    }

    fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::StartReceiver => self.receiver.start(),
            Repair::ResumeReceiver => self.receiver.resume(),
            Repair::RestoreLink(end) => {
                set_link(end, "up");
                self.is_link_cut = false;
            }
            Repair::StartMonitor(at) => self.monitors[at].program.start(),
            Repair::ResumeMonitor(at) => self.monitors[at].program.resume(),
            Repair::MarkSaved(at, epoch) => {
                let monitor = &mut self.monitors[at];
                let newest = MonitorLog::read(monitor.program.log()).newest_kept();
                monitor.is_unsaved = newest < Some(epoch);
                if monitor.is_unsaved {
                    self.repair_after(500, 500, repair);
                }
            }
            Repair::FreeSpool(at) => {
                self.monitors[at].disk.empty();
                let repair = Repair::MarkSaved(at, epoch_now() + SAVED_AFTER_SECS);
                self.repair_after(500, 500, repair);
            }
        }
    }

    fn repair_all(&mut self) {
        let by = Instant::now() + TIMEOUT;
        while !self.repairs.is_empty() {
            assert!(Instant::now() < by, "not mended: {:?}", self.repairs);
            for (_, repair) in std::mem::take(&mut self.repairs) {
                self.repair(repair);
            }
            sleep(POLL_INTERVAL);
        }
    }
}

fn monitor(network: &TestNetwork, name: &str, disk: &SmallDisk) -> Command {
    let credentials = network.credentials(Role::Node, name);
    let mut command = Command::new(program("liz-monitor"));
    without_lizmon_env(&mut command);
    command.env("RUST_LOG", "info,lizmon_monitor=trace");
    command.args([
        "--this-host",
        name,
        "--publish",
        &format!("{}/api/perf", network.url()),
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

/// Flips a bit, writes a block of zeros, or truncates, at a random offset of the spool's database
/// or WAL.
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
