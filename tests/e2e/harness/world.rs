//! A CA in a temporary folder, a receiver under the test's clock, holders of certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_mtls::trust::TrustFiles;
use lizmon_protocol::name::{Attributes, Role};
use lizmon_receiver::store::ErrorKind;
use lizmon_receiver::{Clocks, Config, Receiver, ReceiverError};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::answer::{Answer, answer};
use super::process::PATIENCE;
use super::raw::{Shown, tls_config};

/// How long ago certificates of a world are issued: tests set the receiver's clock back by up to an
/// hour.
const ISSUED_BEFORE_SECS: u64 = 3 * 3_600;
/// No single request of a test takes longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything one test needs. Dropping it leaves nothing behind.
pub(crate) struct World {
    pub(crate) ca: Authority,
    pub(crate) clock: TestClock,
    issued_at: u64,
    folder: tempfile::TempDir,
    edit: fn(&mut Config),
    server: Option<Server>,
    port: u16,
}

struct Server {
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

/// The receiver's clock, set by the test, in epoch seconds.
#[derive(Debug, Clone)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, secs: u64) {
        self.0.fetch_add(secs, Ordering::SeqCst);
    }
}

/// Retries until it works. Between fork and exec a child process of another test has copies of all
/// open files, including the last receiver's lock and socket, so these are released a moment after
/// they are closed here.
async fn until_free<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let attempts = async {
        loop {
            if let Some(done) = attempt().await {
                return done;
            }
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, attempts).await;
    done.expect("port and data are free in time")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the TLS clients of these tests judge certificates by the wall clock, so the world starts there"
)]
pub(crate) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is after 1970").as_secs()
}

/// A holder of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) http: reqwest::Client,
}

impl Holder {
    pub(crate) fn shown(&self) -> Shown {
        Shown::from_files(&self.cert, &self.key)
    }
}

impl World {
    /// A world whose receiver has the default configuration.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// A world whose receiver configuration is edited by the test.
    pub(crate) async fn start_with(edit: fn(&mut Config)) -> Self {
        let mut world = Self::without_receiver(edit);
        world.boot().await;
        world
    }

    /// A CA and the receiver's certificate, for tests that start the receiver themselves.
    pub(crate) fn without_receiver(edit: fn(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let now = wall_clock();
        let issued_at = now - ISSUED_BEFORE_SECS;
        let certs = folder.path().join("certs");
        let ca = Authority::init(&certs, &InitOptions::default(), issued_at).expect("a new CA");
        let name = "main".parse().expect("a name");
        let mut request = Request::new(Role::Receiver, name);
        request.sans = ["localhost", "127.0.0.1"]
            .map(|san| san.parse().expect("a SAN"))
            .to_vec();
        ca.issue(request, issued_at)
            .expect("a receiver's certificate");
        Self {
            ca,
            issued_at,
            clock: TestClock(Arc::new(AtomicU64::new(now))),
            folder,
            edit,
            server: None,
            port: 0,
        }
    }

    async fn boot(&mut self) {
        self.port = 0;
        self.boot_on_same_port().await;
    }

    /// Starts a receiver on the port of the last one.
    pub(crate) async fn boot_on_same_port(&mut self) {
        let address = ("127.0.0.1", self.port);
        let listener = until_free(async || std::net::TcpListener::bind(address).ok()).await;
        self.port = listener.local_addr().expect("it is bound").port();
        let receiver = until_free(async || self.open_receiver(&listener).await).await;
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            let shutdown = async move {
                // A test that ends without stopping it drops the sender, and then the runtime.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            receiver
                .run(shutdown)
                .await
                .expect("the receiver ends well");
        });
        self.server = Some(Server { stop, done });
    }

    /// A receiver on this listener; `None` while its data folder is locked.
    async fn open_receiver(&self, listener: &std::net::TcpListener) -> Option<Receiver> {
        let mut config = Config::new(self.trust_files(), self.data());
        (self.edit)(&mut config);
        let listener = listener.try_clone().expect("a socket can be shared");
        let clock = self.clock.clone();
        let clocks = Clocks::of_one(Arc::new(move || clock.now()));
        match Receiver::start(listener, config, clocks).await {
            Err(ReceiverError::Store(error)) if error.kind() == ErrorKind::InUse => None,
            started => Some(started.expect("the receiver starts")),
        }
    }

    /// Stops the receiver cleanly.
    pub(crate) async fn stop(&mut self) {
        let Server { stop, done } = self.server.take().expect("it runs");
        stop.send(()).expect("it waits for this");
        done.await.expect("it ends without a panic");
    }

    /// Stops the receiver cleanly, and starts another on the same data and another port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.boot().await;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.certs().join("root.crt")
    }

    pub(crate) fn trust_files(&self) -> TrustFiles {
        let certs = self.certs();
        TrustFiles {
            cert: certs.join("receivers/main.crt"),
            key: certs.join("receivers/main.key"),
            ca: certs.join("root.crt"),
            crl: certs.join("crl.pem"),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// For a receiver that the test started itself.
    pub(crate) fn set_port(&mut self, port: u16) {
        self.port = port;
    }

    pub(crate) fn issuer(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer())
    }

    /// Issues a certificate for 90 days.
    pub(crate) fn holder(&self, role: Role, name: &str) -> Holder {
        self.holder_for(role, name, 90 * 86_400)
    }

    /// Issues a certificate that expires this many seconds after the world's start.
    pub(crate) fn holder_for(&self, role: Role, name: &str, secs: u64) -> Holder {
        let mut request = Request::new(role, name.parse().expect("a name"));
        request.lifetime = Duration::from_secs(ISSUED_BEFORE_SECS + secs);
        self.holder_of(request)
    }

    /// Issues a certificate with these tags, or limits.
    pub(crate) fn holder_with(&self, role: Role, name: &str, attributes: &[&str]) -> Holder {
        let attributes = Attributes::of_texts(attributes.iter().copied());
        let mut request = Request::new(role, name.parse().expect("a name"));
        request.attributes = attributes.expect("attributes");
        self.holder_of(request)
    }

    fn holder_of(&self, mut request: Request) -> Holder {
        let (role, name) = (request.role, request.name.to_string());
        if matches!(role, Role::Receiver | Role::Ca) {
            request.sans = vec!["localhost".parse().expect("a SAN")];
        }
        self.ca
            .issue(request, self.issued_at)
            .expect("a certificate");
        let folder = match role {
            Role::Node => "nodes",
            Role::Reader => "readers",
            Role::Operator => "operators",
            Role::Receiver => "receivers",
            Role::Ca => "cas",
            Role::Summarizer => "summarizers",
            Role::Proxy => "proxies",
            Role::Gateway => "gateways",
        };
        let file = |end: &str| self.certs().join(folder).join(format!("{name}.{end}"));
        let (cert, key) = (file("crt"), file("key"));
        let http = self.client(Some(Shown::from_files(&cert, &key)), &["http/1.1"]);
        Holder {
            name,
            cert,
            key,
            http,
        }
    }

    pub(crate) fn node(&self, name: &str) -> Holder {
        self.holder(Role::Node, name)
    }

    pub(crate) fn reader(&self) -> Holder {
        self.holder(Role::Reader, "dashboard")
    }

    /// An HTTP client with this certificate and these protocols.
    pub(crate) fn client(&self, shown: Option<Shown>, alpn: &[&str]) -> reqwest::Client {
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(&self.root(), shown, alpn))
            .resolve("localhost", ([127, 0, 0, 1], 0).into())
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .expect("an HTTP client")
    }

    /// Requests a token with these form fields besides the grant.
    pub(crate) async fn ask_token(
        &self,
        client: &reqwest::Client,
        form: &[(&str, &str)],
    ) -> Answer {
        answer(client.post(self.url("/oauth2/token")).form(form)).await
    }

    /// The holder's token.
    pub(crate) async fn token(&self, holder: &Holder) -> String {
        let form = [("grant_type", "client_credentials")];
        let body = self.ask_token(&holder.http, &form).await.json("a token");
        body["access_token"].as_str().expect("a token").to_owned()
    }

    pub(crate) async fn get(&self, holder: &Holder, token: &str, path: &str) -> Answer {
        answer(holder.http.get(self.url(path)).bearer_auth(token)).await
    }

    pub(crate) async fn post(
        &self,
        holder: &Holder,
        token: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        answer(
            holder
                .http
                .post(self.url(path))
                .bearer_auth(token)
                .body(body),
        )
        .await
    }

    /// Everything a reader can see of the stored data. A refused request must not change it.
    pub(crate) async fn stored(&self, reader: &Holder) -> Value {
        let token = self.token(reader).await;
        let hosts = self.get(reader, &token, "/api/perf").await.json("hosts");
        let mut stored = serde_json::Map::new();
        for host in hosts["hosts"].as_array().expect("hosts") {
            let name = host["name"].as_str().expect("a name");
            let summaries = self.get(reader, &token, &format!("/api/perf/{name}")).await;
            let delivery = self
                .get(reader, &token, &format!("/api/delivery/{name}"))
                .await;
            let seen = serde_json::json!([host, summaries.json(name), delivery.json(name)]);
            stored.insert(name.to_owned(), seen);
        }
        stored.into()
    }

    /// Checks that the receiver answers /healthz.
    #[track_caller]
    pub(crate) fn healthy(&self) -> impl Future<Output = ()> {
        let client = self.client(None, &["http/1.1"]);
        let request = client.get(self.url("/healthz"));
        async move {
            assert_eq!(answer(request).await.status, 200, "the receiver is alive");
        }
    }
}
