//! Shipped programs as processes that are killed, stopped and restarted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

/// Maximum wait for a clean exit.
const END_TIMEOUT: Duration = Duration::from_secs(45);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How much of a log is shown when a program fails.
const LOG_LINES_SHOWN: usize = 20;

pub(crate) fn epoch_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The path of a program that was built with this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here.ancestors().nth(2).unwrap().join(name);
    assert!(
        path.exists(),
        "{} is not built: run ./tests/run",
        path.display()
    );
    path
}

/// The caller's environment variables do not reach a program under test.
pub(crate) fn without_lizmon_env(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        let text = key.to_string_lossy();
        if text.starts_with("LIZMON_") || text == "RUST_LOG" || text == "NOTIFY_SOCKET" {
            command.env_remove(&key);
        }
    }
}

/// One program that is run several times. Its log is appended to.
pub(crate) struct Program {
    name: String,
    command: Command,
    log: PathBuf,
    life: Option<Child>,
    /// The log's length at the last start.
    log_before: u64,
    is_stopped: bool,
}

impl Program {
    pub(crate) fn new(name: &str, mut command: Command, log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        Self {
            name: name.to_owned(),
            command,
            log,
            life: None,
            log_before: 0,
            is_stopped: false,
        }
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn start(&mut self) {
        assert!(self.life.is_none(), "{} runs", self.name);
        self.log_before = std::fs::metadata(&self.log).unwrap().len();
        self.life = Some(self.command.spawn().unwrap());
        self.is_stopped = false;
    }

    pub(crate) fn runs(&self) -> bool {
        self.life.is_some() && !self.is_stopped
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.life.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        let life = self.life.as_ref().unwrap();
        kill_process(Pid::from_child(life), signal).unwrap();
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut life = self.life.take().unwrap();
        life.kill().unwrap();
        life.wait().unwrap();
    }

    pub(crate) fn stop(&mut self) {
        self.signal(Signal::STOP);
        self.is_stopped = true;
    }

    pub(crate) fn resume(&mut self) {
        if self.life.is_some() && self.is_stopped {
            self.signal(Signal::CONT);
            self.is_stopped = false;
        }
    }

    /// SIGTERM; the exit code must be 0.
    pub(crate) fn end(&mut self) {
        self.end_or_say("exit code 0");
    }

    /// SIGTERM; the exit code must be 0, unless the log ends with this reason.
    pub(crate) fn end_or_say(&mut self, reason: &str) {
        self.signal(Signal::TERM);
        let by = Instant::now() + END_TIMEOUT;
        let status = loop {
            match self.status() {
                Some(status) => break status,
                None if Instant::now() > by => {
                    panic!("{} does not end:\n{}", self.name, self.log_tail())
                }
                None => sleep(POLL_INTERVAL),
            }
        };
        self.life = None;
        assert!(
            status.success() || self.log_tail().contains(reason),
            "{} ended with {status}:\n{}",
            self.name,
            self.log_tail()
        );
    }

    /// Fails if the program has ended by itself.
    pub(crate) fn check(&mut self) {
        if let Some(status) = self.status() {
            panic!(
                "{} ended by itself with {status}:\n{}",
                self.name,
                self.log_tail()
            );
        }
    }

    /// Whether it has said so since its last start.
    pub(crate) fn is_ready(&self) -> bool {
        let log = std::fs::read(&self.log).unwrap();
        let since = log.get(self.log_before as usize..).unwrap_or_default();
        String::from_utf8_lossy(since).contains("READY")
    }

    /// Its status, if it has ended by itself. It can be started again then.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.status()?;
        self.life = None;
        Some(status)
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.life.as_mut()?.try_wait().unwrap()
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut life) = self.life.take() {
            // It may have ended already.
            let _ended = life.kill();
            let _reaped = life.wait();
        }
    }
}
