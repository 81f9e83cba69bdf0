//! Values of the site's own: from files that something else writes, and from commands.
//!
//! ```text
//! --own-files DIR        *.txt, read every few seconds ──┐
//!                                                        ├─ own:LABEL
//! --own-command NAME=…   run once a minute ──────────────┘
//! ```
//!
//! Both are read beside the samples, which take the last values.

mod files;
mod lines;

use std::path::PathBuf;
use std::time::Duration;

use self::files::OwnFile;
use self::lines::{OwnValues, parse};
use super::background::Background;
use super::collector::{
    CollectContext, Collector, CollectorSpec, CollectorStart, CollectorStartError, LabelSpec,
};
use super::command::{self, CommandFailure};
use super::failure::CollectError;
use super::names;
use super::options::OwnOptions;
use super::readings::Readings;

/// The collector.
pub(super) static OWN: CollectorSpec = CollectorSpec {
    name: "own",
    labels: &[LabelSpec {
        label: "own:{name}",
        unit: "its own",
        source: "`--own-files`, `--own-command`",
        meaning: "values of files and commands of the site",
    }],
    labels_max: 20,
    more_labels_a_day: 0,
    start: |start: &CollectorStart<'_>| {
        let own = Own::start(start).map_err(CollectorStartError::Thread)?;
        Ok(Box::new(own))
    },
};

/// How often the files are read.
const READ_EVERY: Duration = Duration::from_secs(5);
/// How long a sample waits for them.
const PATIENCE: Duration = Duration::from_millis(20);
/// Files that have not been read for so long are on a disk that hangs.
const READ_AGE_MAX: Duration = Duration::from_secs(60);

struct Own {
    options: OwnOptions,
    files: Option<Files>,
    commands: Vec<RunningCommand>,
}

struct Files {
    folder: PathBuf,
    background: Background<std::io::Result<Vec<OwnFile>>>,
}

struct RunningCommand {
    name: String,
    background: Background<Result<Vec<u8>, CommandFailure>>,
}

impl Own {
    fn start(start: &CollectorStart<'_>) -> std::io::Result<Self> {
        let options = start.options.own.clone();
        let files = options.files.clone().map(|folder| {
            let read = folder.clone();
            let background = Background::start("own files", move |_| files::read(&read))?;
            Ok::<_, std::io::Error>(Files { folder, background })
        });
        let mut commands = Vec::new();
        for own in &options.commands {
            let (words, time_max) = (own.words.clone(), options.time_limit);
            let monotonic = start.monotonic.clone();
            let background = Background::start("own command", move |stop| {
                command::run(&words, time_max, &*monotonic, stop)
            })?;
            commands.push(RunningCommand {
                name: own.name.clone(),
                background,
            });
        }
        Ok(Self {
            files: files.transpose()?,
            commands,
            options,
        })
    }
}

impl Collector for Own {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        if let Some(files) = &self.files {
            self.collect_files(files, context, readings);
        }
        for command in &self.commands {
            self.collect_command(command, context, readings);
        }
        Ok(())
    }
}

impl Own {
    fn collect_files(&self, files: &Files, context: &CollectContext, readings: &mut Readings<'_>) {
        let now = context.monotonic;
        files.background.ask(now, READ_EVERY, PATIENCE);
        let Some(latest) = files.background.latest(now) else {
            return;
        };
        let folder = || files.folder.display().to_string();
        if latest.age > READ_AGE_MAX {
            return note(
                readings,
                folder(),
                "its files cannot be read: they take too long",
            );
        }
        match latest.result.as_ref() {
            Err(error) => note(
                readings,
                folder(),
                &format!("it cannot be read ({})", error.kind()),
            ),
            Ok(all) => {
                for file in all {
                    match file.values(context.now, self.options.files_stale) {
                        Ok(values) => push(values, &file.name, readings),
                        Err(fault) => note(readings, file.name.clone(), &fault),
                    }
                }
            }
        }
    }

    fn collect_command(
        &self,
        command: &RunningCommand,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) {
        let now = context.monotonic;
        command
            .background
            .ask(now, self.options.interval, Duration::ZERO);
        let Some(latest) = command.background.latest(now) else {
            return;
        };
        // One run may be late, by as long as it may take.
        if latest.age > self.options.interval * 2 + self.options.time_limit {
            return note(
                readings,
                command.name.clone(),
                "it has not been run for too long",
            );
        }
        match latest.result.as_ref() {
            Ok(output) => push(&parse(output, Some(&command.name)), &command.name, readings),
            Err(failure) => note(readings, command.name.clone(), &failure.to_string()),
        }
    }
}

fn push(values: &OwnValues, source: &str, readings: &mut Readings<'_>) {
    for (label, value) in &values.pairs {
        readings.push_or_note(names::label("own:", label), *value);
    }
    if let Some(fault) = &values.fault {
        note(readings, source.to_owned(), fault);
    }
}

fn note(readings: &mut Readings<'_>, source: String, fault: &str) {
    readings.note(CollectError::Own {
        source_name: names::shown(source.as_bytes()),
        fault: fault.to_owned(),
    });
}

#[cfg(test)]
mod recipes;
#[cfg(test)]
mod tests;
