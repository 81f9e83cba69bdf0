//! One server process, and what tests do to it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::config::{NodePart, config_text};
use crate::port::NodePorts;
use crate::program;
use crate::settings::EngineSettings;
use crate::wait::{ensure, wait_until};

/// How long one command may take.
const COMMAND_SECS: u32 = 5;
/// How often other ports are tried when another process was faster.
const START_ATTEMPTS: usize = 20;
/// How much of a log is shown when a server fails.
const LOG_LINES_SHOWN: usize = 20;

/// A server: of its own, a replica, a node of a Cluster or a Sentinel. Dropping it kills it and
/// removes its folder; after a panic the folder stays.
#[derive(Debug)]
pub struct EngineNode {
    settings: EngineSettings,
    is_sentinel: bool,
    ports: NodePorts,
    folder: tempfile::TempDir,
    life: Mutex<Life>,
}

#[derive(Debug, Default)]
struct Life {
    process: Option<Child>,
    is_paused: bool,
}

impl EngineNode {
    /// Starts a server of its own.
    #[track_caller]
    pub fn start(settings: &EngineSettings) -> Self {
        Self::start_as(settings, &NodePart::Single)
    }

    #[track_caller]
    pub(crate) fn start_as(settings: &EngineSettings, part: &NodePart) -> Self {
        for _ in 0..START_ATTEMPTS {
            let ports = NodePorts::take(settings.address);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let text = config_text(settings, part, &ports);
            std::fs::write(folder.path().join(CONFIG_FILE), text).expect("a file");
            let node = Self {
                settings: settings.clone(),
                is_sentinel: matches!(part, NodePart::Sentinel { .. }),
                ports,
                folder,
                life: Mutex::default(),
            };
            node.spawn();
            if node.wait_until_it_answers() {
                return node;
            }
        }
        panic!("no free ports in {START_ATTEMPTS} attempts");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.settings.address, self.ports.port)
    }

    /// `redis://ADDRESS:PORT` or `rediss://…`, without a user.
    pub fn url(&self) -> String {
        let scheme = match self.settings.tls {
            None => "redis",
            Some(_) => "rediss",
        };
        format!("{scheme}://{}", self.address())
    }

    /// Its settings.
    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process; `None` while it is down.
    pub fn pid(&self) -> Option<u32> {
        self.life().process.as_ref().map(Child::id)
    }

    /// Whether it is up and not paused.
    pub fn runs(&self) -> bool {
        let life = self.life();
        life.process.is_some() && !life.is_paused
    }

    /// kill -9, and waits until the process is gone.
    #[track_caller]
    pub fn kill(&self) {
        let mut life = self.life();
        let mut process = life.process.take().expect("the server is up");
        process.kill().expect("the process is ours");
        process.wait().expect("the process is ours");
        life.is_paused = false;
    }

    /// SIGTERM, and waits until it has ended by itself.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::TERM);
        wait_until("the server ends", || {
            ensure(self.has_ended(), || "it still runs".to_owned())
        });
        self.life().process = None;
    }

    /// SIGSTOP: connections stay open, and nothing is answered.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        self.life().is_paused = true;
    }

    /// SIGCONT.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.life().is_paused = false;
    }

    /// Starts a server that is down again, on the same ports and files, and waits until it answers.
    #[track_caller]
    pub fn restart(&self) {
        assert!(self.pid().is_none(), "the server is up");
        wait_until("the server starts again", || {
            self.spawn();
            ensure(self.wait_until_it_answers(), || {
                "its port is taken".to_owned()
            })
        });
    }

    /// Runs a command as the default user; what redis-cli prints, or the error.
    pub fn try_cli(&self, words: &[&str]) -> Result<String, String> {
        let mut command = program::cli(COMMAND_SECS);
        // -e: an error of the server is an exit code.
        command.args(["-e", "--raw", "-h", &self.settings.address.to_string()]);
        command.args(["-p", &self.ports.port.to_string()]);
        if let Some(tls) = &self.settings.tls {
            command.arg("--tls").arg("--cacert").arg(&tls.ca);
            command
                .arg("--cert")
                .arg(&tls.cert)
                .arg("--key")
                .arg(&tls.key);
        }
        match &self.settings.password {
            Some(password) => command.env("REDISCLI_AUTH", password),
            None => command.env_remove("REDISCLI_AUTH"),
        };
        let output = command.args(words).output();
        let output = output.map_err(|error| format!("timeout: {error}: install coreutils"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Err(format!("{words:?}: {} {stdout}{stderr}", output.status))
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> String {
        match self.try_cli(words) {
            Ok(text) => text,
            Err(why) => panic!("{why}\n{}", self.log_tail()),
        }
    }

    /// All of `INFO`.
    #[track_caller]
    pub fn info(&self) -> String {
        self.cli(&["INFO", "everything"])
    }

    /// One line of `INFO`; empty if there is none.
    #[track_caller]
    pub fn info_line(&self, name: &str) -> String {
        line_of(&self.info(), name)
    }

    /// Waits until this many replicas have all that this primary has.
    #[track_caller]
    pub fn wait_until_replicated(&self, replicas: usize) {
        wait_until("replicas are online", || self.has_replicated_to(replicas));
    }

    pub(crate) fn has_replicated_to(&self, replicas: usize) -> Result<(), String> {
        let info = self.try_cli(&["INFO", "replication"])?;
        let offset = line_of(&info, "master_repl_offset");
        let in_step = format!("state=online,offset={offset},");
        let is_done = info.matches(&in_step).count() >= replicas;
        ensure(is_done && line_of(&info, "role") == "master", || info)
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(crate) fn bus_port(&self) -> u16 {
        self.ports.bus_port
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let life = self.life();
        let process = life.process.as_ref().expect("the server is up");
        kill_process(Pid::from_child(process), signal).expect("the process is ours");
    }

    fn has_ended(&self) -> bool {
        let mut life = self.life();
        let process = life.process.as_mut().expect("the server was started");
        process.try_wait().expect("the process is ours").is_some()
    }

    fn spawn(&self) {
        let mut command = program::server(self.settings.kind, &self.settings.launcher);
        command.arg(CONFIG_FILE);
        if self.is_sentinel {
            command.arg("--sentinel");
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file());
        let log = log.expect("a log file");
        command.stderr(log.try_clone().expect("a file")).stdout(log);
        self.life().process = Some(spawn(command.current_dir(self.folder.path())));
    }

    /// False if its port was taken.
    #[track_caller]
    fn wait_until_it_answers(&self) -> bool {
        let is_up = wait_until("the server answers", || {
            if self.has_ended() {
                return Ok(false);
            }
            match self.try_cli(&["PING"]) {
                Ok(pong) if pong == "PONG" => Ok(true),
                Ok(other) => Err(other),
                Err(why) => Err(format!("{why}\n{}", self.log_tail())),
            }
        });
        if is_up {
            return true;
        }
        self.life().process = None;
        let log = self.log_tail();
        assert!(
            log.contains("Address already in use"),
            "the server ended:\n{log}"
        );
        false
    }
}

impl Drop for EngineNode {
    fn drop(&mut self) {
        if let Some(mut process) = self.life().process.take() {
            // Both fail if it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("a server's log: {}", self.log_file().display());
        }
    }
}

const CONFIG_FILE: &str = "engine.conf";

fn spawn(command: &mut Command) -> Child {
    let spawned = command.spawn();
    spawned.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

/// The value of a line `NAME:VALUE`.
pub(crate) fn line_of(text: &str, name: &str) -> String {
    let mut lines = text.lines().map(str::trim_end);
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().to_owned()
}
