//! Where a verb that runs for long renews its certificate.

use clap::Args;
use lizmon_client::BaseUrl;

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct RenewalFlags {
    /// URL of liz-ca: the certificate is renewed there in time, which replaces its files [default: the
    /// profile's]
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    pub(crate) ca_url: Option<BaseUrl>,
}
