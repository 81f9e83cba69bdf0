//! Shipped programs as processes that are started, watched, and ended with the test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Maximum wait for a process: far more than it needs, so that a slow machine does not fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The path of a program that was built with this test: `target/debug/NAME` beside
/// `target/debug/deps/e2e-…`.
pub(crate) fn program(name: &str) -> Command {
    let here = std::env::current_exe().expect("the test knows where it is");
    let folder = here
        .ancestors()
        .nth(2)
        .expect("a test is in target/debug/deps");
    let path: PathBuf = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{} is not built: run ./tests/run",
        path.display()
    );
    let mut command = Command::new(path);
    // The caller's environment variables do not reach a program under test.
    for (key, _) in std::env::vars_os() {
        let key_text = key.to_string_lossy();
        let of_the_manager = ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"];
        if key_text.starts_with("LIZMON_") || of_the_manager.contains(&key_text.as_ref()) {
            command.env_remove(key);
        }
    }
    // Nor do the profiles of whoever runs the tests: a file can have none below it.
    command.env("XDG_CONFIG_HOME", "/dev/null");
    command.stdin(Stdio::null());
    command
}

/// `liz-ca` on the files of this folder.
pub(crate) fn liz_ca(certs: impl AsRef<Path>) -> Command {
    let mut command = program("liz-ca");
    command.args(["--listen", "127.0.0.1:0", "--certs"]);
    command.arg(certs.as_ref());
    command
}

/// Exit code and output of a program.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Exit code, and stdout if it is 0.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self.stdout
    }

    #[track_caller]
    pub(crate) fn failure(&self, code: i32) -> &str {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}{}",
            self.stdout,
            self.stderr
        );
        &self.stderr
    }
}

/// Runs a program until it exits.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    Running::start(command).wait()
}

/// A running program. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<(Stream, String)>,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let (send, lines) = channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        read_lines(stdout, Stream::Stdout, send.clone());
        read_lines(stderr, Stream::Stderr, send);
        Self {
            child,
            lines,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Waits for a line on stdout or stderr that contains this text.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let by = now() + PATIENCE;
        loop {
            match self.next_line(by) {
                Ok((stream, line)) => {
                    self.keep(stream, line.clone());
                    if line.contains(text) {
                        return line.trim_end().to_owned();
                    }
                }
                Err(why) => panic!("no `{text}` ({why}):\n{}", self.stderr.concat()),
            }
        }
    }

    /// The same, or a line that came already while another was waited for: those of stdout and stderr
    /// come in any order.
    #[track_caller]
    pub(crate) fn said(&mut self, text: &str) -> String {
        let mut kept = self.stdout.iter().chain(&self.stderr);
        match kept.find(|line| line.contains(text)) {
            Some(line) => line.trim_end().to_owned(),
            None => self.wait_for(text),
        }
    }

    /// A program that goes on writing other lines has no more time than one that is silent.
    fn next_line(&self, by: Instant) -> Result<(Stream, String), RecvTimeoutError> {
        let left = by.checked_duration_since(now());
        self.lines
            .recv_timeout(left.ok_or(RecvTimeoutError::Timeout)?)
    }

    fn keep(&mut self, stream: Stream, line: String) {
        match stream {
            Stream::Stdout => self.stdout.push(line),
            Stream::Stderr => self.stderr.push(line),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is there");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// kill -9, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Waits until it exits.
    #[track_caller]
    pub(crate) fn wait(self) -> Finished {
        self.wait_within(PATIENCE)
    }

    /// Waits until it exits; no line of output may take longer than this.
    #[track_caller]
    pub(crate) fn wait_within(mut self, patience: Duration) -> Finished {
        loop {
            match self.lines.recv_timeout(patience) {
                Ok((stream, line)) => self.keep(stream, line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still running:\n{}", self.stderr.concat())
                }
            }
        }
        let status = self.child.wait().expect("the process is ours");
        Finished {
            status,
            stdout: self.stdout.concat(),
            stderr: self.stderr.concat(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs under test run in real time"
)]
fn now() -> Instant {
    Instant::now()
}

fn read_lines(pipe: impl Read + Send + 'static, stream: Stream, send: Sender<(Stream, String)>) {
    std::thread::spawn(move || {
        let (mut pipe, mut line) = (BufReader::new(pipe), Vec::new());
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if send.send((stream, text)).is_err() {
                break;
            }
            line.clear();
        }
    });
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
