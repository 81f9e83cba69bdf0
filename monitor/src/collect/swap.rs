//! How much of the swap space is in use.

use super::collector::{CollectContext, Collector, CollectorSpec, LabelSpec};
use super::failure::CollectError;
use super::procfs::{self, MEMINFO};
use super::readings::Readings;

/// The collector.
pub(super) static SWAP: CollectorSpec = CollectorSpec {
    name: "swap",
    labels: &[LabelSpec {
        label: LABEL,
        unit: "percent",
        source: "`/proc/meminfo`",
        meaning: "(total - free) / total of the swap space; missing where there is none",
    }],
    labels_max: 1,
    more_labels_a_day: 0,
    start: |_| Ok(Box::new(Swap)),
};

const LABEL: &str = "swap";

struct Swap;

impl Collector for Swap {
    fn collect(
        &mut self,
        _context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        match used_percent(&procfs::read(MEMINFO)?)? {
            Some(percent) => readings.push(LABEL, percent),
            None => Ok(()),
        }
    }
}

/// `None` where there is no swap space.
fn used_percent(meminfo: &str) -> Result<Option<f64>, CollectError> {
    let total = procfs::meminfo_kib(meminfo, "SwapTotal")?;
    let free = procfs::meminfo_kib(meminfo, "SwapFree")?;
    // Both change while the file is written, when swap space is removed.
    let used = total.saturating_sub(free);
    Ok((total > 0).then(|| used as f64 / total as f64 * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_swap() {
        let missing = |field| {
            Err(CollectError::Missing {
                path: MEMINFO,
                field,
            })
        };
        let cases = [
            (
                "SwapCached: 0 kB\nSwapTotal: 1000 kB\nSwapFree: 250 kB\n",
                Ok(Some(75.0)),
            ),
            ("SwapTotal: 0 kB\nSwapFree: 0 kB\n", Ok(None)),
            ("SwapTotal: 1000 kB\nSwapFree: 1004 kB\n", Ok(Some(0.0))),
            ("SwapTotal: 1000 kB\n", missing("SwapFree")),
            ("MemTotal: 1000 kB\n", missing("SwapTotal")),
            ("", missing("SwapTotal")),
        ];
        for (text, expected) in cases {
            assert_eq!(used_percent(text), expected, "{text:?}");
        }
    }
}
