//! Flags and environment, parsed once into a typed configuration.

mod retention;
mod store;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use lizmon_daemon::args::{CommaList, Items, items};
use lizmon_enrol::CredentialFlags;
use lizmon_enrol::crls::CrlSource;
use lizmon_enrol::renewer::Chance;
use lizmon_mtls::TlsMin;
use lizmon_mtls::limits::{self, Limits};
use lizmon_mtls::proxies::{Network, Proxies, ProxyRole};
use lizmon_mtls::trust::TrustFiles;

use crate::alarms::AlarmsConfig;
use crate::body::BODY_TIMEOUT;
use crate::journal::GATHER_WINDOW;
use crate::store::HistoryRetention;
use crate::store::redis::config::{RedisConfig, StoreUrl};
use crate::summarize::HOST_SERIES_MAX;
use crate::watch::HIGH_WATER_PERCENT;

pub use self::retention::RetentionFlags;
pub use self::store::StoreFlags;

/// How long a token lives if `--token-ttl` does not say.
pub const TOKEN_TTL: Duration = Duration::from_secs(5 * 60);
/// How long a token key signs if `--token-key-days` does not say.
pub const TOKEN_KEY_DAYS: u32 = 30;
/// How long past its end a CRL is accepted.
pub const CRL_GRACE: Duration = Duration::from_secs(72 * 3600);

/// The receiver's flags.
#[derive(Debug, Clone, Args)]
pub struct ReceiverFlags {
    /// Address and port to listen on
    #[arg(
        long,
        env = "LIZMON_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8443"
    )]
    pub listen: SocketAddr,
    /// The certificate, and where it is renewed.
    #[command(flatten)]
    pub credentials: CredentialFlags,
    /// Current CRLs of root and issuing CA (PEM), as in certs/crl.pem
    #[arg(long, env = "LIZMON_CRL", value_name = "FILE")]
    pub crl: PathBuf,
    /// Data folder, used by one process at a time
    #[arg(long, env = "LIZMON_DATA", value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Keep samples in Redis or Valkey, shared with other receivers and summarizers:
    /// redis://HOST:PORT, or rediss:// for TLS; HOST:PORT,HOST:PORT for nodes of a cluster, with
    /// /MASTER for Sentinels and the name of their master [default: SQLite in the data folder]
    #[arg(long, env = "LIZMON_STORE", value_name = "URL")]
    pub store: Option<StoreUrl>,
    /// Replicas that must have a sample before it is acknowledged [default: 1 in a cluster, else 0]
    #[arg(
        long,
        env = "LIZMON_MIN_REPLICAS",
        value_name = "NUMBER",
        requires = "store"
    )]
    pub min_replicas: Option<u32>,
    /// Summarize a share of the store's shards, too: no liz-summarizer is needed
    #[arg(long, env = "LIZMON_SUMMARIZE", requires = "store")]
    pub summarize: bool,
    /// Refuse samples while a store's server uses more of its memory than this: percent of
    /// maxmemory, or of the machine's memory where that is 0
    #[arg(long, env = "LIZMON_STORE_HIGH_WATER", value_name = "PERCENT", default_value_t = HIGH_WATER_PERCENT, value_parser = clap::value_parser!(u8).range(10..=95), requires = "store")]
    pub store_high_water: u8,
    /// How a shared store is reached.
    #[command(flatten)]
    pub store_flags: StoreFlags,
    /// Alarm rules and where alarms are told (TOML), over those that are built in; read again when
    /// the file changes
    #[arg(long, env = "LIZMON_RULES", value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// How long the history is kept.
    #[command(flatten)]
    pub retention: RetentionFlags,
    /// Lifetime of a token
    #[arg(long, env = "LIZMON_TOKEN_TTL", value_name = "TIME", default_value = "5m", value_parser = positive_duration)]
    pub token_ttl: Duration,
    /// Days after which the key that signs tokens is replaced
    #[arg(long, env = "LIZMON_TOKEN_KEY_DAYS", value_name = "DAYS", default_value_t = TOKEN_KEY_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub token_key_days: u32,
    /// The tokens' issuer, an https URL without a path [default: https://FIRST-SAN:PORT]
    #[arg(long, env = "LIZMON_ISSUER", value_name = "URL", value_parser = issuer_url)]
    pub issuer: Option<String>,
    /// The tokens' audience [default: https://FIRST-SAN:PORT]
    #[arg(long, env = "LIZMON_AUDIENCE", value_name = "URL", value_parser = https_url)]
    pub audience: Option<String>,
    /// How long past its end a CRL is accepted; after that every request but health checks is
    /// refused
    #[arg(long, env = "LIZMON_CRL_GRACE", value_name = "TIME", default_value = "72h", value_parser = humantime::parse_duration)]
    pub crl_grace: Duration,
    /// Load balancers that pass TLS through: networks, or addresses, whose connections begin with a
    /// PROXY protocol header, version 1 or 2; connections from elsewhere begin without one
    #[arg(long, env = "LIZMON_PROXY_PROTOCOL", value_name = "CIDR", num_args = 1.., value_parser = Items(Network::from_str))]
    pub proxy_protocol: Vec<CommaList<Network>>,
    /// Serve clients of load balancers that end TLS: who has a certificate from `lizctl
    /// issue-proxy` names the client's certificate in Client-Cert (RFC 9440)
    #[arg(long, env = "LIZMON_TRUSTED_PROXY")]
    pub trusted_proxy: bool,
    /// The minimum TLS version: 1.2 or 1.3
    #[arg(long, env = "LIZMON_TLS_MIN", value_name = "VERSION", default_value_t)]
    pub tls_min: TlsMin,
    /// Maximum wait for more requests before a sync; a lone request never waits
    #[arg(long, env = "LIZMON_GATHER_WINDOW", value_name = "TIME", default_value = "2ms", value_parser = humantime::parse_duration)]
    pub gather_window: Duration,
    /// Maximum duration of a TLS handshake
    #[arg(long, env = "LIZMON_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = positive_duration)]
    pub handshake_timeout: Duration,
    /// Maximum wait for the head of a connection's first request
    #[arg(long, env = "LIZMON_FIRST_REQUEST_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = positive_duration)]
    pub first_request_timeout: Duration,
    /// Maximum wait for a request's body
    #[arg(long, env = "LIZMON_BODY_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = positive_duration)]
    pub body_timeout: Duration,
    /// Maximum time that a connection may be idle
    #[arg(long, env = "LIZMON_IDLE_TIMEOUT", value_name = "TIME", default_value = "120s", value_parser = positive_duration)]
    pub idle_timeout: Duration,
    /// Age after which a client is asked to connect again, so that receivers that were added get
    /// their share; a tenth more or less, so that not all come at once
    #[arg(long, env = "LIZMON_CONNECTION_AGE", value_name = "TIME", default_value = "1h", value_parser = positive_duration)]
    pub connection_age: Duration,
    /// Maximum number of connections from one address
    #[arg(long, env = "LIZMON_CONNECTIONS_PER_ADDRESS", value_name = "NUMBER", default_value_t = limits::CONNECTIONS_PER_ADDRESS_MAX)]
    pub connections_per_address: NonZeroUsize,
    /// Maximum number of connections of one certificate's holder; an eighth of the limit on open
    /// files, if that is less
    #[arg(long, env = "LIZMON_CONNECTIONS_PER_HOLDER", value_name = "NUMBER", default_value_t = limits::CONNECTIONS_PER_HOLDER_MAX)]
    pub connections_per_holder: NonZeroUsize,
    /// Maximum number of requests of one certificate's holder per second; bursts up to one second's
    /// allowance
    #[arg(long, env = "LIZMON_REQUESTS_PER_SECOND", value_name = "NUMBER", default_value_t = limits::REQUESTS_PER_SECOND_MAX)]
    pub requests_per_second: NonZeroU32,
    /// Maximum number of records of one certificate's holder per second, a record of more than four
    /// values counted once for each four; bursts up to two seconds' allowance, or 1,000,000
    #[arg(long, env = "LIZMON_RECORDS_PER_SECOND", value_name = "NUMBER", default_value_t = limits::RECORDS_PER_SECOND_MAX)]
    pub records_per_second: NonZeroU32,
    /// Maximum number of series of one host that come as points, by remote write or OTLP
    #[arg(long, env = "LIZMON_HOST_SERIES", value_name = "NUMBER", default_value_t = HOST_SERIES_MAX as u32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub host_series: u32,
}

impl ReceiverFlags {
    /// Where newer CRLs are fetched, if anywhere.
    pub fn crl_fetch(&self, chance: Chance) -> Option<CrlFetch> {
        let source = self.credentials.crl_source()?;
        Some(CrlFetch { source, chance })
    }
}

/// Where a receiver fetches CRLs.
#[derive(Clone)]
pub struct CrlFetch {
    /// The CA.
    pub source: CrlSource,
    /// Random numbers, so that receivers do not fetch at the same time.
    pub chance: Chance,
}

impl fmt::Debug for CrlFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CrlFetch").field(&self.source).finish()
    }
}

/// A store that is shared with other processes.
#[derive(Debug, Clone)]
pub struct SharedStoreConfig {
    /// Where it is.
    pub redis: RedisConfig,
    /// Whether this process summarizes a share of its shards.
    pub summarizes: bool,
    /// When a server is too full for more samples: percent of its memory.
    pub high_water: u8,
}

/// What a receiver is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files of the certificate, its key, the roots and the CRLs.
    pub trust: TrustFiles,
    /// Where newer CRLs are fetched; `None` if they come as files or are pushed.
    pub crl_fetch: Option<CrlFetch>,
    /// The data folder.
    pub data: PathBuf,
    /// The store that is shared with other processes; none for one in the data folder.
    pub shared: Option<SharedStoreConfig>,
    /// Alarm rules.
    pub alarms: AlarmsConfig,
    /// How long the history is kept.
    pub retention: HistoryRetention,
    /// Lifetime of a token.
    pub token_ttl: Duration,
    /// How long a key signs tokens.
    pub token_key_life: Duration,
    /// The tokens' issuer; `None` for the receiver's own name and port.
    pub issuer: Option<String>,
    /// The tokens' audience; `None` for the receiver's own name and port.
    pub audience: Option<String>,
    /// How long past its end a CRL is accepted.
    pub crl_grace: Duration,
    /// Maximum wait for more requests before a sync.
    pub gather_window: Duration,
    /// Maximum wait for a request's body.
    pub body_timeout: Duration,
    /// Most series of one host that come as points.
    pub host_series_max: usize,
    /// The oldest TLS version to accept.
    pub tls_min: TlsMin,
    /// Limits of connections and requests.
    pub limits: Limits,
    /// The load balancers in front of it.
    pub proxies: Proxies,
}

impl Config {
    /// A configuration with every default.
    pub fn new(trust: TrustFiles, data: PathBuf) -> Self {
        Self {
            trust,
            crl_fetch: None,
            data,
            shared: None,
            alarms: AlarmsConfig::default(),
            retention: HistoryRetention::default(),
            token_ttl: TOKEN_TTL,
            token_key_life: days(TOKEN_KEY_DAYS),
            issuer: None,
            audience: None,
            crl_grace: CRL_GRACE,
            gather_window: GATHER_WINDOW,
            body_timeout: BODY_TIMEOUT,
            host_series_max: HOST_SERIES_MAX,
            tls_min: TlsMin::default(),
            limits: Limits::default(),
            proxies: Proxies::default(),
        }
    }
}

impl From<ReceiverFlags> for Config {
    /// All but [`ReceiverFlags::crl_fetch`], which needs random numbers.
    fn from(flags: ReceiverFlags) -> Self {
        let certificate = (
            flags.credentials.cert.clone(),
            flags.credentials.key.clone(),
        );
        let (store_flags, replicas_min) = (flags.store_flags, flags.min_replicas);
        let shared = flags.store.map(|url| SharedStoreConfig {
            redis: RedisConfig {
                replicas_min,
                ..store_flags.redis(url, certificate)
            },
            summarizes: flags.summarize,
            high_water: flags.store_high_water,
        });
        Self {
            shared,
            trust: TrustFiles {
                cert: flags.credentials.cert,
                key: flags.credentials.key,
                ca: flags.credentials.ca,
                crl: flags.crl,
            },
            crl_fetch: None,
            data: flags.data,
            alarms: AlarmsConfig {
                rules: flags.rules,
                ..AlarmsConfig::default()
            },
            retention: flags.retention.into(),
            token_ttl: flags.token_ttl,
            token_key_life: days(flags.token_key_days),
            issuer: flags.issuer,
            audience: flags.audience,
            crl_grace: flags.crl_grace,
            gather_window: flags.gather_window,
            body_timeout: flags.body_timeout,
            host_series_max: flags.host_series as usize,
            tls_min: flags.tls_min,
            proxies: Proxies {
                protocol_from: items(flags.proxy_protocol),
                role: match flags.trusted_proxy {
                    true => ProxyRole::Trusted,
                    false => ProxyRole::Refused,
                },
            },
            limits: Limits {
                handshake_timeout: flags.handshake_timeout,
                first_request_timeout: flags.first_request_timeout,
                idle_timeout: flags.idle_timeout,
                connection_age: flags.connection_age,
                connections_per_address_max: flags.connections_per_address.get(),
                connections_per_holder_max: flags.connections_per_holder.get(),
                requests_per_second_max: flags.requests_per_second,
                records_per_second_max: flags.records_per_second,
                ..Limits::default()
            },
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 30s or 5m"))?;
    if duration.is_zero() {
        Err("must be more than zero".to_owned())
    } else {
        Ok(duration)
    }
}

/// Without a path: RFC 8414 section 3 has clients look for the metadata of https://HOST/PATH below
/// /.well-known/, and this receiver serves metadata and token endpoint at the root of its host.
fn issuer_url(text: &str) -> Result<String, String> {
    let url = https_url(text)?;
    match url.strip_prefix("https://") {
        Some(host) if host.contains('/') => Err(
            "must be https://HOST[:PORT] without a path: a receiver serves from the root"
                .to_owned(),
        ),
        _ => Ok(url),
    }
}

/// RFC 8414 section 2: an issuer is an https URL without query or fragment.
fn https_url(text: &str) -> Result<String, String> {
    let uri: http::Uri = text
        .parse()
        .map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("https")
        || uri.authority().is_none()
        || uri.query().is_some()
        || text.contains(['#', '@'])
    {
        return Err("must be https://HOST[:PORT][/PATH] without query or fragment".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_and_audiences() {
        let check = |text: &str, issuer: Option<&str>, audience: Option<&str>| {
            assert_eq!(issuer_url(text).ok().as_deref(), issuer, "{text}");
            assert_eq!(https_url(text).ok().as_deref(), audience, "{text}");
        };
        for (text, url) in [
            ("https://rx1.example", "https://rx1.example"),
            ("https://rx1.example/", "https://rx1.example"),
            ("https://192.0.2.7:8443", "https://192.0.2.7:8443"),
            ("https://[::1]:8443/", "https://[::1]:8443"),
        ] {
            check(text, Some(url), Some(url));
        }
        let with_path = "https://rx1.example/lizmon";
        check(with_path, None, Some(with_path));
        for text in [
            "",
            "rx1.example",
            "http://rx1.example",
            "https://",
            "https://rx1.example?x",
            "https://rx1.example/?",
            "https://rx1.example#x",
            "https://ada@rx1.example",
        ] {
            check(text, None, None);
        }
    }
}
