//! Flags of the verbs that issue a certificate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::authority::has_leaf;
use lizmon_ca::files::LeafFiles;
use lizmon_ca::pki::{DAY_SECS, KeyAlg, LEAF_LIFETIME_SECS};
use lizmon_protocol::name::{NodeName, Role};

use super::days::{DAYS_MAX, days};

/// Lifetime and key of a certificate.
#[derive(Debug, Args)]
pub(crate) struct LeafFlags {
    /// Lifetime in days [default: 90]
    #[arg(long, env = "LIZMON_DAYS", value_name = "N", value_parser = days(), conflicts_with = "hours")]
    days: Option<u32>,
    /// Lifetime in hours
    #[arg(long, env = "LIZMON_HOURS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX * 24))]
    hours: Option<u32>,
    /// Certify the key of this signing request (PEM or DER); no key is generated
    #[arg(
        long,
        env = "LIZMON_CSR",
        value_name = "FILE",
        conflicts_with = "key_alg"
    )]
    pub(crate) csr: Option<PathBuf>,
    /// Key algorithm: p256 or ed25519 [default: p256]
    #[arg(long, env = "LIZMON_KEY_ALG", value_name = "ALG")]
    pub(crate) key_alg: Option<KeyAlg>,
    /// Also write what the holder's machine needs into this folder: NAME.crt, NAME.key, root.crt
    /// and crl.pem
    #[arg(long, env = "LIZMON_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Issue nothing if NAME.crt is there already: in the folder of --out, else in the CA's
    #[arg(long, env = "LIZMON_IF_MISSING", value_parser = FalseyValueParser::new())]
    pub(crate) if_missing: bool,
}

impl LeafFlags {
    /// Whether the certificate need not be issued again.
    pub(crate) fn is_present(
        &self,
        name: &NodeName,
        role: Role,
        certs: &Path,
    ) -> Result<bool, lizmon_ca::Error> {
        match &self.out {
            _ if !self.if_missing => Ok(false),
            Some(_) => Ok(self.certificate(name, role, certs).exists()),
            None => has_leaf(certs, role, name),
        }
    }

    /// Where the certificate is put.
    pub(crate) fn certificate(&self, name: &NodeName, role: Role, certs: &Path) -> PathBuf {
        match &self.out {
            Some(folder) => folder.join(format!("{name}.crt")),
            None => LeafFiles::new(certs, role, name).certificate,
        }
    }

    pub(crate) fn lifetime(&self) -> Duration {
        let secs = match (self.days, self.hours) {
            (Some(days), _) => u64::from(days) * DAY_SECS,
            (None, Some(hours)) => u64::from(hours) * 3600,
            (None, None) => LEAF_LIFETIME_SECS,
        };
        Duration::from_secs(secs)
    }
}
