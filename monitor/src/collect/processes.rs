//! Which processes use most of the processor and of the memory, by their names.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

use super::background::Background;
use super::collector::{
    CollectContext, Collector, CollectorSpec, CollectorStart, CollectorStartError, LabelSpec,
};
use super::failure::CollectError;
use super::names;
use super::readings::Readings;

/// The collector.
pub(super) static PROCESSES: CollectorSpec = CollectorSpec {
    name: "processes",
    labels: &[
        LabelSpec {
            label: "process-cpu:{name}",
            unit: "percent of one core",
            source: "`/proc/PID/stat`",
            meaning: "processor time of all processes of this name, of the five names that use most, if it is 1 or more",
        },
        LabelSpec {
            label: "process-mem:{name}",
            unit: "bytes",
            source: "`/proc/PID/stat`",
            meaning: "resident memory of all processes of this name, of the five names that use most; what they share counts for each",
        },
    ],
    labels_max: 2 * SHOWN,
    start: |start: &CollectorStart<'_>| {
        let mut look = Look::new(start.monotonic.clone());
        let background = Background::start("processes", move |_| look.take());
        Ok(Box::new(Processes {
            background: background.map_err(CollectorStartError::Thread)?,
        }))
    },
};

const PROC: &str = "/proc";
/// How many names are published of each kind.
const SHOWN: usize = 5;
/// Less would give every name a label once in a while.
const CPU_PERCENT_MIN: f64 = 1.0;
/// Thousands of files are read.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a sample waits for that.
const PATIENCE: Duration = Duration::from_millis(20);
/// It is published no longer than this, unless samples are further apart.
const AGE_MAX: Duration = Duration::from_secs(60);
/// The parent of the kernel's own threads.
const KTHREADD: u32 = 2;

struct Processes {
    background: Background<Option<Top>>,
}

/// What is published.
#[derive(Debug, Default, PartialEq)]
struct Top {
    cpu: Vec<(Vec<u8>, f64)>,
    mem: Vec<(Vec<u8>, f64)>,
}

impl Collector for Processes {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let now = context.monotonic;
        self.background.ask(now, LOOK_EVERY, PATIENCE);
        let Some(latest) = self.background.latest(now) else {
            return Err(CollectError::FirstReading { path: PROC });
        };
        if latest.age > AGE_MAX {
            return Err(CollectError::NoAnswer { path: PROC });
        }
        let top = latest
            .result
            .as_ref()
            .as_ref()
            .ok_or(CollectError::Missing {
                path: PROC,
                field: "process of another user: see ProtectProc= of the unit,",
            })?;
        for (prefix, names) in [("process-cpu:", &top.cpu), ("process-mem:", &top.mem)] {
            for (name, value) in names {
                readings.push_or_note(names::label(prefix, name), *value);
            }
        }
        Ok(())
    }
}

/// A process, by its number and the time of its start: numbers are used again.
type ProcessKey = (u32, u64);

/// A line of `/proc/PID/stat`.
#[derive(Debug, PartialEq)]
struct Process {
    key: ProcessKey,
    name: Vec<u8>,
    ticks: u64,
    pages: u64,
}

/// Reads all processes, and compares them with the last time.
struct Look {
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    last: HashMap<ProcessKey, u64>,
    looked_at: Option<Duration>,
}

impl Look {
    fn new(monotonic: Arc<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self {
            monotonic,
            last: HashMap::new(),
            looked_at: None,
        }
    }

    fn take(&mut self) -> Option<Top> {
        let now = (self.monotonic)();
        let entries = fs::read_dir(PROC).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let numbers = names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
        // One that has ended meanwhile is passed over.
        let stats = numbers.filter_map(|number| fs::read(format!("{PROC}/{number}/stat")).ok());
        let processes: Vec<Process> = stats.filter_map(|stat| process(&stat)).collect();
        // Without the first process others are hidden.
        processes.iter().find(|process| process.key.0 == 1)?;
        Some(self.top(processes, now))
    }

    fn top(&mut self, processes: Vec<Process>, now: Duration) -> Top {
        let elapsed = self
            .looked_at
            .map(|at| now.saturating_sub(at).as_secs_f64());
        let ticks_per_percent = elapsed.map(|secs| secs * clock_ticks_per_second() as f64 / 100.0);
        let mut ticks: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut pages: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut last = HashMap::with_capacity(processes.len());
        for process in processes {
            // One that began since then has used all of it since then.
            let before = self.last.get(&process.key).copied().unwrap_or_default();
            last.insert(process.key, process.ticks);
            *ticks.entry(process.name.clone()).or_default() += process.ticks.saturating_sub(before);
            *pages.entry(process.name).or_default() += process.pages;
        }
        self.last = last;
        self.looked_at = Some(now);
        let percent = |ticks: u64| ticks_per_percent.map_or(0.0, |per| ticks as f64 / per);
        let bytes = |pages: u64| pages as f64 * page_size() as f64;
        Top {
            cpu: greatest(ticks, percent, CPU_PERCENT_MIN),
            mem: greatest(pages, bytes, 1.0),
        }
    }
}

/// The names with the greatest values, of equal ones the first.
fn greatest(
    counts: BTreeMap<Vec<u8>, u64>,
    value: impl Fn(u64) -> f64,
    min: f64,
) -> Vec<(Vec<u8>, f64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(_, a), (_, b)| b.cmp(a));
    let values = counts.into_iter().map(|(name, count)| (name, value(count)));
    values
        .take(SHOWN)
        .filter(|(_, value)| value.is_finite() && *value >= min)
        .collect()
}

/// `PID (NAME) STATE PPID …`: proc_pid_stat(5). The name may have blanks, brackets and line feeds.
fn process(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&stat[..open])
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let name = stat.get(open + 1..close)?;
    let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The third field of the line is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let parent = field(4)?;
    // kworker/0:1-events and hundreds of others: the kernel gives each another name.
    let is_kernel = pid == KTHREADD || parent == u64::from(KTHREADD);
    let name = match is_kernel {
        true => name.split(|byte| *byte == b'/').next()?,
        false => name,
    };
    Some(Process {
        key: (pid, field(22)?),
        name: if name.is_empty() {
            b"unnamed".to_vec()
        } else {
            name.to_vec()
        },
        ticks: field(14)?.saturating_add(field(15)?),
        // It was negative on some kernels.
        pages: field(24).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pid: u32, name: &str, parent: u32, ticks: u64, start: u64, pages: i64) -> String {
        format!(
            "{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 2 3 4 {ticks} 0 7 8 20 0 1 0 {start} 4096 {pages} 18446744073709551615 1 1"
        )
    }

    #[test]
    fn names_of_every_kind() {
        let check = |text: &str, expected: Option<(&str, u64, u64)>| {
            let found = process(text.as_bytes());
            let found = found.as_ref().map(|found| {
                (
                    std::str::from_utf8(&found.name).unwrap(),
                    found.ticks,
                    found.pages,
                )
            });
            assert_eq!(found, expected, "{text:?}");
        };
        check(&line(7, "nginx", 1, 5, 9, 3), Some(("nginx", 5, 3)));
        check(
            &line(7, "tmux: server", 1, 5, 9, 3),
            Some(("tmux: server", 5, 3)),
        );
        check(&line(7, "a) S 1 (b", 1, 5, 9, 3), Some(("a) S 1 (b", 5, 3)));
        check(&line(7, "x\ny", 1, 5, 9, 3), Some(("x\ny", 5, 3)));
        check(&line(7, "", 1, 5, 9, 3), Some(("unnamed", 5, 3)));
        check(
            &line(7, "kworker/0:1-events", 2, 5, 9, 0),
            Some(("kworker", 5, 0)),
        );
        check(&line(7, "a/b", 1, 5, 9, -3), Some(("a/b", 5, 0)));
        for cut in [
            "",
            "7",
            "7 (a",
            "7 (a)",
            "7 (a) S 1",
            ") 7 (",
            "x (a) S 1 2",
        ] {
            check(cut, None);
        }
    }

    #[test]
    fn those_that_use_most() {
        let mut look = Look::new(Arc::new(|| Duration::ZERO));
        let hz = clock_ticks_per_second();
        let all = |ticks: u64, start: u64| {
            let mut all = vec![
                line(1, "busy", 0, ticks, start, 10),
                line(2, "busy", 1, ticks, start, 10),
            ];
            all.extend(
                (10..20).map(|pid| line(pid, &format!("p{pid}"), 1, 0, start, i64::from(pid))),
            );
            all.iter()
                .map(|line| process(line.as_bytes()).unwrap())
                .collect::<Vec<_>>()
        };
        let names = |pairs: &[(Vec<u8>, f64)]| {
            let names = pairs
                .iter()
                .map(|(name, _)| String::from_utf8_lossy(name).into_owned());
            names.collect::<Vec<_>>()
        };
        let first = look.top(all(1_000, 5), Duration::from_secs(10));
        assert_eq!(first.cpu, []);
        assert_eq!(names(&first.mem), ["busy", "p19", "p18", "p17", "p16"]);
        let pages = first.mem[0].1 / page_size() as f64;
        assert_eq!(pages, 20.0);
        // Each half of the time.
        let second = look.top(all(1_000 + 5 * hz, 5), Duration::from_secs(20));
        assert_eq!(second.cpu, [(b"busy".to_vec(), 100.0)]);
        // Others with the same numbers: what they have used is not what they have more.
        let third = look.top(all(10, 99), Duration::from_secs(30));
        let percent = 20.0 / (10.0 * hz as f64 / 100.0);
        assert_eq!(third.cpu, [(b"busy".to_vec(), percent)]);
    }

    #[test]
    fn this_process_is_among_them() {
        let mut look = Look::new(Arc::new(|| Duration::ZERO));
        let top = look.take().unwrap();
        assert!(!top.mem.is_empty() && top.mem.len() <= SHOWN, "{top:?}");
        assert!(top.mem.iter().all(|(_, bytes)| *bytes > 0.0), "{top:?}");
        let own = fs::read("/proc/self/stat").unwrap();
        let own = process(&own).unwrap();
        assert_eq!(own.key.0, std::process::id());
        assert!(look.last.contains_key(&own.key));
    }
}
