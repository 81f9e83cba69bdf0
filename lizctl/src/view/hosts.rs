//! Hosts as a table: newest values, and what is wrong.

use comfy_table::{CellAlignment, Table, presets};
use lizmon_protocol::name::Tag;
use lizmon_protocol::summary::Host;

use super::format::{DatePart, ago, percent, utc_minute};
use super::safe;
use super::table::trimmed;
use crate::host_state::{Trouble, fullest_disk};

/// Ranges of hours that are shown of one host.
const RANGES_SHOWN: usize = 3;

/// One line per host.
pub(crate) fn lines(hosts: &[(Host, Vec<Trouble>)], now: u64) -> Vec<String> {
    let mut table = Table::new();
    // Where nobody has any, the column would only take room.
    let has_tags = hosts.iter().any(|(host, _)| !host.tags.is_empty());
    let before = [
        "HOST",
        "CPU",
        "MEM",
        "DISK",
        "LAST SAMPLE",
        "CERTIFICATE ENDS",
    ];
    let head = before.into_iter().chain(has_tags.then_some("TAGS"));
    table
        .load_style(presets::NOTHING)
        .set_header(head.chain(["TROUBLE"]));
    for (host, troubles) in hosts {
        let value = |label: &str| host.newest.get(label).copied();
        let disk = fullest_disk(host);
        let disk = disk.map(|(place, used)| format!("{} {}", percent(used), safe::text(place)));
        let troubles: Vec<String> = troubles.iter().map(in_words).collect();
        let before = [
            safe::text(&host.name),
            value("cpu").map_or_else(dash, percent),
            value("mem").map_or_else(dash, percent),
            disk.unwrap_or_else(dash),
            ago(host.last_epoch, now),
            utc_minute(host.certificate_end, DatePart::WithYear),
        ];
        let tags = has_tags.then(|| tags(host));
        table.add_row(before.into_iter().chain(tags).chain([troubles.join("; ")]));
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    trimmed(table)
}

fn tags(host: &Host) -> String {
    let tags: Vec<&str> = host.tags.iter().map(Tag::as_str).collect();
    match tags[..] {
        [] => dash(),
        _ => tags.join(" "),
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// A trouble in the words of a table.
pub(crate) fn in_words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Alarm(rule) => format!("ALARM {}", safe::text(rule)),
        Trouble::Silent => "silent".to_owned(),
        Trouble::CertificateRevoked => "certificate revoked".to_owned(),
        Trouble::CertificateEnded => "certificate ended".to_owned(),
        Trouble::CertificateNotRenewed => "certificate not renewed".to_owned(),
        Trouble::DiskNearlyFull(label, used) => format!("{} {}", safe::text(label), percent(*used)),
        Trouble::MemoryNearlyFull(used) => format!("mem {}", percent(*used)),
        Trouble::SilentHours(ranges) => format!("no samples {}", hours(ranges)),
    }
}

/// `22:00-07:00, 08:00-09:00 UTC`
pub(crate) fn hours(ranges: &[(u64, u64)]) -> String {
    let shown = ranges.iter().rev().take(RANGES_SHOWN).rev();
    let at = |epoch: u64| utc_minute(epoch, DatePart::None);
    let shown: Vec<String> = shown
        .map(|(from, to)| format!("{}-{}", at(*from), at(*to)))
        .collect();
    let more = if ranges.len() > RANGES_SHOWN {
        "…, "
    } else {
        ""
    };
    format!("{more}{} UTC", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_host() {
        let mut good = Host {
            name: "web1".into(),
            last_epoch: 1_465_001_814,
            certificate_end: 1_472_777_814,
            ..Host::default()
        };
        for (label, value) in [
            ("cpu", 4.98),
            ("mem", 61.2),
            ("disk-used:/a\u{202e}b", 93.4),
        ] {
            good.newest.insert(label.into(), value);
        }
        let silent = Host {
            name: "web2".into(),
            last_epoch: 1_465_001_217,
            newest: Default::default(),
            ..good.clone()
        };
        let hours = vec![
            (1_464_990_000, 1_464_994_800),
            (1_464_996_000, 1_465_000_200),
        ];
        let hosts = [
            (silent, vec![Trouble::Silent, Trouble::SilentHours(hours)]),
            (good, vec![]),
        ];
        let expected = [
            "HOST  CPU   MEM  DISK              LAST SAMPLE  CERTIFICATE ENDS  TROUBLE",
            "web2    -     -  -                 10 min ago   2016-09-02 00:56  silent; no samples 21:40-23:00, 23:20-00:30 UTC",
            "web1  5 %  61 %  93 % /a\\u{202e}b  3 s ago      2016-09-02 00:56",
        ];
        assert_eq!(lines(&hosts, 1_465_001_817), expected);
    }

    #[test]
    fn the_latest_hours_are_shown() {
        let many: Vec<_> = (0..5).map(|at| (at * 7200, at * 7200 + 3600)).collect();
        assert_eq!(hours(&many), "…, 04:00-05:00, 06:00-07:00, 08:00-09:00 UTC");
    }
}
