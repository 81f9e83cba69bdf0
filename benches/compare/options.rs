//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::rows::ROWS;

/// Measure the receiver beside other servers, and each goal of docs/performance.md.
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub(crate) struct Options {
    /// Only these rows
    #[arg(long, value_name = "ROW", value_delimiter = ',', value_parser = PossibleValuesParser::new(ROWS.map(|row| row.id)))]
    pub(crate) only: Vec<String>,
    /// How often each load runs: the baseline, ours, the baseline, ours; the median counts
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) duration: u64,
    /// One round of one second, 1,000 connections and 10,000 series: to try it
    #[arg(long)]
    pub(crate) quick: bool,
    /// Leave server and load on all cores, also where a row has one for each
    #[arg(long)]
    pub(crate) unpinned: bool,
    /// Series of the store that is started: ten for each host
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub(crate) series: u64,
    /// The most hosts for which the cost of a sample is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000))]
    pub(crate) hosts: u64,
    /// Also write the table as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw how far each goal is reached
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Measure nothing: show what an earlier run has written with --json; later files replace rows
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "quick", "unpinned"])]
    pub(crate) from: Vec<PathBuf>,
    /// cargo bench says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds as usize }
    }

    pub(crate) fn lasting(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { self.duration })
    }

    /// For what needs longer: through commits, or for a rate of one a second.
    pub(crate) fn lasting_at_least(&self, secs: u64) -> Duration {
        let least = Duration::from_secs(if self.quick { 2 } else { secs });
        self.lasting().max(least)
    }

    pub(crate) fn many_connections(&self) -> usize {
        if self.quick { 1_000 } else { 10_000 }
    }

    pub(crate) fn series(&self) -> u64 {
        if self.quick { 10_000 } else { self.series }
    }

    pub(crate) fn hosts(&self) -> u64 {
        if self.quick { 1_000 } else { self.hosts }
    }
}
