//! Checks what sysinfo does not: where `/proc` cannot be read, does not change or goes back,
//! sysinfo reports no load, or the last one. Its numbers are published only where the files that it
//! reads are sound. On other systems than Linux they are published unchecked.

use super::failure::CollectError;

pub(super) const STAT: &str = "/proc/stat";
pub(super) const MEMINFO: &str = "/proc/meminfo";

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

/// Checks each reading of the processor's counters against the one before.
#[derive(Debug, Default)]
pub(super) struct CpuCheck {
    /// The last reading, if it was sound.
    before: Option<CpuTicks>,
}

impl CpuCheck {
    /// Whether the load between the last reading and this one can be computed.
    pub(super) fn check(
        &mut self,
        now: Result<CpuTicks, CollectError>,
    ) -> Result<(), CollectError> {
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
            false => Ok(()),
        }
    }
}

/// The text of a file of `/proc`.
#[cfg(target_os = "linux")]
pub(super) fn read(path: &'static str) -> Result<String, CollectError> {
    std::fs::read_to_string(path).map_err(|error| CollectError::Unreadable {
        path,
        kind: error.kind(),
    })
}

/// The bytes of a file of `/proc`: names in it may have any.
#[cfg(target_os = "linux")]
pub(super) fn read_bytes(path: &'static str) -> Result<Vec<u8>, CollectError> {
    std::fs::read(path).map_err(|error| CollectError::Unreadable {
        path,
        kind: error.kind(),
    })
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

/// Whether the file has both numbers that the used part is computed from. Without the second,
/// sysinfo estimates it.
pub(super) fn check_memory(meminfo: &str) -> Result<(), CollectError> {
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
        false => Ok(()),
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
            (Ok("cpu  10 0 10 101 10 0 0 0"), Ok(())),
            (Ok("cpu  11 0 10 101 10 0 0 0"), Ok(())),
            // Kernels are known to decrease these two a little.
            (Ok("cpu  12 0 10 101 9 0 0 0"), back("iowait")),
            (Ok("cpu  12 0 10 100 20 0 0 0"), back("idle")),
            (Ok("cpu  13 0 10 101 20 0 0 0"), Ok(())),
            (Ok("cpu  1 0 1 1 2 0 0 0"), back("user")),
            (Ok("cpu  1 0 1 2 2 0 0 0"), Ok(())),
            // A reading from before a gap does not begin the last interval.
            (Err(gone.clone()), Err(gone)),
            (Ok("cpu  1 0 1 9 2 0 0 0"), once),
            (Ok("cpu  1 0 1 10 2 0 0 0"), Ok(())),
            (Ok("cpu  0 0 0 0 0 0 0 0"), back("user")),
            (Ok("cpu  0 0 0 0 0 0 0 0"), unchanged),
        ];
        let mut check = CpuCheck::default();
        for (at, (text, expected)) in steps.into_iter().enumerate() {
            let now = text.and_then(cpu_ticks);
            assert_eq!(check.check(now), expected, "step {at}");
        }
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
                Ok(()),
            ),
            ("MemAvailable: 9 kB\nMemTotal: 9 kB\n", Ok(())),
            ("MemTotal: 9 kB\nMemAvailable: 0 kB\n", Ok(())),
            ("MemTotal: 9 kB\nMemFree: 1 kB\n", missing("MemAvailable")),
            ("MemAvailable: 9 kB\n", missing("MemTotal")),
            ("MemTotal: 0 kB\nMemAvailable: 0 kB\n", missing("MemTotal")),
            ("MemTotal: x kB\nMemAvailable: 1 kB\n", missing("MemTotal")),
            ("MemTotal: 9 kB\nMemAvailable:\n", missing("MemAvailable")),
            ("MemTotal: 9 kB\nMemAvailable: 10 kB\n", more),
            ("", missing("MemTotal")),
        ];
        for (text, expected) in cases {
            assert_eq!(check_memory(text), expected, "{text:?}");
        }
    }
}
