//! How many processes run, or wait to.

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
use super::procfs;
use super::readings::Readings;

/// The collector.
pub(super) static LOAD: CollectorSpec = CollectorSpec {
    name: "load",
    labels: &[
        LabelSpec {
            label: LABELS[0],
            unit: "processes",
            source: "`/proc/loadavg`",
            meaning: "processes that run, wait for a core or for a disk: the mean of the last minute, weighted",
        },
        LabelSpec {
            label: LABELS[1],
            unit: "processes",
            source: "`/proc/loadavg`",
            meaning: "the same of five minutes",
        },
        LabelSpec {
            label: LABELS[2],
            unit: "processes",
            source: "`/proc/loadavg`",
            meaning: "the same of fifteen minutes",
        },
    ],
    labels_max: LABELS.len(),
    more_labels_a_day: 0,
    start: |_| Ok(Box::new(Load)),
};

const LABELS: [&str; 3] = ["load-1", "load-5", "load-15"];
const LOADAVG: &str = "/proc/loadavg";

struct Load;

impl Collector for Load {
    fn collect(
        &mut self,
        _context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let loads = loads(&procfs::read(LOADAVG)?)?;
        let pairs = LABELS.into_iter().zip(loads);
        pairs
            .into_iter()
            .try_for_each(|(label, load)| readings.push(label, load))
    }
}

/// `0.20 0.18 0.12 1/80 11206`: proc_loadavg(5).
fn loads(text: &str) -> Result<[f64; 3], CollectError> {
    let mut words = text.split_ascii_whitespace();
    let mut loads = [0.0; 3];
    for slot in &mut loads {
        let word = words.next().and_then(|word| word.parse().ok());
        let is_load = |load: &f64| load.is_finite() && *load >= 0.0;
        *slot = word.filter(is_load).ok_or(CollectError::Missing {
            path: LOADAVG,
            field: "three numbers",
        })?;
    }
    Ok(loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers() {
        let cases = [
            ("2.86 1.92 2.00 3/120 19248\n", Some([2.86, 1.92, 2.0])),
            ("0.00 0.00 0.00 1/80 11206", Some([0.0; 3])),
            // Thousands of processes that wait for a server of files.
            (
                "4096.12 4100.00 3999.99 9/9999 1",
                Some([4096.12, 4100.0, 3999.99]),
            ),
            ("0.20 0.18", None),
            ("0.20 -0.18 0.12 1/80 1", None),
            ("nan nan nan 1/80 1", None),
            ("inf 0 0", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(loads(text).ok(), expected, "{text:?}");
        }
    }
}
