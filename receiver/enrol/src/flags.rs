//! The command-line flags for the certificate of a daemon and its renewal.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use lizmon_pki::credentials::Credentials;
use lizmon_transport::BaseUrl;

use crate::crls::CrlSource;
use crate::renewer::{Chance, Now, Renewer};

/// `--cert --key --ca --ca-url` of liz-receiver and liz-monitor.
#[derive(Debug, Clone, Args)]
pub struct CredentialFlags {
    /// The certificate to present, followed by the issuing CA's (PEM)
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    pub cert: PathBuf,
    /// The private key of the certificate (PEM)
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    pub key: PathBuf,
    /// The root certificate that the peer's certificate must chain to (PEM)
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    pub ca: PathBuf,
    /// URL of liz-ca: the certificate is renewed there, which replaces --cert, --key and --ca, and
    /// new CRLs are fetched
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    pub ca_url: Option<BaseUrl>,
}

impl CredentialFlags {
    /// The paths of the credential files.
    pub fn credentials(&self) -> Credentials {
        Credentials {
            cert: self.cert.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
        }
    }

    /// Renews the certificate while the program runs.
    pub fn renewer(&self, clock: Now, chance: Chance) -> Renewer {
        Renewer {
            url: self.ca_url.clone(),
            credentials: self.credentials(),
            clock,
            chance,
            tell: Arc::new(|_| ()),
        }
    }

    /// Where CRLs are fetched from. `None` without `--ca-url`.
    pub fn crl_source(&self) -> Option<CrlSource> {
        Some(CrlSource {
            url: self.ca_url.clone()?,
            ca: self.ca.clone(),
        })
    }
}
