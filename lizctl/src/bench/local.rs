//! A receiver of the load's own: `lizctl up` in a process of its own, in a temporary folder.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use lizmon_client::BaseUrl;
use tempfile::TempDir;

use crate::profile;

/// It ends by itself this long after the run, should this process be killed.
const OUTLIVES: Duration = Duration::from_secs(600);

/// A running receiver. Ended, and its folder removed, when dropped.
pub(crate) struct LocalReceiver {
    child: RunningChild,
    folder: TempDir,
    pub(crate) url: BaseUrl,
}

/// Ended when dropped.
struct RunningChild(Child);

impl Drop for RunningChild {
    fn drop(&mut self) {
        // Nothing of its data is kept.
        let _ended_before = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl LocalReceiver {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(lasting: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        let log = folder.path().join("log");
        let run_for =
            humantime::format_duration(Duration::from_secs((lasting + OUTLIVES).as_secs()));
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let mut command = Command::new(program);
        // What this user has set for another site is not for it.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("LIZMON_") {
                command.env_remove(variable);
            }
        }
        command
            .args(["up", "--listen", "127.0.0.1:0", "--this-host", "bench"])
            .arg("--for")
            .arg(run_for.to_string().replace(' ', ""))
            .arg("--certs")
            .arg(folder.path().join("certs"))
            .arg("--data")
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).context("cannot write into the temporary folder")?);
        // Ctrl-C is for this process, which has to ask the receiver what it has.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = RunningChild(command.spawn().context("cannot start a receiver")?);
        let stdout = child.0.stdout.take().context("its output")?;
        let mut lines = BufReader::new(stdout).lines();
        // The first line is printed when it is ready, and its profile is written.
        if !matches!(lines.next(), Some(Ok(_))) {
            let _ended = child.0.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let why = said.lines().last().unwrap_or_default();
            bail!("the receiver did not start: {why}");
        }
        std::thread::spawn(move || lines.for_each(drop));
        let certs = folder.path().join("certs");
        let profile = profile::read_local(&certs)?;
        let url = profile.and_then(|profile| profile.receiver);
        Ok(Self {
            child,
            folder,
            url: url.context("the receiver wrote no profile")?,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub(crate) fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }
}
