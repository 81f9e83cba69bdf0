//! Servers of others, in processes of their own: nginx and VictoriaMetrics.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How often it is looked whether it listens, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS_MAX: u32 = 250;

/// A program that does not say when it is ready. Ended when dropped.
pub(crate) struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Foreign {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it listens.
    fn start(mut command: Command, address: SocketAddr) -> Result<(Self, SocketAddr)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn();
        let mut started = Self(child.with_context(|| name.clone())?);
        for _ in 0..LOOKS_MAX {
            if let Some(status) = started.0.try_wait().with_context(|| name.clone())? {
                bail!("{name} does not start: {status}");
            }
            if TcpStream::connect(address).is_ok() {
                return Ok((started, address));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("{name} does not listen");
    }
}

/// The program, if it is installed.
fn installed(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists())
}

fn free_address() -> Result<SocketAddr> {
    let free = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    free.local_addr().context("an address")
}

pub(crate) fn has_nginx() -> bool {
    installed("nginx").is_some()
}

/// One process that serves.
pub(crate) fn nginx(folder: &Path, certs: &Path) -> Result<(Foreign, SocketAddr)> {
    let program = installed("nginx").context("nginx is not installed")?;
    let address = free_address()?;
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration(address, certs)).context("nginx.conf")?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    Foreign::start(command, address)
}

pub(crate) fn has_victoria() -> bool {
    installed("victoria-metrics").is_some()
}

/// VictoriaMetrics on an empty store. It has TLS, asks for no client certificate, and takes what
/// anybody sends.
pub(crate) fn victoria(folder: &Path, certs: &Path) -> Result<(Foreign, SocketAddr)> {
    let program = installed("victoria-metrics").context("victoria-metrics is not installed")?;
    let address = free_address()?;
    let mut command = Command::new(program);
    command.arg(format!("-httpListenAddr={address}"));
    let data = folder.join("data");
    command.arg(format!("-storageDataPath={}", data.display()));
    let file = |name: &str| certs.join(name).display().to_string();
    command
        .arg("-tls")
        .arg(format!("-tlsCertFile={}", file("receivers/rx.crt")));
    command.arg(format!("-tlsKeyFile={}", file("receivers/rx.key")));
    command.arg("-loggerLevel=ERROR");
    Foreign::start(command, address)
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
