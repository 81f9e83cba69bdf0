//! Which collectors there are.

use super::collector::CollectorSpec;
use super::cpu::CPU;
use super::mem::MEM;
use super::self_stats::{
    CERTIFICATE_DAYS, CLOCK_SKEW, SPOOL_DROPPED, SPOOL_RECORDS, SPOOL_REPAIRED, UNMEASURED,
};

/// All of them, in the order of the documentation.
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

/// The collector of this name.
pub fn find(name: &str) -> Option<&'static CollectorSpec> {
    COLLECTORS.iter().find(|spec| spec.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTATION: &str = include_str!("../../../docs/monitor.md");

    #[test]
    fn the_documentation_lists_every_label() {
        let table = DOCUMENTATION
            .split_once("| label | unit | meaning |\n")
            .unwrap()
            .1;
        let documented: Vec<&str> = table
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('|'))
            .collect();
        let labels = COLLECTORS.iter().flat_map(|spec| spec.labels);
        let rows =
            labels.map(|spec| format!("| `{}` | {} | {} |", spec.label, spec.unit, spec.meaning));
        assert_eq!(documented, rows.collect::<Vec<_>>());
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
}
