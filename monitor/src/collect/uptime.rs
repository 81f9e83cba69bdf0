//! For how long the machine has run.

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
use super::procfs;
use super::readings::Readings;

/// The collector.
pub(super) static UPTIME: CollectorSpec = CollectorSpec {
    name: "uptime",
    labels: &[LabelSpec {
        label: LABEL,
        unit: "seconds",
        source: "`/proc/uptime`",
        meaning: "time since the system was booted, asleep or awake; of a container where lxcfs shows its own",
    }],
    labels_max: 1,
    more_labels_a_day: 0,
    start: |_| Ok(Box::new(Uptime)),
};

const LABEL: &str = "uptime";
const UPTIME_FILE: &str = "/proc/uptime";

struct Uptime;

impl Collector for Uptime {
    fn collect(
        &mut self,
        _context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        readings.push(LABEL, seconds(&procfs::read(UPTIME_FILE)?)?)
    }
}

/// `350735.47 234388.90`: proc_uptime(5).
fn seconds(text: &str) -> Result<f64, CollectError> {
    let word = text.split_ascii_whitespace().next();
    let seconds = word.and_then(|word| word.parse().ok());
    let is_time = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
    seconds.filter(is_time).ok_or(CollectError::Missing {
        path: UPTIME_FILE,
        field: "number of seconds",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number() {
        let cases = [
            ("84850.57 39585.79\n", Some(84850.57)),
            ("0.00 0.00", Some(0.0)),
            ("350735", Some(350_735.0)),
            ("-1 0", None),
            ("x 1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(seconds(text).ok(), expected, "{text:?}");
        }
    }
}
