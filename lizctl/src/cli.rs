//! The parser: the global flags and the list of verbs.
//!
//! Every flag has an environment variable `LIZMON_…`; the command line wins.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lizmon_daemon::LogFlags;

use crate::commands::{
    alarms, audit, audit_log, backup, bench, completions, doctor, hosts, init_ca, inspect,
    issue_gateway, issue_node, issue_operator, issue_proxy, issue_reader, issue_receiver,
    issue_summarizer, join, join_token, list, man, open, profile, push, query, renew, restore,
    revoke, rotate, sign_crl, silence, store, token, top, up, verify, verify_audit,
};
use crate::flags::ca_keys::CaKeyFlags;

#[derive(Debug, Parser)]
#[command(
    name = "lizctl",
    version,
    about = "Issue the certificates of a fleet, query its receiver, run everything on one machine",
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 refused by the server; 4 the server cannot be reached.
Every flag can be set by an environment variable: --trust-domain by LIZMON_TRUST_DOMAIN.";

/// Flags that are accepted before or after any verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
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
    pub(crate) keys: CaKeyFlags,
}

/// The verbs. The help text of each is at its arguments, in `commands`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    InitCa(init_ca::InitCaArgs),
    IssueNode(issue_node::IssueNodeArgs),
    IssueReceiver(issue_receiver::IssueReceiverArgs),
    IssueReader(issue_reader::IssueReaderArgs),
    IssueOperator(issue_operator::IssueOperatorArgs),
    IssueSummarizer(issue_summarizer::IssueSummarizerArgs),
    IssueProxy(issue_proxy::IssueProxyArgs),
    IssueGateway(issue_gateway::IssueGatewayArgs),
    JoinToken(join_token::JoinTokenArgs),
    Join(join::JoinArgs),
    Renew(renew::RenewArgs),
    List(list::ListArgs),
    Revoke(revoke::RevokeArgs),
    SignCrl(sign_crl::SignCrlArgs),
    Backup(backup::BackupArgs),
    Bench(bench::BenchArgs),
    Restore(restore::RestoreArgs),
    Rotate(rotate::RotateArgs),
    AuditLog(audit_log::AuditLogArgs),
    VerifyAudit(verify_audit::VerifyAuditArgs),
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Token(token::TokenArgs),
    Query(query::QueryArgs),
    Hosts(hosts::HostsArgs),
    Audit(audit::AuditArgs),
    Open(open::OpenArgs),
    Alarms(alarms::AlarmsArgs),
    Silence(silence::SilenceArgs),
    Push(push::PushArgs),
    Profile(profile::ProfileArgs),
    Store(store::StoreArgs),
    Doctor(doctor::DoctorArgs),
    Top(top::TopArgs),
    Up(up::UpArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    #[test]
    fn every_flag_of_every_verb_has_an_environment_variable() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        let verbs = || std::iter::once(&cli).chain(cli.get_subcommands());
        // `store check` and the like as well.
        for command in verbs().chain(verbs().skip(1).flat_map(Command::get_subcommands)) {
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long() else {
                    continue;
                };
                let variable = format!("LIZMON_{}", long.replace('-', "_").to_uppercase());
                let found = argument.get_env().map(|name| name.to_string_lossy());
                assert_eq!(
                    found.as_deref(),
                    Some(&*variable),
                    "{} --{long}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn the_readme_lists_each_verb_once() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        let (_, table) = readme
            .split_once("| command | what it does |\n| --- | --- |\n")
            .unwrap();
        let rows = table.lines().map_while(|line| line.strip_prefix("| "));
        let cells = rows.map(|row| row.split_once(" | ").unwrap().0);
        // Every second part of a cell is between backticks: `lizctl rotate issuing`, `verify`.
        let commands = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let mut listed: Vec<&str> = commands
            .map(|command| command.strip_prefix("lizctl ").unwrap_or(command))
            .map(|command| command.split(' ').next().unwrap())
            .collect();
        // `rotate issuing` and `rotate root` are one verb.
        listed.dedup();
        listed.sort_unstable();
        let cli = Cli::command();
        let mut verbs: Vec<&str> = cli.get_subcommands().map(Command::get_name).collect();
        verbs.sort_unstable();
        assert_eq!(listed, verbs);
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
            &["issue-summarizer"],
            &["issue-summarizer", "sum1", "--san", "a.example"],
            &["issue-proxy"],
            &["issue-proxy", "edge1", "--san", "a.example"],
            &["issue-gateway", "prom1"],
            &["issue-gateway", "prom1", "--tag", "env=prod"],
            &["issue-gateway", "prom1", "--hosts", "web/*"],
            &["issue-gateway", "--hosts", "web*"],
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
            &["audit"],
            &["bench", "everything"],
            &["bench", "--nodes", "0"],
            &["bench", "--connections", "0"],
            &["bench", "--streams", "1001"],
            &["bench", "--rate", "0"],
            &["bench", "--rate", "inf"],
            &["bench", "--http", "3"],
            &["bench", "--duration", "2h"],
            &["bench", "--target", "http://r1"],
            &["alarms", "web1", "--test", "ops"],
            &["silence", "web1", "--why", "x"],
            &["silence", "web1", "--for", "2h"],
            &["silence", "web1", "--end", "--for", "2h", "--why", "x"],
            &["push", "web1"],
            &["profile"],
            &["top", "../x"],
            &["open", "../x"],
            &["open", "web1", "web2"],
            &["open", "--listen", "0.0.0.0:0"],
            &["open", "--listen", "[::]:0"],
            &["open", "--listen", "192.0.2.1:8080"],
            &["open", "--listen", "8080"],
            &["open", "--listen", "localhost:8080"],
            &["open", "--listen", "[::ffff:192.0.2.1]:0"],
            &["profile", "use"],
            &["profile", "list", "home"],
            &["store"],
            &["store", "check"],
            &["store", "check", "r1:6379"],
            &["store", "check", "redis://:secret@r1"],
            &["store", "status", "redis://r1", "--store-user", "lizmon"],
            &["store", "status", "redis://r1", "--cert", "c"],
            &["store", "copy", "data"],
            &["store", "copy", "data", "http://r1"],
            &["doctor", "--receiver", "http://r1"],
            &["doctor", "web1"],
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
    fn certs_is_accepted_before_and_after_the_verb() {
        for line in ["lizctl --certs x list", "lizctl list --certs x"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.certs, PathBuf::from("x"), "{line}");
        }
    }
}
