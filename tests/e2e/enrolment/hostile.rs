//! Every way to request a certificate without permission.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lizmon_ca::authority::Request;
use lizmon_ca::pki::Reason;
use lizmon_ca::service::RateLimits;
use lizmon_protocol::name::Role;
use tokio::io::AsyncWriteExt;

use super::{CACERTS, CaServer, ENROLL, REENROLL, certificate_in, id_of, refused, request, token};
use crate::harness::World;
use crate::harness::forge::{Forger, self_signed};
use crate::harness::raw::{self, tls_config};

/// Far more than a short limit, far less than a default limit.
const SOON: Duration = Duration::from_secs(8);
const WEB1: &str = "spiffe://lizmon.internal/node/web1";

#[tokio::test(flavor = "multi_thread")]
async fn a_first_certificate_takes_a_good_token() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let (good, others, used, old) = (
        token(&world, "web1"),
        token(&world, "db1"),
        token(&world, "web1"),
        token(&world, "web1"),
    );
    let enrolled = ca_server.enroll(&world, "web1", &used, request()).await;
    certificate_in(world.folder(), &enrolled);
    let secret = good.rsplit_once('.').unwrap().1;
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    for (story, authorization) in [
        ("no credentials", None),
        (
            "a wrong token",
            Some(basic(&format!("web1:web1.{}", "0".repeat(64)))),
        ),
        (
            "a used token, another key",
            Some(basic(&format!("web1:{used}"))),
        ),
        ("another's token", Some(basic(&format!("web1:{others}")))),
        (
            "the token under another name",
            Some(basic(&format!("db1:{good}"))),
        ),
        (
            "the token under the name in capitals",
            Some(basic(&format!("WEB1:{good}"))),
        ),
        ("the secret alone", Some(basic(&format!("web1:{secret}")))),
        (
            "the token in capitals",
            Some(basic(&format!("web1:{}", good.to_uppercase()))),
        ),
        ("the token and more", Some(basic(&format!("web1:{good}0")))),
        ("no name", Some(basic(&format!(":{good}")))),
        ("no token", Some(basic("web1:"))),
        ("no colon", Some(basic(&good))),
        (
            "a name that is none",
            Some(basic(&format!("../web1:{good}"))),
        ),
        (
            "a hash, as the ledger has it",
            Some(basic(&format!("web1:{}", "ab".repeat(32)))),
        ),
        ("a bearer", Some(format!("Bearer {good}"))),
        ("no base64", Some(format!("Basic web1:{good}"))),
        ("a digest", Some("Digest username=\"web1\"".to_owned())),
    ] {
        let edit = |mut asked: reqwest::RequestBuilder| {
            if let Some(value) = &authorization {
                asked = asked.header("authorization", value);
            }
            asked.body(request())
        };
        let got = ca_server.ask(&world, None, ENROLL, edit).await.unwrap();
        refused(&got, 401, story);
        assert!(!got.text().contains(secret), "{story}");
    }
    // No certificate replaces a token.
    for holder in [world.node("web1"), world.holder(Role::Operator, "olga")] {
        let edit = |asked: reqwest::RequestBuilder| asked.body(request());
        let got = ca_server
            .ask(&world, Some(holder.shown()), ENROLL, edit)
            .await;
        refused(&got.unwrap(), 401, &holder.name);
    }
    // None of these has used up the token.
    let got = ca_server.enroll(&world, "web1", &good, request()).await;
    assert_eq!(id_of(&certificate_in(world.folder(), &got)), WEB1);
    world.clock.advance(600);
    let got = ca_server.enroll(&world, "web1", &old, request()).await;
    refused(&got, 401, "an expired token");
    world.ca.verify_audit(None).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_no_lost_token() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let (token, ours) = (token(&world, "web1"), request());
    let mut serials = Vec::new();
    for _ in 0..3 {
        let got = ca_server.enroll(&world, "web1", &token, ours.clone()).await;
        serials.push(certificate_in(world.folder(), &got));
    }
    serials.dedup();
    assert_eq!(serials.len(), 1, "the same certificate each time");
    let got = ca_server.enroll(&world, "web1", &token, request()).await;
    refused(&got, 401, "another key");
    // A thief of token and request gets a certificate whose key they do not have; after a
    // revocation, not even that.
    let name = "web1".parse().unwrap();
    let now = world.clock.now();
    world
        .ca
        .revoke_holder(Role::Node, &name, Reason::KeyCompromise, now)
        .unwrap();
    let got = ca_server.enroll(&world, "web1", &token, ours).await;
    refused(&got, 401, "after the revocation");
}

/// Each holder renews its own identity, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn renewal_keeps_role_and_name() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    for (role, name) in [
        (Role::Node, "web1"),
        (Role::Reader, "web1"),
        (Role::Operator, "web1"),
        (Role::Receiver, "web1"),
        (Role::Ca, "web1"),
        (Role::Summarizer, "web1"),
        (Role::Proxy, "web1"),
    ] {
        let holder = world.holder(role, name);
        let got = ca_server.reenroll(&world, holder.shown(), request()).await;
        let der = certificate_in(world.folder(), &got.unwrap());
        assert_eq!(
            id_of(&der),
            format!("spiffe://lizmon.internal/{role}/{name}")
        );
        let names = lizmon_mtls::identity::first_server_name(&der);
        let expected = role.is_server().then(|| "localhost".to_owned());
        assert_eq!(names, expected, "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_renew() {
    let (world, elsewhere) = (
        World::without_receiver(|_| ()),
        World::without_receiver(|_| ()),
    );
    let ca_server = CaServer::open(&world).await;
    let node = world.node("web1");
    // Without a certificate, and with other credentials.
    let edit = |asked: reqwest::RequestBuilder| asked.body(request());
    let got = ca_server.ask(&world, None, REENROLL, edit).await.unwrap();
    refused(&got, 403, "no certificate");
    let secret = token(&world, "web1");
    let edit =
        |asked: reqwest::RequestBuilder| asked.basic_auth("web1", Some(secret)).body(request());
    let got = ca_server.ask(&world, None, REENROLL, edit).await.unwrap();
    refused(&got, 403, "a token");

    let now = world.clock.now();
    let mut brief = Request::new(Role::Node, "old".parse().unwrap());
    brief.lifetime = Duration::from_secs(60);
    world.ca.issue(brief, now - 3600).unwrap();
    let at = |name: &str| world.certs().join("nodes").join(name);
    let expired = super::Shown::from_files(&at("old.crt"), &at("old.key"));
    let revoked = world.node("revoked").shown();
    world
        .ca
        .revoke_holder(
            Role::Node,
            &"revoked".parse().unwrap(),
            Reason::Unspecified,
            now,
        )
        .unwrap();
    let same_names = Forger::with_same_names(&world);
    let of_leaf = Forger::with_leaf_key(&node.shown());
    let stolen = Forger::with_issuing_key(&world);
    let cases = [
        ("expired", expired),
        ("revoked", revoked),
        ("another house's", elsewhere.node("web1").shown()),
        ("self-signed", self_signed(WEB1)),
        (
            "another CA with the same name",
            same_names.leaf(WEB1, |_| ()),
        ),
        ("signed by a leaf", of_leaf.leaf(WEB1, |_| ())),
        ("not in the ledger", stolen.leaf(WEB1, |_| ())),
        (
            "not in the ledger, with a number of it",
            stolen.leaf(WEB1, |params| {
                let identity =
                    lizmon_mtls::identity::Identity::from_der(&node.shown().chain[0]).unwrap();
                params.serial_number = Some(rcgen::SerialNumber::from_slice(&identity.serial));
            }),
        ),
    ];
    for (story, shown) in cases {
        // Either the handshake or the request is refused.
        if let Some(got) = ca_server.reenroll(&world, shown, request()).await {
            refused(&got, 403, story);
        }
    }
    let entries = world.ca.entries().unwrap();
    assert!(
        entries.iter().all(|entry| entry.renews.is_none()),
        "{entries:?}"
    );
    let got = ca_server.reenroll(&world, node.shown(), request()).await;
    assert_eq!(id_of(&certificate_in(world.folder(), &got.unwrap())), WEB1);
}

/// A connection that was opened before the revocation cannot renew after it, even without a reload.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_ends_with_its_certificate() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let node = world.node("web1");
    let ask = || node.http.post(ca_server.url(REENROLL)).body(request());
    let first = ask().send().await.unwrap();
    assert_eq!(first.status(), 200);
    first.bytes().await.unwrap();
    let now = world.clock.now();
    world
        .ca
        .revoke_holder(
            Role::Node,
            &"web1".parse().unwrap(),
            Reason::KeyCompromise,
            now,
        )
        .unwrap();
    for _ in 0..20 {
        // A new connection may be refused in the handshake.
        if let Ok(got) = ask().send().await {
            assert_eq!(got.status(), 403, "{}", got.text().await.unwrap());
        }
    }
    // With a new certificate the name renews again; the old certificate never does.
    let anew = world.node("web1");
    let got = ca_server.reenroll(&world, anew.shown(), request()).await;
    assert_eq!(got.unwrap().status, 200);
    if let Ok(got) = ask().send().await {
        assert_eq!(got.status(), 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_bounded() {
    let world = World::without_receiver(|_| ());
    let few = |config: &mut lizmon_ca::service::Config| {
        let mut rates = RateLimits::default();
        rates.joins_per_address.burst = 5.try_into().unwrap();
        rates.joins_per_address.every = Duration::from_secs(3600);
        rates.renewals_per_holder.burst = 2.try_into().unwrap();
        rates.renewals_per_holder.every = Duration::from_secs(3600);
        config.rates = rates;
    };
    let ca_server = CaServer::open_with(&world, few).await;
    let good = token(&world, "web1");
    for _ in 0..5 {
        let got = ca_server.enroll(&world, "web1", "wrong", request()).await;
        refused(&got, 401, "within the burst");
    }
    let got = ca_server.enroll(&world, "web1", &good, request()).await;
    refused(&got, 429, "past it, even a good token waits");
    let (web1, web2) = (world.node("web1"), world.node("web2"));
    for expected in [200, 200, 429] {
        let got = ca_server.reenroll(&world, web1.shown(), request()).await;
        assert_eq!(got.unwrap().status, expected);
    }
    let got = ca_server.reenroll(&world, web2.shown(), request()).await;
    assert_eq!(got.unwrap().status, 200, "another holder is another matter");
    // Public routes stay public.
    let got = ca_server.ask(&world, None, CACERTS, |asked| asked).await;
    assert_eq!(got.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_methods() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let client = world.client(None, &["h2", "http/1.1"]);
    for (method, path, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/crl", 200),
        ("GET", CACERTS, 200),
        ("HEAD", CACERTS, 200),
        ("POST", CACERTS, 405),
        ("GET", ENROLL, 405),
        ("PUT", ENROLL, 405),
        ("GET", REENROLL, 405),
        ("DELETE", "/crl", 405),
        ("GET", "/", 404),
        ("POST", "/", 404),
        ("GET", "/.well-known/est", 404),
        ("POST", "/.well-known/est/serverkeygen", 404),
        ("GET", "/.well-known/est/../est/cacerts", 200),
        ("GET", "/certs/root.key", 404),
        ("GET", "//crl", 404),
    ] {
        let method = method.parse().unwrap();
        let got = client
            .request(method, ca_server.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(got.status(), status, "{path}");
        let allow = got.headers().get("allow").cloned();
        assert_eq!(allow.is_some(), status == 405, "{path}: {allow:?}");
    }
    let got = ca_server
        .ask(&world, None, "/crl", |asked| asked)
        .await
        .unwrap();
    assert_eq!(
        got.body,
        std::fs::read(world.certs().join("crl.pem")).unwrap()
    );
}

/// liz-ca uses the receiver's acceptor: silent clients are closed there too.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_cut_off() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open_with(&world, |config| {
        config.limits.first_request_timeout = Duration::from_millis(400);
    })
    .await;
    for alpn in ["http/1.1", "h2"] {
        let config = tls_config(&world.root(), None, &[alpn]);
        let mut stream = raw::connect_to(ca_server.port, config).await.unwrap();
        let cut = tokio::time::timeout(SOON, raw::read_to_close(&mut stream)).await;
        // A reset counts as a close.
        let _how = cut.unwrap_or_else(|_| panic!("{alpn}: still open"));
    }
}

/// Idle clients are closed too, even if they answer HTTP/2 pings.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_is_cut_off() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open_with(&world, |config| {
        config.limits.idle_timeout = Duration::from_millis(400);
    })
    .await;
    let config = tls_config(&world.root(), None, &["h2"]);
    let mut stream = raw::connect_to(ca_server.port, config).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat();
    stream.write_all(&preface).await.unwrap();
    let cut = tokio::time::timeout(SOON, raw::read_to_close(&mut stream)).await;
    let _how = cut.expect("it is closed");
}

/// As at the receiver: `hostile::bytes::heads`.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_one_host() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    for (story, hosts, expected) in [
        ("one", "Host: localhost\r\n", 200),
        ("none", "", 400),
        ("two", "Host: localhost\r\nHost: evil.example\r\n", 400),
        (
            "the same twice",
            "Host: localhost\r\nHost: localhost\r\n",
            400,
        ),
        ("none that is one", "Host: a@b\r\n", 400),
    ] {
        let config = tls_config(&world.root(), None, &["http/1.1"]);
        let mut stream = raw::connect_to(ca_server.port, config).await.unwrap();
        let text = format!("GET {CACERTS} HTTP/1.1\r\nConnection: close\r\n{hosts}\r\n");
        let said = raw::exchange(&mut stream, text.as_bytes()).await.unwrap();
        assert_eq!(raw::status(&said), expected, "{story}");
    }
}
