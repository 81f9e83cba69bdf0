//! `renew`: renews a certificate, with a new key.

use std::path::PathBuf;

use clap::Args;
use lizmon_client::BaseUrl;

use crate::connection::{self, CaConnection};
use crate::context::Context;
use crate::flags::connection::ProfileFlag;
use crate::profile::ConnectionProfile;
use crate::{enrolment, output, runtime};

/// Renew a certificate now, with a new key; liz-monitor and liz-receiver with --ca-url do it
/// automatically
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl renew\n  lizctl renew --ca-url https://ca.example:8444 --cert certs/web1.crt --key certs/web1.key \\\n    \
                  --ca certs/root.crt"
)]
pub(crate) struct RenewArgs {
    /// URL of liz-ca: https://HOST:8444 [default: the profile's]
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    ca_url: Option<BaseUrl>,
    /// The certificate to renew (PEM); it is replaced [default: the profile's]
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key (PEM); it is replaced by a new one [default: the profile's]
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The root certificate (PEM); it is replaced if the CA's roots have changed [default: the
    /// profile's]
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    profile: ProfileFlag,
}

/// `lizctl renew`.
pub(crate) fn run(args: &RenewArgs, context: &Context) -> anyhow::Result<()> {
    let given = ConnectionProfile {
        receiver: None,
        cert: args.cert.clone(),
        key: args.key.clone(),
        ca: args.ca.clone(),
        ca_url: args.ca_url.clone(),
    };
    let CaConnection {
        ca_url,
        credentials,
    } = connection::to_ca(given, &args.profile, context)?;
    let now = (context.clock)();
    let renewed = lizmon_enrol::renew(&ca_url, &credentials, now);
    let obtained = runtime::current_thread()?.block_on(renewed)?;
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
            credentials.ca.display()
        ));
    }
    Ok(())
}
