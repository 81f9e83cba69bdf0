//! Files of settings: what becomes of each value, what is refused, and who takes precedence.

use std::num::NonZeroU32;
use std::str::FromStr;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::*;
use crate::args::{CommaList, Items, items};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    Round,
    Flat,
}

#[derive(Debug, Parser)]
#[command(name = "p")]
struct Program {
    #[arg(long, env = "X_STORE", value_name = "URL")]
    store: Option<String>,
    #[arg(long, env = "X_REPLICAS", value_name = "NUMBER", requires = "store")]
    replicas: Option<u32>,
    #[arg(long, env = "X_COUNT", value_name = "NUMBER", default_value = "1")]
    count: NonZeroU32,
    #[arg(long, env = "X_ON", requires = "store")]
    on: bool,
    #[arg(long, env = "X_SHAPE", value_name = "SHAPE", default_value = "round")]
    shape: Shape,
    #[arg(long, env = "X_LIST", value_name = "N", num_args = 1.., value_parser = Items(u32::from_str))]
    list: Vec<CommaList<u32>>,
    #[arg(long, env = "X_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Keep {
        to: PathBuf,
        #[arg(long, env = "X_DATA", value_name = "DIR", default_value = "data")]
        data: PathBuf,
        #[command(flatten)]
        config: ConfigFlags,
    },
}

fn command() -> Command {
    Verb::augment_subcommands(Program::command())
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
}

/// The arguments that a program gets: those typed, of which FILE is the file with this text.
fn expanded(text: &str, typed: &[&str], set: &[&str]) -> Result<Expanded, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    std::fs::write(&file, text).unwrap();
    let shown = file.display().to_string();
    let words = ["p"].iter().chain(typed);
    let words = words.map(|word| OsString::from(word.replace("FILE", &shown)));
    let variable = |name: &OsStr| match name.to_str() {
        Some("LIZMON_CONFIG") if set.contains(&"LIZMON_CONFIG") => Some(file.clone().into()),
        Some(name) if set.contains(&name) => Some(OsString::from("set")),
        _ => None,
    };
    expand(&command(), words.collect(), &variable)
        .map_err(|error| error.to_string().replace(&shown, "FILE"))
}

/// The same, without the name of the program and `--config FILE`.
fn added(text: &str, typed: &[&str], set: &[&str]) -> Result<Vec<String>, String> {
    let words = expanded(text, typed, set)?.arguments.into_iter();
    let words = words.map(|word| word.into_string().unwrap()).skip(1);
    Ok(words.filter(|word| !word.ends_with("p.toml")).collect())
}

#[test]
fn each_value_becomes_an_argument() {
    for (text, expected) in [
        ("", &[][..]),
        ("# count = 3\n\n", &[]),
        ("count = 3", &["--count=3"]),
        ("count = 0x10", &["--count=16"]),
        ("count = 1_000", &["--count=1000"]),
        ("count = -1", &["--count=-1"]),
        ("store = \"a b\"", &["--store=a b"]),
        ("store = '--on'", &["--store=--on"]),
        ("on = true\non2 = 1", &[]),
        ("on = true", &["--on"]),
        ("on = false", &[]),
        ("list = \"1,2\"", &["--list=1,2"]),
        ("list = [\"1\",\n\"2\"]", &["--list=1", "--list=2"]),
        ("data = \"d\"\ncount = 2", &["--data=d", "--count=2"]),
        ("\u{feff}count = 3\r\n", &["--count=3"]),
    ] {
        match added(text, &["--config", "FILE"], &[]) {
            Ok(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let (settings, typed) = words.split_at(words.len() - 1);
                assert_eq!((settings, typed), (expected, &["--config"][..]), "{text}");
            }
            Err(error) => assert!(text.contains("on2"), "{text}: {error}"),
        }
    }
}

#[test]
fn a_wrong_line_is_named() {
    const KEYS: &str = "count, data, list, on, replicas, shape, store";
    let unknown = |line: usize, key: &str| {
        format!("FILE:{line}: there is no setting \"{key}\"; there are {KEYS}")
    };
    let kind = |line: usize, fault: &str| format!("FILE:{line}: {fault}");
    for (text, expected) in [
        ("\ncuont = 3", unknown(2, "cuont")),
        ("count = 3\n\n[receiver]\n", unknown(3, "receiver")),
        ("config = \"x\"", unknown(1, "config")),
        ("help = true", unknown(1, "help")),
        ("to = \"x\"", unknown(1, "to")),
        ("\"a\\u001b\" = 1", unknown(1, "a\\u{1b}")),
        (
            "shape = 1\nx = 1",
            kind(1, "shape is a text in quotes, not a whole number"),
        ),
        (
            "count = \"3\"",
            kind(1, "count is a whole number, without quotes, not a text"),
        ),
        (
            "count = 1.5",
            kind(
                1,
                "count is a whole number, without quotes, not a number with a point",
            ),
        ),
        (
            "count = [1]",
            kind(1, "count is a whole number, without quotes, not a list"),
        ),
        (
            "count = 99999999999999999999",
            kind(
                1,
                "count is a whole number, without quotes, not one of more than 64 bits",
            ),
        ),
        (
            "on = \"yes\"",
            kind(1, "on is true or false, without quotes, not a text"),
        ),
        (
            "on = 1",
            kind(1, "on is true or false, without quotes, not a whole number"),
        ),
        (
            "data = 2026-11-26",
            kind(1, "data is a text in quotes, not a date"),
        ),
        (
            "data.x = 1",
            kind(1, "data is a text in quotes, not a table"),
        ),
        (
            "data = [\"a\"]",
            kind(1, "data is a text in quotes, not a list"),
        ),
        (
            "list = []",
            kind(
                1,
                "list is a text in quotes, or a list of such: [\"…\", \"…\"], not an empty list",
            ),
        ),
        (
            "list = [\"1\",\n2]",
            kind(
                2,
                "list is a text in quotes, or a list of such: [\"…\", \"…\"], not a whole number",
            ),
        ),
    ] {
        assert_eq!(
            added(text, &["--config", "FILE"], &[]),
            Err(expected),
            "{text}"
        );
    }
    for (text, line) in [
        ("count = 1\ncount = 2", 2),
        ("\n\ncount", 3),
        ("count = yes", 1),
    ] {
        let error = added(text, &["--config=FILE"], &[]).unwrap_err();
        assert!(error.starts_with(&format!("FILE:{line}: ")), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

/// What the parser refuses is told with the line that it is in.
#[test]
fn a_refused_value_is_named() {
    for (text, line, part) in [
        ("count = 0", Some(1), "number would be zero"),
        ("\nreplicas = -1\nstore = \"s\"", Some(2), "'-1'"),
        (
            "shape = \"square\"",
            Some(1),
            "[possible values: round, flat]",
        ),
        ("list = [\"1\",\n\"x\"]", Some(2), "'x'"),
        ("\nlist = \",\"", Some(2), "the list is empty"),
        // It requires another, which no line can be blamed for.
        ("replicas = 1", None, ""),
    ] {
        let expanded = expanded(text, &["--config", "FILE"], &[]).unwrap();
        let refused = command()
            .try_get_matches_from(&expanded.arguments)
            .unwrap_err();
        let blamed = expanded.blame(&refused).map(|error| error.to_string());
        match line {
            None => assert_eq!(blamed, None, "{text}"),
            Some(line) => {
                let blamed = blamed.unwrap_or_else(|| panic!("{text}: {refused}"));
                assert!(blamed.contains(&format!("p.toml:{line}: ")), "{blamed}");
                assert!(blamed.contains(part) && !blamed.contains('\n'), "{blamed}");
            }
        }
    }
    let typed = ["--config", "FILE", "--count", "0"];
    let expanded = expanded("count = 2", &typed, &[]).unwrap();
    let refused = command()
        .try_get_matches_from(&expanded.arguments)
        .unwrap_err();
    assert!(expanded.blame(&refused).is_none(), "it was typed");
}

#[test]
fn flags_and_variables_take_precedence() {
    let text = "store = \"s\"\ncount = 5\non = true\nlist = [\"1\", \"2\"]\nshape = \"flat\"";
    let all = [
        "--store=s",
        "--count=5",
        "--on",
        "--list=1",
        "--list=2",
        "--shape=flat",
    ];
    for (typed, set, missing) in [
        (&["--config", "FILE"][..], &[][..], &[][..]),
        (&[], &["LIZMON_CONFIG"], &[]),
        (&["--config", "FILE", "--count", "7"], &[], &["--count=5"]),
        (
            &["--count=7", "--config", "FILE"],
            &["X_ON"],
            &["--count=5", "--on"],
        ),
        (
            &["--config", "FILE", "--list", "3"],
            &["X_SHAPE"],
            &["--list=1", "--list=2", "--shape=flat"],
        ),
        (
            &["--config=FILE"],
            &["X_LIST", "X_STORE"],
            &["--store=s", "--list=1", "--list=2"],
        ),
    ] {
        let got = added(text, typed, set).unwrap();
        let settings: Vec<&str> = got
            .iter()
            .map(String::as_str)
            .filter(|word| all.contains(word))
            .collect();
        let expected: Vec<&str> = all
            .into_iter()
            .filter(|word| !missing.contains(word))
            .collect();
        assert_eq!(settings, expected, "{typed:?} {set:?}");
    }
    // What one requires may come from elsewhere.
    let typed = ["--config", "FILE", "--replicas", "2", "--list", "3"];
    let expanded = expanded(text, &typed, &[]).unwrap();
    let matches = command().try_get_matches_from(expanded.arguments).unwrap();
    let program = Program::from_arg_matches(&matches).unwrap();
    let got = (
        program.replicas,
        program.store.as_deref(),
        items(program.list),
    );
    assert_eq!(got, (Some(2), Some("s"), vec![3]));
    assert_eq!(
        (program.shape, program.on, program.count.get()),
        (Shape::Flat, true, 5)
    );
    assert!(program.data.is_none() && program.config.config.is_some());
}

/// A verb reads the program's file, and uses what it has a flag for.
#[test]
fn a_verb_uses_its_part() {
    let text = "store = \"s\"\ncount = 5\ndata = \"d\"";
    for (typed, expected) in [
        (&["keep", "there", "--config", "FILE"][..], Some("d")),
        (&["keep", "--config", "FILE", "--", "there"], Some("d")),
        (
            &["keep", "there", "--config", "FILE", "--data", "e"],
            Some("e"),
        ),
        (&["keep", "there"], Some("data")),
        (&["--config", "FILE", "keep", "there"], None),
    ] {
        let expanded = expanded(text, typed, &[]).unwrap();
        let matches = command().try_get_matches_from(expanded.arguments).ok();
        let Some(matches) = matches else {
            assert_eq!(expected, None, "{typed:?}");
            continue;
        };
        let Verb::Keep { to, data, .. } = Verb::from_arg_matches(&matches).unwrap();
        assert_eq!((to, data.to_str()), ("there".into(), expected), "{typed:?}");
    }
    assert!(expanded("x = 1", &["keep", "there", "--config", "FILE"], &[]).is_err());
}

#[test]
fn the_file_is_read_only_if_it_is_needed() {
    let none = |_: &OsStr| None;
    let words = |typed: &[&str]| ["p"].iter().chain(typed).map(OsString::from).collect();
    for typed in [
        &["--help"][..],
        &["--version"],
        &["--no-such-flag"],
        &["keep", "--help"],
    ] {
        let typed: Vec<&str> = typed.iter().copied().chain(["--config", "/none"]).collect();
        let expanded = expand(&command(), words(&typed), &none).unwrap();
        assert_eq!(expanded.arguments.len(), typed.len() + 1);
    }
    for (file, part) in [
        ("/none", "cannot read the settings in /none: No such file"),
        ("/", "cannot read the settings in /: Is a directory"),
        ("/dev/zero", "/dev/zero has more than 1048576 bytes"),
    ] {
        let error = expand(&command(), words(&["--config", file]), &none).unwrap_err();
        assert!(error.to_string().starts_with(part), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    std::fs::write(&file, b"\n# \xff\n").unwrap();
    let error = expand(
        &command(),
        words(&["--config", &file.display().to_string()]),
        &none,
    );
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("p.toml:2: it is not UTF-8"), "{error}");
}
