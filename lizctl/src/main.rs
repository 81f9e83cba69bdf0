//! `lizctl`: mint the certificates of a fleet, ask its receiver, run it all on one machine.
//!
//! ```text
//! cli (every flag) --> one file a family of verbs --> output (stdout) or a failure (stderr, exit code)
//! ```
//!
//! Here the clock, the signals and the exit code are; the verbs are given what they need.

mod ask;
mod audit;
mod backup;
mod cli;
mod connect;
mod enrol;
mod failure;
mod inventory;
mod issue;
mod log;
mod output;
mod p12;
mod push;
mod revoke;
mod rotate;
mod secret;
mod seen;
mod shell;
mod up;
mod view;

use std::process::ExitCode;
use std::sync::Arc;

use lizmon_monitor::Edges;
use lizmon_protocol::sample::ProducerId;

use cli::{Cli, Command, Context};
use output::live::Aside;

fn main() -> ExitCode {
    let cli: Cli = lizmon_daemon::args::parse();
    cli.global.log.start_on(|| Aside);
    let context = Context {
        certs: cli.global.certs,
        keys: cli.global.keys,
        clock: lizmon_daemon::epoch_secs,
        stopwatch: lizmon_daemon::since_1970,
    };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        // `lizctl list | head` got what it wanted.
        Err(error) if output::reader_is_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            failure::exit_code(&error)
        }
    }
}

/// One line a verb. A verb that speaks to a receiver builds its own tokio runtime.
fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::InitCa(args) => issue::init_ca(&args, context),
        Command::IssueNode(args) => issue::nodes(args, context),
        Command::IssueReceiver(args) => issue::receiver(args, context),
        Command::IssueReader(args) => issue::reader(args, context),
        Command::IssueOperator(args) => issue::operator(args, context),
        Command::List(args) => inventory::list(&args, context),
        Command::JoinToken(args) => enrol::join_token(&args, context),
        Command::Join(args) => enrol::join(&args, context),
        Command::Renew(args) => enrol::renew(&args, context),
        Command::Revoke(args) => revoke::revoke(&args, context),
        Command::SignCrl(args) => revoke::sign_crl(&args, context),
        Command::Backup(args) => backup::backup(&args, context),
        Command::Restore(args) => backup::restore(&args, context),
        Command::Rotate(args) => rotate::rotate(&args, context),
        Command::AuditLog(args) => log::audit_log(&args, context),
        Command::VerifyAudit(args) => log::verify_audit(&args, context),
        Command::Inspect(args) => inventory::inspect(&args),
        Command::Verify(args) => inventory::verify(&args, context),
        Command::Token(args) => ask::token(&args, context),
        Command::Query(args) => ask::query(&args, context),
        Command::Hosts(args) => ask::hosts(&args, context),
        Command::Audit(args) => audit::audit(&args, context),
        Command::Push(args) => push::push(args, context),
        Command::Up(args) => up::up(&args, context, edges()),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}

/// What a monitor in this process is given from outside.
fn edges() -> Edges {
    Edges {
        clock: Arc::new(lizmon_daemon::since_1970),
        monotonic: Arc::new(lizmon_daemon::since_boot),
        chance: Arc::new(fastrand::f64),
        new_producer: Arc::new(|| ProducerId::new(uuid::Uuid::new_v4())),
    }
}
