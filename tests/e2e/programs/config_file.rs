//! `--config FILE`: the same for every daemon, and the examples in deploy/config.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::crash::receiver_command;
use crate::harness::World;
use crate::harness::process::{Running, program, run};

const DAEMONS: [(&str, &str); 4] = [
    ("liz-receiver", "receiver"),
    ("liz-summarizer", "summarizer"),
    ("liz-monitor", "monitor"),
    ("liz-ca", "ca"),
];

/// The settings that an example shows, commented out or not: key, line.
fn shown(text: &str) -> BTreeMap<&str, &str> {
    let lines = text
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line));
    let pairs = lines.filter_map(|line| Some((line.split_once(" = ")?.0, line)));
    pairs.filter(|(key, _)| !key.contains(' ')).collect()
}

/// `[default: …]` of each flag, by name.
fn defaults(help: &str) -> BTreeMap<String, String> {
    let flags = help.split("\n      --").skip(1);
    let pairs = flags.filter_map(|flag| {
        let name = flag.split([' ', '\n']).next()?;
        let flat = flag.split_whitespace().collect::<Vec<_>>().join(" ");
        let value = flat.split("[default: ").nth(1)?.split(']').next()?;
        Some((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// Not `https://FIRST-SAN:PORT`, nor words.
fn is_literal(default: &str) -> bool {
    !default.contains(|letter: char| letter == ' ' || letter.is_ascii_uppercase())
}

/// Every flag is in the example, no other key is, each value is of the right kind, and where there
/// is a default it is the one that is shown.
#[test]
fn the_examples_have_every_setting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let refused = |name: &str, text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = program(name);
        let done = run(command
            .arg("--config")
            .arg(&file)
            .current_dir(folder.path()));
        assert!(!done.status.success(), "{name}: {text}");
        done.stderr
    };
    for (name, example) in DAEMONS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = root.join(format!("deploy/config/{example}.toml"));
        let text = fs::read_to_string(path).unwrap();
        let shown = shown(&text);
        let told = refused(name, "no-such = 1");
        let known = told.trim_end().split("there are ").nth(1).unwrap();
        let known: Vec<&str> = known.split(", ").collect();
        let keys: Vec<&str> = shown.keys().copied().collect();
        assert_eq!(keys, known, "{example}.toml");
        let help = run(program(name).arg("--help")).success();
        let defaults = defaults(&help);
        for (key, line) in shown {
            // Other settings are missing, or the files; this line is right.
            let told = refused(name, line);
            assert!(!told.contains("config.toml:"), "{line}: {told}");
            let value: toml::Table = line.parse().unwrap();
            let value = match &value[key] {
                toml::Value::Array(items) => {
                    let items = items.iter().map(|item| item.as_str().unwrap());
                    items.collect::<Vec<_>>().join(",")
                }
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(on) => on.to_string(),
                other => panic!("{line}: {other:?}"),
            };
            match defaults.get(key) {
                Some(default) if is_literal(default) => assert_eq!(&value, default, "{line}"),
                _ => {}
            }
        }
    }
}

/// A file with these flags of a command, and the program with the file alone.
fn from_file(command: &Command, file: &Path) -> Command {
    let mut arguments = command
        .get_args()
        .map(|argument| argument.to_str().unwrap());
    let mut text = String::new();
    while let Some(flag) = arguments.next() {
        let key = flag.strip_prefix("--").unwrap();
        let value = arguments.next().unwrap();
        text += &format!("{key} = {value:?}\n");
    }
    fs::write(file, text).unwrap();
    let mut bare = Command::new(command.get_program());
    for (name, _) in command.get_envs() {
        bare.env_remove(name);
    }
    bare.env("LIZMON_CONFIG", file);
    bare
}

/// A receiver has all its flags from a file, and so have its verbs.
#[test]
fn a_receiver_starts_from_a_file() {
    let world = World::without_receiver(|_| ());
    let file = world.folder().join("receiver.toml");
    let command = || from_file(&receiver_command(&world), &file);
    let mut running = Running::start(&mut command());
    let told = running.wait_for("settings come from");
    assert!(told.contains(&file.display().to_string()), "{told}");
    running.wait_for("READY on 127.0.0.1:");
    let checked = run(command().arg("check")).success();
    assert!(checked.ends_with("whole\n"), "{checked}");
    running.signal(Signal::TERM);
    running.wait().success();
    let typed = run(command().args(["check", "--data", "nowhere"]));
    assert!(typed.failure(1).contains("nowhere"), "{}", typed.stderr);
    let unset = run(command().env("LIZMON_DATA", "").arg("check")).success();
    assert!(unset.ends_with("whole\n"), "an empty variable is none");
    let twin = run(command().env("LIZMON_DATA", "nowhere").arg("check"));
    assert!(twin.failure(1).contains("nowhere"), "{}", twin.stderr);
    for (line, refusal) in [
        (
            "listen = \"8443\"",
            ":1: invalid value '8443' for '--listen <ADDRESS:PORT>'",
        ),
        (
            "lisen = 1",
            ":1: there is no setting \"lisen\"; there are accept-lossy-store, audience,",
        ),
        ("summarize = true", "Settings come from "),
    ] {
        let mut command = command();
        fs::write(&file, line).unwrap();
        let done = run(&mut command);
        assert!(done.failure(2).contains(refusal), "{}", done.stderr);
    }
}
