//! The flags of a store that several processes share.

use std::path::PathBuf;

use clap::Args;

use crate::store::redis::config::{RedisConfig, StoreUrl};

/// Where a shared store is, and how it is reached.
#[derive(Debug, Clone, Args)]
pub struct StoreFlags {
    /// CA certificates that the store's servers are verified against (PEM) [default: the system's]
    #[arg(long, env = "LIZMON_STORE_CA", value_name = "FILE", requires = "store")]
    pub store_ca: Option<PathBuf>,
    /// ACL user of the store [default: the server's default user]
    #[arg(long, env = "LIZMON_STORE_USER", value_name = "USER", requires_all = ["store", "store_password_file"])]
    pub store_user: Option<String>,
    /// File with the password of the store's user; read again for each connection
    #[arg(
        long,
        env = "LIZMON_STORE_PASSWORD_FILE",
        value_name = "FILE",
        requires = "store"
    )]
    pub store_password_file: Option<PathBuf>,
    /// Use a store that would lose acknowledged samples, with a warning in health and log
    #[arg(long, env = "LIZMON_ACCEPT_LOSSY_STORE", requires = "store")]
    pub accept_lossy_store: bool,
}

impl StoreFlags {
    /// The store at this URL. Over TLS, certificate and key are shown to a server that asks for
    /// them.
    pub fn redis(self, url: StoreUrl, certificate: (PathBuf, PathBuf)) -> RedisConfig {
        RedisConfig {
            client: url.is_tls.then_some(certificate),
            ca: self.store_ca,
            user: self.store_user,
            password_file: self.store_password_file,
            accepts_lossy: self.accept_lossy_store,
            ..RedisConfig::new(url)
        }
    }
}
