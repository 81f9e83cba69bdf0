//! `store status`: who owns which shard, what waits to be counted, how the servers are.

mod json;
mod tables;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_receiver::store::redis::config::StoreUrl;
use lizmon_receiver::store::redis::status::status;

use crate::flags::output::OutputFlags;
use crate::flags::store::StoreConnectionFlags;
use crate::output;

/// Show the shards, members and servers of a store on Redis or Valkey
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl store status redis://redis.example\n  \
                  lizctl store status redis://redis.example --shards\n\n\
                  Nothing is written, and no store is created: a user who may only read can run it.\n\
                  Exit code 4 if a part of the store cannot be read; the rest is shown."
)]
pub(crate) struct StoreStatusArgs {
    /// redis://HOST:PORT, or rediss:// for TLS; HOST:PORT,HOST:PORT for nodes of a cluster, with
    /// /MASTER for Sentinels and the name of their master
    #[arg(value_name = "URL")]
    url: StoreUrl,
    /// List every shard, in order
    #[arg(long, env = "LIZMON_SHARDS", value_parser = FalseyValueParser::new())]
    shards: bool,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: StoreConnectionFlags,
}

/// `lizctl store status`. Fails if a part cannot be read.
pub(crate) fn run(args: StoreStatusArgs) -> anyhow::Result<()> {
    let url = args.url.to_string();
    let found = status(args.connection.servers(args.url)).with_context(|| url.clone())?;
    if args.output.is_json() {
        output::json(&json::StatusJson::new(&url, &found))?;
    } else {
        tables::show(&url, &found, args.shards)?;
    }
    let shards = found
        .shards
        .iter()
        .filter_map(|(_, read)| read.as_ref().err());
    let unread = shards.clone().count();
    let servers = found
        .servers
        .iter()
        .filter_map(|(_, read)| read.as_ref().err());
    match shards.chain(servers).next() {
        None => Ok(()),
        Some(error) => {
            let error = anyhow::Error::new(error.clone());
            Err(error.context(format!("{unread} shards of {url} cannot be read")))
        }
    }
}
