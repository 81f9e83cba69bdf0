//! Where the server is, and how it is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

/// The port of Redis and Valkey.
const PORT: u16 = 6379;
/// The port of Sentinel.
const SENTINEL_PORT: u16 = 26379;

/// A store on Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// The servers.
    pub url: StoreUrl,
    /// The CA certificates that servers are verified against (PEM); none for those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key (PEM) that are shown to a server that asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The ACL user; none for the server's default user.
    pub user: Option<String>,
    /// The file that holds the user's password. It is read again for every connection.
    pub password_file: Option<PathBuf>,
    /// How many replicas must have a group before it is acknowledged.
    pub replicas_min: Option<u32>,
    /// What keeps the servers' writes.
    pub durability: StoreDurability,
    /// Whether to use a server that would lose what was acknowledged.
    pub accepts_lossy: bool,
}

impl RedisConfig {
    /// That of these servers, with every default.
    pub fn new(url: StoreUrl) -> Self {
        Self {
            url,
            ca: None,
            client: None,
            user: None,
            password_file: None,
            replicas_min: None,
            durability: StoreDurability::Server,
            accepts_lossy: false,
        }
    }
}

/// What keeps the writes of a store's servers through their crashes and failovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreDurability {
    /// The servers' own append-only files, as they say themselves
    Server,
    /// The service that runs the servers, which say nothing of it: ElastiCache with durability sync
    Service,
}

/// `redis://HOST[:PORT][,HOST[:PORT]…][/MASTER]`, or `rediss://…` for TLS.
///
/// Any nodes of a cluster, one server, or with the name of their master the Sentinels. Which of
/// these it is, the servers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// Whether connections use TLS.
    pub is_tls: bool,
    /// The servers to ask first.
    pub hosts: Vec<Address>,
    /// The name that Sentinel monitors the master by.
    pub master: Option<String>,
}

/// A server's host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_tls { "rediss://" } else { "redis://" })?;
        for (at, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if at == 0 { "" } else { "," })?;
        }
        match &self.master {
            Some(master) => write!(f, "/{master}"),
            None => Ok(()),
        }
    }
}

/// Why a text is no URL of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Another scheme, or none.
    #[error("must be redis://HOST[:PORT][,HOST[:PORT]…][/MASTER], or rediss://… for TLS")]
    Scheme,
    /// A user or a password, which everybody could read who lists the processes.
    #[error(
        "must not hold a user or password: give them by --store-user and --store-password-file"
    )]
    Credentials,
    /// A host without a name, or a bad port.
    #[error("`{0}` is not HOST or HOST:PORT")]
    Host(String),
    /// What follows the hosts is no name that Sentinel could know.
    #[error(
        "`{0}` after the hosts is not the name of a master that Sentinel monitors; databases are not chosen by number: leave it out"
    )]
    Master(String),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => return Err(StoreUrlError::Scheme),
        };
        if rest.contains('@') {
            return Err(StoreUrlError::Credentials);
        }
        let (hosts, master) = rest.split_once('/').unwrap_or((rest, ""));
        let master = match master {
            "" => None,
            name if is_master_name(name) => Some(name.to_owned()),
            name => return Err(StoreUrlError::Master(name.to_owned())),
        };
        let port = if master.is_some() {
            SENTINEL_PORT
        } else {
            PORT
        };
        let hosts: Result<Vec<_>, _> = hosts.split(',').map(|host| address(host, port)).collect();
        Ok(Self {
            is_tls,
            hosts: hosts?,
            master,
        })
    }
}

/// Sentinel takes letters, digits and `.-_`. A number alone is what other clients take for a
/// database.
fn is_master_name(name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    name.bytes().all(is_name) && !name.bytes().all(|byte| byte.is_ascii_digit())
}

fn address(text: &str, default_port: u16) -> Result<Address, StoreUrlError> {
    let error = || StoreUrlError::Host(text.to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(error)?;
            let _an_address: std::net::Ipv6Addr = host.parse().map_err(|_| error())?;
            (host, port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0),
        None if port.is_empty() => Some(default_port),
        None => None,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(error());
    }
    Ok(Address {
        host: host.to_owned(),
        port: port.ok_or_else(error)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Result<&str, StoreUrlError>| {
            let parsed = text.parse::<StoreUrl>().map(|url| url.to_string());
            assert_eq!(parsed.as_deref(), expected.as_deref(), "{text}");
        };
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("rediss://r1.example:6380/", "rediss://r1.example:6380"),
            (
                "redis://10.0.0.1,[::1]:7000",
                "redis://10.0.0.1:6379,[::1]:7000",
            ),
            (
                "redis://s1,s2:5000/mymaster",
                "redis://s1:26379,s2:5000/mymaster",
            ),
        ] {
            check(text, Ok(shown));
        }
        for (text, error) in [
            ("", StoreUrlError::Scheme),
            ("localhost:6379", StoreUrlError::Scheme),
            ("http://localhost", StoreUrlError::Scheme),
            ("redis://:secret@localhost", StoreUrlError::Credentials),
            ("redis://localhost/0", StoreUrlError::Master("0".to_owned())),
            (
                "redis://localhost/a b",
                StoreUrlError::Master("a b".to_owned()),
            ),
            ("redis://", StoreUrlError::Host(String::new())),
            ("redis://a,", StoreUrlError::Host(String::new())),
            ("redis://a:0", StoreUrlError::Host("a:0".to_owned())),
            ("redis://a:b", StoreUrlError::Host("a:b".to_owned())),
            ("redis://[::1", StoreUrlError::Host("[::1".to_owned())),
            ("redis://[a]:1", StoreUrlError::Host("[a]:1".to_owned())),
            ("redis://a?x", StoreUrlError::Host("a?x".to_owned())),
        ] {
            check(text, Err(error));
        }
    }
}
