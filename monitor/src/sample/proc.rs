//! What sysinfo hides: a `/proc` that cannot be read, stands still or goes back looks to it like a load of nothing, or of before.
//! Its numbers are published only where the files it read them from are sound. Elsewhere than on Linux it is believed.

use super::unmeasured::Unmeasured;

pub(super) const STAT: &str = "/proc/stat";
pub(super) const MEMINFO: &str = "/proc/meminfo";

/// The first line of `/proc/stat`: ticks of all cores, each only ever going on; proc_stat(5).
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
/// The oldest kernels have no more than these.
const COUNTERS_MIN: usize = 4;

/// What all cores have done since the start of the system, in ticks. A kernel that lacks the last ones says 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticks([u64; COUNTERS.len()]);

/// Judges one reading of the processor's counters after another.
#[derive(Debug, Default)]
pub(super) struct CpuJudge {
    /// The last reading, where that was sound.
    before: Option<Ticks>,
}

impl CpuJudge {
    /// Whether the load between the last reading and this one can be told.
    pub(super) fn judge(&mut self, now: Result<Ticks, Unmeasured>) -> Result<(), Unmeasured> {
        let before = self.before.take();
        let now = now?;
        self.before = Some(now);
        let before = before.ok_or(Unmeasured::ReadOnce { path: STAT })?;
        let went_back = COUNTERS
            .iter()
            .zip(before.0.iter().zip(&now.0))
            .find(|(_, (before, now))| now < before);
        if let Some((counter, _)) = went_back {
            return Err(Unmeasured::WentBack {
                path: STAT,
                counter,
            });
        }
        match before == now {
            true => Err(Unmeasured::Still { path: STAT }),
            false => Ok(()),
        }
    }
}

/// The text of a file of `/proc`.
#[cfg(target_os = "linux")]
pub(super) fn read(path: &'static str) -> Result<String, Unmeasured> {
    std::fs::read_to_string(path).map_err(|error| Unmeasured::Unreadable {
        path,
        kind: error.kind(),
    })
}

/// Reads the line of all cores.
pub(super) fn ticks(stat: &str) -> Result<Ticks, Unmeasured> {
    let missing = Unmeasured::Missing {
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
        false => Ok(Ticks(ticks)),
    }
}

/// Whether both numbers that the used part is made of stand there. Without the second sysinfo guesses it.
pub(super) fn judge_memory(meminfo: &str) -> Result<(), Unmeasured> {
    let kib = |field: &'static str| {
        let line = meminfo.lines().find_map(|line| {
            let (name, rest) = line.split_once(':')?;
            (name == field).then_some(rest)
        });
        let number =
            line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
        number.ok_or(Unmeasured::Missing {
            path: MEMINFO,
            field,
        })
    };
    let total = kib("MemTotal")?;
    let available = kib("MemAvailable")?;
    if total == 0 {
        return Err(Unmeasured::Missing {
            path: MEMINFO,
            field: "MemTotal",
        });
    }
    match available > total {
        true => Err(Unmeasured::MoreThanAll { path: MEMINFO }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: Unmeasured = Unmeasured::Missing {
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
            assert_eq!(ticks(text), expected.map(Ticks), "{text:?}");
        }
    }

    #[test]
    fn only_counters_that_go_on_tell_a_load() {
        let back = |counter| {
            Err(Unmeasured::WentBack {
                path: STAT,
                counter,
            })
        };
        let once = Err(Unmeasured::ReadOnce { path: STAT });
        let still = Err(Unmeasured::Still { path: STAT });
        let gone = Unmeasured::Unreadable {
            path: STAT,
            kind: std::io::ErrorKind::NotFound,
        };
        let steps = [
            (Ok("cpu  10 0 10 100 10 0 0 0"), once.clone()),
            (Ok("cpu  10 0 10 100 10 0 0 0"), still.clone()),
            (Ok("cpu  10 0 10 101 10 0 0 0"), Ok(())),
            (Ok("cpu  11 0 10 101 10 0 0 0"), Ok(())),
            // Kernels are known to take these two back a little.
            (Ok("cpu  12 0 10 101 9 0 0 0"), back("iowait")),
            (Ok("cpu  12 0 10 100 20 0 0 0"), back("idle")),
            (Ok("cpu  13 0 10 101 20 0 0 0"), Ok(())),
            (Ok("cpu  1 0 1 1 2 0 0 0"), back("user")),
            (Ok("cpu  1 0 1 2 2 0 0 0"), Ok(())),
            // What was before a gap is not the last interval's beginning.
            (Err(gone.clone()), Err(gone)),
            (Ok("cpu  1 0 1 9 2 0 0 0"), once),
            (Ok("cpu  1 0 1 10 2 0 0 0"), Ok(())),
            (Ok("cpu  0 0 0 0 0 0 0 0"), back("user")),
            (Ok("cpu  0 0 0 0 0 0 0 0"), still),
        ];
        let mut judge = CpuJudge::default();
        for (at, (text, expected)) in steps.into_iter().enumerate() {
            let now = text.and_then(ticks);
            assert_eq!(judge.judge(now), expected, "step {at}");
        }
    }

    #[test]
    fn memory_is_told_by_two_numbers() {
        let missing = |field| {
            Err(Unmeasured::Missing {
                path: MEMINFO,
                field,
            })
        };
        let more = Err(Unmeasured::MoreThanAll { path: MEMINFO });
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
            assert_eq!(judge_memory(text), expected, "{text:?}");
        }
    }
}
