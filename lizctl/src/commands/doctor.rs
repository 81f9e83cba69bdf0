//! `doctor`: checks one by one what has to be right, and says what helps where it is not.
//!
//! ```text
//! target: flags, environment, a daemon's settings
//!   |--> machine, files, certificates     this machine: clock and service; who may read; ends, CRLs
//!   |--> network, authority, receiver     name, connection; liz-ca; TLS, health, token, read, write
//!   '--> stores                           spool, data folder, shared store
//! each adds to the report, which is shown at the end
//! ```

mod authority;
mod certificates;
mod files;
mod machine;
mod network;
mod receiver;
mod report;
mod stores;
mod target;

use clap::Args;

use self::receiver::ReceiverCheck;
use self::report::Report;
use self::target::{Target, TargetFlags};
use crate::connection::{self, Server};
use crate::context::Context;
use crate::failure::Exit;
use crate::flags::connection::ProfileFlag;
use crate::flags::output::OutputFlags;
use crate::profile::ConnectionProfile;
use crate::runtime;

/// Check clock, files, certificates, CRLs, connections, token, reading, writing and service, with
/// a remedy for each finding
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  lizctl doctor --config /etc/lizmon/monitor.toml       a daemon's settings say what to check\n  \
                  lizctl doctor --receiver https://rx1.example:8443 --cert ada.crt --key ada.key --ca root.crt\n\n\
                  Nothing is changed: writing is tried with a batch of no records, which counts nowhere.\n\
                  Run it as the user of the daemon, or as root. Exit code 1 if there is a finding.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    target: TargetFlags,
    #[command(flatten)]
    profile: ProfileFlag,
    #[command(flatten)]
    output: OutputFlags,
}

/// `lizctl doctor`. Fails if there is a finding.
pub(crate) fn run(args: DoctorArgs, context: &Context) -> anyhow::Result<()> {
    let is_json = args.output.is_json();
    let now = (context.clock)();
    let mut target = args.target.target(&context.certs)?;
    if target.is_empty() || args.profile.name.is_some() {
        let (given, profile) = (
            ConnectionProfile::default(),
            (&args.profile, Server::Receiver),
        );
        if let Some(chosen) = connection::chosen_profile(&given, profile, context)? {
            target.complete_from(chosen.profile);
        }
    }
    if target.is_empty() {
        let text = "there is nothing to check: name a daemon's settings with --config, or --receiver, --cert, --key and --ca, or have a profile";
        return Err(anyhow::anyhow!(text).context(Exit::Usage));
    }
    let target = with_own_url(target);
    let mut report = Report::new(now);
    machine::check_clock(&mut report);
    files::check(&target, &mut report);
    let loaded = certificates::check(&target, now, &mut report);
    certificates::check_crl_file(&target, now, &mut report);
    runtime::current_thread()?.block_on(async {
        authority::check(&target, now, &mut report).await;
        for url in &target.receivers {
            let check = ReceiverCheck {
                url,
                target: &target,
                loaded: loaded.as_ref(),
                now,
                stopwatch: context.stopwatch,
            };
            check.run(&mut report).await;
        }
    });
    stores::check(&target, now, &mut report);
    if let Some(unit) = &target.unit {
        machine::check_unit(unit, target.is_unit_typed, &mut report);
    }
    match is_json {
        true => report.show_json()?,
        false => report.show()?,
    }
    report.verdict()
}

/// A daemon that serves is asked as its clients ask it.
fn with_own_url(mut target: Target) -> Target {
    let own = target.cert.as_deref().zip(target.own_port);
    if let Some(url) = own.and_then(|(cert, port)| certificates::own_url(cert, port)) {
        match target.is_authority {
            true => drop(target.ca_url.get_or_insert(url)),
            false if target.receivers.is_empty() => target.receivers.push(url),
            false => (),
        }
    }
    target
}
