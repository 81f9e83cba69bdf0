//! `store copy`: moves a site from one store to another.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_receiver::store::copy::{CopyError, CopyStep, StorePlace, copy};
use lizmon_receiver::store::redis::config::{RedisConfig, StoreUrl, StoreUrlError};
use uuid::Uuid;

use crate::context::{Context, quoted};
use crate::flags::store::StoreConnectionFlags;
use crate::output;

/// Copy a store into an empty one and verify the copy; no receiver may be running
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl store copy data rediss://r1.example,r2.example --store-ca redis-ca.crt\n  \
                  lizctl store copy redis://redis.example new-data\n\n\
                  The source is not changed. Until the copy is complete and verified, receivers refuse the\n\
                  target; if it was interrupted, run it again. Both servers are reached by the same flags."
)]
pub(crate) struct StoreCopyArgs {
    /// A receiver's data folder, or the URL of a store: redis://… or rediss://…
    #[arg(value_name = "FROM")]
    from: PlaceArg,
    /// The same; nothing may be stored there yet
    #[arg(value_name = "TO")]
    to: PlaceArg,
    /// Copy to servers that would lose acknowledged samples
    #[arg(long, env = "LIZMON_ACCEPT_LOSSY_STORE", value_parser = FalseyValueParser::new())]
    accept_lossy_store: bool,
    #[command(flatten)]
    connection: StoreConnectionFlags,
}

/// A folder, or a URL.
#[derive(Debug, Clone)]
enum PlaceArg {
    Folder(PathBuf),
    Servers(StoreUrl),
}

impl FromStr for PlaceArg {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        match text.contains("://") {
            true => text.parse().map(Self::Servers),
            false => Ok(Self::Folder(text.into())),
        }
    }
}

impl StoreCopyArgs {
    fn place(&self, place: &PlaceArg) -> StorePlace {
        match place {
            PlaceArg::Folder(folder) => StorePlace::Folder(folder.clone()),
            PlaceArg::Servers(url) => StorePlace::Servers(Box::new(RedisConfig {
                accepts_lossy: self.accept_lossy_store,
                ..self.connection.servers(url.clone())
            })),
        }
    }
}

/// `lizctl store copy`.
pub(crate) fn run(args: &StoreCopyArgs, context: &Context, owner: Uuid) -> anyhow::Result<()> {
    let (from, to) = (args.place(&args.from), args.place(&args.to));
    let mut progress = Progress::default();
    let mut tell = |step, done, all| progress.tell(step, done, all);
    let copied = copy(&from, &to, owner, (context.clock)(), &mut tell);
    let copied = copied
        .map_err(|error| match error {
            // By its kind it has an exit code.
            CopyError::Store(error) => anyhow::Error::new(error),
            error => error.into(),
        })
        .with_context(|| format!("{from} is not copied to {to}"))?;
    for damage in &copied.damage {
        output::note(format_args!(
            "not in the copy, damaged in the source: {damage}"
        ));
    }
    output::line(format_args!(
        "copied and verified: hosts {}, series {}, intervals {}, hours and days of the history {}, producers {}; groups of the journal that are counted in them: {}",
        copied.hosts,
        copied.series,
        copied.intervals,
        copied.history,
        copied.producers,
        copied.groups
    ))?;
    next_steps(&args.from, &args.to);
    Ok(())
}

/// What else is in a data folder stays there.
fn next_steps(from: &PlaceArg, to: &PlaceArg) {
    let keys = "token keys, pushed CRLs and seen certificates";
    match (from, to) {
        (PlaceArg::Folder(folder), PlaceArg::Servers(url)) => {
            let folder = quoted(folder);
            output::note(format_args!(
                "{keys} stay in {folder}, which the receiver goes on using; its samples there are no longer used"
            ));
            output::note(format_args!(
                "next: liz-receiver --store {url} --summarize --data {folder} …, with the other flags as before"
            ));
        }
        (_, PlaceArg::Folder(folder)) => {
            let folder = quoted(folder);
            output::note(format_args!(
                "{keys} are not copied: copy token-keys.json and crl.pem from the receiver's old --data folder, if its tokens and pushed CRLs are to stay valid"
            ));
            output::note(format_args!(
                "next: liz-receiver --data {folder} …, without --store and with the other flags as before"
            ));
        }
        (PlaceArg::Servers(_), PlaceArg::Servers(url)) => output::note(format_args!(
            "next: liz-receiver and liz-summarizer with --store {url}, and the other flags as before"
        )),
    }
}

/// Lines on stderr: at the start of a step, and for each eighth of it.
#[derive(Default)]
struct Progress {
    last: Option<(CopyStep, usize)>,
}

impl Progress {
    fn tell(&mut self, step: CopyStep, done: usize, all: usize) {
        let eighth = done * 8 / all.max(1);
        if self.last == Some((step, eighth)) {
            return;
        }
        self.last = Some((step, eighth));
        let word = match step {
            CopyStep::Read => "read",
            CopyStep::Write => "copied",
            CopyStep::Verify => "verified",
        };
        output::note(format_args!("{word}: shards {done}/{all}"));
    }
}
