//! Enrolment by RFC 7030: who gets a certificate from `liz-ca`, its contents, and who never gets
//! one.

mod crls;
mod hostile;
mod imposters;
mod interop;
mod joining;
mod programs;
mod renewal;
mod requests;
mod unkept;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lizmon_ca::service::{Config, Service, ServiceCertificate};
use lizmon_protocol::name::{Attributes, Role};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::harness::process::{self, program};
use crate::harness::raw::Shown;
use crate::harness::{Answer, Holder, World};

pub(crate) const ENROLL: &str = "/.well-known/est/simpleenroll";
pub(crate) const REENROLL: &str = "/.well-known/est/simplereenroll";
const CACERTS: &str = "/.well-known/est/cacerts";

/// A `liz-ca` in this process, with the world's CA and clock. It ends with the test.
pub(crate) struct CaServer {
    port: u16,
    _stop: oneshot::Sender<()>,
    _done: JoinHandle<()>,
}

impl CaServer {
    pub(crate) async fn open(world: &World) -> Self {
        Self::open_with(world, |_| ()).await
    }

    pub(crate) async fn open_with(world: &World, edit: fn(&mut Config)) -> Self {
        let own = ServiceCertificate::Issued {
            name: "liz-ca".parse().unwrap(),
            sans: ["localhost", "127.0.0.1"]
                .map(|san| san.parse().unwrap())
                .to_vec(),
        };
        let mut config = Config::new(world.certs(), own);
        edit(&mut config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let clock = world.clock.clone();
        let service = Service::start(listener, config, Arc::new(move || clock.now()))
            .await
            .expect("liz-ca starts");
        let (stop, stopped) = oneshot::channel::<()>();
        let done = tokio::spawn(async move {
            let shutdown = async move {
                let _dropped = stopped.await;
            };
            service.run(shutdown).await.expect("liz-ca ends well");
        });
        Self {
            port,
            _stop: stop,
            _done: done,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn base(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    /// Sends a request with this certificate. A refused handshake is an error.
    async fn ask(
        &self,
        world: &World,
        shown: Option<Shown>,
        path: &str,
        edit: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Answer, reqwest::Error> {
        let client = world.client(shown, &["http/1.1"]);
        let request = match path {
            ENROLL | REENROLL => client.post(self.url(path)),
            _ => client.get(self.url(path)),
        };
        let response = edit(request).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    pub(crate) async fn enroll(
        &self,
        world: &World,
        name: &str,
        token: &str,
        body: String,
    ) -> Answer {
        let edit =
            |request: reqwest::RequestBuilder| request.basic_auth(name, Some(token)).body(body);
        let got = self.ask(world, None, ENROLL, edit).await;
        got.expect("liz-ca answers")
    }

    async fn reenroll(&self, world: &World, shown: Shown, body: String) -> Option<Answer> {
        let edit = |request: reqwest::RequestBuilder| request.body(body);
        self.ask(world, Some(shown), REENROLL, edit).await.ok()
    }
}

/// A token for a node, created outside the service, as by an operator.
fn token(world: &World, name: &str) -> String {
    let now = world.clock.now();
    let ttl = Duration::from_secs(600);
    let token = world.ca.make_join_token(
        Role::Node,
        &name.parse().unwrap(),
        &[],
        &Attributes::default(),
        ttl,
        now,
    );
    token.unwrap().as_str().to_owned()
}

/// The base64 of a request for this key.
fn request_for(key: &KeyPair) -> String {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    STANDARD.encode(request.der())
}

fn request() -> String {
    request_for(&KeyPair::generate().unwrap())
}

/// The certificates of a response, parsed by OpenSSL and not by our code.
#[track_caller]
fn certificates_in(folder: &Path, answer: &Answer) -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer
            .header("content-type")
            .starts_with("application/pkcs7-mime"),
        "{}",
        answer.header("content-type")
    );
    assert_eq!(answer.header("content-transfer-encoding"), "base64");
    let path = folder.join("answer.p7");
    let wrapped = format!(
        "-----BEGIN PKCS7-----\n{}-----END PKCS7-----\n",
        answer.text()
    );
    std::fs::write(&path, wrapped).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs7", "-print_certs", "-in"]).arg(&path);
    let printed = process::run(&mut openssl).success();
    CertificateDer::pem_slice_iter(printed.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The only certificate of a response.
#[track_caller]
fn certificate_in(folder: &Path, answer: &Answer) -> CertificateDer<'static> {
    let mut found = certificates_in(folder, answer);
    assert_eq!(
        found.len(),
        1,
        "RFC 7030 section 4.2.3: only what was issued"
    );
    found.remove(0)
}

/// The identity of a certificate: its only URI.
#[track_caller]
fn id_of(der: &[u8]) -> String {
    let identity = lizmon_mtls::identity::Identity::from_der(der).unwrap();
    identity.spiffe_id.to_string()
}

/// Checks an error of liz-ca: its status, one line of advice, and the headers the status requires.
#[track_caller]
fn refused(answer: &Answer, status: u16, story: &str) {
    let shown = format!("{story}: {} {}", answer.status, answer.text());
    assert_eq!(answer.status, status, "{shown}");
    assert_eq!(
        answer.header("content-type"),
        "text/plain; charset=utf-8",
        "{shown}"
    );
    assert_eq!(answer.text().lines().count(), 1, "{shown}");
    let challenge = answer.header("www-authenticate");
    assert_eq!(
        challenge.starts_with("Basic realm="),
        status == 401,
        "{shown}"
    );
    let retry_after = answer.header("retry-after").parse::<u32>();
    assert_eq!(
        retry_after.is_ok_and(|secs| secs > 0),
        matches!(status, 429 | 503),
        "{shown}"
    );
}

fn root_fingerprint(world: &World) -> String {
    world.ca.root_fingerprint()
}

/// `lizctl join`, with this token and these flags.
fn join(url: &str, token: &str, fingerprint: &str, out: &Path) -> Command {
    let mut command = program("lizctl");
    command.args([
        "join",
        url,
        "--token",
        token,
        "--ca-fingerprint",
        fingerprint,
    ]);
    command.arg("--out").arg(out);
    command
}

/// The holder whose files a join wrote into a folder.
fn joined(world: &World, folder: &Path, name: &str) -> Holder {
    let file = |end: &str| -> PathBuf { folder.join(format!("{name}.{end}")) };
    let (cert, key) = (file("crt"), file("key"));
    let http = world.client(Some(Shown::from_files(&cert, &key)), &["http/1.1"]);
    Holder {
        name: name.to_owned(),
        cert,
        key,
        http,
    }
}
