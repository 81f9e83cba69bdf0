//! The flags of a store that several processes share.

use std::path::PathBuf;

use clap::Args;

use crate::store::redis::config::{RedisConfig, StoreDurability, StoreUrl};

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
    /// What keeps the store's writes through crashes and failovers
    #[arg(
        long,
        env = "LIZMON_STORE_DURABILITY",
        value_name = "BY",
        default_value = "server",
        requires = "store"
    )]
    pub store_durability: StoreDurability,
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
            durability: self.store_durability,
            accepts_lossy: self.accept_lossy_store,
            ..RedisConfig::new(url)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long)]
        store: StoreUrl,
        #[command(flatten)]
        flags: StoreFlags,
    }

    #[test]
    fn what_keeps_writes_is_said_by_a_flag() {
        for (flags, expected) in [
            (&[][..], Some(StoreDurability::Server)),
            (
                &["--store-durability", "server"],
                Some(StoreDurability::Server),
            ),
            (
                &["--store-durability", "service"],
                Some(StoreDurability::Service),
            ),
            (&["--store-durability", "sync"], None),
        ] {
            let words = ["liz", "--store", "redis://r1"]
                .into_iter()
                .chain(flags.iter().copied());
            let cli = Cli::try_parse_from(words).ok();
            let files = || (PathBuf::new(), PathBuf::new());
            let found = cli.map(|cli| cli.flags.redis(cli.store, files()).durability);
            assert_eq!(found, expected, "{flags:?}");
        }
    }
}
