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
//! To add a verb: a file in `commands`, a variant in `cli::Verb`, a line in `run` below.

mod bench;
mod browser;
mod cli;
mod commands;
mod connection;
mod context;
mod crl_push;
mod delivery_report;
mod enrolment;
mod failure;
mod first_profile;
mod flags;
mod host_state;
mod input;
mod issuance;
mod let_in;
mod loopback;
mod output;
mod passphrase;
mod pkcs12;
mod profile;
mod receiver_url;
mod runtime;
mod top;
mod unknown_certificates;
mod view;

use std::process::ExitCode;
use std::sync::Arc;

use clap::CommandFactory;
use lizmon_monitor::Environment;
use lizmon_protocol::sample::ProducerId;

use cli::{Cli, Verb};
use context::Context;
use output::live::LogWriter;

fn main() -> ExitCode {
    let cli: Cli = lizmon_daemon::args::parse();
    cli.global.log.start_on(|| LogWriter);
    let context = Context {
        certs: cli.global.certs,
        keys: cli.global.keys,
        profiles: profile::config_file(),
        clock: lizmon_daemon::epoch_secs,
        chance,
        new_secret,
        stopwatch: lizmon_daemon::since_1970,
    };
    match run(cli.verb, &context) {
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
fn run(verb: Verb, context: &Context) -> anyhow::Result<()> {
    match verb {
        Verb::InitCa(args) => commands::init_ca::run(&args, context),
        Verb::IssueNode(args) => commands::issue_node::run(args, context),
        Verb::IssueReceiver(args) => commands::issue_receiver::run(args, context),
        Verb::IssueReader(args) => commands::issue_reader::run(args, context),
        Verb::IssueOperator(args) => commands::issue_operator::run(args, context),
        Verb::IssueSummarizer(args) => commands::issue_summarizer::run(args, context),
        Verb::IssueProxy(args) => commands::issue_proxy::run(args, context),
        Verb::IssueGateway(args) => commands::issue_gateway::run(args, context),
        Verb::JoinToken(args) => commands::join_token::run(args, context),
        Verb::Join(args) => commands::join::run(&args, context),
        Verb::Renew(args) => commands::renew::run(&args, context),
        Verb::List(args) => commands::list::run(&args, context),
        Verb::Revoke(args) => commands::revoke::run(&args, context),
        Verb::SignCrl(args) => commands::sign_crl::run(&args, context),
        Verb::Backup(args) => commands::backup::run(&args, context),
        Verb::Bench(args) => commands::bench::run(&args, context, new_producer),
        Verb::Restore(args) => commands::restore::run(&args, context),
        Verb::Rotate(args) => commands::rotate::run(&args, context),
        Verb::AuditLog(args) => commands::audit_log::run(&args, context),
        Verb::VerifyAudit(args) => commands::verify_audit::run(&args, context),
        Verb::Inspect(args) => commands::inspect::run(&args),
        Verb::Verify(args) => commands::verify::run(&args, context),
        Verb::Token(args) => commands::token::run(&args, context),
        Verb::Query(args) => commands::query::run(&args, context),
        Verb::Hosts(args) => commands::hosts::run(&args, context),
        Verb::Audit(args) => commands::audit::run(&args, context),
        Verb::Open(args) => commands::open::run(&args, context),
        Verb::Alarms(args) => commands::alarms::run(&args, context),
        Verb::Silence(args) => commands::silence::run(&args, context),
        Verb::Push(args) => commands::push::run(args, context),
        Verb::Profile(args) => commands::profile::run(&args, context),
        Verb::Store(args) => commands::store::run(args, context, new_id()),
        Verb::Doctor(args) => commands::doctor::run(args, context),
        Verb::Top(args) => commands::top::run(&args, context),
        Verb::Up(args) => commands::up::run(&args, context, environment()),
        Verb::Completions(args) => commands::completions::run(&args, Cli::command()),
        Verb::Man(args) => commands::man::run(&args, Cli::command()),
    }
}

/// Tells this process from every other.
#[expect(
    clippy::disallowed_methods,
    reason = "randomness enters here and is passed down"
)]
fn new_id() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// A producer unlike all others.
fn new_producer() -> ProducerId {
    ProducerId::new(new_id())
}

/// Spreads what many programs would do at the same time.
#[expect(
    clippy::disallowed_methods,
    reason = "randomness enters here and is passed down"
)]
fn chance() -> f64 {
    fastrand::f64()
}

/// Random numbers that nobody can guess. Without them there is nothing to go on with.
fn new_secret() -> [u8; 32] {
    let mut secret = [0; 32];
    if aws_lc_rs::rand::fill(&mut secret).is_err() {
        output::failure(&anyhow::anyhow!("the system gives no random numbers"));
        std::process::exit(1);
    }
    secret
}

/// What a monitor in this process is given from outside.
#[expect(
    clippy::disallowed_methods,
    reason = "randomness enters here and is passed down"
)]
fn environment() -> Environment {
    Environment {
        clock: Arc::new(lizmon_daemon::since_1970),
        monotonic: Arc::new(lizmon_daemon::since_boot),
        chance: Arc::new(fastrand::f64),
        new_producer: Arc::new(new_producer),
    }
}
