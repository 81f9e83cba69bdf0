//! The servers, each in a process of its own.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use lizmon_benches::program::{Program, built};
use lizmon_benches::{cpu, process};

use crate::SERVE_BARE;
use crate::foreign::{self, Foreign};
use crate::scene::Scene;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bare,
    Nginx,
    Victoria,
    Ours,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Nginx => "nginx",
            Self::Victoria => "VictoriaMetrics",
            Self::Ours => "ours",
        })
    }
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    process: Process,
    _data: tempfile::TempDir,
}

enum Process {
    Program(Program),
    Foreign(Foreign),
}

impl Server {
    /// On a store that is empty.
    pub(crate) fn start(kind: Kind, scene: &Scene) -> Result<Self> {
        let data = tempfile::tempdir_in(scene.folder()).context("a folder")?;
        let certs = scene.certs();
        let (process, address) = match kind {
            Kind::Nginx => {
                let (nginx, address) = foreign::nginx(data.path(), &certs)?;
                (Process::Foreign(nginx), address)
            }
            Kind::Victoria => {
                let (victoria, address) = foreign::victoria(data.path(), &certs)?;
                (Process::Foreign(victoria), address)
            }
            Kind::Bare => {
                let this = std::env::current_exe().context("this program")?;
                let mut command = Command::new(this);
                command.arg(SERVE_BARE).arg(&certs);
                let program = Program::start(command)?;
                let address = program.address()?;
                (Process::Program(program), address)
            }
            Kind::Ours => {
                let program = start_receiver(&certs, data.path())?;
                let address = program.address()?;
                (Process::Program(program), address)
            }
        };
        Ok(Self {
            kind,
            address,
            process,
            _data: data,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            Process::Program(program) => program.pid(),
            Process::Foreign(foreign) => foreign.pid(),
        }
    }

    pub(crate) fn cpu_secs(&self) -> Result<f64> {
        cpu::secs(self.pid())
    }

    pub(crate) fn rss_kib(&self) -> Result<u64> {
        process::rss_kib(self.pid())
    }
}

/// A receiver of the built program on this store. Its limits on one holder's rates are high: a
/// few holders are the whole load.
pub(crate) fn start_receiver(certs: &Path, data: &Path) -> Result<Program> {
    let mut command = Command::new(built("liz-receiver")?);
    command
        .args(["--listen", "127.0.0.1:0", "--token-ttl", "2h"])
        .args(["--requests-per-second", "10000000"])
        .args(["--records-per-second", "1000000000"])
        .arg("--cert")
        .arg(certs.join("receivers/rx.crt"))
        .arg("--key")
        .arg(certs.join("receivers/rx.key"))
        .arg("--ca")
        .arg(certs.join("root.crt"))
        .arg("--crl")
        .arg(certs.join("crl.pem"))
        .arg("--data")
        .arg(data);
    Program::start(command)
}
