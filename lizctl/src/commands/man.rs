//! `man`: manual pages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::output;

/// Write manual pages, one a verb
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder for the pages; made if it is not there
    dir: PathBuf,
}

/// `lizctl man`: a page for `lizctl`, one for each verb.
pub(crate) fn run(args: &ManArgs, cli: clap::Command) -> anyhow::Result<()> {
    let dir = args.dir.display();
    let written =
        std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(cli, &args.dir));
    written.with_context(|| format!("cannot write manual pages to {dir}"))?;
    output::note(format_args!("read them by: man {dir}/lizctl.1"));
    Ok(())
}
