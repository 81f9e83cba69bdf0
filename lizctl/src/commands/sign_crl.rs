//! `sign-crl`: signs the CRLs again, and pushes them to receivers.

use clap::Args;

use crate::context::Context;
use crate::flags::connection::ReceiversFlags;
use crate::flags::days::days;
use crate::{crl_push, output};

/// Sign the CRLs again, and push them to receivers
#[derive(Debug, Args)]
#[command(
    after_help = "Example, from cron:\n  lizctl sign-crl --passphrase-file /etc/lizmon/passphrase --receiver https://r1:8443 \\\n    \
                  --cert certs/operators/olga.crt --key certs/operators/olga.key --ca certs/root.crt"
)]
pub(crate) struct SignCrlArgs {
    /// Number the CRLs above this: the highest number that a receiver holds, after a backup was
    /// restored
    #[arg(long, env = "LIZMON_ABOVE", value_name = "NUMBER")]
    above: Option<u64>,
    /// Lifetime of CRLs from now on; the root's CRL is valid until the issuing CA ends
    #[arg(long, env = "LIZMON_CRL_DAYS", value_name = "DAYS", value_parser = days())]
    crl_days: Option<u32>,
    #[command(flatten)]
    receivers: ReceiversFlags,
}

/// `lizctl sign-crl`.
pub(crate) fn run(args: &SignCrlArgs, context: &Context) -> anyhow::Result<()> {
    let begin = (context.stopwatch)();
    let now = (context.clock)();
    let receivers = args.receivers.0.clients(context)?;
    let authority = context.authority(now)?;
    if let Some(days) = args.crl_days {
        authority.set_crl_days(days)?;
    }
    for crl in authority.sign_crls(args.above, now)? {
        output::line(format_args!(
            "signed number {} of {}, until {}",
            crl.number,
            crl.issuer,
            output::date(crl.next_update)
        ))?;
    }
    crl_push::push(&authority, &receivers, context, begin)
}
