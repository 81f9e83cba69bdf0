//! How many units of systemd have failed.
//!
//! `systemctl` asks systemd over D-Bus. A client of D-Bus of our own would be a large dependency
//! (zbus) or a second parser of a binary format, to read one number in a minute; `systemctl` is
//! there wherever systemd is, and its process ends with what it has read.

use std::time::Duration;

use super::background::Background;
use super::collector::{
    CollectContext, Collector, CollectorSpec, CollectorStart, CollectorStartError, LabelSpec,
};
use super::command::{self, CommandFailure};
use super::failure::CollectError;
use super::readings::Readings;

/// The collector.
pub(super) static UNITS: CollectorSpec = CollectorSpec {
    name: "units",
    labels: &[LabelSpec {
        label: LABEL,
        unit: "units",
        source: "`systemctl show`",
        meaning: "units of the system's systemd that have failed; asked once a minute",
    }],
    labels_max: 1,
    more_labels_a_day: 0,
    start: |start: &CollectorStart<'_>| {
        let monotonic = start.monotonic.clone();
        let words = COMMAND.map(str::to_owned);
        let background = Background::start("units", move |stop| {
            command::run(&words, TIME_MAX, &*monotonic, stop)
        });
        Ok(Box::new(Units {
            background: background.map_err(CollectorStartError::Thread)?,
        }))
    },
};

const LABEL: &str = "units-failed";
const COMMAND: [&str; 4] = ["systemctl", "show", "--property=NFailedUnits", "--value"];
/// It starts a process.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// A system bus that hangs must not leave processes behind.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long a sample waits for it: it is there in the next one.
const PATIENCE: Duration = Duration::ZERO;
/// It is published for no longer than this, unless samples are further apart.
const AGE_MAX: Duration = Duration::from_secs(150);

struct Units {
    background: Background<Result<Vec<u8>, CommandFailure>>,
}

impl Collector for Units {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let now = context.monotonic;
        self.background.ask(now, ASK_EVERY, PATIENCE);
        let Some(latest) = self
            .background
            .latest(now)
            .filter(|latest| latest.age <= AGE_MAX)
        else {
            // It was asked for the first time a moment ago, or samples are far apart.
            return Ok(());
        };
        let output = latest.result.as_ref().as_ref();
        let output = output.map_err(|why| CollectError::Systemctl(why.clone()))?;
        readings.push(LABEL, failed_units(output).ok_or(CollectError::NoNumber)?)
    }
}

fn failed_units(output: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(output).ok()?;
    text.trim().parse::<u32>().ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_that_systemctl_prints() {
        let cases: [(&[u8], Option<f64>); 6] = [
            (b"0\n", Some(0.0)),
            (b"3\n", Some(3.0)),
            (b"\n", None),
            (b"NFailedUnits=3\n", None),
            (b"-1\n", None),
            (b"\xff", None),
        ];
        for (output, expected) in cases {
            assert_eq!(failed_units(output), expected, "{output:?}");
        }
    }
}
