//! Which collectors there are.

#[cfg(target_os = "linux")]
use super::cgroups::CGROUPS;
use super::collector::CollectorSpec;
#[cfg(target_os = "linux")]
use super::cores::CORES;
use super::cpu::CPU;
#[cfg(target_os = "linux")]
use super::disks::DISKS;
#[cfg(target_os = "linux")]
use super::filesystems::FILESYSTEMS;
#[cfg(target_os = "linux")]
use super::load::LOAD;
use super::mem::MEM;
#[cfg(target_os = "linux")]
use super::network::NETWORK;
#[cfg(target_os = "linux")]
use super::own::OWN;
#[cfg(target_os = "linux")]
use super::processes::PROCESSES;
use super::self_stats::{
    CERTIFICATE_DAYS, CLOCK_SKEW, SPOOL_DROPPED, SPOOL_RECORDS, SPOOL_REPAIRED, UNMEASURED,
};
#[cfg(target_os = "linux")]
use super::swap::SWAP;
#[cfg(target_os = "linux")]
use super::temperatures::TEMPERATURES;
#[cfg(target_os = "linux")]
use super::units::UNITS;
#[cfg(target_os = "linux")]
use super::uptime::UPTIME;

/// All of them, in the order of the documentation.
#[cfg(target_os = "linux")]
pub static COLLECTORS: &[&CollectorSpec] = &[
    &CPU,
    &MEM,
    &LOAD,
    &SWAP,
    &FILESYSTEMS,
    &NETWORK,
    &DISKS,
    &CORES,
    &TEMPERATURES,
    &UPTIME,
    &CGROUPS,
    &PROCESSES,
    &UNITS,
    &OWN,
    &CLOCK_SKEW,
    &SPOOL_RECORDS,
    &SPOOL_DROPPED,
    &SPOOL_REPAIRED,
    &CERTIFICATE_DAYS,
    &UNMEASURED,
];
/// All of them: the others read `/proc` or `/sys`.
#[cfg(not(target_os = "linux"))]
pub static COLLECTORS: &[&CollectorSpec] = &[
    &CPU,
    &MEM,
    &CLOCK_SKEW,
    &SPOOL_RECORDS,
    &SPOOL_DROPPED,
    &SPOOL_REPAIRED,
    &CERTIFICATE_DAYS,
    &UNMEASURED,
];

/// What is measured unless something else is asked for: what costs little, and most want to see.
#[cfg(target_os = "linux")]
pub static DEFAULT_COLLECTORS: &[&CollectorSpec] =
    &[&CPU, &MEM, &LOAD, &SWAP, &FILESYSTEMS, &NETWORK];
/// What is measured unless something else is asked for.
#[cfg(not(target_os = "linux"))]
pub static DEFAULT_COLLECTORS: &[&CollectorSpec] = &[&CPU, &MEM];

/// The collector of this name.
pub fn find(name: &str) -> Option<&'static CollectorSpec> {
    COLLECTORS.iter().find(|spec| spec.name == name).copied()
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::sample::RECORD_LABELS_MAX;

    use super::*;

    const DOCUMENTATION: &str = include_str!("../../../docs/monitor.md");

    #[test]
    fn the_documentation_lists_every_label() {
        let table = DOCUMENTATION
            .split_once("| collector | label | unit | source | meaning |\n")
            .unwrap()
            .1;
        let documented: Vec<&str> = table
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('|'))
            .collect();
        let mut rows = Vec::new();
        for collector in COLLECTORS {
            for spec in collector.labels {
                rows.push(format!(
                    "| `{}` | `{}` | {} | {} | {} |",
                    collector.name, spec.label, spec.unit, spec.source, spec.meaning
                ));
            }
        }
        assert_eq!(documented, rows);
    }

    #[test]
    fn no_name_and_no_label_is_there_twice() {
        let count = |name: &str| COLLECTORS.iter().filter(|spec| spec.name == name).count();
        assert!(COLLECTORS.iter().all(|spec| count(spec.name) == 1));
        let labels: Vec<_> = COLLECTORS.iter().flat_map(|spec| spec.labels).collect();
        for label in &labels {
            let same = labels.iter().filter(|other| other.label == label.label);
            assert_eq!(same.count(), 1, "{}", label.label);
        }
    }

    /// Whatever is asked for: a receiver would refuse all of a greater record.
    #[test]
    fn all_labels_of_all_collectors_fit_into_a_record() {
        let labels: usize = COLLECTORS.iter().map(|spec| spec.labels_max).sum();
        assert!(labels <= RECORD_LABELS_MAX, "{labels}");
        let more: usize = COLLECTORS.iter().map(|spec| spec.more_labels_a_day).sum();
        // Whatever --labels-max says, and with some for what other programs send of this host.
        assert!(3 * RECORD_LABELS_MAX + more <= 900, "{more}");
    }
}
