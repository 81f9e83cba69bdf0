//! This machine: whether its clock is synchronized, and how its service fares. systemd is asked,
//! where there is one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::report::{Report, Subject};

/// The limit for a program of systemd: it may wait for one that hangs.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether something keeps the clock right.
pub(super) fn check_clock(report: &mut Report) {
    let told = ask(
        "timedatectl",
        &["show", "--property=NTPSynchronized", "--value"],
    );
    match told.as_deref().map(str::trim) {
        Some("yes") => report.ok(Subject::Clock, "this machine's clock is synchronized"),
        Some("no") => report.warning(
            Subject::Clock,
            "clock-not-synchronized",
            "this machine's clock is not synchronized",
            "timedatectl set-ntp true, or install chrony",
        ),
        _ => report.skipped(
            Subject::Clock,
            "timedatectl does not tell whether this machine's clock is synchronized",
        ),
    }
}

/// The folder that a service's relative paths are in. None where systemd does not know it.
pub(super) fn working_folder(unit: &str) -> Option<PathBuf> {
    let told = ask(
        "systemctl",
        &["show", "--property=WorkingDirectory", "--value", "--", unit],
    )?;
    // `!` says that the folder may be missing.
    let folder = Path::new(told.trim().trim_start_matches('!'));
    folder.is_absolute().then(|| folder.to_owned())
}

/// What `systemctl show` says of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnitState {
    load: String,
    active: String,
    sub: String,
    file: String,
    restarts: u64,
    result: String,
}

impl UnitState {
    fn read(told: &str) -> Self {
        let mut state = Self::default();
        for (key, value) in told.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim().to_owned();
            match key {
                "LoadState" => state.load = value,
                "ActiveState" => state.active = value,
                "SubState" => state.sub = value,
                "UnitFileState" => state.file = value,
                "NRestarts" => state.restarts = value.parse().unwrap_or_default(),
                "Result" => state.result = value,
                _ => (),
            }
        }
        state
    }
}

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result";

/// How the service fares. `is_asked_for` if the user named it.
pub(super) fn check_unit(unit: &str, is_asked_for: bool, report: &mut Report) {
    let Some(told) = ask("systemctl", &["show", PROPERTIES, "--", unit]) else {
        return report.skipped(
            Subject::Service,
            format_args!("there is no systemd to ask about {unit}"),
        );
    };
    judge(unit, &UnitState::read(&told), is_asked_for, report);
}

fn judge(unit: &str, state: &UnitState, is_asked_for: bool, report: &mut Report) {
    let log = format!("journalctl -u {unit} -n 50 says why");
    if state.load != "loaded" {
        let what = format!("{unit} is not installed here ({})", state.load);
        return match is_asked_for {
            true => report.failed(
                Subject::Service,
                "not-installed",
                what,
                "check the name: systemctl list-units 'lizmon-*'",
            ),
            false => report.skipped(Subject::Service, what),
        };
    }
    match (state.active.as_str(), state.sub.as_str()) {
        ("active", _) if state.restarts > 0 => report.warning(
            Subject::Service,
            "restarted",
            format_args!("{unit} runs, after {} restarts by systemd", state.restarts),
            &log,
        ),
        ("active", _) => report.ok(Subject::Service, format_args!("{unit} runs")),
        ("activating", sub) => report.failed(
            Subject::Service,
            "not-running",
            format_args!(
                "{unit} does not get ready ({sub}, {} restarts)",
                state.restarts
            ),
            &log,
        ),
        (active, _) => report.failed(
            Subject::Service,
            "not-running",
            format_args!("{unit} is {active} (result {})", state.result),
            format_args!("systemctl start {unit}; {log}"),
        ),
    }
    // One that is started by another unit, or by hand, has another state.
    if state.file == "disabled" {
        report.warning(
            Subject::Service,
            "not-enabled",
            format_args!("{unit} does not start with the machine"),
            format_args!("systemctl enable {unit}"),
        );
    }
}

/// What a program prints, if it is there, succeeds, and is done in time.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut pipe = child.stdout.take()?;
    let (send, told) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = pipe.read_to_string(&mut text);
        // Nobody waits any more if it took too long.
        let _late = send.send(read.map(|_| text));
    });
    let text = told.recv_timeout(ASK_TIMEOUT);
    if text.is_err() {
        // It may have ended just now.
        let _ended = child.kill();
    }
    let status = child.wait().ok()?;
    text.ok()?.ok().filter(|_| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_judged() {
        let state = |active: &str, sub: &str, file: &str, restarts: u64| {
            UnitState::read(&format!(
                "LoadState=loaded\nActiveState={active}\nSubState={sub}\nUnitFileState={file}\nNRestarts={restarts}\nResult=success\n"
            ))
        };
        for (state, asked, codes) in [
            (state("active", "running", "enabled", 0), true, &[][..]),
            (state("active", "running", "static", 0), true, &[]),
            (
                state("active", "running", "disabled", 3),
                true,
                &["restarted", "not-enabled"],
            ),
            (
                state("failed", "failed", "enabled", 5),
                true,
                &["not-running"],
            ),
            (
                state("activating", "auto-restart", "enabled", 7),
                true,
                &["not-running"],
            ),
            (
                UnitState::read("LoadState=not-found\n"),
                true,
                &["not-installed"],
            ),
            (UnitState::read("LoadState=not-found\n"), false, &[]),
            (UnitState::read(""), false, &[]),
        ] {
            let mut report = Report::new(0);
            judge("x.service", &state, asked, &mut report);
            assert_eq!(report.codes(), codes, "{state:?}");
        }
    }

    #[test]
    fn programs_that_fail_or_are_missing_tell_nothing() {
        assert_eq!(ask("echo", &["yes"]).as_deref(), Some("yes\n"));
        assert_eq!(ask("false", &[]), None);
        assert_eq!(ask("/no/such/program", &[]), None);
    }
}
