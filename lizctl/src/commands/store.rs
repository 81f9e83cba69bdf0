//! `store`: judges, shows and copies the stores of receivers.

mod check;
mod status;

use clap::{Args, Subcommand};

use crate::context::Context;

/// Judge, show or copy the store of receivers
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    verb: StoreVerb,
}

#[derive(Debug, Subcommand)]
enum StoreVerb {
    Check(check::StoreCheckArgs),
    Status(status::StoreStatusArgs),
}

/// `lizctl store …`.
pub(crate) fn run(args: StoreArgs, _context: &Context) -> anyhow::Result<()> {
    match args.verb {
        StoreVerb::Check(args) => check::run(args),
        StoreVerb::Status(args) => status::run(args),
    }
}
