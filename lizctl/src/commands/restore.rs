//! `restore`: the CA from a copy.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::authority::Authority;

use crate::context::Context;
use crate::output;

/// Put a backup in the place of the CA; what was there is kept aside
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl restore /media/stick/lizmon-2027-01-31")]
pub(crate) struct RestoreArgs {
    /// A folder that `lizctl backup` made; it stays as it is
    folder: PathBuf,
    /// Replace a CA that has done more since the backup, or another CA; it is kept aside
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
        output::line(format_args!("what was there is in {}", aside.display()))?;
    }
    for row in restored.authority.unknown_revoked()? {
        output::line(format_args!(
            "revoked since, and not known here: {}",
            row.serial
        ))?;
    }
    output::note(
        "what was issued since then is good until its end and not known here: issue to those holders anew, and end what you \
         do not want with `lizctl revoke --serial`; what was revoked since then and is in no crl.pem here, revoke again",
    );
    output::note("next: lizctl sign-crl --receiver URL …, which gives every receiver the lists");
    Ok(())
}
