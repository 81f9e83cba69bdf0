//! Flags and environment variables, and the configuration that they make.

mod collect;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::TypedValueParser;
use lizmon_client::{BaseUrl, BaseUrlError, Credentials};
use lizmon_daemon::args::{CommaList, Items, items};
use lizmon_enrol::CredentialFlags;
use lizmon_enrol::crls::ServerCrlRefresher;
use lizmon_enrol::renewer::{Chance, Now};
use lizmon_pki::server_crls::ServerCrls;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::route;

pub use self::collect::CollectFlags;
use crate::collect::{CollectOptions, CollectorSpec};
use crate::spool::{AGE_SECS_MAX, DISK_BYTES_MAX};

/// The longest interval: with more than an hour, a window by minute would have only gaps.
const INTERVAL_SECS_MAX: i64 = 3600;
/// A terabyte: a greater number was meant in another unit.
const SPOOL_MIB_MAX: i64 = 1 << 20;
/// [`KEEP_SECS`](crate::spool::KEEP_SECS), as the help shows it.
const KEEP_ACKNOWLEDGED: &str = "10m";
/// Kept for longer, a record would be of no use.
const KEEP_ACKNOWLEDGED_MAX: Duration = Duration::from_secs(AGE_SECS_MAX);

/// The flags of `liz-monitor`. Each has an environment variable; the flag takes precedence.
#[derive(Debug, Clone, Args)]
pub struct MonitorFlags {
    /// The name of this host: the one in its certificate
    #[arg(long, env = "LIZMON_THIS_HOST", value_name = "NAME")]
    pub this_host: NodeName,
    /// The receivers to publish to: https://HOST:8443/api/perf [several are joined by commas in the
    /// environment]
    #[arg(
        long,
        env = "LIZMON_PUBLISH",
        value_name = "URL",
        required = true,
        num_args = 1..,
        value_parser = Items(PublishUrl::from_str)
    )]
    pub publish: Vec<CommaList<PublishUrl>>,
    /// The certificate, and where it is renewed.
    #[command(flatten)]
    pub credentials: CredentialFlags,
    /// Seconds from one sample to the next; each is sent at the moment within its second that the
    /// host's name gives, so that a fleet does not send at once
    #[arg(
        long,
        env = "LIZMON_INTERVAL",
        value_name = "SECONDS",
        default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=INTERVAL_SECS_MAX).try_map(NonZeroU32::try_from)
    )]
    pub interval: NonZeroU32,
    /// What to measure.
    #[command(flatten)]
    pub collect: CollectFlags,
    /// Folder for records that are not delivered yet, so that they survive a restart; without it
    /// they wait in memory
    #[arg(long, env = "LIZMON_SPOOL", value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Maximum size of the records in --spool, in MiB; beyond it the oldest are dropped
    #[arg(
        long,
        env = "LIZMON_SPOOL_MIB",
        value_name = "MIB",
        default_value_t = (DISK_BYTES_MAX >> 20) as u32,
        value_parser = clap::value_parser!(u32).range(1..=SPOOL_MIB_MAX)
    )]
    pub spool_mib: u32,
    /// How long records are kept after every receiver has acknowledged them, so that one that loses
    /// them gets them again; 0s keeps none. They take at most a quarter of the spool, and none of
    /// the space that others need
    #[arg(
        long,
        env = "LIZMON_KEEP_ACKNOWLEDGED",
        value_name = "TIME",
        default_value = KEEP_ACKNOWLEDGED,
        value_parser = keep_acknowledged
    )]
    pub keep_acknowledged: Duration,
}

/// Parses it: whole seconds, or none at all.
fn keep_acknowledged(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match duration.subsec_nanos() == 0 && duration <= KEEP_ACKNOWLEDGED_MAX {
        true => Ok(duration),
        false => Err(format!(
            "whole seconds, up to {}: no receiver accepts older records",
            humantime::format_duration(KEEP_ACKNOWLEDGED_MAX)
        )),
    }
}

impl MonitorFlags {
    /// What fetches these CRLs, if the address of `liz-ca` is known.
    pub fn crl_refresher(
        &self,
        server_crls: ServerCrls,
        clock: Now,
        chance: Chance,
    ) -> Option<ServerCrlRefresher> {
        let source = self.credentials.crl_source()?;
        Some(ServerCrlRefresher {
            source,
            crls: server_crls,
            clock,
            chance,
        })
    }
}

/// The configuration of an agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this host.
    pub host: NodeName,
    /// Where to publish.
    pub publish: Vec<PublishUrl>,
    /// Our certificate and key, and the CA that we trust.
    pub credentials: Credentials,
    /// CRLs that the receivers' certificates are checked against; empty if none are fetched.
    pub server_crls: ServerCrls,
    /// Seconds from one sample to the next.
    pub interval: NonZeroU32,
    /// What to measure.
    pub collect: Vec<&'static CollectorSpec>,
    /// Which disks, interfaces and the like.
    pub collect_options: CollectOptions,
    /// What is kept, and where.
    pub spool: SpoolConfig,
}

/// What is kept of records, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The folder for records that are not delivered yet; in memory without one.
    pub folder: Option<PathBuf>,
    /// Most bytes of records in that folder.
    pub bytes_max: u64,
    /// How long acknowledged records are kept; zero if they are not. Whole seconds count.
    pub keep_acknowledged: Duration,
}

impl From<MonitorFlags> for Config {
    /// Duplicates are removed.
    fn from(flags: MonitorFlags) -> Self {
        let (collect, collect_options) = flags.collect.choose();
        let mut publish: Vec<PublishUrl> = Vec::new();
        for url in items(flags.publish) {
            if !publish.contains(&url) {
                publish.push(url);
            }
        }
        Self {
            host: flags.this_host,
            publish,
            credentials: flags.credentials.credentials(),
            server_crls: ServerCrls::default(),
            interval: flags.interval,
            collect,
            collect_options,
            spool: SpoolConfig {
                folder: flags.spool,
                bytes_max: u64::from(flags.spool_mib) << 20,
                keep_acknowledged: flags.keep_acknowledged,
            },
        }
    }
}

/// `https://HOST:PORT/api/perf`: the URL of a receiver, as in the first lizmon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishUrl {
    base: BaseUrl,
}

/// Text that is not the URL of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishUrlError {
    /// It is not an https URL.
    #[error("{error}: type {suggestion}")]
    Url {
        /// What is wrong with it.
        error: BaseUrlError,
        /// What was probably meant.
        suggestion: String,
    },
    /// It has several URLs, or a typing error.
    #[error("`{0}` has a space in it: several receivers are joined by commas, or given one by one")]
    Space(String),
    /// It does not end in the route.
    #[error("it does not end in {}: type {suggestion}", route::PERF)]
    Route {
        /// What was probably meant.
        suggestion: String,
    },
}

impl PublishUrl {
    /// The receiver at this place.
    pub fn new(base: BaseUrl) -> Self {
        Self { base }
    }

    /// Where the receiver is.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }
}

impl FromStr for PublishUrl {
    type Err = PublishUrlError;

    fn from_str(text: &str) -> Result<Self, PublishUrlError> {
        let text = text.trim();
        if text.contains(char::is_whitespace) {
            return Err(PublishUrlError::Space(text.escape_debug().to_string()));
        }
        let bare = text.trim_end_matches('/');
        let (base, has_route) = match bare.strip_suffix(route::PERF) {
            Some(base) => (base, true),
            None => (bare, false),
        };
        let suggest = |base: &str| {
            let place = base.split("://").last().unwrap_or(base);
            let place = place.split(['/', '?', '#']).next().unwrap_or(place);
            let place = if place.is_empty() { "HOST:8443" } else { place };
            format!("https://{}{}", place.escape_debug(), route::PERF)
        };
        match base.parse() {
            Ok(base) if has_route => Ok(Self { base }),
            Ok(_) => Err(PublishUrlError::Route {
                suggestion: suggest(base),
            }),
            Err(error) => Err(PublishUrlError::Url {
                error,
                suggestion: suggest(base),
            }),
        }
    }
}

impl fmt::Display for PublishUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.base, route::PERF)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::collect::DEFAULT_COLLECTORS;
    use crate::spool::KEEP_SECS;

    #[test]
    fn publish_urls() {
        let cases = [
            ("https://r1:8443/api/perf", Ok("https://r1:8443/api/perf")),
            ("https://r1:8443/api/perf/", Ok("https://r1:8443/api/perf")),
            (
                "https://[::1]:8443/api/perf",
                Ok("https://[::1]:8443/api/perf"),
            ),
            (
                " https://r1:8443/api/perf\n",
                Ok("https://r1:8443/api/perf"),
            ),
            (
                "https://r1:8443/api/perf https://r2:8443/api/perf",
                Err(
                    "has a space in it: several receivers are joined by commas, or given one by one",
                ),
            ),
            ("https://r1:8443", Err("type https://r1:8443/api/perf")),
            ("https://r1:8443/", Err("type https://r1:8443/api/perf")),
            (
                "https://r1:8443/api/perf/web1",
                Err("type https://r1:8443/api/perf"),
            ),
            (
                "http://r1:8443/api/perf",
                Err("type https://r1:8443/api/perf"),
            ),
            ("r1:8443", Err("type https://r1:8443/api/perf")),
            ("r1", Err("type https://r1/api/perf")),
            ("", Err("type https://HOST:8443/api/perf")),
            ("/api/perf", Err("type https://HOST:8443/api/perf")),
            (
                "https://r1:8443/?x/api/perf",
                Err("type https://r1:8443/api/perf"),
            ),
        ];
        for (text, expected) in cases {
            match (text.parse::<PublishUrl>(), expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url.to_string(), expected),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().ends_with(part), "{text}: {error}");
                }
                (got, expected) => panic!("{text}: got {got:?}, expected {expected:?}"),
            }
        }
    }

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        flags: MonitorFlags,
    }

    fn parse(more: &[&str]) -> Result<Config, String> {
        let needed = [
            "m",
            "--this-host",
            "web1",
            "--cert",
            "c",
            "--key",
            "k",
            "--ca",
            "a",
        ];
        Program::try_parse_from(needed.iter().chain(more))
            .map(|program| program.flags.into())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn several_receivers_each_once() {
        let [one, two] = ["https://a:1/api/perf", "https://b:2/api/perf"];
        let cases: [(&[&str], &[&str]); 4] = [
            (&["--publish", one], &[one]),
            (&["--publish", one, two], &[one, two]),
            (&["--publish", one, "--publish", two], &[one, two]),
            (&["--publish", one, two, one], &[one, two]),
        ];
        for (flags, expected) in cases {
            let config = parse(flags).unwrap();
            let urls: Vec<_> = config.publish.iter().map(ToString::to_string).collect();
            assert_eq!(urls, expected);
            assert_eq!(config.collect, DEFAULT_COLLECTORS);
            assert_eq!(config.interval.get(), 1);
            let spool = SpoolConfig {
                folder: None,
                bytes_max: 64 << 20,
                keep_acknowledged: Duration::from_secs(KEEP_SECS),
            };
            assert_eq!(config.spool, spool);
        }
    }

    #[test]
    fn how_long_acknowledged_records_are_kept() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let url = "https://a:1/api/perf";
            let parsed = parse(&["--publish", url, "--keep-acknowledged", text]);
            let secs = parsed.map(|config| config.spool.keep_acknowledged.as_secs());
            match (secs, expected) {
                (Ok(secs), Ok(expected)) => assert_eq!(secs, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
            }
        };
        for (text, secs) in [("0s", 0), ("1s", 1), ("10m", 600), ("25h", 90_000)] {
            check(text, Ok(secs));
        }
        check("25h 1s", Err("up to 1day 1h"));
        check("500ms", Err("whole seconds"));
        check("10", Err("time unit needed"));
        check("soon", Err("--keep-acknowledged"));
        check("", Err("--keep-acknowledged"));
    }

    #[test]
    fn bad_flags_are_refused() {
        let url = "https://a:1/api/perf";
        let cases: [(&[&str], &str); 6] = [
            (&[], "--publish"),
            (&["--publish", "https://a:1"], "type https://a:1/api/perf"),
            (
                &["--publish", url, "--interval", "0"],
                "0 is not in 1..=3600",
            ),
            (&["--publish", url, "--interval", "3601"], "not in 1..=3600"),
            (&["--publish", url, "--collect", "gpu"], "gpu"),
            (&["--publish", url, "--spool-mib", "0"], "0 is not in 1..="),
        ];
        for (flags, part) in cases {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(part), "{flags:?}: {error}");
        }
    }
}
