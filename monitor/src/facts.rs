//! What this machine is, and when a receiver is told.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lizmon_protocol::facts::Facts;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, System};

/// How often it is asked whether they have changed: memory and cores can be added to a running
/// machine.
pub const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How often a receiver is told them even if they have not changed, and how long one that does not
/// take them is left alone.
pub const TELL_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How long after a failure they are sent again; the next failures double it.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest time between two attempts.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Kernels compute it anew when the clock is set, so that it differs by a second now and then: it
/// is sent, and is no reason to.
const BOOT_EPOCH: &str = "boot-epoch";

/// Reads them. What this machine does not tell is left out.
pub fn read() -> Facts {
    let mut facts = Facts::default();
    facts.add_text("agent", concat!("lizmon ", env!("CARGO_PKG_VERSION")));
    facts.add_text("architecture", &System::cpu_arch());
    let name = System::name().unwrap_or_else(|_| std::env::consts::OS.to_owned());
    let version = System::os_version().unwrap_or_default();
    facts.add_text("os", &format!("{name} {version}"));
    if let Ok(kernel) = System::kernel_version() {
        facts.add_text("kernel", &kernel);
    }
    if let Ok(boot) = System::boot_time() {
        facts.add_number(BOOT_EPOCH, boot);
    }
    if let Ok(mut system) = System::new() {
        system.refresh_cpu_list(CpuRefreshKind::nothing());
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let numbers = [
            ("cores", system.cpus().len() as u64),
            ("memory-bytes", system.total_memory()),
        ];
        for (key, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
            facts.add_number(key, number);
        }
    }
    if let Some(kind) = virtualization(Path::new("/")) {
        facts.add_text("virtualization", &kind);
    }
    facts
}

/// The container or virtual machine that this is, if the system says it in a file that costs
/// nothing to read.
fn virtualization(root: &Path) -> Option<String> {
    let text = |path: &str| {
        let text = fs::read_to_string(root.join(path)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    // By systemd's container interface; Docker and Podman leave marks of their own.
    if let Some(container) = text("run/systemd/container") {
        return Some(container);
    }
    let marks = [(".dockerenv", "docker"), ("run/.containerenv", "podman")];
    if let Some((_, container)) = marks.iter().find(|(mark, _)| root.join(mark).exists()) {
        return Some((*container).to_owned());
    }
    let is_guest = text("proc/cpuinfo")?.lines().any(|line| {
        line.starts_with("flags")
            && line
                .split_ascii_whitespace()
                .any(|flag| flag == "hypervisor")
    });
    let maker = text("sys/class/dmi/id/sys_vendor").unwrap_or_else(|| "unknown maker".to_owned());
    is_guest.then(|| format!("virtual machine ({maker})"))
}

/// When one receiver is told.
#[derive(Debug, Default)]
pub struct FactsSchedule {
    /// What it was told last.
    told: Option<Facts>,
    /// When it is told again even so, or may be asked again; by a clock that does not step.
    next_at: Duration,
    failures: u32,
}

/// What came of telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It has them.
    Yes,
    /// It is of a version that does not take them, or refuses them.
    Refused,
    /// Nobody answered, or it cannot store them now.
    Failed,
}

impl FactsSchedule {
    /// Whether it is told these facts now.
    pub fn is_due(&self, facts: &Facts, now: Duration) -> bool {
        let has_changed = self.told.as_ref().is_some_and(|told| {
            told.clone().without(BOOT_EPOCH) != facts.clone().without(BOOT_EPOCH)
        });
        has_changed || now >= self.next_at
    }

    /// Notes what came of it. `chance` is from 0 to 1, so that a fleet does not act at once.
    pub fn note(&mut self, facts: &Facts, told: Told, now: Duration, chance: f64) {
        let wait = match told {
            Told::Yes | Told::Refused => {
                self.failures = 0;
                TELL_EVERY
            }
            Told::Failed => {
                let doubled = RETRY_AFTER.saturating_mul(1 << self.failures.min(16));
                self.failures += 1;
                doubled.min(RETRY_AFTER_MAX)
            }
        };
        self.told = (told == Told::Yes).then(|| facts.clone());
        self.next_at = now + wait.mul_f64(1.0 + chance / 10.0);
    }

    /// How long until it may be due.
    pub fn wait(&self, now: Duration) -> Duration {
        self.next_at.saturating_sub(now).min(LOOK_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let facts = read();
        for key in [
            "agent",
            "architecture",
            "os",
            "kernel",
            "cores",
            "memory-bytes",
            BOOT_EPOCH,
        ] {
            assert!(facts.get(key).is_some(), "{key}: {facts:?}");
        }
        let json = serde_json::to_vec(&facts).unwrap();
        assert!(json.len() < 1_000, "{facts:?}");
        // A receiver takes what was made here.
        assert_eq!(Facts::parse(&json), Ok(facts));
    }

    fn facts(cores: u64, boot: u64) -> Facts {
        let mut facts = Facts::default();
        facts.add_number("cores", cores);
        facts.add_number(BOOT_EPOCH, boot);
        facts
    }

    #[test]
    fn told_at_the_start_when_changed_and_once_a_day() {
        let secs = Duration::from_secs;
        let mut schedule = FactsSchedule::default();
        let known = facts(2, 100);
        assert!(schedule.is_due(&known, secs(5)));
        schedule.note(&known, Told::Yes, secs(5), 0.0);
        assert!(!schedule.is_due(&known, secs(6)));
        assert!(!schedule.is_due(&facts(2, 101), secs(6)));
        assert!(schedule.is_due(&facts(3, 100), secs(6)));
        assert!(schedule.is_due(&known, secs(5) + TELL_EVERY));
        assert_eq!(schedule.wait(secs(6)), LOOK_EVERY);
        assert_eq!(schedule.wait(TELL_EVERY), secs(5));
    }

    #[test]
    fn a_receiver_that_takes_none_is_left_alone_for_a_day() {
        let known = facts(2, 100);
        let secs = Duration::from_secs;
        let mut schedule = FactsSchedule::default();
        schedule.note(&known, Told::Refused, secs(10), 0.5);
        let day = TELL_EVERY.mul_f64(1.05);
        assert!(!schedule.is_due(&facts(3, 100), secs(10) + day - secs(1)));
        assert!(schedule.is_due(&known, secs(10) + day));
        // One that is away is asked again, less and less often.
        let mut waits = Vec::new();
        for _ in 0..9 {
            schedule.note(&known, Told::Failed, secs(0), 0.0);
            waits.push(schedule.next_at.as_secs());
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]);
    }

    #[test]
    fn containers_and_virtual_machines() {
        let check = |files: &[(&str, &str)], expected: Option<&str>| {
            let root = tempfile::tempdir().unwrap();
            for (file, text) in files {
                let file = root.path().join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            assert_eq!(
                virtualization(root.path()).as_deref(),
                expected,
                "{files:?}"
            );
        };
        let guest = ("proc/cpuinfo", "flags\t\t: fpu hypervisor lahf_lm\n");
        let vendor = ("sys/class/dmi/id/sys_vendor", "QEMU\n");
        check(&[], None);
        check(&[("proc/cpuinfo", "flags\t\t: fpu\n"), vendor], None);
        check(&[guest, vendor], Some("virtual machine (QEMU)"));
        check(&[guest], Some("virtual machine (unknown maker)"));
        check(
            &[guest, vendor, ("run/systemd/container", "lxc\n")],
            Some("lxc"),
        );
        check(&[guest, (".dockerenv", "")], Some("docker"));
    }
}
