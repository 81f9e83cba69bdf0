//! `backup`: copies the CA.

use std::path::PathBuf;

use clap::Args;

use crate::context::Context;
use crate::output;

/// Copy the CA into a new folder, for `restore`
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl backup /media/stick/lizmon-2027-01-31")]
pub(crate) struct BackupArgs {
    /// The new folder; it must not exist
    folder: PathBuf,
}

/// `lizctl backup`.
pub(crate) fn run(args: &BackupArgs, context: &Context) -> anyhow::Result<()> {
    context
        .authority_to_read((context.clock)())?
        .backup(&args.folder)?;
    output::line(format_args!(
        "{} is a copy of the CA",
        args.folder.display()
    ))?;
    output::note(format_args!(
        "it holds the CA's keys: keep it as safe as these; certificates and keys of nodes, receivers and people are not in it; \
         lizctl restore {} puts it back",
        args.folder.display()
    ));
    Ok(())
}
