//! Which processes use most of the processor and of the memory, by their names.

mod regulars;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use lizmon_protocol::name::{Label, NameError};
use rustix::param::{clock_ticks_per_second, page_size};

use self::regulars::Regulars;
use super::collector::{CollectContext, Collector, CollectorSpec, CollectorStart, LabelSpec};
use super::failure::CollectError;
use super::names;
use super::periodic::{PeriodicReading, ReadingPlan};
use super::readings::{Lasts, Readings};

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
    more_labels_a_day: 70,
    start: |start: &CollectorStart<'_>| {
        let mut look = Look::new(start.monotonic.clone());
        let read = move || look.take();
        Ok(Box::new(Processes(PeriodicReading::start(&PLAN, read)?)))
    },
};

const PROC: &str = "/proc";
/// How many names are published of each kind.
const SHOWN: usize = 5;
/// How many are ranked: the next one is shown in the place of one that is not worth a label.
const RANKED: usize = 2 * SHOWN;
/// Less would give every name a label once in a while.
const CPU_PERCENT_MIN: f64 = 1.0;
/// The parent of the kernel's own threads.
const KTHREADD: u32 = 2;

static PLAN: ReadingPlan = ReadingPlan {
    name: "processes",
    path: PROC,
    // Without the first process others are hidden as well.
    missing: "process of another user: see ProtectProc= of the unit,",
    // Thousands of files are read.
    every: Duration::from_secs(10),
    age_max: Duration::from_secs(60),
};

struct Processes(PeriodicReading<Top>);

/// The names that use most: what is published, and some more.
#[derive(Debug, Default, PartialEq)]
struct Top {
    cpu: Vec<Use>,
    mem: Vec<Use>,
}

/// What all processes of a name use.
#[derive(Debug, PartialEq)]
struct Use {
    name: Vec<u8>,
    value: f64,
    lasts: Lasts,
}

impl Collector for Processes {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        let top = self.0.latest(context.monotonic)?;
        publish(&top, readings);
        Ok(())
    }
}

fn publish(top: &Top, readings: &mut Readings<'_>) {
    for (prefix, ranked) in [("process-cpu:", &top.cpu), ("process-mem:", &top.mem)] {
        for (label, one) in shown(prefix, ranked, readings) {
            readings.push_lasting_or_note(label, one.value, one.lasts);
        }
    }
}

/// The first of them that are worth a label: on a machine that starts something else each second,
/// what does not last would take all labels of the day.
fn shown<'u>(
    prefix: &str,
    ranked: &'u [Use],
    readings: &mut Readings<'_>,
) -> Vec<(Result<Label<'static>, NameError>, &'u Use)> {
    let mut new = 0;
    let labelled = ranked
        .iter()
        .map(|one| (names::label(prefix, &one.name), one));
    labelled
        .filter(|(label, one)| {
            let is_known = label.as_ref().is_ok_and(|label| readings.is_known(label));
            if one.lasts == Lasts::Long || is_known {
                return true;
            }
            let is_worth_it = readings.has_room_today(one.lasts, new + 1);
            new += usize::from(is_worth_it);
            is_worth_it
        })
        .take(SHOWN)
        .collect()
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
    /// By processor time, and by memory.
    regulars: [Regulars; 2],
}

impl Look {
    fn new(monotonic: Arc<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self {
            monotonic,
            last: HashMap::new(),
            looked_at: None,
            regulars: Default::default(),
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
        let [by_cpu, by_mem] = &mut self.regulars;
        Top {
            cpu: ranked(by_cpu, greatest(ticks, percent, CPU_PERCENT_MIN)),
            mem: ranked(by_mem, greatest(pages, bytes, 1.0)),
        }
    }
}

fn ranked(regulars: &mut Regulars, greatest: Vec<(Vec<u8>, f64)>) -> Vec<Use> {
    regulars.look(greatest.iter().map(|(name, _)| &name[..]));
    let with_lasts = greatest.into_iter().map(|(name, value)| Use {
        lasts: regulars.lasts(&name),
        name,
        value,
    });
    with_lasts.collect()
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
        .take(RANKED)
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
    use super::super::readings::LabelBudget;
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
        let names = |all: &[Use]| {
            let names = all
                .iter()
                .map(|one| String::from_utf8_lossy(&one.name).into_owned());
            names.take(SHOWN).collect::<Vec<_>>()
        };
        let busy = |value, lasts| Use {
            name: b"busy".to_vec(),
            value,
            lasts,
        };
        let first = look.top(all(1_000, 5), Duration::from_secs(10));
        assert_eq!(first.cpu, []);
        assert_eq!(names(&first.mem), ["busy", "p19", "p18", "p17", "p16"]);
        let pages = first.mem[0].value / page_size() as f64;
        assert_eq!(pages, 20.0);
        // Each half of the time.
        let second = look.top(all(1_000 + 5 * hz, 5), Duration::from_secs(20));
        assert_eq!(second.cpu, [busy(100.0, Lasts::MaybeNot)]);
        // Others with the same numbers: what they have used is not what they have more.
        let third = look.top(all(10, 99), Duration::from_secs(30));
        let percent = 20.0 / (10.0 * hz as f64 / 100.0);
        assert_eq!(third.cpu, [busy(percent, Lasts::MaybeNot)]);
        let fourth = look.top(all(1_010, 99), Duration::from_secs(40));
        assert_eq!(fourth.cpu[0].lasts, Lasts::Long);
        assert_eq!(fourth.mem.len(), RANKED);
    }

    /// A day on a machine that builds software: whatever comes and goes, what lasts is shown.
    #[test]
    fn short_lived_processes_do_not_crowd_out_others() {
        let mut look = Look::new(Arc::new(|| Duration::ZERO));
        let mut budget = LabelBudget::new(PROCESSES.labels_max, PROCESSES.more_labels_a_day);
        let hz = clock_ticks_per_second();
        let mut shown_at = |secs: u64| {
            // A server that begins in the evening, and six jobs that use more, with new names.
            let servers = (secs >= 80_000).then(|| line(2, "server", 1, secs * hz / 2, 5, 10));
            let jobs =
                (0..6).map(|at| line(9 + at, &format!("job-{secs}-{at}"), 1, 9 * hz, secs, 20));
            let lines = servers.into_iter().chain(jobs);
            let all = lines.map(|line| process(line.as_bytes()).unwrap());
            let top = look.top(all.collect(), Duration::from_secs(secs));
            let mut readings = Readings::new(&mut budget, Duration::from_secs(secs));
            publish(&top, &mut readings);
            let pairs = readings.pairs();
            let jobs = pairs
                .iter()
                .filter(|(label, _)| label.contains("job-"))
                .count();
            (
                jobs,
                pairs
                    .iter()
                    .any(|(label, _)| *label == "process-cpu:server"),
            )
        };
        let mut all_jobs = 0;
        for at in 1..8_640 {
            let (jobs, has_server) = shown_at(at * 10);
            all_jobs += jobs;
            assert_eq!(has_server, at * 10 >= 80_020, "{at}");
        }
        // They are shown while there are labels, and some more in the course of the day.
        assert!((10..=100).contains(&all_jobs), "{all_jobs}");
    }

    #[test]
    fn this_process_is_among_them() {
        let mut look = Look::new(Arc::new(|| Duration::ZERO));
        let top = look.take().unwrap();
        assert!(!top.mem.is_empty() && top.mem.len() <= RANKED, "{top:?}");
        assert!(top.mem.iter().all(|one| one.value > 0.0), "{top:?}");
        let own = fs::read("/proc/self/stat").unwrap();
        let own = process(&own).unwrap();
        assert_eq!(own.key.0, std::process::id());
        assert!(look.last.contains_key(&own.key));
    }
}
