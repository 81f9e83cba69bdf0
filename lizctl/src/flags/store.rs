//! How a shared store's servers are reached: the flags of `liz-receiver`, by the same names.

use std::path::PathBuf;

use clap::Args;
use lizmon_receiver::store::redis::config::{RedisConfig, StoreDurability, StoreUrl};

/// The connection to the servers of a store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreConnectionFlags {
    /// CA certificates that the store's servers are verified against (PEM) [default: the system's]
    #[arg(long, env = "LIZMON_STORE_CA", value_name = "FILE")]
    store_ca: Option<PathBuf>,
    /// ACL user of the store [default: the server's default user]
    #[arg(
        long,
        env = "LIZMON_STORE_USER",
        value_name = "USER",
        requires = "store_password_file"
    )]
    store_user: Option<String>,
    /// File with the password of the store's user
    #[arg(long, env = "LIZMON_STORE_PASSWORD_FILE", value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// Replicas that must have a sample before it is acknowledged [default: 1 in a cluster, else 0]
    #[arg(long, env = "LIZMON_MIN_REPLICAS", value_name = "NUMBER")]
    min_replicas: Option<u32>,
    /// What keeps the store's writes through crashes and failovers
    #[arg(
        long,
        env = "LIZMON_STORE_DURABILITY",
        value_name = "BY",
        default_value = "server"
    )]
    store_durability: StoreDurability,
    /// Certificate for servers that ask for one (PEM)
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl StoreConnectionFlags {
    /// The servers at this URL.
    pub(crate) fn servers(&self, url: StoreUrl) -> RedisConfig {
        let certificate = self.cert.clone().zip(self.key.clone());
        RedisConfig {
            client: certificate.filter(|_| url.is_tls),
            ca: self.store_ca.clone(),
            user: self.store_user.clone(),
            password_file: self.store_password_file.clone(),
            replicas_min: self.min_replicas,
            durability: self.store_durability,
            ..RedisConfig::new(url)
        }
    }
}
