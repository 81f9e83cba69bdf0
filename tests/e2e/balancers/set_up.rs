//! nginx and haproxy with the configurations of `deploy/`, before two receivers on one store.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lizmon_engines::{EngineNode, EngineSettings};
use lizmon_protocol::name::Role;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::load::Sent;
use crate::harness::process::{PATIENCE, Running, program};
use crate::harness::raw::tls_config;
use crate::harness::{Holder, World, answer};

/// From where balancers that pass TLS through connect to receivers.
const PASSTHROUGH_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Tokens of both receivers are for the balancer.
const PUBLIC_URL: &str = "https://localhost";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Software {
    Nginx,
    Haproxy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// TLS ends at the receiver.
    Passthrough,
    /// TLS ends at the balancer.
    MutualTls,
}

/// Two receivers, which share a store.
pub(super) struct Behind {
    pub(super) world: World,
    store: EngineNode,
    ports: [u16; 2],
    receivers: [Option<Running>; 2],
    proxy: Holder,
}

impl Behind {
    pub(super) fn start() -> Self {
        let world = World::without_receiver(|_| ());
        let mut behind = Self {
            proxy: world.holder(Role::Proxy, "edge1"),
            store: EngineNode::start(&EngineSettings::redis()),
            ports: [free_port(), free_port()],
            receivers: [None, None],
            world,
        };
        let mut started = [0, 1].map(|at| Running::start(&mut behind.command(at)));
        for receiver in &mut started {
            receiver.wait_for("READY");
        }
        behind.receivers = started.map(Some);
        behind
    }

    fn command(&self, at: usize) -> Command {
        let files = self.world.trust_files();
        let mut command = program("liz-receiver");
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.ports[at]));
        command.args(["--issuer", PUBLIC_URL, "--audience", PUBLIC_URL]);
        command
            .arg("--cert")
            .arg(files.cert)
            .arg("--key")
            .arg(files.key);
        command
            .arg("--ca")
            .arg(files.ca)
            .arg("--crl")
            .arg(files.crl);
        let data = self.world.folder().join(format!("rx{at}"));
        command.arg("--data").arg(data);
        command.args(["--store", &self.store.url(), "--summarize"]);
        command
            .arg("--proxy-protocol")
            .arg(PASSTHROUGH_FROM.to_string());
        command.arg("--trusted-proxy");
        command
    }

    /// Ends a receiver as an upgrade does, and starts it again. Returns its log.
    pub(super) fn restart(&mut self, at: usize) -> String {
        tokio::task::block_in_place(|| {
            let log = self.end(at);
            let mut receiver = Running::start(&mut self.command(at));
            receiver.wait_for("READY");
            self.receivers[at] = Some(receiver);
            log
        })
    }

    fn end(&mut self, at: usize) -> String {
        let receiver = self.receivers[at].take().expect("it runs");
        receiver.signal(Signal::TERM);
        let ended = receiver.wait();
        assert!(ended.status.success(), "{}", ended.stderr);
        ended.stderr
    }

    /// Ends both, and returns their logs.
    pub(super) fn stop(mut self) -> [String; 2] {
        tokio::task::block_in_place(|| [0, 1].map(|at| self.end(at)))
    }

    /// Starts a balancer, and waits until it serves.
    pub(super) async fn balancer(&self, software: Software, mode: Mode) -> Balancer {
        let port = free_port();
        let folder = self.world.folder().join(format!("{software:?}-{mode:?}"));
        std::fs::create_dir(&folder).expect("a folder");
        let running = Running::start(&mut self.balancer_command(software, mode, &folder, port));
        let balancer = Balancer {
            mode,
            story: format!("{software:?}, {mode:?}"),
            port,
            running,
        };
        let client = self.world.client(None, &["http/1.1"]);
        let answers = async {
            let ready = || client.get(balancer.url("/readyz")).send();
            while !matches!(ready().await, Ok(answer) if answer.status() == 200) {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, answers).await;
        in_time.unwrap_or_else(|_| panic!("{software:?}, {mode:?} serves"));
        balancer
    }

    /// The shipped configuration, with the test's ports, files and addresses.
    fn balancer_command(
        &self,
        software: Software,
        mode: Mode,
        folder: &Path,
        port: u16,
    ) -> Command {
        let name = match mode {
            Mode::Passthrough => "passthrough",
            Mode::MutualTls => "mutual-tls",
        };
        let shipped = |file: &str| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .expect("a root");
            root.join("deploy").join(file)
        };
        let path = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        let files = self.world.trust_files();
        let pem = |name: &str, cert: &Path, key: &Path| {
            let both = [cert, key].map(|file| std::fs::read_to_string(file).expect("PEM"));
            let file = folder.join(name);
            std::fs::write(&file, both.concat()).expect("a file");
            path(file)
        };
        let mut edits = vec![
            ("0.0.0.0:8443", format!("127.0.0.1:{port}")),
            ("rx1.example:8443", format!("127.0.0.1:{}", self.ports[0])),
            ("rx2.example:8443", format!("127.0.0.1:{}", self.ports[1])),
            ("lizmon.example", "localhost".to_owned()),
            ("/etc/lizmon/certs/root.crt", path(files.ca)),
            ("/etc/lizmon/certs/crl.pem", path(files.crl)),
            (
                "/etc/lizmon/certs/lizmon.pem",
                pem("lizmon.pem", &files.cert, &files.key),
            ),
            (
                "/etc/lizmon/certs/edge1.pem",
                pem("edge1.pem", &self.proxy.cert, &self.proxy.key),
            ),
            ("/etc/lizmon/certs/lizmon.crt", path(files.cert)),
            ("/etc/lizmon/certs/lizmon.key", path(files.key)),
            ("/etc/lizmon/certs/edge1.crt", path(self.proxy.cert.clone())),
            ("/etc/lizmon/certs/edge1.key", path(self.proxy.key.clone())),
            ("maxconn 20000", "maxconn 1000".to_owned()),
            (
                "send-proxy-v2",
                format!("source {PASSTHROUGH_FROM} send-proxy-v2"),
            ),
            (
                "proxy_protocol on;",
                format!("proxy_protocol on; proxy_bind {PASSTHROUGH_FROM};"),
            ),
            (
                "/etc/haproxy/unavailable.http",
                path(shipped("haproxy/unavailable.http")),
            ),
            (
                "include client-cert.conf",
                format!("include {}", path(shipped("nginx/client-cert.conf"))),
            ),
            ("/var/log/nginx", path(folder.to_owned())),
            ("/run/nginx.pid", path(folder.join("nginx.pid"))),
            (
                "worker_rlimit_nofile 65536;",
                "worker_rlimit_nofile 4096;".to_owned(),
            ),
            (
                "worker_connections 16384;",
                "worker_connections 1024;".to_owned(),
            ),
        ];
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};", path(folder.join(kind))));
        edits.push((
            "server_tokens off;",
            format!("server_tokens off; {}", temporary.concat()),
        ));
        let file = match software {
            Software::Nginx => format!("nginx/{name}.conf"),
            Software::Haproxy => format!("haproxy/{name}.cfg"),
        };
        let mut text = std::fs::read_to_string(shipped(&file)).expect("a configuration");
        for (shipped, here) in edits {
            text = text.replace(shipped, &here);
        }
        let file = folder.join("balancer.conf");
        std::fs::write(&file, text).expect("a file");
        match software {
            // One process, which ends with the test.
            Software::Nginx => {
                let mut command = Command::new("nginx");
                command.args([
                    "-g",
                    "daemon off; master_process off;",
                    "-e",
                    "stderr",
                    "-c",
                ]);
                command.arg(file);
                command
            }
            Software::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(file);
                command
            }
        }
    }

    /// All that was sent has arrived, and once.
    #[expect(
        clippy::disallowed_methods,
        reason = "what one receiver has done shows at the other a moment later"
    )]
    pub(super) async fn audit(&self, balancer: &Balancer, sent: &[Sent]) {
        let reader = self.world.reader();
        let token = balancer.token(&reader.http).await;
        let get = async |path: String| {
            let got = answer(reader.http.get(balancer.url(&path)).bearer_auth(&token)).await;
            serde_json::from_str::<Value>(&got.text()).unwrap_or_default()
        };
        for sent in sent {
            let mut seen = Value::Null;
            let is_there = async {
                loop {
                    let delivery = get(format!("/api/delivery/{}", sent.host)).await;
                    let all = delivery["producers"]
                        .as_array()
                        .cloned()
                        .unwrap_or_default();
                    let received = all.iter().map(|one| one["received"].as_u64().unwrap_or(0));
                    let received: u64 = received.sum();
                    let missing = all.iter().any(|one| one["missing"] != json!([]));
                    let summary = get(format!("/api/perf/{}/once", sent.host)).await;
                    let hours = summary["summary:by-hour:once"]["averages"].as_array();
                    let counts = hours.into_iter().flatten();
                    let once: u64 = counts
                        .map(|hour| hour["num-samples"].as_u64().unwrap_or(0))
                        .sum();
                    seen = json!({"received": received, "missing": missing, "once": once});
                    if seen
                        == json!({"received": sent.numbered, "missing": false, "once": sent.unnumbered})
                    {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let in_time = tokio::time::timeout(PATIENCE, is_there).await;
            assert!(
                in_time.is_ok(),
                "{}: sent {sent:?}, received {seen}",
                balancer.story
            );
        }
    }
}

/// A running balancer. Dropping it ends it.
pub(super) struct Balancer {
    pub(super) mode: Mode,
    pub(super) story: String,
    port: u16,
    running: Running,
}

impl Balancer {
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub(super) fn stop(self) {
        self.running.kill();
    }

    /// A client with this holder's certificate, from this address.
    pub(super) fn client(
        &self,
        world: &World,
        holder: Option<&Holder>,
        from: Ipv4Addr,
    ) -> reqwest::Client {
        let shown = holder.map(Holder::shown);
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(&world.root(), shown, &["http/1.1"]))
            .resolve("localhost", ([127, 0, 0, 1], 0).into())
            .local_address(IpAddr::from(from))
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .expect("a client")
    }

    pub(super) async fn token(&self, client: &reqwest::Client) -> String {
        let form = [("grant_type", "client_credentials")];
        let got = answer(client.post(self.url("/oauth2/token")).form(&form)).await;
        let body = got.json("a token");
        body["access_token"].as_str().expect("a token").to_owned()
    }
}

/// The certificate as RFC 9440 writes it.
pub(super) fn client_cert(holder: &Holder) -> String {
    format!(":{}:", STANDARD.encode(&holder.shown().chain[0]))
}

/// A receiver that is restarted finds it free: it is below what outgoing connections get.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..17_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
