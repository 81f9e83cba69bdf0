//! `lizctl`: issue the certificates of a fleet, query its receiver, run everything on one machine.
//!
//! ```text
//! cli (parser) --> commands/VERB.rs --> output (stdout) or failure (stderr, exit code)
//!                        │
//!                        └──> context, flags and what else several verbs share
//! ```
//!
//! The clock and the exit code live here; a verb gets what it needs as arguments.
//!
//! To add a verb: a file in `commands`, a variant in `cli::Command`, a line in `run` below.

mod cli;
mod commands;
mod context;
mod crl_push;
mod delivery_report;
mod enrolment;
mod failure;
mod flags;
mod input;
mod issuance;
mod output;
mod passphrase;
mod pkcs12;
mod runtime;
mod unknown_certificates;
mod view;

use std::process::ExitCode;
use std::sync::Arc;

use clap::CommandFactory;
use lizmon_monitor::Environment;
use lizmon_protocol::sample::ProducerId;

use cli::{Cli, Command};
use context::Context;
use output::live::LogWriter;

fn main() -> ExitCode {
    let cli: Cli = lizmon_daemon::args::parse();
    cli.global.log.start_on(|| LogWriter);
    let context = Context {
        certs: cli.global.certs,
        keys: cli.global.keys,
        clock: lizmon_daemon::epoch_secs,
        stopwatch: lizmon_daemon::since_1970,
    };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        // `lizctl list | head`: the reader of our stdout has read enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error);
            failure::exit_code(&error)
        }
    }
}

/// One line per verb. A verb that talks to a server builds its own tokio runtime.
fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::InitCa(args) => commands::init_ca::run(&args, context),
        Command::IssueNode(args) => commands::issue_node::run(args, context),
        Command::IssueReceiver(args) => commands::issue_receiver::run(args, context),
        Command::IssueReader(args) => commands::issue_reader::run(args, context),
        Command::IssueOperator(args) => commands::issue_operator::run(args, context),
        Command::JoinToken(args) => commands::join_token::run(&args, context),
        Command::Join(args) => commands::join::run(&args, context),
        Command::Renew(args) => commands::renew::run(&args, context),
        Command::List(args) => commands::list::run(&args, context),
        Command::Revoke(args) => commands::revoke::run(&args, context),
        Command::SignCrl(args) => commands::sign_crl::run(&args, context),
        Command::Backup(args) => commands::backup::run(&args, context),
        Command::Restore(args) => commands::restore::run(&args, context),
        Command::Rotate(args) => commands::rotate::run(&args, context),
        Command::AuditLog(args) => commands::audit_log::run(&args, context),
        Command::VerifyAudit(args) => commands::verify_audit::run(&args, context),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Verify(args) => commands::verify::run(&args, context),
        Command::Token(args) => commands::token::run(&args, context),
        Command::Query(args) => commands::query::run(&args, context),
        Command::Hosts(args) => commands::hosts::run(&args, context),
        Command::Audit(args) => commands::audit::run(&args, context),
        Command::Push(args) => commands::push::run(args, context),
        Command::Up(args) => commands::up::run(&args, context, environment()),
        Command::Completions(args) => commands::completions::run(&args, Cli::command()),
        Command::Man(args) => commands::man::run(&args, Cli::command()),
    }
}

/// What a monitor in this process is given from outside.
fn environment() -> Environment {
    Environment {
        clock: Arc::new(lizmon_daemon::since_1970),
        monotonic: Arc::new(lizmon_daemon::since_boot),
        chance: Arc::new(fastrand::f64),
        new_producer: Arc::new(|| ProducerId::new(uuid::Uuid::new_v4())),
    }
}
