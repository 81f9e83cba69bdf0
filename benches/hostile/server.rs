//! The receiver's process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
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
    child: Child,
    pub(super) address: String,
}

impl Server {
    pub(super) fn start(folder: &Path, authority: &Authority) -> Result<Self> {
        let mut request = Request::new(Role::Receiver, "rx".parse().context("a name")?);
        request.sans = vec!["127.0.0.1".parse().context("a SAN")?];
        authority.issue(request, now()).context("a certificate")?;
        let here = std::env::current_exe().context("this program")?;
        let program = here
            .ancestors()
            .nth(2)
            .context("a folder")?
            .join("liz-receiver");
        let file = |name: &str| folder.join("certs").join(name);
        let mut child = Command::new(&program)
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
            .arg(folder.join("data"))
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: build it first", program.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("its log")?).lines();
        let ready = loop {
            let line = lines.next().context("READY")?.context("a line")?;
            if line.contains("READY") {
                break line;
            }
        };
        let port: String = ready
            .split_once("127.0.0.1:")
            .context("an address")?
            .1
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        // What it logs from now on is nobody's, but its pipe must not fill.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            child,
            address: format!("127.0.0.1:{port}"),
        })
    }

    pub(super) fn rss_kib(&mut self) -> Result<u64> {
        if let Some(status) = self.child.try_wait().context("its state")? {
            bail!("the receiver ended: {status}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("its status")?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("VmRSS")?;
        line.split_whitespace()
            .nth(1)
            .context("a number")?
            .parse()
            .context("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped = self.child.wait();
    }
}
