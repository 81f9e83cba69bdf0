//! `restore`: restores the CA from a backup.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::authority::Authority;

use crate::context::Context;
use crate::output;

/// Replace the CA by a backup; the previous files are kept aside
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl restore /media/stick/lizmon-2027-01-31")]
pub(crate) struct RestoreArgs {
    /// A folder that `lizctl backup` made; it is not changed
    folder: PathBuf,
    /// Replace a CA that is newer than the backup, or another CA; it is kept aside
    #[arg(long, env = "LIZMON_FORCE", value_parser = FalseyValueParser::new())]
    force: bool,
}

/// `lizctl restore`.
pub(crate) fn run(args: &RestoreArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let unlock = context.keys.unlock();
    let restored = Authority::restore(&args.folder, &context.certs, unlock, args.force, now)?;
    output::line(format_args!(
        "{} is restored, as of {}",
        context.certs.display(),
        output::date(restored.last_recorded)
    ))?;
    if let Some(aside) = &restored.aside {
        output::line(format_args!(
            "the previous files are in {}",
            aside.display()
        ))?;
    }
    for row in restored.authority.unknown_revoked()? {
        output::line(format_args!(
            "revoked since, and not known here: {}",
            row.serial
        ))?;
    }
    output::note(
        "certificates issued since then remain valid until they end and are not known here: issue to those holders again, and \
         revoke unwanted ones with `lizctl revoke --serial`; revoke again what was revoked since then and is in no crl.pem here",
    );
    output::note("next: lizctl sign-crl --receiver URL …, which gives every receiver the CRLs");
    Ok(())
}
