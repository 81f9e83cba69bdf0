//! `renew`: renews a certificate, with a new key.

use std::path::PathBuf;

use clap::Args;
use lizmon_client::{BaseUrl, Credentials};

use crate::context::Context;
use crate::{enrolment, output, runtime};

/// Renew a certificate now, with a new key; liz-monitor and liz-receiver with --ca-url do it
/// automatically
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lizctl renew --ca-url https://ca.example:8444 --cert certs/web1.crt --key certs/web1.key \\\n    \
                  --ca certs/root.crt"
)]
pub(crate) struct RenewArgs {
    /// URL of liz-ca: https://HOST:8444
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    ca_url: BaseUrl,
    /// The certificate to renew (PEM); it is replaced
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: PathBuf,
    /// Its private key (PEM); it is replaced by a new one
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: PathBuf,
    /// The root certificate (PEM); it is replaced if the CA's roots have changed
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: PathBuf,
}

/// `lizctl renew`.
pub(crate) fn run(args: &RenewArgs, context: &Context) -> anyhow::Result<()> {
    let credentials = Credentials {
        cert: args.cert.clone(),
        key: args.key.clone(),
        ca: args.ca.clone(),
    };
    let now = (context.clock)();
    let obtained = runtime::current_thread()?.block_on(lizmon_enrol::renew(
        &args.ca_url,
        &credentials,
        now,
    ))?;
    enrolment::show(&obtained)?;
    if obtained.not_before > now {
        output::note(format_args!(
            "it is valid from {}, but the time here is {}: this machine's clock is behind the CA's",
            output::date(obtained.not_before),
            output::date(now)
        ));
    }
    if obtained.roots_changed {
        output::note(format_args!(
            "{} now holds the roots that the CA trusts",
            args.ca.display()
        ));
    }
    Ok(())
}
