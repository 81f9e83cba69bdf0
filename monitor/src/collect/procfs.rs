//! Reads and checks files of `/proc`, each once for a sample: where one cannot be read, does not
//! change or goes back, nothing is published. sysinfo, which is used on other systems than Linux,
//! reports no load there, or the last one.

use std::fs::File;
use std::io::Read as _;

use super::failure::CollectError;

pub(super) const STAT: &str = "/proc/stat";
pub(super) const MEMINFO: &str = "/proc/meminfo";
/// Of `/proc/stat` of a few cores, and of `/proc/meminfo`, all.
const READ_BYTES: usize = 4096;

/// The first line of `/proc/stat`: ticks of all cores, each of which only rises; proc_stat(5).
const COUNTERS: [&str; 10] = [
    "user",
    "nice",
    "system",
    "idle",
    "iowait",
    "irq",
    "softirq",
    "steal",
    "guest",
    "guest_nice",
];
/// The oldest kernels have only the first of them.
const COUNTERS_MIN: usize = 4;

/// The time that all cores have spent since the system was booted, in ticks. Counters that the
/// kernel lacks are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTicks([u64; COUNTERS.len()]);

impl CpuTicks {
    /// `guest` is in `user` too, and `guest_nice` in `nice`.
    fn busy_percent_since(self, before: Self) -> f64 {
        let passed: [f64; COUNTERS.len()] =
            std::array::from_fn(|at| self.0[at].saturating_sub(before.0[at]) as f64);
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = passed;
        let busy = user + nice + system + irq + softirq + steal;
        busy / (busy + idle + iowait) * 100.0
    }
}

/// Checks each reading of the processor's counters against the one before.
#[derive(Debug, Default)]
pub(super) struct CpuCheck {
    /// The last reading, if it was sound.
    before: Option<CpuTicks>,
}

impl CpuCheck {
    /// How busy the processor was between the last reading and this one, in percent. Not a number
    /// where only the counters of guests have risen.
    pub(super) fn busy_percent(
        &mut self,
        now: Result<CpuTicks, CollectError>,
    ) -> Result<f64, CollectError> {
        let before = self.before.take();
        let now = now?;
        self.before = Some(now);
        let before = before.ok_or(CollectError::FirstReading { path: STAT })?;
        let decreased = COUNTERS
            .iter()
            .zip(before.0.iter().zip(&now.0))
            .find(|(_, (before, now))| now < before);
        if let Some((counter, _)) = decreased {
            return Err(CollectError::Decreased {
                path: STAT,
                counter,
            });
        }
        match before == now {
            true => Err(CollectError::Unchanged { path: STAT }),
            false => Ok(now.busy_percent_since(before)),
        }
    }
}

/// The text of a file of `/proc`.
pub(super) fn read(path: &'static str) -> Result<String, CollectError> {
    let text = String::from_utf8(read_bytes(path)?);
    text.map_err(|_| CollectError::Unreadable {
        path,
        kind: std::io::ErrorKind::InvalidData,
    })
}

/// The bytes of a file of `/proc`: names in it may have any.
pub(super) fn read_bytes(path: &'static str) -> Result<Vec<u8>, CollectError> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let file = File::open(path);
    // Not as a whole file: its size, which is asked for then, is 0, and reads begin with 32 bytes.
    let read = file.and_then(|file| file.take(u64::MAX).read_to_end(&mut bytes));
    read.map_err(|error| CollectError::Unreadable {
        path,
        kind: error.kind(),
    })?;
    Ok(bytes)
}

/// Reads the line of all cores.
pub(super) fn cpu_ticks(stat: &str) -> Result<CpuTicks, CollectError> {
    let missing = CollectError::Missing {
        path: STAT,
        field: "line of all cores",
    };
    let line = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "));
    let words = line
        .ok_or_else(|| missing.clone())?
        .split_ascii_whitespace();
    let mut ticks = [0; COUNTERS.len()];
    let mut count = 0;
    for (slot, word) in ticks.iter_mut().zip(words) {
        *slot = word.parse().map_err(|_| missing.clone())?;
        count += 1;
    }
    match count < COUNTERS_MIN {
        true => Err(missing),
        false => Ok(CpuTicks(ticks)),
    }
}

/// The total and what is available of it, in KiB. The oldest kernels do not tell the second.
pub(super) fn memory_kib(meminfo: &str) -> Result<(u64, u64), CollectError> {
    let total = meminfo_kib(meminfo, "MemTotal")?;
    let available = meminfo_kib(meminfo, "MemAvailable")?;
    if total == 0 {
        return Err(CollectError::Missing {
            path: MEMINFO,
            field: "MemTotal",
        });
    }
    match available > total {
        true => Err(CollectError::AvailableAboveTotal { path: MEMINFO }),
        false => Ok((total, available)),
    }
}

/// A number of `/proc/meminfo`.
pub(super) fn meminfo_kib(meminfo: &str, field: &'static str) -> Result<u64, CollectError> {
    let line = meminfo.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name == field).then_some(rest)
    });
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    number.ok_or(CollectError::Missing {
        path: MEMINFO,
        field,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: CollectError = CollectError::Missing {
        path: STAT,
        field: "line of all cores",
    };

    #[test]
    fn the_line_of_all_cores() {
        let cases = [
            (
                "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n",
                Ok([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            ),
            ("cpu 1 2 3 4\n", Ok([1, 2, 3, 4, 0, 0, 0, 0, 0, 0])),
            (
                "cpu  1 2 3 4 5 6 7 8 9 10 11",
                Ok([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            ),
            ("cpu  1 2 3\n", Err(MISSING)),
            ("cpu  1 2 3 -4\n", Err(MISSING)),
            ("cpu  1 2 3 99999999999999999999\n", Err(MISSING)),
            ("cpu\n", Err(MISSING)),
            ("cpu0 1 2 3 4\n", Err(MISSING)),
            ("intr 1 2 3 4\n", Err(MISSING)),
            ("", Err(MISSING)),
        ];
        for (text, expected) in cases {
            assert_eq!(cpu_ticks(text), expected.map(CpuTicks), "{text:?}");
        }
    }

    #[test]
    fn only_rising_counters_give_a_load() {
        let back = |counter| {
            Err(CollectError::Decreased {
                path: STAT,
                counter,
            })
        };
        let once = Err(CollectError::FirstReading { path: STAT });
        let unchanged = Err(CollectError::Unchanged { path: STAT });
        let gone = CollectError::Unreadable {
            path: STAT,
            kind: std::io::ErrorKind::NotFound,
        };
        let steps = [
            (Ok("cpu  10 0 10 100 10 0 0 0"), once.clone()),
            (Ok("cpu  10 0 10 100 10 0 0 0"), unchanged.clone()),
            (Ok("cpu  10 0 10 101 10 0 0 0"), Ok(0.0)),
            (Ok("cpu  11 0 10 101 10 0 0 0"), Ok(100.0)),
            // Kernels are known to decrease these two a little.
            (Ok("cpu  12 0 10 101 9 0 0 0"), back("iowait")),
            (Ok("cpu  12 0 10 100 20 0 0 0"), back("idle")),
            (Ok("cpu  13 0 10 101 20 0 0 0"), Ok(50.0)),
            (Ok("cpu  1 0 1 1 2 0 0 0"), back("user")),
            (Ok("cpu  1 0 1 2 2 0 0 0"), Ok(0.0)),
            // A reading from before a gap does not begin the last interval.
            (Err(gone.clone()), Err(gone)),
            (Ok("cpu  1 0 1 9 2 0 0 0"), once),
            (Ok("cpu  1 0 1 10 2 0 0 0"), Ok(0.0)),
            (Ok("cpu  0 0 0 0 0 0 0 0"), back("user")),
            (Ok("cpu  0 0 0 0 0 0 0 0"), unchanged),
        ];
        let mut check = CpuCheck::default();
        for (at, (text, expected)) in steps.into_iter().enumerate() {
            let now = text.and_then(cpu_ticks);
            assert_eq!(check.busy_percent(now), expected, "step {at}");
        }
    }

    /// Each counter is the time of one kind; the last two are in the first two already.
    #[test]
    fn what_is_busy() {
        let cases = [
            ("cpu  5 0 0 5 0 0 0 0 0 0", 50.0),
            ("cpu  1 1 1 4 2 1 0 0 0 0", 40.0),
            ("cpu  0 0 0 6 0 0 1 3 0 0", 40.0),
            ("cpu  4 1 0 5 0 0 0 0 4 1", 50.0),
            ("cpu  0 0 0 0 9 0 0 0 0 0", 0.0),
            ("cpu  9 0 0 0 0 0 0 0 0 0", 100.0),
        ];
        for (text, expected) in cases {
            let mut check = CpuCheck::default();
            let first = check.busy_percent(cpu_ticks("cpu  0 0 0 0 0 0 0 0 0 0"));
            assert_eq!(first, Err(CollectError::FirstReading { path: STAT }));
            assert_eq!(check.busy_percent(cpu_ticks(text)), Ok(expected), "{text}");
        }
    }

    /// On any kernel it takes more than one read.
    #[test]
    fn a_long_file_is_read_to_its_end() {
        let text = read("/proc/self/smaps").unwrap();
        assert!(text.len() > READ_BYTES);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn memory_needs_both_numbers() {
        let missing = |field| {
            Err(CollectError::Missing {
                path: MEMINFO,
                field,
            })
        };
        let more = Err(CollectError::AvailableAboveTotal { path: MEMINFO });
        let cases = [
            (
                "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n",
                Ok((9, 4)),
            ),
            ("MemAvailable: 9 kB\nMemTotal: 9 kB\n", Ok((9, 9))),
            ("MemTotal: 9 kB\nMemAvailable: 0 kB\n", Ok((9, 0))),
            ("MemTotal: 9 kB\nMemFree: 1 kB\n", missing("MemAvailable")),
            ("MemAvailable: 9 kB\n", missing("MemTotal")),
            ("MemTotal: 0 kB\nMemAvailable: 0 kB\n", missing("MemTotal")),
            ("MemTotal: x kB\nMemAvailable: 1 kB\n", missing("MemTotal")),
            ("MemTotal: 9 kB\nMemAvailable:\n", missing("MemAvailable")),
            ("MemTotal: 9 kB\nMemAvailable: 10 kB\n", more),
            ("", missing("MemTotal")),
        ];
        for (text, expected) in cases {
            assert_eq!(memory_kib(text), expected, "{text:?}");
        }
    }
}
