//! Delivery report of a host: which of its numbered records arrived, and which did not.
//!
//! The receiver remembers which sequence numbers it has, so a record counts once however often it
//! arrives; duplicates are only reported. A number that has not arrived and that its producer has
//! not dropped is lost or still in transit: only time can tell which. Nothing is known of numbers
//! above the highest that arrived.

use std::time::Duration;

use lizmon_protocol::delivery::{
    ACKNOWLEDGED, BEFORE_ASKED, BEFORE_DATA, Delivery, Removed, StampClock,
};
use lizmon_protocol::name::NodeName;
use serde::Serialize;

use crate::output;

/// The receiver's answer with its sums. The JSON keys are stable; more may be added.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct DeliveryReport<'a> {
    host: &'a str,
    /// Numbers that have not arrived and were not dropped.
    pub(crate) lost: u64,
    /// Numbers that counted more than once: always 0, because the receiver deduplicates.
    twice: u64,
    /// Distinct numbers that have arrived.
    received: u64,
    /// Duplicates, which changed nothing.
    duplicate: u64,
    /// Numbers that their producer dropped.
    dropped: u64,
    /// Numbers from before this receiver was used, or before its data was reset or restored.
    before: u64,
    /// Numbers that an operator has acknowledged as missing.
    acknowledged: u64,
    /// Records that arrived as a repair: the receiver had lost them, and their monitor has sent
    /// them again.
    repaired: u64,
    #[serde(flatten)]
    delivery: &'a Delivery,
}

impl<'a> DeliveryReport<'a> {
    pub(crate) fn new(host: &'a NodeName, delivery: &'a Delivery) -> Self {
        let mut report = Self {
            host: host.as_str(),
            lost: 0,
            twice: 0,
            received: 0,
            duplicate: 0,
            dropped: 0,
            before: 0,
            acknowledged: 0,
            repaired: 0,
            delivery,
        };
        for producer in &delivery.producers {
            report.received += producer.received;
            report.duplicate += producer.duplicate;
            report.repaired += producer.repaired;
            report.lost += numbers_in(producer.missing.iter().copied());
            for (from, to, why) in &producer.dropped {
                let sum = match NotLost::of(why) {
                    NotLost::Dropped => &mut report.dropped,
                    NotLost::Before => &mut report.before,
                    NotLost::Acknowledged => &mut report.acknowledged,
                };
                *sum = sum.saturating_add(numbers_in(std::iter::once((*from, *to))));
            }
        }
        report
    }

    pub(crate) fn show(&self) -> anyhow::Result<()> {
        let producers = &self.delivery.producers;
        if !producers.is_empty() {
            let rows = producers.iter().map(|producer| {
                let not_lost = |kind: NotLost| {
                    let ranges = producer.dropped.iter();
                    let ranges = ranges.filter(|(.., why)| NotLost::of(why) == kind);
                    numbers_in(ranges.map(|(from, to, _)| (*from, *to))).to_string()
                };
                [
                    producer.producer.to_string(),
                    producer.received.to_string(),
                    producer.duplicate.to_string(),
                    producer.repaired.to_string(),
                    numbers_in(producer.missing.iter().copied()).to_string(),
                    not_lost(NotLost::Dropped),
                    not_lost(NotLost::Before),
                    not_lost(NotLost::Acknowledged),
                ]
            });
            let head = [
                "PRODUCER",
                "RECEIVED",
                "DUPLICATE",
                "REPAIRED",
                "MISSING",
                "DROPPED",
                "BEFORE",
                "ACKNOWLEDGED",
            ];
            output::table(head, rows.collect())?;
        }
        self.ranges().iter().try_for_each(output::line)?;
        if let Some(clock) = self.delivery.clock {
            output::line(clock_line(clock))?;
        }
        if let Some(removed) = self.delivery.removed {
            output::line(removed_line(removed))?;
        }
        output::line(self.verdict())
    }

    /// One line per range.
    fn ranges(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for delivery in &self.delivery.producers {
            let producer = delivery.producer;
            for (from, to) in &delivery.missing {
                lines.push(format!("missing  {producer}  {}", range(*from, *to)));
            }
            for (from, to, why) in &delivery.dropped {
                let range = range(*from, *to);
                let word = match NotLost::of(why) {
                    NotLost::Dropped => "dropped",
                    NotLost::Before => "before",
                    NotLost::Acknowledged => "acked",
                };
                lines.push(format!(
                    "{word:<7}  {producer}  {range}  {}",
                    why.escape_debug()
                ));
            }
        }
        lines
    }

    fn verdict(&self) -> String {
        let Self {
            lost,
            twice,
            received,
            duplicate,
            dropped,
            before,
            acknowledged,
            repaired,
            ..
        } = self;
        let mut verdict = format!(
            "lost {lost}, twice {twice}, repaired {repaired} up to each producer's highest number: {received} received, \
             {duplicate} duplicates ignored, {dropped} dropped"
        );
        for (count, what) in [
            (
                before,
                "from before this receiver was asked, or its data was reset or restored",
            ),
            (acknowledged, "acknowledged"),
        ] {
            if *count > 0 {
                verdict.push_str(&format!(", {count} {what}"));
            }
        }
        verdict
    }
}

/// Why numbers that have not arrived do not count as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotLost {
    /// Their producer dropped them.
    Dropped,
    /// They were sent before this receiver was used, or before its data was reset or restored.
    Before,
    /// An operator has acknowledged them.
    Acknowledged,
}

impl NotLost {
    fn of(why: &str) -> Self {
        match why {
            BEFORE_ASKED | BEFORE_DATA => Self::Before,
            _ if why.starts_with(ACKNOWLEDGED) => Self::Acknowledged,
            _ => Self::Dropped,
        }
    }
}

fn clock_line(clock: StampClock) -> String {
    let (by, which) = match clock.ahead_secs {
        ahead @ 0.. => (ahead.unsigned_abs(), "ahead of"),
        behind => (behind.unsigned_abs(), "behind"),
    };
    format!("clock    its own is {by} s {which} its receivers': samples are stamped by theirs")
}

fn removed_line(removed: Removed) -> String {
    // The last second of the year 9999: RFC 3339 cannot express later ones.
    let at = Duration::from_secs(removed.at.min(253_402_300_799));
    let at = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + at);
    format!(
        "removed  {} samples that were ahead of the receiver's clock, last at {at}",
        removed.samples
    )
}

/// How many numbers the inclusive ranges hold. The ranges of one producer are disjoint, and its
/// numbers are at most 2^53.
fn numbers_in(ranges: impl Iterator<Item = (u64, u64)>) -> u64 {
    ranges
        .map(|(from, to)| to.saturating_sub(from).saturating_add(1))
        .fold(0, u64::saturating_add)
}

fn range(from: u64, to: u64) -> String {
    if from == to {
        from.to_string()
    } else {
        format!("{from}-{to}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

    #[track_caller]
    fn check(
        producers: &str,
        expected_json: &str,
        expected_ranges: &[&str],
        expected_verdict: &str,
    ) {
        let host = "web1".parse().unwrap();
        let answer = format!(r#"{{"producers":[{producers}]}}"#).replace("P1", PRODUCER);
        let delivery = serde_json::from_str(&answer).unwrap();
        let report = DeliveryReport::new(&host, &delivery);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(json.replace(PRODUCER, "P1"), expected_json);
        let ranges = report.ranges().join("\n").replace(PRODUCER, "P1");
        assert_eq!(ranges, expected_ranges.join("\n"));
        assert_eq!(report.verdict(), expected_verdict);
    }

    #[test]
    fn sums() {
        check(
            "",
            r#"{"host":"web1","lost":0,"twice":0,"received":0,"duplicate":0,"dropped":0,"before":0,"acknowledged":0,"repaired":0,"producers":[]}"#,
            &[],
            "lost 0, twice 0, repaired 0 up to each producer's highest number: 0 received, 0 duplicates ignored, 0 dropped",
        );
        let complete = r#"{"producer":"P1","received":9,"duplicate":3,"missing":[],"dropped":[[4,5,"the disk was full"]],"repaired":4,"highest":11}"#;
        check(
            complete,
            &format!(
                r#"{{"host":"web1","lost":0,"twice":0,"received":9,"duplicate":3,"dropped":2,"before":0,"acknowledged":0,"repaired":4,"producers":[{complete}]}}"#
            ),
            &["dropped  P1  4-5  the disk was full"],
            "lost 0, twice 0, repaired 4 up to each producer's highest number: 9 received, 3 duplicates ignored, 2 dropped",
        );
        let gaps = r#"{"producer":"P1","received":2,"duplicate":0,"missing":[[2,2],[4,9]],"dropped":[],"repaired":0}"#;
        check(
            &format!("{gaps},{complete}"),
            &format!(
                r#"{{"host":"web1","lost":7,"twice":0,"received":11,"duplicate":3,"dropped":2,"before":0,"acknowledged":0,"repaired":4,"producers":[{gaps},{complete}]}}"#
            ),
            &[
                "missing  P1  2",
                "missing  P1  4-9",
                "dropped  P1  4-5  the disk was full",
            ],
            "lost 7, twice 0, repaired 4 up to each producer's highest number: 11 received, 3 duplicates ignored, 2 dropped",
        );
    }

    /// A second receiver, or one that lost its data, does not report earlier records as lost.
    #[test]
    fn numbers_from_before_are_not_lost() {
        let before = r#"{"producer":"P1","received":2,"duplicate":0,"missing":[],"dropped":[[1,500,"before this receiver was asked"],[503,526,"before its data was reset or restored"],[530,530,"acknowledged: the disk broke"]],"repaired":0}"#;
        check(
            before,
            &format!(
                r#"{{"host":"web1","lost":0,"twice":0,"received":2,"duplicate":0,"dropped":0,"before":524,"acknowledged":1,"repaired":0,"producers":[{before}]}}"#
            ),
            &[
                "before   P1  1-500  before this receiver was asked",
                "before   P1  503-526  before its data was reset or restored",
                "acked    P1  530  acknowledged: the disk broke",
            ],
            "lost 0, twice 0, repaired 0 up to each producer's highest number: 2 received, 0 duplicates ignored, 0 dropped, 524 from before this receiver was asked, or its data was reset or restored, 1 acknowledged",
        );
    }

    #[test]
    fn a_clock_difference_is_one_line() {
        let check = |ahead_secs: i64, expected: &str| {
            let line = clock_line(StampClock { ahead_secs, at: 0 });
            assert_eq!(line, expected);
        };
        check(
            3_600,
            "clock    its own is 3600 s ahead of its receivers': samples are stamped by theirs",
        );
        check(
            -86_400,
            "clock    its own is 86400 s behind its receivers': samples are stamped by theirs",
        );
    }

    #[test]
    fn removed_samples_are_one_line() {
        let removed = Removed {
            samples: 6,
            at: 1_465_001_814,
        };
        assert_eq!(
            removed_line(removed),
            "removed  6 samples that were ahead of the receiver's clock, last at 2016-06-04T00:56:54Z"
        );
    }

    /// Control characters in a receiver's answer are escaped, so that they do not reach the
    /// terminal.
    #[test]
    fn reasons_are_escaped() {
        check(
            r#"{"producer":"P1","received":1,"duplicate":0,"missing":[],"dropped":[[2,2,"\u001b[2J"]],"repaired":0}"#,
            r#"{"host":"web1","lost":0,"twice":0,"received":1,"duplicate":0,"dropped":1,"before":0,"acknowledged":0,"repaired":0,"producers":[{"producer":"P1","received":1,"duplicate":0,"missing":[],"dropped":[[2,2,"\u001b[2J"]],"repaired":0}]}"#,
            &[r"dropped  P1  2  \u{1b}[2J"],
            "lost 0, twice 0, repaired 0 up to each producer's highest number: 1 received, 0 duplicates ignored, 1 dropped",
        );
    }
}
