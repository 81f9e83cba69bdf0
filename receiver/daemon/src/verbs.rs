//! What every daemon can do besides running: `health` and `man`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::{ConfigFlags, LivenessFlags, args, exit_code};

// Without a doc comment: it would replace the description of the program.
#[derive(Debug, Subcommand)]
enum DaemonVerb {
    /// Check whether the running program works: exit code 0 if it does
    #[command(
        after_help = "For the health check of a container. The program writes the file of --health-file every\nfew seconds while it works."
    )]
    Health(HealthArgs),
    /// Write the manual pages, one for each verb
    Man(ManArgs),
}

#[derive(Debug, Args)]
struct HealthArgs {
    #[command(flatten)]
    liveness: LivenessFlags,
    #[command(flatten)]
    _config: ConfigFlags,
}

#[derive(Debug, Args)]
struct ManArgs {
    /// Folder for the pages; created if it does not exist
    dir: PathBuf,
}

/// Parses the arguments of a daemon. Runs the verb if there is one, and returns its exit code.
pub fn parse_or_run<C: Parser>() -> Result<C, ExitCode> {
    let mut matches = args::matches(with_verbs(C::command()));
    if let Some(code) = run(&matches, &C::command()) {
        return Err(code);
    }
    C::from_arg_matches_mut(&mut matches)
        .map_err(|error| error.format(&mut with_verbs(C::command())).exit())
}

/// The command with these verbs. None of them requires the program's flags, even if the environment
/// has some of them.
pub fn with_verbs(command: Command) -> Command {
    DaemonVerb::augment_subcommands(command)
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
}

/// Runs the verb if it is one of these. `command` is the program's, without them.
pub fn run(matches: &ArgMatches, command: &Command) -> Option<ExitCode> {
    let name = command.get_name().to_owned();
    let (verb, _) = matches.subcommand()?;
    if command.find_subcommand(verb).is_some() {
        return None;
    }
    let done = DaemonVerb::from_arg_matches(matches);
    let done = done.unwrap_or_else(|error| error.exit());
    Some(match done {
        DaemonVerb::Health(args) => exit_code(&name, args.liveness.check(now())),
        DaemonVerb::Man(args) => exit_code(&name, write_pages(command.clone(), &args.dir)),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "time enters every program here and is passed down"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The pages cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write manual pages to {}: {source}", dir.display())]
struct PagesError {
    dir: PathBuf,
    source: std::io::Error,
}

fn write_pages(command: Command, dir: &Path) -> Result<(), PagesError> {
    let written = std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(with_verbs(command), dir));
    written.map_err(|source| PagesError {
        dir: dir.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// What the program does.
    ///
    /// In more words.
    #[derive(Debug, Parser)]
    struct Program {}

    #[test]
    fn the_description_stays_the_programs_own() {
        let command = with_verbs(Program::command());
        let words = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string);
        assert_eq!(
            words(command.get_about()).as_deref(),
            Some("What the program does")
        );
        let long = words(command.get_long_about()).unwrap();
        assert!(long.contains("In more words"), "{long}");
    }
}
