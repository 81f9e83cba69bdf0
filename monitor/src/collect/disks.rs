//! What goes to and from the disks.

use std::collections::HashMap;
use std::path::Path;

use super::collector::{CollectContext, Collector, CollectorSpec, CollectorStart, LabelSpec};
use super::failure::CollectError;
use super::names;
use super::options::Patterns;
use super::procfs;
use super::rates::Rates;
use super::readings::Readings;

/// The collector.
pub(super) static DISKS: CollectorSpec = CollectorSpec {
    name: "disks",
    labels: &[
        LabelSpec {
            label: "disk-read:{device}",
            unit: "bytes/s",
            source: "`/proc/diskstats`",
            meaning: "read",
        },
        LabelSpec {
            label: "disk-write:{device}",
            unit: "bytes/s",
            source: "`/proc/diskstats`",
            meaning: "written",
        },
        LabelSpec {
            label: "disk-busy:{device}",
            unit: "percent",
            source: "`/proc/diskstats`",
            meaning: "part of the time in which a request was under way; a disk that takes many at once may be far from full use at 100",
        },
    ],
    labels_max: 30,
    more_labels_a_day: 0,
    start: |start: &CollectorStart<'_>| {
        Ok(Box::new(Disks {
            patterns: start.options.disks.clone(),
            rates: Rates::default(),
            whole: HashMap::new(),
        }))
    },
};

const DISKSTATS: &str = "/proc/diskstats";
const SYS_BLOCK: &str = "/sys/block";
/// Always so many bytes, whatever the disk's own sectors have.
const SECTOR_BYTES: u64 = 512;
/// The beginnings of the names of devices that are not measured by default.
const SKIPPED_PREFIXES: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];

struct Disks {
    patterns: Patterns,
    rates: Rates<3>,
    /// Whether a device is a whole disk, of those that were there the last time.
    whole: HashMap<Box<[u8]>, bool>,
}

impl Collector for Disks {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let text = procfs::read_bytes(DISKSTATS)?;
        self.rates.begin(context.monotonic)?;
        let mut devices = devices(&text);
        devices.sort_unstable();
        let mut known = std::mem::take(&mut self.whole);
        for (name, counters) in devices {
            let whole = known
                .remove(name)
                .unwrap_or_else(|| is_whole(Path::new(SYS_BLOCK), name));
            self.whole.insert(name.into(), whole);
            let text = String::from_utf8_lossy(name);
            if !self.patterns.takes(&text, || whole && !is_skipped(&text)) {
                continue;
            }
            let Some([read, written, busy_ms]) = self.rates.per_second(name, counters) else {
                continue;
            };
            let bytes = |sectors: f64| sectors * SECTOR_BYTES as f64;
            let rates = [
                ("disk-read:", read.map(bytes)),
                ("disk-write:", written.map(bytes)),
                // The time between two readings is known less exactly than the time in use.
                ("disk-busy:", busy_ms.map(|ms| (ms / 10.0).min(100.0))),
            ];
            for (prefix, rate) in rates {
                if let Some(rate) = rate {
                    readings.push_or_note(names::label(prefix, name), rate);
                }
            }
        }
        Ok(())
    }
}

fn is_skipped(name: &str) -> bool {
    SKIPPED_PREFIXES.iter().any(|skipped| {
        let rest = name.strip_prefix(skipped);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Not a partition. Where /sys is hidden nobody knows, and all are measured. A slash in a name is
/// an exclamation mark there.
fn is_whole(sys_block: &Path, name: &[u8]) -> bool {
    let file = String::from_utf8_lossy(name).replace('/', "!");
    sys_block.join(file).exists() || !sys_block.exists()
}

/// Sectors read and written, and milliseconds in use, of each device that was used since the system
/// was booted: `Documentation/admin-guide/iostats.rst` of the kernel. A line that cannot be read is
/// passed over; partitions of old kernels have shorter ones.
fn devices(text: &[u8]) -> Vec<(&[u8], [u64; 3])> {
    let device = |line: &'_ [u8]| -> Option<(std::ops::Range<usize>, [u64; 3])> {
        let mut words = line
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty())
            .skip(2);
        let name = words.next()?;
        let numbers = words.map(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let numbers: Vec<u64> = numbers.take(11).collect::<Option<_>>()?;
        let [_, _, read, _, _, _, written, _, _, busy_ms, _] = numbers[..] else {
            return None;
        };
        let start = name.as_ptr() as usize - line.as_ptr() as usize;
        let counters = [read, written, busy_ms];
        let is_used = counters.iter().any(|counter| *counter > 0);
        is_used.then_some((start..start + name.len(), counters))
    };
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| device(line).map(|(name, counters)| (&line[name], counters)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_devices() {
        let check = |text: &str, expected: &[(&str, [u64; 3])]| {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, all)| (name.as_bytes(), *all))
                .collect();
            assert_eq!(devices(text.as_bytes()), expected, "{text:?}");
        };
        // Of Linux 6.18; loop0 was never used.
        check(
            "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
   7       1 loop1 2215 0 73118 1412 2764 3698 282726 924 0 1860 2549 30 0 1966110 16 1521 196
 254       0 vda 11527656 388430 502289650 112180563 11063566 3477307 1663941928 14497070 0 4196944 127972611 3342775 812 1458240480 851984 2983167 442994\n",
            &[
                ("loop1", [73_118, 282_726, 1_860]),
                ("vda", [502_289_650, 1_663_941_928, 4_196_944]),
            ],
        );
        // Before 4.18, with a slash in the name.
        check(
            "104 0 cciss/c0d0 1 2 3 4 5 6 7 8 9 10 11\n",
            &[("cciss/c0d0", [3, 7, 10])],
        );
        // Partitions of 2.6; lines that are cut; a number that is none.
        check(
            "8 1 sda1 1 2 3 4\n8 0\n8 0 sda\n\n8 0 sdb 1 2 x 4 5 6 7 8 9 10 11\n",
            &[],
        );
        check("8 0 sdc 1 2 -3 4 5 6 7 8 9 10 11\n", &[]);
        check("", &[]);
    }

    #[test]
    fn devices_that_are_not_measured() {
        let skipped = ["loop0", "ram1", "zram0", "sr0", "fd0"];
        let measured = [
            "sda",
            "nvme0n1",
            "vda",
            "dm-0",
            "md127",
            "mmcblk0",
            "cciss/c0d0",
            "sram",
            "srx",
        ];
        assert!(skipped.iter().all(|name| is_skipped(name)));
        assert!(!measured.iter().any(|name| is_skipped(name)));
        let sys = tempfile::tempdir().unwrap();
        let block = sys.path().join("block");
        assert!(is_whole(&block, b"sda1"), "nobody knows");
        std::fs::create_dir_all(block.join("cciss!c0d0")).unwrap();
        assert!(is_whole(&block, b"cciss/c0d0"));
        assert!(!is_whole(&block, b"cciss/c0d0p1"));
    }
}
