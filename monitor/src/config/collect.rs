//! The flags that choose what is measured.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lizmon_daemon::args::{CommaList, Items, items};

use crate::collect::{
    COLLECTORS, CollectOptions, CollectorSpec, LabelsMax, OwnCommand, OwnOptions, Pattern,
    Patterns, find,
};

/// [`DEFAULT_COLLECTORS`](crate::collect::DEFAULT_COLLECTORS), as the help shows it.
#[cfg(target_os = "linux")]
const DEFAULT: &str = "cpu,mem,load,swap,filesystems,network";
/// [`DEFAULT_COLLECTORS`](crate::collect::DEFAULT_COLLECTORS), as the help shows it.
#[cfg(not(target_os = "linux"))]
const DEFAULT: &str = "cpu,mem";

/// What a time of the site's own values may be.
const OWN_TIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct CollectFlags {
    /// What to measure
    #[arg(
        long,
        env = "LIZMON_COLLECT",
        value_name = "COLLECTOR",
        default_value = DEFAULT,
        value_parser = Items(collectors())
    )]
    pub collect: Vec<CommaList<&'static CollectorSpec>>,
    /// Which file systems, by mount point. In each of these patterns * is any text and ? one
    /// character; ! before one leaves out what matches, and without any other the usual ones are
    /// measured
    #[arg(
        long,
        env = "LIZMON_FILESYSTEMS",
        value_name = "PATTERN",
        value_parser = Items(Pattern::from_str)
    )]
    pub filesystems: Vec<CommaList<Pattern>>,
    /// Which network interfaces: patterns, as of --filesystems
    #[arg(
        long,
        env = "LIZMON_INTERFACES",
        value_name = "PATTERN",
        value_parser = Items(Pattern::from_str)
    )]
    pub interfaces: Vec<CommaList<Pattern>>,
    /// Which disks: patterns of the kernel's names
    #[arg(
        long,
        env = "LIZMON_DISKS",
        value_name = "PATTERN",
        value_parser = Items(Pattern::from_str)
    )]
    pub disks: Vec<CommaList<Pattern>>,
    /// Which services, scopes and containers: patterns of their names, as in the labels of `cgroups`
    #[arg(
        long,
        env = "LIZMON_CGROUPS",
        value_name = "PATTERN",
        value_parser = Items(Pattern::from_str)
    )]
    pub cgroups: Vec<CommaList<Pattern>>,
    /// Folder of files of values: each *.txt in it has a `label value` on each line, published as
    /// own:label
    #[arg(long, env = "LIZMON_OWN_FILES", value_name = "DIR")]
    pub own_files: Option<PathBuf>,
    /// How old such a file may be; the values of an older one are not published
    #[arg(
        long,
        env = "LIZMON_OWN_FILES_STALE",
        value_name = "TIME",
        default_value = "10m",
        value_parser = own_time
    )]
    pub own_files_stale: Duration,
    /// A command that prints values in the same form, or one number: NAME=PROGRAM ARGUMENT…; may be
    /// given several times. No shell reads it, unless it is one: sh -c '…'
    #[arg(long, env = "LIZMON_OWN_COMMAND", value_name = "NAME=COMMAND")]
    pub own_command: Vec<OwnCommand>,
    /// How often each command is run
    #[arg(
        long,
        env = "LIZMON_OWN_INTERVAL",
        value_name = "TIME",
        default_value = "1m",
        value_parser = own_time
    )]
    pub own_interval: Duration,
    /// How long a command may take; then it is killed with all that it has started
    #[arg(
        long,
        env = "LIZMON_OWN_TIME_LIMIT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = own_time
    )]
    pub own_time_limit: Duration,
    /// How many labels collectors may publish at once, such as cores=128. What is more is left out,
    /// and the log says so
    #[arg(
        long,
        env = "LIZMON_LABELS_MAX",
        value_name = "COLLECTOR=LABELS",
        value_parser = Items(labels_max)
    )]
    pub labels_max: Vec<CommaList<LabelsMax>>,
}

impl CollectFlags {
    /// The collectors, each once, and what they are asked to measure.
    pub(super) fn choose(self) -> (Vec<&'static CollectorSpec>, CollectOptions) {
        let mut collect = Vec::new();
        for collector in items(self.collect) {
            if !collect.contains(&collector) {
                collect.push(collector);
            }
        }
        let own = OwnOptions {
            files: self.own_files,
            files_stale: self.own_files_stale,
            commands: self.own_command,
            interval: self.own_interval,
            time_limit: self.own_time_limit,
        };
        // Who says where they are wants them.
        let own_collector = find("own").filter(|spec| !own.is_empty() && !collect.contains(spec));
        collect.extend(own_collector);
        let options = CollectOptions {
            filesystems: Patterns::new(items(self.filesystems)),
            interfaces: Patterns::new(items(self.interfaces)),
            disks: Patterns::new(items(self.disks)),
            cgroups: Patterns::new(items(self.cgroups)),
            own,
            labels_max: items(self.labels_max),
        };
        (collect, options)
    }
}

/// Parses the name of a collector; the help describes each.
fn collectors() -> impl TypedValueParser<Value = &'static CollectorSpec> {
    let values = COLLECTORS.iter().map(|spec| {
        let meanings: Vec<_> = spec.labels.iter().map(|label| label.meaning).collect();
        PossibleValue::new(spec.name).help(meanings.join("; "))
    });
    PossibleValuesParser::new(values)
        .try_map(|name| find(&name).ok_or("there is no such collector"))
}

/// Parses a time: a second to a day.
fn own_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match OWN_TIMES.contains(&time) {
        true => Ok(time),
        false => Err("it is 1s to 1day".to_owned()),
    }
}

/// Parses `COLLECTOR=LABELS`.
fn labels_max(text: &str) -> Result<LabelsMax, String> {
    let (name, labels) = text
        .split_once('=')
        .ok_or("it is COLLECTOR=LABELS, such as cores=128")?;
    let collector = find(name).ok_or_else(|| format!("there is no collector {name:?}"))?;
    let labels = labels.parse::<u8>().map_err(|_| "LABELS is 0 to 255")?;
    Ok(LabelsMax {
        collector: collector.name,
        labels: labels.into(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::collect::DEFAULT_COLLECTORS;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        flags: CollectFlags,
    }

    fn parse(more: &[&str]) -> Result<(Vec<&'static CollectorSpec>, CollectOptions), String> {
        let parsed = Program::try_parse_from(["m"].iter().chain(more));
        parsed
            .map(|program| program.flags.choose())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_is_what_the_collectors_say() {
        let names: Vec<_> = DEFAULT_COLLECTORS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.join(","), DEFAULT);
        assert_eq!(parse(&[]).unwrap().0, DEFAULT_COLLECTORS);
    }

    #[test]
    fn values_of_the_site_are_measured_where_there_are_any() {
        let command = "jobs=/bin/count --by a,b";
        let flags = [
            "--collect",
            "cpu",
            "--own-command",
            command,
            "--own-command",
            "x=y",
        ];
        let (collect, options) = parse(&flags).unwrap();
        let names: Vec<_> = collect.iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["cpu", "own"]);
        assert_eq!(
            options.own.commands,
            [command.parse().unwrap(), "x=y".parse().unwrap()]
        );
        let (collect, _) = parse(&["--collect", "own,cpu", "--own-files", "/x"]).unwrap();
        assert_eq!(collect.len(), 2);
        assert_eq!(parse(&[]).unwrap().1.own, OwnOptions::default());
        for flags in [
            ["--own-command", "x"],
            ["--own-interval", "0s"],
            ["--own-time-limit", "2days"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn numbers_of_labels() {
        let (_, options) = parse(&["--labels-max", "cpu=1, mem=255"]).unwrap();
        let expected =
            [("cpu", 1), ("mem", 255)].map(|(collector, labels)| LabelsMax { collector, labels });
        assert_eq!(options.labels_max, expected);
        for (text, part) in [
            ("cpu", "COLLECTOR=LABELS"),
            ("gpu=1", "no collector \"gpu\""),
            ("cpu=256", "0 to 255"),
            ("cpu=-1", "0 to 255"),
            ("cpu=", "0 to 255"),
        ] {
            let error = parse(&["--labels-max", text]).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
