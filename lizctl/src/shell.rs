//! `completions` and `man`: what a shell and `man` are given.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Folder for the pages; made if it is not there
    dir: PathBuf,
}

/// `lizctl completions`: a script on stdout.
pub(crate) fn completions(args: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lizctl", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

/// `lizctl man`: a page for `lizctl`, one for each verb.
pub(crate) fn man(args: &Man) -> anyhow::Result<()> {
    let dir = args.dir.display();
    let written = std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.dir));
    written.with_context(|| format!("cannot write manual pages to {dir}"))?;
    output::note(format_args!("read them by: man {dir}/lizctl.1"));
    Ok(())
}
