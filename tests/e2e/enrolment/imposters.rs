//! Servers that impersonate the CA: the root's certificate is public, so anyone can serve it.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lizmon_protocol::name::Role;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{CACERTS, CaServer, join, request, root_fingerprint, token};
use crate::harness::World;
use crate::harness::forge::{Forger, self_signed};
use crate::harness::process::{Finished, run};
use crate::harness::raw::Shown;

/// Answers every request with the real CA's certificates, and counts requests by kind.
struct Imposter {
    url: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    secrets: AtomicUsize,
}

impl Imposter {
    async fn open(shown: Shown, cacerts: String) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(shown.chain, shown.key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let seen = Arc::new(Seen::default());
        let (counts, answer) = (seen.clone(), Arc::new(answer(&cacerts)));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, counts, answer) = (acceptor.clone(), counts.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let mut bytes = vec![0; 16 << 10];
                    let Ok(read @ 1..) = tls.read(&mut bytes).await else {
                        return;
                    };
                    let text = String::from_utf8_lossy(&bytes[..read]).to_lowercase();
                    counts.requests.fetch_add(1, Ordering::SeqCst);
                    if text.contains("authorization") || text.starts_with("post") {
                        counts.secrets.fetch_add(1, Ordering::SeqCst);
                    }
                    let _gone_or_not = tls.write_all(answer.as_bytes()).await;
                    let _gone_or_not = tls.shutdown().await;
                });
            }
        });
        Self { url, seen }
    }
}

fn answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Certificates of such servers, each with its key.
fn imposters(world: &World, elsewhere: &World) -> Vec<(&'static str, Shown)> {
    let ca = "spiffe://lizmon.internal/ca/liz-ca";
    let as_server = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let localhost = "localhost".try_into().unwrap();
        params
            .subject_alt_names
            .push(rcgen::SanType::DnsName(localhost));
    };
    vec![
        (
            "another CA's liz-ca",
            elsewhere.holder(Role::Ca, "liz-ca").shown(),
        ),
        (
            "the same names, another key",
            Forger::with_same_names(world).leaf(ca, as_server),
        ),
        ("self-signed", self_signed(ca)),
        ("a node of the CA", world.node("web7").shown()),
        (
            "a receiver of the CA",
            world.holder(Role::Receiver, "rx").shown(),
        ),
        (
            "a leaf that signs",
            Forger::with_leaf_key(&world.node("web8").shown()).leaf(ca, as_server),
        ),
    ]
}

/// Runs a program that must not believe whom it asks.
async fn refused(mut command: Command, story: &str) -> Finished {
    let done = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    assert!(
        matches!(done.status.code(), Some(1 | 4)),
        "{story}: {done:?}"
    );
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_sent_only_to_the_ca() {
    let (world, elsewhere) = (
        World::without_receiver(|_| ()),
        World::without_receiver(|_| ()),
    );
    let ca_server = CaServer::open(&world).await;
    let cacerts = ca_server.ask(&world, None, CACERTS, |asked| asked).await;
    let cacerts = cacerts.unwrap().text();
    let (token, out) = (token(&world, "web1"), world.folder().join("out"));
    for (story, shown) in imposters(&world, &elsewhere) {
        let imposter = Imposter::open(shown, cacerts.clone()).await;
        let command = join(&imposter.url, &token, &root_fingerprint(&world), &out);
        let done = refused(command, story).await;
        assert_eq!(done.stdout, "", "{story}");
        assert!(
            imposter.seen.requests.load(Ordering::SeqCst) >= 1,
            "{story}: it was asked"
        );
        assert_eq!(
            imposter.seen.secrets.load(Ordering::SeqCst),
            0,
            "{story}: {}",
            done.stderr
        );
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "{story}");
    }
    // None of these has used up the token.
    let got = ca_server.enroll(&world, "web1", &token, request()).await;
    assert_eq!(got.status, 200, "{}", got.text());
}

/// They get no renewal requests either.
#[tokio::test(flavor = "multi_thread")]
async fn no_other_client_renews() {
    let (world, elsewhere) = (
        World::without_receiver(|_| ()),
        World::without_receiver(|_| ()),
    );
    let ca_server = CaServer::open(&world).await;
    let cacerts = ca_server.ask(&world, None, CACERTS, |asked| asked).await;
    let cacerts = cacerts.unwrap().text();
    let node = world.node("web1");
    let before = std::fs::read(&node.cert).unwrap();
    for (story, shown) in imposters(&world, &elsewhere) {
        let imposter = Imposter::open(shown, cacerts.clone()).await;
        let mut command = crate::harness::process::program("lizctl");
        command.args(["renew", "--ca-url", &imposter.url, "--cert"]);
        command.arg(&node.cert).arg("--key").arg(&node.key);
        command.arg("--ca").arg(world.root());
        refused(command, story).await;
        assert_eq!(imposter.seen.requests.load(Ordering::SeqCst), 0, "{story}");
        assert_eq!(std::fs::read(&node.cert).unwrap(), before, "{story}");
    }
}
