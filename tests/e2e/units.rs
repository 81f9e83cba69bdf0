//! `deploy/systemd`: systemd itself judges the units, and their commands are those of the programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::process::{program, run};

/// systemd's own measure of what a service could do to the machine: 0 is nothing, 10 everything.
const EXPOSURE_MAX: f64 = 2.0;

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let all = std::fs::read_dir(folder).unwrap();
    let mut units: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    units.sort();
    assert!(units.len() > 4, "{units:?}");
    units
}

fn is_service(unit: &Path) -> bool {
    unit.extension().is_some_and(|kind| kind == "service")
}

/// The values of a key, in their order.
fn values<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.filter_map(move |(name, value)| (name == key).then_some(value))
}

fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    let done = command.args(arguments).arg(unit).output();
    let done = done.expect("systemd-analyze, of Debian's package systemd, runs: see tests/run");
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn systemd_finds_no_fault() {
    // Its copies name the programs that were built with this test, and no pages that are not here.
    let folder = tempfile::tempdir().unwrap();
    let built = |name: &str| program(name).get_program().to_str().unwrap().to_owned();
    for unit in units() {
        let mut text = std::fs::read_to_string(&unit).unwrap();
        for name in [
            "liz-receiver",
            "liz-summarizer",
            "liz-monitor",
            "liz-ca",
            "lizctl",
        ] {
            text = text.replace(&format!("=/usr/bin/{name} "), &format!("={} ", built(name)));
        }
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("Documentation="));
        let text = lines.collect::<Vec<_>>().join("\n");
        std::fs::write(folder.path().join(unit.file_name().unwrap()), text).unwrap();
    }
    for unit in units() {
        let copy = folder.path().join(unit.file_name().unwrap());
        let (is_clean, said) = analyze(&["verify"], &copy);
        assert!(is_clean && said.is_empty(), "{}: {said}", unit.display());
    }
}

#[test]
fn services_are_hardened() {
    for unit in units().iter().filter(|unit| is_service(unit)) {
        let arguments = ["security", "--offline=true", "--no-pager"];
        let (_, said) = analyze(&arguments, unit);
        let level = said.split("Overall exposure level for ").nth(1);
        let level = level.and_then(|rest| rest.split_whitespace().nth(1));
        let level: f64 = level.and_then(|level| level.parse().ok()).expect(&said);
        assert!(level <= EXPOSURE_MAX, "{}:\n{said}", unit.display());
    }
}

/// A receiver's user cannot read the CA's folder, nor a monitor's the receiver's.
#[test]
fn each_service_has_a_user_and_a_folder_that_no_other_reads() {
    let expected = [
        ("lizmon-ca", "lizmon-ca"),
        ("lizmon-monitor", "lizmon-monitor"),
        ("lizmon-receiver", "lizmon"),
        ("lizmon-summarizer", "lizmon"),
    ];
    for (name, user) in expected {
        let unit = units()
            .into_iter()
            .find(|unit| unit.ends_with(format!("{name}.service")));
        let text = std::fs::read_to_string(unit.expect(name)).unwrap();
        let one = |key: &str| values(&text, key).collect::<Vec<_>>().join(" ");
        assert_eq!([one("User"), one("Group")], [user, user], "{name}");
        assert_eq!(one("StateDirectory"), name);
        assert_eq!(one("StateDirectoryMode"), "0700", "{name}");
        assert_eq!(one("UMask"), "0077", "{name}");
        assert_eq!(one("Type"), "notify", "{name}");
        let watched = one("WatchdogSec").parse::<u64>().unwrap();
        assert!(watched >= 30, "{name}: a busy machine is late by seconds");
        let start = one("ExecStart");
        let file = format!("/etc/lizmon/{}.toml", name.trim_start_matches("lizmon-"));
        assert!(start.ends_with(&format!(" --config {file}")), "{start}");
        let binary = start
            .split(' ')
            .next()
            .unwrap()
            .trim_start_matches("/usr/bin/");
        let help = run(program(binary).arg("--help")).success();
        assert!(help.contains("--config"), "{binary}");
    }
}
