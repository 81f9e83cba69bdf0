//! The receiver's process.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use lizmon_benches::process;
use lizmon_benches::program::{Program, built};
use lizmon_ca::authority::{Authority, Request};
use lizmon_protocol::name::Role;

#[expect(clippy::disallowed_methods, reason = "the edge of the process")]
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The shipped receiver; ended when dropped.
pub(super) struct Server {
    program: Program,
    pub(super) address: String,
}

impl Server {
    pub(super) fn start(folder: &Path, authority: &Authority) -> Result<Self> {
        let mut request = Request::new(Role::Receiver, "rx".parse().context("a name")?);
        request.sans = vec!["127.0.0.1".parse().context("a SAN")?];
        authority.issue(request, now()).context("a certificate")?;
        let file = |name: &str| folder.join("certs").join(name);
        let mut command = Command::new(built("liz-receiver")?);
        command
            .args(["--listen", "127.0.0.1:0"])
            // Else all is refused after five minutes for a token that has ended.
            .args(["--token-ttl", "2h"])
            .arg("--cert")
            .arg(file("receivers/rx.crt"))
            .arg("--key")
            .arg(file("receivers/rx.key"))
            .arg("--ca")
            .arg(file("root.crt"))
            .arg("--crl")
            .arg(file("crl.pem"))
            .arg("--data")
            .arg(folder.join("data"));
        let program = Program::start(command)?;
        Ok(Self {
            address: program.address()?.to_string(),
            program,
        })
    }

    pub(super) fn rss_kib(&mut self) -> Result<u64> {
        self.program.check_runs()?;
        process::rss_kib(self.program.pid())
    }
}
