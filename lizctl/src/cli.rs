//! Every flag of every verb, and nothing else: a verb's file gets its arguments parsed.
//!
//! Every flag has an environment twin `LIZMON_…`; what is typed wins.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lizmon_ca::key::KeyAlg;
use lizmon_ca::profile::{DAY_SECS, LEAF_LIFETIME_SECS, San};
use lizmon_daemon::LogFlags;
use lizmon_daemon::args::{self, Items};
use lizmon_protocol::name::{DEFAULT_TRUST_DOMAIN, NodeName, TrustDomain};

use crate::connect::AskedReceivers;
use crate::secret::Keys;
use crate::{ask, audit, backup, enrol, log, p12, push, revoke, rotate, shell, up};

/// What every verb is given beside its own flags.
pub(crate) struct Context {
    /// The folder of certificates, keys and the ledger.
    pub(crate) certs: PathBuf,
    /// How the CA's keys are come by.
    pub(crate) keys: Keys,
    /// Seconds since 1970 UTC.
    pub(crate) clock: fn() -> u64,
    /// The same with all its fractions, for what is measured.
    pub(crate) stopwatch: fn() -> Duration,
}

#[derive(Debug, Parser)]
#[command(
    name = "lizctl",
    version,
    about = "Mint the certificates of a fleet, ask its receiver, run it all on one machine",
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 refused by the server; 4 the server cannot be reached.
Every flag has an environment twin: --trust-domain is LIZMON_TRUST_DOMAIN.";

/// Flags that stand before or after any verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Folder of certificates, keys and the ledger
    #[arg(
        long,
        global = true,
        env = "LIZMON_CERTS",
        value_name = "DIR",
        default_value = "certs"
    )]
    pub(crate) certs: PathBuf,
    #[command(flatten)]
    pub(crate) log: LogFlags,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

/// The verbs: a variant here, its arguments below, a line in `main.rs`, a function in its family's file.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a CA: root, issuing CA, revocation lists, ledger
    #[command(after_help = "Example: lizctl init-ca --trust-domain metrics.example")]
    InitCa(InitCa),
    /// Issue certificates for hosts that report about themselves
    #[command(
        after_help = "Examples:\n  lizctl issue-node web1 web2\n  lizctl issue-node --from hosts.txt --days 30\n  \
                      lizctl issue-node web1 --csr web1.csr"
    )]
    IssueNode(IssueNode),
    /// Issue the certificate of a receiver, a server
    #[command(
        after_help = "Example: lizctl issue-receiver metrics --san metrics.example --san 10.0.0.5"
    )]
    IssueReceiver(IssueReceiver),
    /// Issue the certificate of someone who reads summaries
    #[command(
        after_help = "Examples:\n  lizctl issue-reader alice\n  lizctl issue-reader alice --p12 alice.p12"
    )]
    IssueReader(IssueReader),
    /// Issue the certificate of someone who reads, and changes what receivers trust
    #[command(after_help = "Example: lizctl issue-operator alice --hours 12")]
    IssueOperator(IssueOne),
    /// Make a token with which a machine can join by itself, once; it is printed alone
    #[command(after_help = "Example: lizctl join-token web1 --ca-url https://ca.example:8444")]
    JoinToken(enrol::JoinToken),
    /// Join a fleet: make a key, and get this machine's certificate from liz-ca by a token
    #[command(
        after_help = "Example: lizctl join https://ca.example:8444 --token TOKEN --ca-fingerprint HEX --out certs\n\n\
                      Nothing is trusted before the root's fingerprint fits, and the token is sent to no other CA.\n\
                      Where the answer was lost, the same command goes on with the same key."
    )]
    Join(enrol::Join),
    /// Renew a certificate now, with a new key; liz-monitor and liz-receiver do it by themselves with --ca-url
    #[command(
        after_help = "Example: lizctl renew --ca-url https://ca.example:8444 --cert certs/web1.crt --key certs/web1.key \\\n    \
                      --ca certs/root.crt"
    )]
    Renew(enrol::Renew),
    /// List every certificate that was issued
    #[command(
        after_help = "Examples:\n  lizctl list\n  lizctl list --newest\n  lizctl list --expiring 7d --json"
    )]
    List(List),
    /// End all certificates of a holder, or one, and tell receivers
    #[command(
        after_help = "Examples:\n  lizctl revoke web1 --reason key-compromise\n  \
                      lizctl revoke alice --role reader --receiver https://r1:8443 --receiver https://r2:8443 \\\n    \
                      --cert certs/operators/olga.crt --key certs/operators/olga.key --ca certs/root.crt\n  \
                      lizctl revoke --serial 5f0e6a0c7a3b4c5d8e9f00112233aabb"
    )]
    Revoke(revoke::Revoke),
    /// Sign the revocation lists anew, and tell receivers
    #[command(
        after_help = "Example, from cron:\n  lizctl sign-crl --passphrase-file /etc/lizmon/passphrase --receiver https://r1:8443 \\\n    \
                      --cert certs/operators/olga.crt --key certs/operators/olga.key --ca certs/root.crt"
    )]
    SignCrl(revoke::SignCrl),
    /// Copy the CA into a new folder, from which `restore` brings it back
    #[command(after_help = "Example: lizctl backup /media/stick/lizmon-2027-01-31")]
    Backup(backup::Backup),
    /// Put a backup in the place of the CA; what was there is kept aside
    #[command(after_help = "Example: lizctl restore /media/stick/lizmon-2027-01-31")]
    Restore(backup::Restore),
    /// Replace the issuing CA or the root: publish a new one, use it, retire the old one
    #[command(
        after_help = "Examples:\n  lizctl rotate issuing --status\n  lizctl rotate issuing --next\n  lizctl rotate root --next --offline-root /media/stick\n  \
                      lizctl rotate root --back"
    )]
    Rotate(rotate::Rotate),
    /// Show the CA's audit log: who did what, and when
    #[command(after_help = "Example: lizctl audit-log --json")]
    AuditLog(log::AuditLog),
    /// Check that no line of the CA's audit log was changed, taken out or cut off
    #[command(
        after_help = "Example: lizctl verify-audit --head 42:9f86d0…, as an earlier run printed it"
    )]
    VerifyAudit(log::VerifyAudit),
    /// Show what a certificate, key, revocation list or signing request says
    #[command(after_help = "Example: lizctl inspect certs/nodes/web1.crt")]
    Inspect(OneFile),
    /// Judge a certificate file as a receiver would, by root.crt and crl.pem of --certs
    #[command(after_help = "Example: lizctl verify certs/nodes/web1.crt")]
    Verify(OneFile),
    /// Get a token from a receiver and print it alone
    #[command(
        after_help = "Example: curl … -H \"Authorization: Bearer $(lizctl token)\" https://HOST:8443/api/perf\n\
                      with LIZMON_RECEIVER, LIZMON_CERT, LIZMON_KEY and LIZMON_CA set"
    )]
    Token(ask::Token),
    /// Show the summaries of a host
    #[command(
        after_help = "Examples, with LIZMON_RECEIVER, LIZMON_CERT, LIZMON_KEY and LIZMON_CA set:\n  \
                      lizctl query web1\n  lizctl query web1 by-minute:cpu --output chart --watch 2s\n  \
                      lizctl query web1 --output json"
    )]
    Query(ask::Query),
    /// List the hosts that report to a receiver
    #[command(after_help = "Example: lizctl hosts --json")]
    Hosts(ask::Hosts),
    /// Tell what arrived of a host's records, and whether any is lost
    #[command(after_help = "Example: lizctl audit web1 --wait 10s\n\n\
                      Exit code 1 where a record is missing: its number has not arrived, a higher one has, and its\n\
                      producer has not given it up. It is lost, or still on the way. What is above the highest\n\
                      number that arrived, no receiver knows.")]
    Audit(audit::Audit),
    /// Send one sample of a host, as that host
    #[command(
        after_help = "Example, with LIZMON_RECEIVER, LIZMON_CERT, LIZMON_KEY and LIZMON_CA set:\n  \
                      lizctl push web1 cpu=4.98 mem=61.2"
    )]
    Push(push::Push),
    /// Run all of it on this machine: CA, certificates, receiver, monitor, live view
    #[command(
        after_help = "Examples:\n  lizctl up\n  lizctl up --for 20s --listen 127.0.0.1:9443 --data /tmp/data\n  lizctl up --this-host web1"
    )]
    Up(up::Up),
    /// Print the script that completes lizctl's verbs and flags in a shell
    #[command(
        after_help = "Example: lizctl completions bash > ~/.local/share/bash-completion/completions/lizctl"
    )]
    Completions(shell::Completions),
    /// Write manual pages, one a verb
    #[command(after_help = "Example: lizctl man ~/.local/share/man/man1")]
    Man(shell::Man),
}

#[derive(Debug, Args)]
pub(crate) struct InitCa {
    /// Below which all identities live: spiffe://DOMAIN/ROLE/NAME
    #[arg(long, env = "LIZMON_TRUST_DOMAIN", value_name = "DOMAIN", default_value = DEFAULT_TRUST_DOMAIN)]
    pub(crate) trust_domain: TrustDomain,
    /// Encrypt the CA's keys with a passphrase that is asked for; --passphrase-file alone does it too
    #[arg(long, env = "LIZMON_ENCRYPT", value_parser = FalseyValueParser::new())]
    pub(crate) encrypt: bool,
    /// Write the root's key into this folder, which can be taken away, and not into --certs
    #[arg(long, env = "LIZMON_OFFLINE_ROOT", value_name = "DIR")]
    pub(crate) offline_root: Option<PathBuf>,
    /// How long the root lives
    #[arg(long, env = "LIZMON_ROOT_DAYS", value_name = "DAYS", default_value = "3650", value_parser = days())]
    pub(crate) root_days: u32,
    /// How long the issuing CA lives; never longer than the root
    #[arg(long, env = "LIZMON_ISSUING_DAYS", value_name = "DAYS", default_value = "365", value_parser = days())]
    pub(crate) issuing_days: u32,
    /// How long the revocation lists live [default: 30]; longer, where no liz-ca and no cron is there to sign them
    #[arg(long, env = "LIZMON_CRL_DAYS", value_name = "DAYS", value_parser = days())]
    pub(crate) crl_days: Option<u32>,
    /// Kind of the CA's keys: p256 or ed25519
    #[arg(
        long,
        env = "LIZMON_KEY_ALG",
        value_name = "ALG",
        default_value = "p256"
    )]
    pub(crate) key_alg: KeyAlg,
}

#[derive(Debug, Args)]
pub(crate) struct IssueNode {
    /// Names of hosts
    #[arg(value_name = "NAME", required_unless_present = "from")]
    pub(crate) names: Vec<NodeName>,
    /// A file with one name a line, # starts a comment; - is stdin
    #[arg(long, env = "LIZMON_FROM", value_name = "FILE", conflicts_with = "csr")]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) leaf: Leaf,
}

#[derive(Debug, Args)]
pub(crate) struct IssueReceiver {
    /// Its name in the fleet
    pub(crate) name: NodeName,
    /// A DNS name or IP address under which clients reach it
    #[arg(long = "san", env = "LIZMON_SAN", value_name = "DNS-OR-IP", required = true, num_args = 1.., value_parser = Items(San::from_str))]
    pub(crate) sans: Vec<args::List<San>>,
    #[command(flatten)]
    pub(crate) leaf: Leaf,
}

#[derive(Debug, Args)]
pub(crate) struct IssueOne {
    /// Whose it is
    pub(crate) name: NodeName,
    #[command(flatten)]
    pub(crate) leaf: Leaf,
}

#[derive(Debug, Args)]
pub(crate) struct IssueReader {
    #[command(flatten)]
    pub(crate) one: IssueOne,
    #[command(flatten)]
    pub(crate) p12: p12::P12,
}

/// What every kind of leaf may be given.
#[derive(Debug, Args)]
pub(crate) struct Leaf {
    /// How long it lives [default: 90 days]
    #[arg(long, env = "LIZMON_DAYS", value_name = "N", value_parser = days(), conflicts_with = "hours")]
    days: Option<u32>,
    /// How long it lives, in hours
    #[arg(long, env = "LIZMON_HOURS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX * 24))]
    hours: Option<u32>,
    /// A signing request (PEM or DER) whose key is certified; no key is made
    #[arg(
        long,
        env = "LIZMON_CSR",
        value_name = "FILE",
        conflicts_with = "key_alg"
    )]
    pub(crate) csr: Option<PathBuf>,
    /// Kind of key: p256 or ed25519 [default: p256]
    #[arg(long, env = "LIZMON_KEY_ALG", value_name = "ALG")]
    pub(crate) key_alg: Option<KeyAlg>,
}

impl Leaf {
    pub(crate) fn lifetime(&self) -> Duration {
        let secs = match (self.days, self.hours) {
            (Some(days), _) => u64::from(days) * DAY_SECS,
            (None, Some(hours)) => u64::from(hours) * 3600,
            (None, None) => LEAF_LIFETIME_SECS,
        };
        Duration::from_secs(secs)
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only holders whose newest certificate ends within this time, or has ended, and was not renewed in time
    #[arg(long, env = "LIZMON_EXPIRING", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) expiring: Option<Duration>,
    /// Only what was revoked
    #[arg(long, env = "LIZMON_REVOKED", value_parser = FalseyValueParser::new(), conflicts_with = "expiring")]
    pub(crate) revoked: bool,
    /// Of each holder only the newest certificate
    #[arg(long, env = "LIZMON_NEWEST", value_parser = FalseyValueParser::new(), conflicts_with = "expiring")]
    pub(crate) newest: bool,
    #[command(flatten)]
    pub(crate) json: Json,
    #[command(flatten)]
    pub(crate) receivers: AskedReceivers,
}

#[derive(Debug, Args)]
pub(crate) struct OneFile {
    /// PEM or DER
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Json {
    /// Print JSON for programs
    #[arg(long = "json", env = "LIZMON_JSON", value_parser = FalseyValueParser::new())]
    on: bool,
    /// How to show it; json is --json
    #[arg(
        long,
        env = "LIZMON_OUTPUT",
        value_name = "FORM",
        default_value = "table"
    )]
    output: TextOrJson,
}

impl Json {
    pub(crate) fn is_on(&self) -> bool {
        self.on || self.output == TextOrJson::Json
    }
}

/// The forms of what is no course of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TextOrJson {
    /// For people.
    Table,
    /// For programs.
    Json,
}

const DAYS_MAX: i64 = 36_500;

pub(crate) fn days() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=DAYS_MAX)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_of_every_verb_has_its_environment_twin() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long() else {
                    continue;
                };
                let twin = format!("LIZMON_{}", long.replace('-', "_").to_uppercase());
                let found = argument.get_env().map(|name| name.to_string_lossy());
                assert_eq!(
                    found.as_deref(),
                    Some(&*twin),
                    "{} --{long}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn wrong_usage_ends_with_2() {
        let cases: &[&[&str]] = &[
            &[],
            &["issue"],
            &["issue-node"],
            &["issue-node", "../x"],
            &["issue-node", "a/b"],
            &["issue-node", ".."],
            &["issue-node", ""],
            &["issue-node", "web1", "--days", "0"],
            &["issue-node", "web1", "--days", "1", "--hours", "1"],
            &["issue-node", "web1", "--hours", "-1"],
            &["issue-node", "--csr", "x.csr", "--from", "names"],
            &["issue-node", "web1", "--csr", "x.csr", "--key-alg", "p256"],
            &["issue-receiver", "metrics"],
            &["issue-receiver", "metrics", "--san", "a b"],
            &["issue-reader", "a", "b"],
            &["issue-reader", "alice", "--san", "a.example"],
            &["init-ca", "--trust-domain", "Metrics.Example"],
            &["init-ca", "--root-days", "0"],
            &["init-ca", "--key-alg", "rsa"],
            &["list", "--expiring", "soon"],
            &["inspect"],
            &[
                "token",
                "--receiver",
                "r1:8443",
                "--cert",
                "c",
                "--key",
                "k",
                "--ca",
                "a",
            ],
            &["token", "--cert", "c", "--key", "k", "--ca", "a"],
            &[
                "query",
                "--receiver",
                "https://r1",
                "--cert",
                "c",
                "--key",
                "k",
                "--ca",
                "a",
            ],
            &[
                "query",
                "../x",
                "--receiver",
                "https://r1",
                "--cert",
                "c",
                "--key",
                "k",
                "--ca",
                "a",
            ],
            &["audit", "web1"],
            &["push", "web1"],
            &["completions", "csh"],
            &["man"],
            &["up", "--for", "20"],
            &["up", "--listen", "8443"],
            &["up", "web1"],
        ];
        for arguments in cases {
            let line = ["lizctl"].iter().chain(*arguments);
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_folder_is_named_before_or_after_the_verb() {
        for line in ["lizctl --certs x list", "lizctl list --certs x"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.certs, PathBuf::from("x"), "{line}");
        }
    }
}
