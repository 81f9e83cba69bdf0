//! The servers, each in a process of its own.

use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lizmon_benches::program::{Program, built};
use lizmon_benches::{cpu, process};

use crate::SERVE_BARE;
use crate::scene::Scene;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bare,
    Nginx,
    Ours,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Nginx => "nginx",
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
    Nginx(Nginx),
}

impl Server {
    /// On a store that is empty.
    pub(crate) fn start(kind: Kind, scene: &Scene) -> Result<Self> {
        let data = tempfile::tempdir_in(scene.folder()).context("a folder")?;
        let certs = scene.certs();
        let (process, address) = match kind {
            Kind::Nginx => {
                let (nginx, address) = Nginx::start(data.path(), &certs)?;
                (Process::Nginx(nginx), address)
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
            Process::Nginx(nginx) => nginx.0.id(),
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

/// Ended when dropped.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// How often it is looked whether nginx listens, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS_MAX: u32 = 250;

impl Nginx {
    /// Whether it is installed.
    fn find() -> Option<&'static str> {
        let places = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"];
        places.into_iter().find(|place| Path::new(place).exists())
    }

    /// One process that serves.
    fn start(folder: &Path, certs: &Path) -> Result<(Self, SocketAddr)> {
        let program = Self::find().context("nginx is not installed")?;
        let free = TcpListener::bind("127.0.0.1:0").context("a free port")?;
        let address = free.local_addr().context("an address")?;
        drop(free);
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration(address, certs)).context("nginx.conf")?;
        let child = Command::new(program)
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn();
        let mut nginx = Self(child.context("nginx")?);
        for _ in 0..LOOKS_MAX {
            if let Some(status) = nginx.0.try_wait().context("nginx")? {
                bail!("nginx does not start: {status}");
            }
            if TcpStream::connect(address).is_ok() {
                return Ok((nginx, address));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("nginx does not listen");
    }
}

pub(crate) fn has_nginx() -> bool {
    Nginx::find().is_some()
}

fn configuration(address: SocketAddr, certs: &Path) -> String {
    let file = |name: &str| certs.join(name).display().to_string();
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 120s;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen {address} ssl backlog=16384;
        ssl_certificate {cert}; ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_client_certificate {root}; ssl_verify_client on; ssl_verify_depth 3; ssl_crl {crl};
        location / {{ return 204; }}
    }}
}}
",
        cert = file("receivers/rx.crt"),
        key = file("receivers/rx.key"),
        root = file("root.crt"),
        crl = file("crl.pem"),
    )
}
