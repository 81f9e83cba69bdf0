//! What a single POST waits at most while something happens: a slow sync, the turn of a minute or
//! hour, a long revocation list, another token key, a large scrape, a restart.
//!
//! ```text
//! cargo build --release -p lizmon-receiver
//! cargo bench -p lizmon-benches --profile release --bench tails -- [CASES] [--rate 2000] [--json]
//! ```
//!
//! Each case runs beside a control: the same receiver and load without the event. POSTs of many
//! hosts come at a constant rate, beside GETs, `/healthz` and clients that just arrive, and each is
//! measured from when it was due. Linux only; a slow disk needs strace(1).

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark runs in real time, and prints"
)]

mod cases;
mod link;
mod load;
mod process;
mod site;
mod tally;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum as _};

use self::cases::{Case, run};
use self::site::Site;
use self::tally::Tally;

/// What a single POST waits at most while something happens
#[derive(Debug, Parser)]
pub(crate) struct Flags {
    /// What happens [default: all of them]
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// POSTs a second, of all hosts together
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Hosts, each with a connection of its own
    #[arg(long, default_value_t = 1_000)]
    hosts: usize,
    /// How often each case and its control run, in turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds before, during and after the event
    #[arg(long, default_value_t = 5)]
    secs: u64,
    /// Series that are scraped
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// Serial numbers in the revocation list
    #[arg(long, default_value_t = 100_000)]
    serials: usize,
    /// Monitors that come back after a restart
    #[arg(long, default_value_t = 10_000)]
    monitors: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((process::SERVE, rest)) = args.split_first().map(|(of, rest)| (&**of, rest)) {
        return process::serve(rest);
    }
    let flags = Flags::parse();
    let cases = match &flags.cases[..] {
        [] => Case::value_variants(),
        some => some,
    };
    let site = Site::new(flags.hosts)?;
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    let mut tally = Tally::default();
    for round in 1..=flags.rounds {
        for case in cases {
            for has_event in [false, true] {
                let note = runtime.block_on(run(*case, has_event, &flags, &site, &mut tally))?;
                let name = if has_event { "event" } else { "control" };
                eprintln!("round {round}: {case:?} {name}: {note}");
            }
        }
    }
    match flags.json {
        true => println!("{}", tally.json()?),
        false => print!("{}", tally.table()),
    }
    Ok(())
}
