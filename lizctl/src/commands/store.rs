//! `store`: judges, shows and copies the stores of receivers.

mod check;
mod copy;
mod status;

use clap::{Args, Subcommand};
use uuid::Uuid;

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
    Copy(copy::StoreCopyArgs),
}

/// `lizctl store …`. `id` tells this process from every other that uses the store.
pub(crate) fn run(args: StoreArgs, context: &Context, id: Uuid) -> anyhow::Result<()> {
    match args.verb {
        StoreVerb::Check(args) => check::run(args),
        StoreVerb::Status(args) => status::run(args),
        StoreVerb::Copy(args) => copy::run(&args, context, id),
    }
}
