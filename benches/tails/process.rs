//! The receiver's process, and what slows its disk down.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lizmon_benches::program::{self, Program};
use lizmon_mtls::trust::TrustFiles;
use lizmon_receiver::{Clock, Clocks, Config, Receiver};

use super::site::{Site, now};

/// Which receiver it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The program.
    Shipped,
    /// The same library in this benchmark's program, with what no flag of the program says.
    Special(Special),
}

/// How it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) kind: Kind,
    /// How its disk is; as it is, if none.
    pub(super) syncs: Option<Syncs>,
    /// Whether the load goes first: it stands for many machines, which answer at once.
    pub(super) yields: bool,
}

/// What no flag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Special {
    /// By how much its clock is ahead.
    pub(super) ahead_secs: u64,
    /// After how long a token key is replaced.
    pub(super) key_life_secs: u64,
}

/// A receiver in a process of its own; ended when dropped.
pub(super) struct Server {
    program: Program,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts it in the data folder of this name, and waits until it is ready.
    pub(super) fn start(site: &Site, data: &Path, setting: Setting, port: u16) -> Result<Self> {
        let program = match setting.kind {
            Kind::Shipped => program::built("liz-receiver")?,
            Kind::Special(_) => std::env::current_exe().context("this program")?,
        };
        let mut command = match setting.syncs {
            None if setting.yields => {
                let mut command = Command::new("nice");
                command.args(["-n", "15"]).arg(program);
                command
            }
            None => Command::new(program),
            Some(syncs) => {
                let mut command = syncs.command();
                command.arg(program);
                command
            }
        };
        match setting.kind {
            Kind::Shipped => {
                let TrustFiles { cert, key, ca, crl } = trust_files(&site.certs());
                command.args(["--listen", &format!("127.0.0.1:{port}")]);
                command.args(["--token-ttl", "12h"]);
                command.arg("--cert").arg(cert).arg("--key").arg(key);
                command.arg("--ca").arg(ca).arg("--crl").arg(crl);
                command.arg("--data").arg(data);
            }
            Kind::Special(special) => {
                command.arg(SERVE).arg(site.certs()).arg(data);
                command.arg(special.ahead_secs.to_string());
                command.arg(special.key_life_secs.to_string());
            }
        }
        let program = Program::start(command)?;
        Ok(Self {
            address: program.address()?,
            program,
        })
    }

    /// Ends it as a service manager does, and waits for that.
    pub(super) fn stop(self) -> Result<()> {
        self.program.stop()
    }
}

/// The first argument of a process that is a [`Special`] receiver.
pub(super) const SERVE: &str = "serve";

fn trust_files(certs: &Path) -> TrustFiles {
    TrustFiles {
        cert: certs.join("receivers/rx.crt"),
        key: certs.join("receivers/rx.key"),
        ca: certs.join("root.crt"),
        crl: certs.join("crl.pem"),
    }
}

/// Such a process, until it is killed.
#[tokio::main]
pub(super) async fn serve(args: &[String]) -> Result<()> {
    let [certs, data, ahead, key_life] = args else {
        anyhow::bail!("{SERVE} CERTS DATA AHEAD-SECS KEY-LIFE-SECS");
    };
    let ahead: u64 = ahead.parse().context("AHEAD-SECS")?;
    let key_life = key_life.parse().context("KEY-LIFE-SECS")?;
    let mut config = Config::new(trust_files(Path::new(certs)), PathBuf::from(data));
    config.token_ttl = Duration::from_secs(12 * 3_600);
    config.token_key_life = Duration::from_secs(key_life);
    let clock: Clock = Arc::new(move || now() + ahead);
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    let receiver = Receiver::start(listener, config, Clocks::of_one(clock)).await?;
    let mut stderr = std::io::stderr();
    writeln!(stderr, "READY on {}", receiver.address()).context("the parent reads")?;
    Ok(receiver.run(std::future::pending()).await?)
}

/// What a slow disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syncs {
    /// Nothing: what the tracing itself costs.
    Traced,
    /// Some of each thread's syncs take [`SLOW_SYNC`].
    SomeSlow,
    /// All of them do.
    AllSlow,
}

/// How long a slow sync takes: microseconds.
const SLOW_SYNC_MICROS: u64 = 200_000;

impl Syncs {
    /// The words before a program under strace(1), which looks at nothing but syncs.
    fn command(self) -> Command {
        let mut command = Command::new("strace");
        // The program stays our child, and its other system calls are not stopped at.
        command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"]);
        command.args(["-e", "trace=fsync,fdatasync"]);
        let which = match self {
            Self::Traced => return command,
            // By thread: the journal makes a thousand a second.
            Self::SomeSlow => ":when=100+2000",
            Self::AllSlow => "",
        };
        let slow = format!("inject=fsync,fdatasync:delay_exit={SLOW_SYNC_MICROS}{which}");
        command.args(["-e", &slow]);
        command
    }
}
