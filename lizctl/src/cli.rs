//! Every flag of every verb, and nothing else: a verb's file gets its arguments parsed.
//!
//! Every flag has an environment twin `LIZMON_…`; what is typed wins.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What every verb is given beside its own flags.
pub(crate) struct Context {
    /// The folder of certificates, keys and the ledger.
    pub(crate) certs: PathBuf,
    /// Seconds since 1970 UTC.
    pub(crate) clock: fn() -> u64,
}

#[derive(Debug, Parser)]
#[command(
    name = "lizctl",
    version,
    about = "Mint the certificates of a fleet, ask its receiver, run it all on one machine",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 refused by the server; 4 the server cannot be reached.
Every flag has an environment twin: --trust-domain is LIZMON_TRUST_DOMAIN.";

/// Flags that stand before or after any verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Folder of certificates, keys and the ledger
    #[arg(
        long,
        global = true,
        env = "LIZMON_CERTS",
        value_name = "DIR",
        default_value = "certs"
    )]
    pub(crate) certs: PathBuf,
    /// How log lines on stderr look; RUST_LOG says which there are
    #[arg(
        long,
        global = true,
        env = "LIZMON_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The verbs: a variant here, its arguments below, a line in `main.rs`, a function in its family's file.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {}
