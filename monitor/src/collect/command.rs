//! Runs a command that is not trusted to end, or to say little.

mod run_mark;

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use self::run_mark::RunMark;
use super::background::Stop;

/// More is not read, and the command is killed: no list of values is as long.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// What is read at a time.
const CHUNK_BYTES: usize = 4 << 10;
/// Between two looks at a command: short at first, as most end at once.
const LOOK_AFTER: Duration = Duration::from_millis(1);
const LOOK_AFTER_MAX: Duration = Duration::from_millis(50);
/// What systemd gives a service, and no child of it: such as the socket of sd_notify(3).
const NOT_HANDED_ON: [&str; 5] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
];

/// Why a command has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandFailure {
    /// It cannot be started.
    #[error("it cannot be started ({0})")]
    NotStarted(io::ErrorKind),
    /// It did not end, and was killed with all that it had started.
    #[error("it did not end within {} s, and was killed", .0.as_secs())]
    TimedOut(Duration),
    /// It wrote too much, and was killed.
    #[error("it wrote more than {} KiB, and was killed", OUTPUT_BYTES_MAX >> 10)]
    TooMuch,
    /// It ended with another exit code than 0, or by a signal.
    #[error("it ended with {0}")]
    Failed(String),
    /// Its output could not be read.
    #[error("its output cannot be read ({0})")]
    Unreadable(io::ErrorKind),
    /// The monitor ends.
    #[error("the monitor is stopped")]
    Stopped,
}

/// What it wrote to its standard output, which it ends within this time. It and all that it has
/// started have ended, or are killed, when this returns. There is no shell, no input, and what it
/// writes to its standard error is thrown away.
pub(super) fn run(
    words: &[String],
    time_max: Duration,
    monotonic: &dyn Fn() -> Duration,
    stop: &Stop<'_>,
) -> Result<Vec<u8>, CommandFailure> {
    let not_started = |error: io::Error| CommandFailure::NotStarted(error.kind());
    let [program, arguments @ ..] = words else {
        return Err(CommandFailure::NotStarted(io::ErrorKind::NotFound));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    for name in NOT_HANDED_ON {
        command.env_remove(name);
    }
    let started = monotonic();
    let mark = RunMark::new(started);
    mark.put_on(&mut command);
    let mut started_processes = StartedProcesses {
        child: command.spawn().map_err(not_started)?,
        mark,
    };
    let unreadable = |error: io::Error| CommandFailure::Unreadable(error.kind());
    let Some(mut stdout) = started_processes.child.stdout.take() else {
        return Err(CommandFailure::Unreadable(io::ErrorKind::BrokenPipe));
    };
    let flags = fcntl_getfl(&stdout)
        .map_err(io::Error::from)
        .map_err(unreadable)?;
    fcntl_setfl(&stdout, flags | OFlags::NONBLOCK)
        .map_err(io::Error::from)
        .map_err(unreadable)?;
    let mut output = Vec::new();
    let mut wait = LOOK_AFTER;
    loop {
        // Looked at first: what it wrote before it ended is there then.
        let has_ended = started_processes.has_ended().map_err(unreadable)?;
        let read = read_available(&mut stdout, &mut output).map_err(unreadable)?;
        if output.len() > OUTPUT_BYTES_MAX {
            return Err(CommandFailure::TooMuch);
        }
        if has_ended {
            let status = started_processes.end().map_err(unreadable)?;
            return match status.success() {
                true => Ok(output),
                false => Err(CommandFailure::Failed(ending(status))),
            };
        }
        if monotonic().saturating_sub(started) >= time_max {
            return Err(CommandFailure::TimedOut(time_max));
        }
        if stop.is_told() {
            return Err(CommandFailure::Stopped);
        }
        if read == 0 {
            pause(wait);
            wait = (wait * 2).min(LOOK_AFTER_MAX);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "paces the looks at a command, on a thread that does nothing else"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Appends what is there, up to a little more than the limit.
fn read_available(stdout: &mut ChildStdout, output: &mut Vec<u8>) -> io::Result<usize> {
    let before = output.len();
    let mut chunk = [0; CHUNK_BYTES];
    while output.len() <= OUTPUT_BYTES_MAX {
        match stdout.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => output.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(output.len() - before)
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

/// A command and what it has started, killed when this is dropped.
struct StartedProcesses {
    child: Child,
    mark: RunMark,
}

impl StartedProcesses {
    /// Whether the command itself has ended. It is not reaped: its number, which is the group's
    /// too, is given to no other process until the group is killed.
    fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(Pid::from_child(&self.child)), options)?.is_some())
    }

    /// Kills all of them, and says how the command ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // Nobody is left in the group: that is as well.
        let _gone = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.mark.kill_all();
        self.child.wait()
    }
}

impl Drop for StartedProcesses {
    fn drop(&mut self) {
        // Once it was reaped its number may be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _reaped = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use super::*;

    /// Far more than a command takes that ends by itself.
    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    /// Each look at this clock is ten seconds later.
    fn hurried() -> impl Fn() -> Duration {
        let looks = AtomicU64::new(0);
        move || Duration::from_secs(10) * looks.fetch_add(1, Ordering::Relaxed) as u32
    }

    fn run_for(
        words: &[String],
        time_max: Duration,
        clock: &dyn Fn() -> Duration,
    ) -> Result<String, CommandFailure> {
        let told = AtomicBool::new(false);
        let output = run(words, time_max, clock, &Stop::at(&told))?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    #[test]
    fn commands_of_every_kind() {
        let standing = || Duration::ZERO;
        let failed = |how: &str| Err(CommandFailure::Failed(how.to_owned()));
        let cases = [
            ("echo temp 41; echo oops >&2", Ok("temp 41\n".to_owned())),
            ("printf 'no newline'", Ok("no newline".to_owned())),
            ("cat", Ok(String::new())),
            ("echo \"$LC_ALL $PWD\"", Ok("C /\n".to_owned())),
            ("echo x; exit 1", failed("exit code 1")),
            ("kill -9 $$", failed("signal 9")),
            ("yes", Err(CommandFailure::TooMuch)),
            // Its child keeps the output open.
            ("sleep 1000 & echo done", Ok("done\n".to_owned())),
            (
                "head -c 65536 /dev/zero | tr '\\0' x",
                Ok("x".repeat(65_536)),
            ),
            ("head -c 65537 /dev/zero", Err(CommandFailure::TooMuch)),
        ];
        for (script, expected) in cases {
            assert_eq!(
                run_for(&shell(script), LONG, &standing),
                expected,
                "{script}"
            );
        }
        let none = run_for(&["/no/such/program".to_owned()], LONG, &standing);
        assert_eq!(
            none,
            Err(CommandFailure::NotStarted(io::ErrorKind::NotFound))
        );
        assert!(run_for(&[], LONG, &standing).is_err());
    }

    fn is_gone(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
    }

    /// From bug reports of other agents: a program that becomes a daemon outlives the command that
    /// started it, and one more is left behind with each run.
    #[test]
    fn what_left_the_process_group_is_killed_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        // A session of its own, and one whose parent has ended.
        let daemons = format!(
            "for at in 1 2; do (setsid sh -c 'echo $$ >>{0}; exec sleep 1000' & ) ; done
             until [ \"$(wc -l <{0})\" = 2 ]; do :; done",
            file.display()
        );
        let pids = || std::fs::read_to_string(&file).unwrap_or_default();
        let hung = format!("{daemons} 2>/dev/null; sleep 1000");
        let clock = || match pids().lines().count() {
            2 => LONG,
            _ => Duration::ZERO,
        };
        let timed_out = Err(CommandFailure::TimedOut(LONG));
        for (script, expected) in [
            (hung, timed_out),
            (format!("{daemons}; echo 1"), Ok("1\n".to_owned())),
        ] {
            let standing = || Duration::ZERO;
            let by: &dyn Fn() -> Duration = match expected {
                Ok(_) => &standing,
                Err(_) => &clock,
            };
            std::fs::write(&file, "").unwrap();
            assert_eq!(run_for(&shell(&script), LONG, by), expected, "{script}");
            assert_eq!(pids().lines().count(), 2);
            assert!(pids().lines().all(ends_soon), "{script}");
        }
    }

    /// Also what it started, with another environment, and what ignores every signal that can be
    /// ignored.
    #[test]
    fn what_does_not_end_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!(
            "trap '' TERM INT HUP; env -i sleep 1000 & echo $! >'{0}.new'; echo $$ >>'{0}.new'; mv '{0}.new' '{0}'; wait; sleep 1000",
            file.display()
        );
        // It may run until it has told its numbers.
        let clock = || match file.exists() {
            true => LONG,
            false => Duration::ZERO,
        };
        let ended = run_for(&shell(&script), LONG, &clock);
        assert_eq!(ended, Err(CommandFailure::TimedOut(LONG)));
        for pid in std::fs::read_to_string(&file).unwrap().split_whitespace() {
            assert!(ends_soon(pid), "{pid} still runs");
        }
        let hung = run_for(&shell("exec sleep 1000 >&-"), LONG, &hurried());
        assert_eq!(hung, Err(CommandFailure::TimedOut(LONG)));
    }

    /// A process that was killed ends when the kernel next runs it: on a busy machine, later.
    fn ends_soon(pid: &str) -> bool {
        (0..10_000).any(|_| {
            let has_ended = is_gone(pid);
            if !has_ended {
                pause(LOOK_AFTER);
            }
            has_ended
        })
    }

    #[test]
    fn a_stop_ends_it() {
        let told = AtomicBool::new(true);
        let ended = run(
            &shell("sleep 1000"),
            LONG,
            &|| Duration::ZERO,
            &Stop::at(&told),
        );
        assert_eq!(ended, Err(CommandFailure::Stopped));
    }
}
