//! Compares what the senders recorded with what the receiver reports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use lizmon_protocol::delivery::{Delivery, ProducerDelivery};
use lizmon_protocol::summary::{Average, Summaries};
use serde_json::Value;

/// A tier's name, and the width of its intervals in seconds.
const TIERS: [(&str, u64); 2] = [("by-minute", 60), ("by-hour", 3_600)];

#[derive(Debug, Clone, Copy)]
struct Stats {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

/// The expected summaries, computed as simply as possible and without the receiver's crates.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// By name of the summary, then by start of the interval.
    series: BTreeMap<String, BTreeMap<u64, Stats>>,
}

impl Reference {
    pub(crate) fn add(&mut self, label: &str, epoch: u64, value: f64) {
        for (tier, width) in TIERS {
            // An interval holds start < epoch <= end.
            let start = (epoch - 1) / width * width;
            let name = format!("summary:{tier}:{label}");
            self.series
                .entry(name)
                .or_default()
                .entry(start)
                .and_modify(|stats| {
                    stats.count += 1;
                    stats.sum += value;
                    stats.min = stats.min.min(value);
                    stats.max = stats.max.max(value);
                })
                .or_insert(Stats {
                    count: 1,
                    sum: value,
                    min: value,
                    max: value,
                });
        }
    }

    /// The total number of values.
    pub(crate) fn values(&self) -> u64 {
        let minutes = self
            .series
            .iter()
            .filter(|(name, _)| name.starts_with("summary:by-minute:"));
        minutes
            .flat_map(|(_, intervals)| intervals.values())
            .map(|stats| stats.count)
            .sum()
    }

    /// Checks the receiver's summaries. If the order of arrival is not known, a sum may differ in
    /// its last bits.
    pub(crate) fn check(&self, host: &str, found: &Summaries, is_order_known: bool) {
        let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(
            names(found.keys().collect()),
            names(self.series.keys().collect()),
            "{host}"
        );
        for (name, intervals) in &self.series {
            let got: Vec<u64> = found[name]
                .averages
                .iter()
                .map(|average| average.start_sec)
                .collect();
            let expected: Vec<u64> = intervals.keys().copied().collect();
            assert_eq!(got, expected, "{host} {name}");
            for (average, stats) in found[name].averages.iter().zip(intervals.values()) {
                check_interval(&format!("{host} {name}"), average, *stats, is_order_known);
            }
        }
    }
}

fn check_interval(what: &str, got: &Average, expected: Stats, is_order_known: bool) {
    let numbers = (got.num_samples, got.min, got.max);
    assert_eq!(
        numbers,
        (expected.count, expected.min, expected.max),
        "{what}: {got:?}"
    );
    let mean = expected.sum / expected.count as f64;
    if is_order_known {
        let rounded: f64 = format!("{mean:.2}").parse().unwrap();
        assert_eq!(got.avg, rounded, "{what}: {got:?}");
    } else {
        assert!(
            (got.avg - mean).abs() <= 0.005 + 1e-9,
            "{what}: {got:?}, not {mean}"
        );
    }
}

/// What a monitor has logged, over all its runs.
#[derive(Debug, Default)]
pub(crate) struct MonitorLog {
    /// Samples by epoch.
    sampled: BTreeMap<u64, Vec<(String, f64)>>,
    /// Epochs by producer and sequence number, of spooled records.
    kept: HashMap<(String, u64), u64>,
    /// The same, of all records that were ever sent.
    sent: HashMap<(String, u64), u64>,
}

impl MonitorLog {
    pub(crate) fn read(log: &Path) -> Self {
        let mut parsed = Self::default();
        for line in std::fs::read_to_string(log).unwrap().lines() {
            // A panic is not JSON, and must not be missed.
            let line: Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}: {line}: {error}", log.display()));
            parsed.read_line(&line["fields"]);
        }
        parsed
    }

    fn read_line(&mut self, fields: &Value) {
        let text = |key: &str| fields[key].as_str().unwrap();
        let message = text("message");
        if message == "sampled" {
            let values: BTreeMap<String, f64> = serde_json::from_str(text("values")).unwrap();
            let before = self.sampled.insert(
                fields["epoch"].as_u64().unwrap(),
                values.into_iter().collect(),
            );
            assert!(before.is_none(), "a second is measured twice: {fields}");
        } else if message == "recorded" {
            let (producer, seq) = text("key").split_once('/').unwrap();
            let key = (producer.to_owned(), seq.parse().unwrap());
            let before = self.kept.insert(key, fields["epoch"].as_u64().unwrap());
            assert!(before.is_none(), "a number is given twice: {fields}");
        } else if message.starts_with("sending") {
            for record in text("records").split_whitespace() {
                let (seq, epoch) = record.split_once(':').unwrap();
                let (key, epoch) = (
                    (text("producer").to_owned(), seq.parse().unwrap()),
                    epoch.parse().unwrap(),
                );
                let before = self.sent.insert(key, epoch).unwrap_or(epoch);
                assert_eq!(before, epoch, "a number is given twice: {fields}");
            }
        }
    }

    /// The epoch of the newest spooled record.
    pub(crate) fn newest_kept(&self) -> Option<u64> {
        self.kept.values().max().copied()
    }

    /// Spooled records that the receiver neither has nor knows to be dropped.
    pub(crate) fn unaccounted(&self, delivery: &Delivery) -> Vec<String> {
        let accounted: HashMap<String, Accounted> = accounted(delivery);
        let mut unaccounted: Vec<_> = self.kept.keys().collect();
        unaccounted.retain(|(producer, seq)| {
            accounted.get(producer).is_none_or(|accounted| {
                !accounted.received.contains(seq) && !accounted.dropped.contains(seq)
            })
        });
        unaccounted.sort();
        unaccounted
            .into_iter()
            .map(|(producer, seq)| format!("{producer}/{seq}"))
            .collect()
    }

    /// The expected summaries of the records that have arrived.
    pub(crate) fn expected(&self, host: &str, delivery: &Delivery) -> (Reference, Tally) {
        let unaccounted = self.unaccounted(delivery);
        assert!(
            unaccounted.is_empty(),
            "{host}: lost without a word: {unaccounted:?}, says {delivery:?}"
        );
        let mut reference = Reference::default();
        let mut epochs = BTreeSet::new();
        let mut tally = Tally {
            sampled: self.sampled.len() as u64,
            producers: delivery.producers.len() as u64,
            ..Tally::default()
        };
        for (producer, accounted) in accounted(delivery) {
            tally.dropped += accounted.dropped.len() as u64;
            let kept = |seq: &&u64| self.kept.contains_key(&(producer.clone(), **seq));
            tally.kept_and_dropped += accounted.dropped.iter().filter(kept).count() as u64;
            for seq in accounted.received {
                let key = (producer.clone(), seq);
                let epoch = *self
                    .sent
                    .get(&key)
                    .unwrap_or_else(|| panic!("{host}: {key:?} was never sent"));
                assert!(
                    epochs.insert(epoch),
                    "{host}: {epoch} arrived under two numbers"
                );
                for (label, value) in &self.sampled[&epoch] {
                    reference.add(label, epoch, *value);
                }
                tally.received += 1;
            }
        }
        (reference, tally)
    }
}

/// Counts of what happened to a monitor's samples.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) sampled: u64,
    pub(crate) received: u64,
    /// Numbers that the monitor reported as dropped.
    pub(crate) dropped: u64,
    /// Those of them that had been spooled. A crash prevented the others from being spooled.
    pub(crate) kept_and_dropped: u64,
    pub(crate) producers: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sampled += other.sampled;
        self.received += other.received;
        self.dropped += other.dropped;
        self.kept_and_dropped += other.kept_and_dropped;
        self.producers += other.producers;
    }
}

struct Accounted {
    received: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
}

/// The numbers that the receiver has, and the dropped ones. It reports what is missing, up to the
/// highest number it knows.
fn accounted(delivery: &Delivery) -> HashMap<String, Accounted> {
    let of = |producer: &ProducerDelivery| {
        let ranges = producer
            .dropped
            .iter()
            .flat_map(|(from, to, _)| *from..=*to);
        let dropped: BTreeSet<u64> = ranges.collect();
        let missing: BTreeSet<u64> = producer
            .missing
            .iter()
            .flat_map(|(from, to)| *from..=*to)
            .collect();
        let known = (1..).filter(|seq| !dropped.contains(seq) && !missing.contains(seq));
        let received = known
            .take(usize::try_from(producer.received).unwrap())
            .collect();
        Accounted { received, dropped }
    };
    let producers = delivery.producers.iter();
    producers
        .map(|producer| (producer.producer.to_string(), of(producer)))
        .collect()
}
