//! A program that is run for each notice. It gets JSON on its standard input; its arguments are
//! those of the file, and no shell sees them.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::error::TellError;
use crate::message::Message;
use crate::rules::CommandConfig;

/// How often it is seen whether the program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What the program finds its own programs by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program.
#[derive(Debug)]
pub(super) struct Command {
    config: CommandConfig,
}

impl Command {
    pub(super) fn new(config: CommandConfig) -> Self {
        Self { config }
    }

    /// Runs it. When this is dropped before it ends, the program is killed, with its group.
    pub(super) async fn tell(&mut self, message: &Message) -> Result<(), TellError> {
        let body = message.to_json().map_err(TellError::passing)?;
        let command = self.config.command.clone();
        let (alive, dropped) = sync_channel::<()>(0);
        let run = tokio::task::spawn_blocking(move || run(&command, &body, &dropped));
        let ended = run.await;
        drop(alive);
        ended.map_err(TellError::passing)?
    }
}

fn run(command: &[String], body: &[u8], dropped: &Receiver<()>) -> Result<(), TellError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(TellError::passing("there is no program"));
    };
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| TellError::passing(format_args!("{program}: {error}")))?;
    // It fits into a pipe, so a program that does not read it holds up nobody; one that has ended
    // without reading it is judged by its exit code.
    if let Some(mut input) = child.stdin.take() {
        let _unread = input.write_all(body);
    }
    wait(&mut child, dropped).map_err(|why| TellError::passing(format_args!("{program}: {why}")))
}

fn wait(child: &mut Child, dropped: &Receiver<()>) -> Result<(), String> {
    loop {
        match child.try_wait() {
            Err(error) => return Err(error.to_string()),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(status.to_string()),
            Ok(None) => (),
        }
        if dropped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected) {
            kill(child);
            return Err("it took too long, and was killed".to_owned());
        }
    }
}

/// It is the leader of a group of its own: what it has started ends with it.
fn kill(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let _reaped = child.wait();
}
