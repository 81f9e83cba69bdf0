//! Alarms of the shipped receiver, told to real servers: a webhook, SMTP, a command.
#![expect(
    clippy::disallowed_methods,
    reason = "programs run in real time, and kills come at any moment of it"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};
use lizmon_protocol::name::Role;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::{receiver_command, started};
use crate::harness::process::{Running, program, run};
use crate::harness::world::wall_clock;
use crate::harness::{Holder, World, answer};
use crate::oauth_clients::python;

const SECRET: &str = "a key of the webhook";
/// No alarm takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(90);

/// Requests that a webhook got.
#[derive(Clone, Default)]
struct Hook(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Hook {
    /// Listens on this machine; its URL.
    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let take = async |State(hook): State<Self>, headers: HeaderMap, body: Bytes| {
            hook.requests().push((headers, body));
            StatusCode::NO_CONTENT
        };
        let router = Router::new().route("/hook", post(take));
        let router = router.with_state(self.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        url
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, Vec<(HeaderMap, Bytes)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often each notice came, with what it says. Each has a good signature.
    fn notices(&self) -> BTreeMap<String, (Value, usize)> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let mut notices = BTreeMap::new();
        for (headers, body) in &*self.requests() {
            let header = |name: &str| headers[name].to_str().unwrap();
            let (id, time) = (header("webhook-id"), header("webhook-timestamp"));
            let signed = [format!("{id}.{time}.").as_bytes(), body].concat();
            let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
            let signature = STANDARD.decode(signature).unwrap();
            hmac::verify(&key, &signed, &signature).expect("the signature");
            let json: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(json["id"], id);
            assert_eq!(header("idempotency-key"), format!("\"{id}\""));
            notices.entry(id.to_owned()).or_insert((json, 0)).1 += 1;
        }
        notices
    }

    /// Host, rule and state of each notice, in order.
    fn told(&self) -> Vec<[String; 3]> {
        let notices = self.notices();
        let text = |json: &Value, key: &str| json[key].as_str().unwrap().to_owned();
        let told = notices.values().map(|(json, _)| {
            let at = json["at"].as_u64().unwrap();
            (at, ["host", "rule", "state"].map(|key| text(json, key)))
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told.into_iter().map(|(_, told)| told).collect()
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A host that sends a sample now and then.
struct Sender {
    host: Holder,
    token: String,
    seq: u64,
    producer: String,
}

impl Sender {
    /// The records from the epoch of the last one on, one for each second. False if there is no
    /// answer.
    async fn send(&mut self, world: &World, from: u64) -> bool {
        let epochs: Vec<u64> = (from..=wall_clock()).collect();
        let records = (self.seq..)
            .zip(&epochs)
            .map(|(seq, epoch)| json!({"seq": seq + 1, "epoch": epoch, "values": {"cpu": 5}}));
        let records: Vec<_> = records.collect();
        let body = json!({"producer": self.producer, "records": records});
        let path = format!("/api/perf/{}", self.host.name);
        let request = self
            .host
            .http
            .post(world.url(&path))
            .bearer_auth(&self.token)
            .body(body.to_string());
        let is_taken = request
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200);
        if is_taken {
            self.seq += records.len() as u64;
        }
        is_taken
    }
}

async fn senders(world: &World, count: usize) -> Vec<Sender> {
    let sender = async |at: usize| {
        let host = world.node(&format!("web{at}"));
        let token = world.token(&host).await;
        let producer = format!("1b4e28ba-2fa1-4d3b-a3f5-{at:012x}");
        Sender {
            host,
            token,
            seq: 0,
            producer,
        }
    };
    let mut senders = join_all((0..count).map(sender)).await;
    // With a history, so that it is known how often they send.
    let sent = senders
        .iter_mut()
        .map(|sender| sender.send(world, wall_clock() - 150));
    assert!(join_all(sent).await.into_iter().all(|is_taken| is_taken));
    senders
}

fn of_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// One of many hosts stops and comes back, and the receiver is killed meanwhile, again and again,
/// at moments of which many are near to what is told. `LIZMON_ALARM_KILLS=20 LIZMON_ALARM_HOSTS=200`
/// for more than the gate has time for.
#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_no_alarm_and_make_none() {
    let kills = of_env("LIZMON_ALARM_KILLS", 4);
    let hosts = of_env("LIZMON_ALARM_HOSTS", 12) as usize;
    let mut world = World::without_receiver(|_| ());
    let hook = Hook::default();
    let mut smtp = Running::start(&mut python("smtp_server.py"));
    let smtp_port = smtp.wait_for("READY").replace("READY ", "");
    let rules = world.folder().join("rules.toml");
    write(&world.folder().join("webhook.key"), SECRET);
    let url = hook.listen().await;
    write(
        &rules,
        &format!(
            r#"
evaluation-interval = "1s"
[rules.silent]
for = "5s"
[rules.clock-skew]
enabled = false
[channels.hook.webhook]
url = "{url}"
secret-file = "webhook.key"
[channels.mail.mail]
server = "127.0.0.1"
port = {smtp_port}
tls = "none"
from = "lizmon@example.org"
to = ["ops@example.org"]
"#
        ),
    );
    let mut command = receiver_command(&world);
    command.arg("--rules").arg(&rules);
    let mut receiver = Some(started(&mut world, &mut command));
    let mut senders = senders(&world, hosts).await;
    let mut random = fastrand::Rng::with_seed(of_env("LIZMON_ALARM_SEED", 7));
    let stopped = hosts / 2;
    let mut is_stopped = false;
    for (part, state) in ["firing", "resolved"].into_iter().enumerate() {
        is_stopped = !is_stopped;
        let count = part + 1;
        for _ in 0..kills / 2 {
            // Up to the moment at which it is told, and a little later.
            let until = Instant::now() + Duration::from_millis(random.u64(300..7_500));
            while Instant::now() < until {
                send_all(&world, &mut senders, is_stopped.then_some(stopped)).await;
            }
            receiver.take().unwrap().kill();
            receiver = Some(started(&mut world, &mut command));
        }
        until(state, async || {
            send_all(&world, &mut senders, is_stopped.then_some(stopped)).await;
            hook.told().len() >= count
        })
        .await;
        smtp.wait_for(&format!("-{state}@example.org"));
    }
    let host = format!("web{stopped}");
    let told = |state: &str| [host.clone(), "silent".to_owned(), state.to_owned()];
    assert_eq!(hook.told(), [told("firing"), told("resolved")]);
    let again: usize = hook.notices().values().map(|(_, count)| count - 1).sum();
    smtp.signal(Signal::TERM);
    let mails: Vec<Value> = smtp
        .wait()
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let mut ids: Vec<_> = mails.iter().map(|mail| mail["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2, "{mails:?}");
    println!(
        "{kills} kills, {hosts} hosts: told again with the same identifier: {again} by webhook, {} by mail",
        mails.len() - 2
    );
}

async fn send_all(world: &World, senders: &mut [Sender], but: Option<usize>) {
    let now = wall_clock();
    let sent = senders.iter_mut().zip(0..);
    let sent = sent.filter(|(_, at)| Some(*at) != but);
    join_all(sent.map(|(sender, _)| sender.send(world, now))).await;
    // A few times a second.
    tokio::time::sleep(Duration::from_millis(250)).await;
}

/// Debian's Alertmanager, on any port.
pub(crate) struct Alertmanager {
    url: String,
    http: reqwest::Client,
    _running: Running,
}

impl Alertmanager {
    async fn start(world: &World) -> Self {
        let this = Self::spawn(world, "http", world.client(None, &["http/1.1"]), &[]);
        this.ready().await
    }

    /// Over TLS with these files, for clients with a certificate of the world's CA.
    pub(crate) async fn start_with_tls(world: &World, [cert, key]: &[PathBuf; 2]) -> Self {
        let web = world.folder().join("web.yml");
        let (cert, key, root) = (cert.display(), key.display(), world.root());
        write(
            &web,
            &format!(
                "tls_server_config: {{cert_file: {cert}, key_file: {key}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: {}}}\n",
                root.display()
            ),
        );
        let http = world.client(Some(world.reader().shown()), &["http/1.1"]);
        let web = format!("--web.config.file={}", web.display());
        Self::spawn(world, "https", http, &[web]).ready().await
    }

    fn spawn(world: &World, scheme: &str, http: reqwest::Client, more: &[String]) -> Self {
        let folder = world.folder();
        let config = folder.join("alertmanager.yml");
        write(
            &config,
            "route: {receiver: none}\nreceivers: [{name: none}]\n",
        );
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new("prometheus-alertmanager");
        command.arg(format!("--web.listen-address={address}"));
        command.arg("--cluster.listen-address=");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!(
            "--storage.path={}",
            folder.join("alertmanager").display()
        ));
        command.args(more);
        let running = Running::start(&mut command);
        Self {
            url: format!("{scheme}://localhost:{}", address.port()),
            http,
            _running: running,
        }
    }

    async fn ready(self) -> Self {
        until("Alertmanager is ready", async || {
            self.alerts().await.is_some()
        })
        .await;
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Rule and host of what fires there.
    async fn alerts(&self) -> Option<Vec<[String; 2]>> {
        let answer = self.http.get(format!("{}/api/v2/alerts", self.url)).send();
        let alerts: Value = answer.await.ok()?.json().await.ok()?;
        let alert = |alert: &Value| {
            let label = |name: &str| alert["labels"][name].as_str().unwrap().to_owned();
            ["alertname", "instance"].map(label)
        };
        let mut alerts: Vec<_> = alerts.as_array()?.iter().map(alert).collect();
        alerts.sort();
        Some(alerts)
    }

    async fn until(&self, expected: &[[&str; 2]]) {
        let what = format!("Alertmanager has {expected:?}");
        until(&what, async || {
            self.alerts().await.is_some_and(|alerts| alerts == expected)
        })
        .await;
    }
}

/// Lists, silences, tests a channel, and reads its rules again: with the shipped programs.
#[tokio::test(flavor = "multi_thread")]
async fn operators_see_silence_and_test_alarms() {
    let mut world = World::without_receiver(|_| ());
    let hook = Hook::default();
    let url = hook.listen().await;
    let rules = world.folder().join("rules.toml");
    let told_file = world.folder().join("told.json");
    let alertmanager = Alertmanager::start(&world).await;
    write(&world.folder().join("webhook.key"), SECRET);
    let good = format!(
        r#"
evaluation-interval = "1s"
[rules.silent]
for = "6s"
[channels.hook.webhook]
url = "{url}"
secret-file = "webhook.key"
[channels.file.command]
command = ["/bin/sh", "-c", "cat >> {}"]
[channels.am.alertmanager]
url = "{}"
refresh = "1s"
[channels.broken.command]
command = ["/bin/false"]
"#,
        told_file.display(),
        alertmanager.url
    );
    write(&rules, &good.replace("for = \"6s\"", "fro = \"6s\""));
    let mut command = receiver_command(&world);
    command.arg("--rules").arg(&rules);
    let refused = run(&mut command);
    let why = refused.failure(1);
    assert!(
        why.contains("rules.toml:4: rules.silent.fro: unknown field"),
        "{why}"
    );

    write(&rules, &good);
    let mut receiver = started(&mut world, &mut command);
    let operator = world.holder(Role::Operator, "ada");
    let lizctl = |args: &[&str]| {
        let mut lizctl = program("lizctl");
        lizctl.args(args).args(["--receiver", &world.issuer()]);
        lizctl
            .arg("--cert")
            .arg(&operator.cert)
            .arg("--key")
            .arg(&operator.key);
        lizctl.arg("--ca").arg(world.root());
        run(&mut lizctl)
    };
    let tested = lizctl(&["alarms", "--test", "hook"]);
    tested.success();
    assert_eq!(hook.told().len(), 1);
    hook.requests().clear();
    let broken = lizctl(&["alarms", "--test", "broken"]);
    assert!(
        broken.failure(1).contains("exit status: 1"),
        "{}",
        broken.failure(1)
    );
    let none = lizctl(&["alarms", "--test", "none"]);
    assert!(
        none.failure(1).contains("no such channel"),
        "{}",
        none.failure(1)
    );

    let mut senders = senders(&world, 2).await;
    lizctl(&["silence", "web1", "--for", "1h", "--why", "new disks"]).success();
    receiver.wait_for("alarms silenced by an operator");
    // Both are silent; one of them is silenced.
    until("both are silent", async || {
        let list = lizctl(&["alarms", "--json"]).success();
        let list: Value = serde_json::from_str(&list).unwrap();
        let firing = list["alarms"].as_array().unwrap().iter();
        firing.filter(|alarm| alarm["state"] == "firing").count() == 2
    })
    .await;
    let list = lizctl(&["alarms", "web1", "--json"]).success();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["alarms"].as_array().unwrap().len(), 1);
    assert!(list["alarms"][0]["silenced-until"].is_u64(), "{list}");
    let limited = world.holder_with(Role::Reader, "limited", &["web1"]);
    let token = world.token(&limited).await;
    let seen = world
        .get(&limited, &token, "/api/alarms")
        .await
        .json("alarms");
    let seen = seen["alarms"].as_array().unwrap().iter();
    let seen: Vec<_> = seen
        .map(|alarm| alarm["host"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        seen,
        ["web1"],
        "a limited reader sees its hosts' alarms alone"
    );
    assert!(lizctl(&["alarms"]).success().contains("firing, silenced"));
    for (holder, search, count) in [
        (&operator, "", "2 alarms"),
        (&operator, "?q=WEB0", "1 alarm<"),
        (&operator, "?q=silen", "2 alarms"),
        (&operator, "?q=nobody", "0 alarms"),
        (&limited, "?q=web", "1 alarm<"),
    ] {
        let page = holder.http.get(world.url(&format!("/alarms{search}")));
        let page = answer(page.header("accept", "text/html")).await.text();
        assert!(page.contains(count), "{search}: {page}");
    }
    until("one is told", async || hook.told().len() == 1).await;
    alertmanager.until(&[["silent", "web0"]]).await;
    let told = |host: &str, state: &str| [host, "silent", state].map(str::to_owned);
    assert_eq!(hook.told(), [told("web0", "firing")]);
    lizctl(&["silence", "web1", "--end", "--why", "done"]).success();
    until("the other is told", async || hook.told().len() == 2).await;
    alertmanager
        .until(&[["silent", "web0"], ["silent", "web1"]])
        .await;
    until("the command has both", async || {
        let text = std::fs::read_to_string(&told_file).unwrap_or_default();
        text.matches("\"firing\"").count() == 2
    })
    .await;

    // A file that is wrong changes nothing, and is told.
    write(
        &rules,
        &good.replace("for = \"6s\"", "for = \"3 elephants\""),
    );
    receiver.wait_for("the changed alarm rules are not in force");
    let health = operator
        .http
        .get(world.url("/healthz"))
        .send()
        .await
        .unwrap();
    let health = health.text().await.unwrap();
    assert!(
        health.contains("rules.toml:4: rules.silent.for"),
        "{health}"
    );
    write(&rules, &good.replace("severity", "severity "));
    receiver.wait_for("alarm rules reloaded");
    for sender in &mut senders {
        assert!(sender.send(&world, wall_clock()).await);
    }
    until("both are back", async || hook.told().len() == 4).await;
    alertmanager.until(&[]).await;
    receiver.signal(Signal::TERM);
    receiver.wait().success();
}
