//! The shipped programs as processes: flags, exit codes, stdout and stderr, signals, files.

mod bench;
mod config_file;
mod doctor;
mod edges;
mod lizctl;
mod managed;
mod measured;
pub(crate) mod monitor;
mod open;
mod receiver;
mod repair;
mod store;
mod store_copy;
mod top;
mod up;
mod versions;

use crate::harness::process::{program, run};

const PROGRAMS: [&str; 3] = ["lizctl", "liz-receiver", "liz-monitor"];

#[test]
fn every_program_says_what_it_is() {
    for name in PROGRAMS {
        for flag in ["--help", "-h"] {
            let done = run(program(name).arg(flag));
            assert_eq!(done.stderr, "", "{name} {flag}");
            assert!(done.success().contains("Usage"), "{name} {flag}");
        }
        for flag in ["--version", "-V"] {
            let done = run(program(name).arg(flag));
            assert_eq!(done.stderr, "", "{name} {flag}");
            assert_eq!(
                done.success(),
                format!("{name} {}\n", env!("CARGO_PKG_VERSION")),
                "{name} {flag}"
            );
        }
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for name in PROGRAMS {
        for arguments in [
            &[][..],
            &["--no-such-flag"],
            &["no-such-verb"],
            &["--log-format", "xml"],
        ] {
            let done = run(program(name).args(arguments));
            assert_eq!(
                done.status.code(),
                Some(2),
                "{name} {arguments:?}: {}",
                done.stderr
            );
            assert_eq!(done.stdout, "", "{name} {arguments:?}");
            assert!(!done.stderr.is_empty(), "{name} {arguments:?}");
        }
    }
}

/// Every flag that other people's scripts may use exists, with its environment variable.
#[test]
fn every_flag_is_documented_with_its_twin() {
    for (name, verb, flags) in [
        (
            "liz-receiver",
            "",
            "listen cert key ca crl data token-ttl issuer audience token-key-days crl-grace proxy-protocol trusted-proxy tls-min log-format config",
        ),
        (
            "liz-monitor",
            "",
            "this-host publish cert key ca interval collect keep-acknowledged log-format config",
        ),
        ("lizctl", "up", "for certs tls-min"),
        (
            "lizctl",
            "init-ca",
            "certs trust-domain root-days issuing-days",
        ),
        ("lizctl", "issue-node", "certs days hours csr from key-alg"),
        ("lizctl", "issue-receiver", "certs san"),
        ("lizctl", "issue-reader", "certs"),
        ("lizctl", "issue-operator", "certs"),
        ("lizctl", "issue-summarizer", "certs days hours csr key-alg"),
        ("lizctl", "issue-proxy", "certs days hours csr key-alg"),
        (
            "lizctl",
            "issue-gateway",
            "certs hosts tag days hours csr key-alg",
        ),
        ("lizctl", "list", "certs expiring json"),
        ("lizctl", "inspect", "certs"),
        ("lizctl", "verify", "certs"),
        ("lizctl", "token", "receiver cert key ca"),
        ("lizctl", "query", "receiver cert key ca output watch"),
        ("lizctl", "hosts", "receiver cert key ca"),
    ] {
        let mut command = program(name);
        if !verb.is_empty() {
            command.arg(verb);
        }
        let help = run(command.arg("--help")).success();
        for flag in flags.split(' ') {
            let twin = format!("[env: LIZMON_{}=", flag.to_uppercase().replace('-', "_"));
            assert!(
                help.contains(&format!("--{flag}")),
                "{name} {verb}: --{flag}"
            );
            assert!(help.contains(&twin), "{name} {verb}: {twin}");
        }
    }
}
