//! Programs that are measured.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A program of the profile that this benchmark is built with.
pub fn built(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("this program")?;
    // target/PROFILE/deps/BENCHMARK
    let folder = this.parent().and_then(Path::parent);
    Ok(folder.context("its folder")?.join(name))
}

/// The profile that this benchmark is built with.
pub fn profile() -> Result<String> {
    let folder = built("")?;
    let name = folder.file_name().context("its folder")?;
    Ok(name.to_string_lossy().into_owned())
}

/// A program that says READY on stderr; ended when dropped.
pub struct Program {
    child: Child,
    ready: String,
}

impl Program {
    /// Starts it, and waits until it is ready.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stderr(Stdio::piped()).spawn();
        let mut child =
            child.with_context(|| format!("{name}: is it built, with the same profile?"))?;
        let stderr = child.stderr.take().context("its log")?;
        let (mut lines, mut said) = (BufReader::new(stderr).lines(), String::new());
        while let Some(Ok(line)) = lines.next() {
            if line.contains("READY") {
                // What it logs later must not fill the pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, ready: line });
            }
            said = line;
        }
        let _reaped = child.wait();
        bail!("{name} does not start: {said}");
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, as it says.
    pub fn address(&self) -> Result<SocketAddr> {
        let is_of_address = |char: &char| char.is_ascii_digit() || *char == '.' || *char == ':';
        let from = self.ready.find("127.0.0.1:").context("its address")?;
        let address: String = self.ready[from..]
            .chars()
            .take_while(is_of_address)
            .collect();
        address
            .trim_end_matches(['.', ':'])
            .parse()
            .context("its address")
    }

    /// Fails if it has ended.
    pub fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait().context("its state")? {
            None => Ok(()),
            Some(status) => bail!("it has ended: {status}"),
        }
    }

    /// Ends it as an operator does, and waits until it has ended.
    pub fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("stopped")?;
        self.child.wait().context("ended")?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped = self.child.wait();
    }
}
