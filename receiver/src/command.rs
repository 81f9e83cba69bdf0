//! `liz-receiver check`, `backup` and `restore`: commands for the data folder.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use lizmon_daemon::ConfigFlags;
use lizmon_receiver::store::backup;

// Without a doc comment: it would replace the description of the program itself.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Check the whole store and report damage; the receiver may be running
    Check {
        #[command(flatten)]
        data: Data,
    },
    /// Copy the store to a new folder; the receiver may be running
    Backup {
        /// The folder to create
        #[arg(value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        data: Data,
    },
    /// Replace the store by a backup and set the old one aside; the receiver must not be running
    Restore {
        /// The folder that `backup` made
        #[arg(value_name = "DIR")]
        from: PathBuf,
        #[command(flatten)]
        data: Data,
    },
}

/// Which folder.
#[derive(Debug, Args)]
pub(crate) struct Data {
    /// The receiver's folder
    #[arg(long, env = "LIZMON_DATA", value_name = "DIR", default_value = "data")]
    data: PathBuf,
    #[command(flatten)]
    _config: ConfigFlags,
}

/// Runs it and prints on stdout what was found or done.
pub(crate) fn run(command: DataCommand, now: u64) -> anyhow::Result<()> {
    match command {
        DataCommand::Check { data } => check(&data.data, now),
        DataCommand::Backup { to, data } => {
            let manifest = backup::backup(&data.data, &to, now)?;
            say(format_args!(
                "{} hosts are in {}",
                manifest.hosts,
                to.display()
            ))
        }
        DataCommand::Restore { from, data } => restore(&from, &data.data, now),
    }
}

fn check(folder: &std::path::Path, now: u64) -> anyhow::Result<()> {
    let found = backup::check(folder, now)?;
    let backup::CheckReport {
        file,
        hosts,
        intervals,
        groups,
        damage,
        known,
        aside,
    } = found;
    let file = file.display();
    say(format_args!(
        "{file}: {hosts} hosts, {intervals} intervals, {groups} groups to apply"
    ))?;
    for damage in &known {
        let when = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(damage.found_at),
        );
        say(format_args!("lost, found {when}: {damage}"))?;
    }
    for file in aside {
        say(format_args!("set aside: {}", file.display()))?;
    }
    for damage in &damage {
        say(format_args!("damaged: {damage}"))?;
    }
    match damage.len() {
        0 => say(format_args!("whole")),
        many => anyhow::bail!(
            "{file} is damaged in {many} places: restart the receiver, which recovers what can be read, or restore a backup with `liz-receiver restore`"
        ),
    }
}

fn restore(from: &std::path::Path, folder: &std::path::Path, now: u64) -> anyhow::Result<()> {
    let restored = backup::restore(from, folder, now)?;
    let made = restored.manifest.map(|manifest| {
        let made_at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(manifest.made_at);
        format!("as of {}", humantime::format_rfc3339_seconds(made_at))
    });
    let made = made.unwrap_or_else(|| "of an unknown time".to_owned());
    say(format_args!(
        "{} hosts are restored, {made}",
        restored.hosts
    ))?;
    if let Some(aside) = restored.aside {
        say(format_args!("the previous data is {}", aside.display()))?;
    }
    say(format_args!(
        "what was acknowledged after that time is not in it: monitors send again what they keep of it (--keep-acknowledged), within two minutes after the start; `lizctl audit HOST` shows what was repaired, and what is missing"
    ))
}

/// Prints a line on stdout.
fn say(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").context("stdout cannot be written to")
}
