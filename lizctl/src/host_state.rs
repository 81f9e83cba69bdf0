//! What is wrong with a host, judged from the list of hosts alone.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use lizmon_protocol::alarm::{AlarmEntry, AlarmList, AlarmPhase};
use lizmon_protocol::summary::{HolderState, Host, Hosts};

/// `liz-ca` issues for 7 days, and a holder renews 42 hours before the end at the latest.
const NOT_RENEWED_SECS: u64 = 36 * 3600;
/// Percent of a filesystem, or of its inodes.
const NEARLY_FULL: f64 = 90.0;
/// Percent of memory.
const MEMORY_NEARLY_FULL: f64 = 95.0;
const HOUR_SECS: u64 = 3600;

/// Something that somebody should look at, the worst first.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub(crate) enum Trouble {
    /// A rule of the receiver fires: its name, and a label.
    Alarm(String),
    /// Overdue by its recent spacing.
    Silent,
    /// The certificate it last reported with is on a CRL.
    CertificateRevoked,
    /// It has ended.
    CertificateEnded,
    /// It ends soon and should have been renewed by now.
    CertificateNotRenewed,
    /// A filesystem, or its inodes: the label and percent.
    DiskNearlyFull(String, f64),
    /// Percent.
    MemoryNearlyFull(f64),
    /// Hours of the last day without samples, as ranges.
    SilentHours(Vec<(u64, u64)>),
}

impl Trouble {
    /// For programs: stable.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Alarm(_) => "alarm",
            Self::Silent => "silent",
            Self::CertificateRevoked => "certificate-revoked",
            Self::CertificateEnded => "certificate-ended",
            Self::CertificateNotRenewed => "certificate-not-renewed",
            Self::DiskNearlyFull(..) => "disk-nearly-full",
            Self::MemoryNearlyFull(_) => "memory-nearly-full",
            Self::SilentHours(_) => "silent-hours",
        }
    }

    fn rank(&self) -> usize {
        match self {
            Self::Alarm(_) => 0,
            Self::Silent => 1,
            Self::CertificateRevoked => 2,
            Self::CertificateEnded => 3,
            Self::CertificateNotRenewed => 4,
            Self::DiskNearlyFull(..) => 5,
            Self::MemoryNearlyFull(_) => 6,
            Self::SilentHours(_) => 7,
        }
    }
}

/// The fullest filesystem of a host: its place, and percent.
pub(crate) fn fullest_disk(host: &Host) -> Option<(&str, f64)> {
    let of_disks = host.newest.iter();
    let mut used =
        of_disks.filter_map(|(label, value)| Some((label.strip_prefix("disk-used:")?, *value)));
    used.next()
}

/// What is wrong with the host, the worst first. Hours in which every host was silent say nothing
/// about it.
pub(crate) fn troubles(host: &Host, blind_hours: &BTreeSet<u64>, now: u64) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if host.silent {
        troubles.push(Trouble::Silent);
    }
    troubles.extend(certificate(host, now));
    for (label, value) in &host.newest {
        let is_disk = label.starts_with("disk-used:") || label.starts_with("disk-inodes:");
        if is_disk && *value >= NEARLY_FULL {
            troubles.push(Trouble::DiskNearlyFull(label.clone(), *value));
        }
    }
    if let Some(mem) = host
        .newest
        .get("mem")
        .filter(|mem| **mem >= MEMORY_NEARLY_FULL)
    {
        troubles.push(Trouble::MemoryNearlyFull(*mem));
    }
    let hours = hours_of(host).filter(|hour| !blind_hours.contains(hour));
    let ranges = ranges(hours);
    if !ranges.is_empty() {
        troubles.push(Trouble::SilentHours(ranges));
    }
    troubles
}

fn certificate(host: &Host, now: u64) -> Option<Trouble> {
    match host.certificate_end.checked_sub(now) {
        _ if host.state == Some(HolderState::Revoked) => Some(Trouble::CertificateRevoked),
        None => Some(Trouble::CertificateEnded),
        Some(left) if left < NOT_RENEWED_SECS => Some(Trouble::CertificateNotRenewed),
        Some(_) => None,
    }
}

/// The alarms that fire, by host: rule and label.
pub(crate) fn firing(alarms: &AlarmList) -> BTreeMap<String, Vec<String>> {
    let mut by_host: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let is_firing = |alarm: &&AlarmEntry| alarm.state == AlarmPhase::Firing;
    for alarm in alarms.alarms.iter().filter(is_firing) {
        let text = match alarm.label.as_deref() {
            Some(label) if label != alarm.rule => format!("{} {label}", alarm.rule),
            _ => alarm.rule.clone(),
        };
        by_host.entry(alarm.host.clone()).or_default().push(text);
    }
    by_host
}

/// The hours in which no host has samples, of several: the receiver was rather down than they
/// silent. Given by their starts.
pub(crate) fn blind_hours(hosts: &Hosts) -> BTreeSet<u64> {
    let mut lists = hosts
        .hosts
        .iter()
        .map(|host| hours_of(host).collect::<BTreeSet<u64>>());
    let (Some(first), true) = (lists.next(), hosts.hosts.len() > 1) else {
        return BTreeSet::new();
    };
    lists.fold(first, |all, hours| &all & &hours)
}

fn hours_of(host: &Host) -> impl Iterator<Item = u64> {
    let ranges = host.silent_hours.iter();
    // A receiver tells of one day.
    ranges.flat_map(|(from, to)| (*from..*to).step_by(HOUR_SECS as usize).take(48))
}

/// Hours that follow each other, joined.
pub(crate) fn ranges(hours: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for hour in hours {
        match ranges.last_mut() {
            Some((_, to)) if *to == hour => *to += HOUR_SECS,
            _ => ranges.push((hour, hour + HOUR_SECS)),
        }
    }
    ranges
}

/// Sorts hosts: those with the worst trouble first, then by name.
pub(crate) fn by_trouble(hosts: &mut [(Host, Vec<Trouble>)]) {
    hosts.sort_by(|(a, of_a), (b, of_b)| worse(of_a, of_b).then_with(|| a.name.cmp(&b.name)));
}

/// The worse troubles first: by the worst of them, then by how many there are.
pub(crate) fn worse(a: &[Trouble], b: &[Trouble]) -> Ordering {
    let key = |troubles: &[Trouble]| {
        let worst = troubles.first().map_or(usize::MAX, Trouble::rank);
        (worst, Reverse(troubles.len()))
    };
    key(a).cmp(&key(b))
}

/// Why a list has no hosts: a certificate that is limited to others looks like an empty receiver.
pub(crate) fn why_none(limits: &[String], is_filtered: bool) -> String {
    let with_tags = if is_filtered { " with these tags" } else { "" };
    match limits {
        [] => format!("no host{with_tags} has reported in the last day"),
        limits => format!(
            "no host{with_tags} that you may see has reported in the last day: your certificate is limited to {}",
            limits.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_472_000_000;

    fn host(name: &str) -> Host {
        Host {
            name: name.into(),
            certificate_end: NOW + 90 * 86_400,
            ..Host::default()
        }
    }

    #[test]
    fn what_is_wrong_with_a_host() {
        let check = |edit: &dyn Fn(&mut Host), expected: &[&str]| {
            let mut host = host("web1");
            edit(&mut host);
            let found = troubles(&host, &BTreeSet::new(), NOW);
            let codes: Vec<_> = found.iter().map(Trouble::code).collect();
            assert_eq!(codes, expected);
        };
        let value = |host: &mut Host, label: &str, value| {
            host.newest.insert(label.into(), value);
        };
        check(&|_| (), &[]);
        check(&|host| host.silent = true, &["silent"]);
        check(&|host| host.certificate_end = NOW + 36 * 3600, &[]);
        check(
            &|host| host.certificate_end = NOW + 36 * 3600 - 1,
            &["certificate-not-renewed"],
        );
        check(
            &|host| host.certificate_end = NOW - 1,
            &["certificate-ended"],
        );
        check(
            &|host| host.state = Some(HolderState::Revoked),
            &["certificate-revoked"],
        );
        check(&|host| value(host, "disk-used:/", 89.9), &[]);
        check(
            &|host| value(host, "disk-used:/", 90.0),
            &["disk-nearly-full"],
        );
        check(
            &|host| value(host, "disk-inodes:/", 95.0),
            &["disk-nearly-full"],
        );
        check(&|host| value(host, "mem", 95.0), &["memory-nearly-full"]);
        check(
            &|host| host.silent_hours = vec![(0, 7200)],
            &["silent-hours"],
        );
    }

    #[test]
    fn hours_in_which_all_were_silent_are_the_receivers() {
        let (mut a, mut b) = (host("a"), host("b"));
        a.silent_hours = vec![(0, 3 * 3600)];
        b.silent_hours = vec![(3600, 2 * 3600)];
        let hosts = Hosts {
            hosts: vec![a, b],
            ..Hosts::default()
        };
        let blind = blind_hours(&hosts);
        assert_eq!(blind, BTreeSet::from([3600]));
        let of_a = troubles(&hosts.hosts[0], &blind, NOW);
        let expected = vec![(0, 3600), (7200, 10_800)];
        assert_eq!(of_a, [Trouble::SilentHours(expected)]);
        assert_eq!(troubles(&hosts.hosts[1], &blind, NOW), []);
        let alone = Hosts {
            hosts: vec![hosts.hosts[0].clone()],
            ..Hosts::default()
        };
        assert!(blind_hours(&alone).is_empty(), "one host alone cannot tell");
    }

    #[test]
    fn the_worst_comes_first() {
        let mut hosts = vec![
            (host("a"), vec![]),
            (host("b"), vec![Trouble::MemoryNearlyFull(99.0)]),
            (host("d"), vec![Trouble::Silent]),
            (host("c"), vec![Trouble::Silent]),
            (host("e"), vec![Trouble::Silent, Trouble::CertificateEnded]),
        ];
        by_trouble(&mut hosts);
        let names: Vec<_> = hosts.iter().map(|(host, _)| &*host.name).collect();
        assert_eq!(names, ["e", "c", "d", "b", "a"]);
    }
}
