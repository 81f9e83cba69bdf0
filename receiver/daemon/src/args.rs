//! Parses flags and their environment variables in the same way for every program.

use std::ffi::OsStr;
use std::io::{Write, stderr};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, Parser};

use crate::config_file::{self, ConfigFileError};

/// Parses the arguments of the program. On an error, prints it and exits.
pub fn parse<C: Parser>() -> C {
    C::from_arg_matches_mut(&mut matches(C::command()))
        .unwrap_or_else(|error| error.format(&mut C::command()).exit())
}

/// The arguments of a program, with its environment variables, and with the settings of the file
/// that its flag `--config` names, if it has this flag. On an error, prints it and exits.
pub fn matches(command: Command) -> ArgMatches {
    let variable = |name: &OsStr| std::env::var_os(name);
    let name = command.get_name().to_owned();
    // An empty variable counts as unset, because Compose files and `EnvironmentFile=` often contain
    // them.
    let command = without_empty(command, &variable);
    let expanded = config_file::expand(&command, std::env::args_os().collect(), &variable)
        .unwrap_or_else(|error| refuse(&name, &error));
    match command.try_get_matches_from(&expanded.arguments) {
        Ok(matches) => matches,
        Err(error) => {
            if let Some(error) = expanded.blame(&error) {
                refuse(&name, &error);
            }
            let asked = error.exit_code() == 0;
            // If it cannot be printed, the exit code still tells.
            let _unread = error.print();
            if let Some(file) = expanded.file.filter(|_| !asked) {
                let _unread = writeln!(stderr(), "Settings come from {} too.", file.display());
            }
            std::process::exit(error.exit_code())
        }
    }
}

/// A file of settings that cannot be used is wrong usage, as a wrong flag is.
fn refuse(program: &str, error: &ConfigFileError) -> ! {
    let _unread = writeln!(stderr(), "{program}: {error}");
    std::process::exit(2)
}

fn without_empty(
    command: Command,
    variable: &dyn Fn(&OsStr) -> Option<std::ffi::OsString>,
) -> Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(variable);
        value.is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()))
    };
    command
        .mut_args(|arg| match is_empty(&arg) {
            true => arg.env(None::<&'static str>),
            false => arg,
        })
        .mut_subcommands(|verb| without_empty(verb, variable))
}

/// A list has no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the list is empty")]
struct EmptyItem;

/// The items of one comma-separated argument or variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommaList<T>(Vec<T>);

/// All items of a flag that may be repeated.
pub fn items<T>(lists: Vec<CommaList<T>>) -> Vec<T> {
    lists.into_iter().flat_map(|list| list.0).collect()
}

/// Parses a comma-separated list; for `value_parser`. Blanks around an item are ignored. Empty
/// items, for example after a trailing comma, are ignored too. The list must contain at least one
/// item.
#[derive(Debug, Clone)]
pub struct Items<P>(pub P);

impl<P: TypedValueParser> TypedValueParser for Items<P> {
    type Value = CommaList<P::Value>;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let Some(text) = value.to_str() else {
            return Ok(CommaList(vec![self.0.parse_ref(command, arg, value)?]));
        };
        let texts = text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let items: Vec<_> = texts
            .map(|text| self.0.parse_ref(command, arg, OsStr::new(text)))
            .collect::<Result<_, _>>()?;
        if items.is_empty() {
            let name = arg.map(|arg| format!("{arg}: ")).unwrap_or_default();
            let kind = ErrorKind::ValueValidation;
            return Err(command.clone().error(kind, format!("{name}{EmptyItem}")));
        }
        Ok(CommaList(items))
    }

    fn possible_values(
        &self,
    ) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::PathBuf;
    use std::str::FromStr;

    use clap::builder::EnumValueParser;
    use clap::{Args, CommandFactory, FromArgMatches, Subcommand, ValueEnum};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
    enum Metric {
        Cpu,
        Mem,
    }

    #[derive(Debug, Args)]
    struct Flags {
        #[arg(long, env = "X_COUNT", default_value = "1")]
        count: NonZeroU32,
        #[arg(long, env = "X_FOLDER")]
        folder: Option<PathBuf>,
        #[arg(long, env = "X_ON")]
        on: bool,
        #[arg(long, env = "X_LIST", default_value = "cpu", value_parser = Items(EnumValueParser::<Metric>::new()))]
        list: Vec<CommaList<Metric>>,
    }

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        flags: Flags,
        #[command(subcommand)]
        verb: Option<Verb>,
    }

    #[derive(Debug, Subcommand)]
    enum Verb {
        Do {
            #[arg(long, env = "X_LIMIT", num_args = 1.., value_parser = Items(u32::from_str))]
            limit: Vec<CommaList<u32>>,
        },
    }

    /// Simulates an environment: clap reads it when a flag is declared.
    fn declared_with(value: &'static str) -> Command {
        fn set(command: Command, value: &'static str) -> Command {
            command
                .mut_args(|arg| match arg.get_env() {
                    Some(_) => arg.default_value(value),
                    None => arg,
                })
                .mut_subcommands(|verb| set(verb, value))
        }
        set(Program::command(), value)
    }

    #[test]
    fn every_empty_variable_is_left_out() {
        fn twins(command: &Command) -> usize {
            let own = command
                .get_arguments()
                .filter(|arg| arg.get_env().is_some());
            own.count() + command.get_subcommands().map(twins).sum::<usize>()
        }
        assert!(declared_with("").try_get_matches_from(["p"]).is_err());
        for (value, left) in [("", 0), (" ", 0), ("\t\n", 0), ("0", 5), (" 0", 5)] {
            let command = without_empty(Program::command(), &|_| Some(value.into()));
            assert_eq!(twins(&command), left, "{value:?}");
        }
        let command = without_empty(Program::command(), &|_| Some("".into()));
        let matches = command.try_get_matches_from(["p", "do"]).unwrap();
        let program = Program::from_arg_matches(&matches).unwrap();
        let Flags {
            count,
            folder,
            on,
            list,
        } = program.flags;
        let got = (count.get(), folder, on, items(list));
        assert_eq!(got, (1, None, false, vec![Metric::Cpu]));
        assert!(matches!(program.verb, Some(Verb::Do { limit }) if limit.is_empty()));
    }

    #[test]
    fn items_are_trimmed_and_none_is_empty() {
        use Metric::{Cpu, Mem};
        let cases: [(&str, Result<&[Metric], &str>); 11] = [
            ("cpu,mem", Ok(&[Cpu, Mem])),
            ("cpu, mem", Ok(&[Cpu, Mem])),
            (" cpu ,\tmem\n", Ok(&[Cpu, Mem])),
            ("cpu,", Ok(&[Cpu])),
            (" , cpu", Ok(&[Cpu])),
            ("cpu,,mem, ", Ok(&[Cpu, Mem])),
            (",", Err("--list <LIST>: the list is empty")),
            (" , ,", Err("the list is empty")),
            ("", Err("the list is empty")),
            ("cpu mem", Err("cpu mem")),
            ("cpu,men", Err("men")),
        ];
        for (text, expected) in cases {
            match (Program::try_parse_from(["p", "--list", text]), expected) {
                (Ok(program), Ok(expected)) => {
                    assert_eq!(items(program.flags.list), expected, "{text}");
                }
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{text}: {error}");
                    assert_eq!(error.exit_code(), 2);
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        let limits = |texts: &[&str]| {
            let typed = ["p", "do", "--limit"].iter().chain(texts);
            match Program::try_parse_from(typed) {
                Ok(Program {
                    verb: Some(Verb::Do { limit }),
                    ..
                }) => Ok(items(limit)),
                Ok(_) => Err(String::new()),
                Err(error) => Err(error.to_string()),
            }
        };
        assert_eq!(limits(&["1, 2", "3,"]), Ok(vec![1, 2, 3]));
        assert!(limits(&["1 2"]).unwrap_err().contains("invalid digit"));
    }
}
