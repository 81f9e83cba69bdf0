//! `completions`: shell completions.

use clap::Args;
use clap_complete::Shell;

use crate::output;

/// Print a script that completes lizctl's verbs and flags in a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lizctl completions bash > ~/.local/share/bash-completion/completions/lizctl"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// `lizctl completions`: prints the script.
pub(crate) fn run(args: &CompletionsArgs, mut cli: clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "lizctl", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}
