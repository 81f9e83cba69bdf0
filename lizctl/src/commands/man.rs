//! `man`: writes manual pages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::output;

/// Write manual pages, one per verb
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder for the pages; created if it does not exist
    dir: PathBuf,
}

/// `lizctl man`: writes a page for `lizctl` and one for each verb.
pub(crate) fn run(args: &ManArgs, cli: clap::Command) -> anyhow::Result<()> {
    let dir = args.dir.display();
    let written =
        std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(cli, &args.dir));
    written.with_context(|| format!("cannot write manual pages to {dir}"))?;
    output::note(format_args!("read them with: man {dir}/lizctl.1"));
    Ok(())
}
