//! `backup` and `restore`: a copy of the CA, and the CA from a copy.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::authority::Authority;

use crate::cli::Context;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// A folder that is not there yet
    folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A folder that `lizctl backup` made; it stays as it is
    folder: PathBuf,
    /// Replace a CA that has done more since the backup, or another CA; it is kept aside
    #[arg(long, env = "LIZMON_FORCE", value_parser = FalseyValueParser::new())]
    force: bool,
}

/// `lizctl backup`.
pub(crate) fn backup(args: &Backup, context: &Context) -> anyhow::Result<()> {
    context.look((context.clock)())?.backup(&args.folder)?;
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

/// `lizctl restore`.
pub(crate) fn restore(args: &Restore, context: &Context) -> anyhow::Result<()> {
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
