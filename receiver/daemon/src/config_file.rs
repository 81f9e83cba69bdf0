//! The file that `--config` names: flags of a program, written down.
//!
//! Its settings are put before the arguments that were typed, as if they had been typed too, but
//! for flags that were typed or have an environment variable. So one parser judges all of them, and
//! what a flag requires or excludes may come from the file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use toml::de::{DeInteger, DeTable, DeValue};

/// The longest file: far more than any has, so that a wrong path (/dev/zero) ends soon.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `--config` of a program that reads a file of settings.
#[derive(Debug, Clone, Args)]
pub struct ConfigFlags {
    /// File of settings (TOML), read once at the start: `listen = "0.0.0.0:8443"` is --listen
    /// 0.0.0.0:8443, and so for each flag. A flag is used rather than its environment variable,
    /// and that rather than the file
    #[arg(long, env = "LIZMON_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFlags {
    /// Logs which file was read.
    pub fn log(&self) {
        if let Some(file) = &self.config {
            tracing::info!("settings come from {} too", file.display());
        }
    }
}

/// Why a file of settings cannot be used. The message has one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// There is no such file, or it may not be read.
    #[error("cannot read the settings in {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no file of settings.
    #[error("{} has more than {FILE_BYTES_MAX} bytes: it is no file of settings", .0.display())]
    TooLong(PathBuf),
    /// A line of it is wrong.
    #[error("{}:{line}: {fault}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        fault: LineFault,
    },
}

/// What is wrong in a line of a file of settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// No flag has this name.
    #[error("there is no setting {key:?}; there are {known}")]
    UnknownKey {
        /// The name.
        key: String,
        /// All that there are.
        known: String,
    },
    /// The value is of another kind.
    #[error("{key} is {expected}, not {found}")]
    Kind {
        /// The setting.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The flag does not accept the value.
    #[error("{0}")]
    Value(String),
}

/// What was read from a file, and the arguments with it.
#[derive(Debug)]
pub(crate) struct Expanded {
    /// What was typed, with the settings before it.
    pub(crate) arguments: Vec<OsString>,
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
    settings: Vec<Setting>,
}

/// A value in a file, as an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    key: String,
    line: usize,
    /// `None` for a switch that is on.
    value: Option<String>,
}

/// Adds the settings of the file, if there is one, to what was typed.
pub(crate) fn expand(
    command: &Command,
    typed: Vec<OsString>,
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Result<Expanded, ConfigFileError> {
    let as_typed = |arguments| Expanded {
        arguments,
        file: None,
        settings: Vec::new(),
    };
    // What is missing may be in the file, and what is wrong is found again. `--help` and
    // `--version` need no file.
    let lenient = command.clone().ignore_errors(true);
    let Ok(matches) = lenient.try_get_matches_from(&typed) else {
        return Ok(as_typed(typed));
    };
    let verb = matches
        .subcommand()
        .and_then(|(name, matches)| Some((command.find_subcommand(name)?, matches)));
    let (asked, matches) = verb.unwrap_or((command, &matches));
    let Some(file) = file(asked, matches, variable) else {
        return Ok(as_typed(typed));
    };
    let text = read(&file)?;
    let line_error = |(line, fault)| ConfigFileError::Line {
        file: file.clone(),
        line,
        fault,
    };
    // A verb has some of the program's flags: the file is the same for all.
    let known: Vec<&Arg> = flags(command).chain(flags(asked)).collect();
    let settings = settings(&text, &known).map_err(line_error)?;
    let is_open = |setting: &Setting| {
        let flag = flags(asked).find(|flag| flag.get_long() == Some(&setting.key));
        flag.is_some_and(|flag| {
            let typed = matches.value_source(flag.get_id().as_str());
            typed != Some(ValueSource::CommandLine) && flag.get_env().and_then(variable).is_none()
        })
    };
    let settings: Vec<Setting> = settings.into_iter().filter(is_open).collect();
    let after = verb.and_then(|(verb, _)| typed.iter().position(|word| word == verb.get_name()));
    let (before, rest) = typed.split_at(typed.len().min(after.unwrap_or_default() + 1));
    let arguments = before.iter().cloned();
    let arguments = arguments.chain(settings.iter().map(Setting::argument));
    Ok(Expanded {
        arguments: arguments.chain(rest.iter().cloned()).collect(),
        settings,
        file: Some(file),
    })
}

impl Setting {
    fn argument(&self) -> OsString {
        match &self.value {
            None => format!("--{}", self.key).into(),
            Some(value) => format!("--{}={value}", self.key).into(),
        }
    }
}

impl Expanded {
    /// The line that the parser refuses, if it came from the file.
    pub(crate) fn blame(&self, error: &clap::Error) -> Option<ConfigFileError> {
        if !matches!(
            error.kind(),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation
        ) {
            return None;
        }
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let text = text.split("\n\nFor more information").next()?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join(" ");
        let of_flag = |setting: &&Setting| text.contains(&format!("--{} <", setting.key));
        let is_named = |setting: &&Setting| {
            let value = setting.value.as_deref().unwrap_or_default();
            text.contains(&format!("'{value}'"))
        };
        let mut candidates = self.settings.iter().filter(of_flag);
        let first = candidates.clone().next()?;
        let blamed = candidates.find(is_named).unwrap_or(first);
        Some(ConfigFileError::Line {
            file: self.file.clone()?,
            line: blamed.line,
            fault: LineFault::Value(text),
        })
    }
}

/// The file that is asked for, by flag or environment variable.
fn file(
    command: &Command,
    matches: &ArgMatches,
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Option<PathBuf> {
    let flag = command
        .get_arguments()
        .find(|argument| is_config(argument))?;
    let typed = matches.get_one::<PathBuf>(flag.get_id().as_str()).cloned();
    let told = || flag.get_env().and_then(variable).map(PathBuf::from);
    typed.or_else(told)
}

/// That of [`ConfigFlags`]. A program may have a `--config` of another kind.
fn is_config(argument: &Arg) -> bool {
    argument.get_id() == "config"
}

/// What can be set in a file.
fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| {
        let ends_at_once = matches!(
            argument.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        );
        argument.get_long().is_some() && !ends_at_once && !is_config(argument)
    })
}

fn read(file: &Path) -> Result<String, ConfigFileError> {
    let unreadable = |source| ConfigFileError::Unreadable {
        file: file.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(unreadable)?;
    let length = open
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(ConfigFileError::TooLong(file.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        ConfigFileError::Line {
            file: file.to_owned(),
            line: line_of(before),
            fault: LineFault::Syntax("it is not UTF-8".to_owned()),
        }
    })
}

/// The number of the line that follows this text.
fn line_of(before: &[u8]) -> usize {
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// All values of a file, in its order. An error comes with its line.
fn settings(text: &str, known: &[&Arg]) -> Result<Vec<Setting>, (usize, LineFault)> {
    let line = |span: Range<usize>| line_of(&text.as_bytes()[..span.start.min(text.len())]);
    let table = DeTable::parse(text).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        (
            line(error.span().unwrap_or_default()),
            LineFault::Syntax(message),
        )
    })?;
    let mut pairs: Vec<_> = table.get_ref().iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let mut all = Vec::new();
    for (key, value) in pairs {
        let name = key.get_ref();
        let Some(flag) = known.iter().find(|flag| flag.get_long() == Some(name)) else {
            let fault = LineFault::UnknownKey {
                key: name.to_string(),
                known: names(known),
            };
            return Err((line(key.span()), fault));
        };
        let items = match value.get_ref() {
            DeValue::Array(items) if is_list(flag) && !items.is_empty() => items.iter().collect(),
            _ => vec![value],
        };
        for item in items {
            let line = line(item.span());
            let value = argument(flag, item.get_ref()).map_err(|found| {
                let expected = expected(flag);
                let key = name.to_string();
                let fault = LineFault::Kind {
                    key,
                    expected,
                    found,
                };
                (line, fault)
            })?;
            let key = name.to_string();
            all.extend(value.map(|value| Setting { key, line, value }));
        }
    }
    Ok(all)
}

fn names(known: &[&Arg]) -> String {
    let mut names: Vec<&str> = known.iter().filter_map(|flag| flag.get_long()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn is_list(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Append)
}

fn is_switch(flag: &Arg) -> bool {
    !flag.get_action().takes_values()
}

fn is_number(flag: &Arg) -> bool {
    use std::any::TypeId;
    use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
    let parsed = flag.get_value_parser().type_id();
    let numbers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<NonZeroU32>(),
        TypeId::of::<NonZeroU64>(),
        TypeId::of::<NonZeroUsize>(),
    ];
    numbers.iter().any(|number| parsed == *number)
}

/// The argument of a flag: `None` without one, `Some(None)` for a switch. On an error, what the
/// value is.
fn argument(flag: &Arg, value: &DeValue<'_>) -> Result<Option<Option<String>>, &'static str> {
    match value {
        DeValue::Boolean(on) if is_switch(flag) => Ok(on.then_some(None)),
        DeValue::Integer(number) if is_number(flag) => match decimal(number) {
            Some(number) => Ok(Some(Some(number.to_string()))),
            None => Err("one of more than 64 bits"),
        },
        DeValue::String(text) if !is_switch(flag) && !is_number(flag) => {
            Ok(Some(Some(text.to_string())))
        }
        DeValue::String(_) => Err("a text"),
        DeValue::Integer(_) => Err("a whole number"),
        DeValue::Boolean(_) => Err("true or false"),
        DeValue::Float(_) => Err("a number with a point"),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Array(items) if items.is_empty() => Err("an empty list"),
        DeValue::Array(_) => Err("a list"),
        DeValue::Table(_) => Err("a table"),
    }
}

fn decimal(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// What the value of a flag should be.
fn expected(flag: &Arg) -> &'static str {
    match (is_switch(flag), is_number(flag), is_list(flag)) {
        (true, ..) => "true or false, without quotes",
        (_, true, _) => "a whole number, without quotes",
        (.., true) => "a text in quotes, or a list of such: [\"…\", \"…\"]",
        _ => "a text in quotes",
    }
}

#[cfg(test)]
mod tests;
