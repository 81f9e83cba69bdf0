//! Shipped programs as processes: started beside this one, watched, never left behind.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything a process should do: far more than it needs, so that a slow machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A program as it was built with this test: `target/debug/NAME` beside `target/debug/deps/e2e-…`.
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
    // Nothing of the caller's settings reaches a program under test.
    for (key, _) in std::env::vars_os() {
        let key_text = key.to_string_lossy();
        if key_text.starts_with("LIZMON_") || key_text == "RUST_LOG" || key_text == "NOTIFY_SOCKET"
        {
            command.env_remove(key);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a program left.
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

/// Runs a program to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    Running::start(command).wait()
}

/// A program that runs. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stderr: Receiver<String>,
    seen: Vec<String>,
    stdout: Option<JoinHandle<String>>,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let (send, stderr) = channel();
        let lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
        std::thread::spawn(move || {
            for line in lines.split(b'\n').map_while(Result::ok) {
                if send
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    break;
                }
            }
        });
        let mut pipe = child.stdout.take().expect("stdout is piped");
        let stdout = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("stdout can be read");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self {
            child,
            stderr,
            seen: Vec::new(),
            stdout: Some(stdout),
        }
    }

    /// The first line on stderr from now on that holds this text.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(why) => panic!("no `{text}` on stderr ({why}):\n{}", self.seen.join("\n")),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// kill -9, and nothing left of it after that.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Waits for its own end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still running:\n{}", self.seen.join("\n"))
                }
            }
        }
        let status = self.child.wait().expect("the process is ours");
        let stdout = self.stdout.take().expect("stdout is taken once");
        Finished {
            status,
            stdout: stdout.join().expect("stdout was read"),
            stderr: self.seen.join("\n"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail for a process that has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
