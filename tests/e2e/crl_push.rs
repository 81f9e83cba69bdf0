//! `PUT /api/crl`: who may push a CRL, which CRLs are accepted, and what is in force after that.

use std::fs;
use std::path::PathBuf;

use lizmon_ca::pki::Reason;
use lizmon_protocol::name::Role;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;

use crate::harness::raw::{self, tls_config};
use crate::harness::{Answer, Holder, World, answer};

/// A receiver that reads a copy of the first CRLs, whatever the CA signs later.
struct Stage {
    world: World,
    operator: Holder,
    node: Holder,
    gone: Holder,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start_with(|config| {
            let copy = config.data.with_file_name("crl-of-the-start.pem");
            if !copy.exists() {
                fs::copy(&config.trust.crl, &copy).expect("the CA has lists");
            }
            config.trust.crl = copy;
        })
        .await;
        Self {
            operator: world.holder(Role::Operator, "root"),
            node: world.node("a"),
            gone: world.node("gone"),
            world,
        }
    }

    /// The CA's CRL file, which the receiver does not read.
    fn lists(&self) -> PathBuf {
        self.world.certs().join("crl.pem")
    }

    /// Signs a new CRL that revokes this holder's certificate.
    fn revoke(&self, holder: &Holder) -> Vec<u8> {
        let entries = self.world.ca.entries().unwrap();
        let entry = entries
            .iter()
            .rfind(|entry| entry.name == holder.name)
            .unwrap();
        let serial = entry.serial.parse().unwrap();
        let now = self.world.clock.now();
        self.world
            .ca
            .revoke(&serial, Reason::KeyCompromise, now)
            .unwrap();
        fs::read(self.lists()).unwrap()
    }

    async fn put(&self, body: impl Into<Vec<u8>>) -> Answer {
        let token = self.world.token(&self.operator).await;
        let request = self.operator.http.put(self.world.url("/api/crl"));
        answer(request.bearer_auth(token).body(body.into())).await
    }

    async fn can_connect(&self, holder: &Holder) -> bool {
        let config = tls_config(&self.world.root(), Some(holder.shown()), &["http/1.1"]);
        let Ok(mut stream) = raw::connect(&self.world, config).await else {
            return false;
        };
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        raw::exchange(&mut stream, request)
            .await
            .is_ok_and(|said| raw::status(&said) == 200)
    }
}

/// A pushed CRL is in force before the response, also on open connections, and after a restart
/// despite the older file.
#[tokio::test(flavor = "multi_thread")]
async fn a_crl_is_in_force_at_once_and_stays() {
    let mut stage = Stage::set().await;
    let token = stage.world.token(&stage.gone).await;
    let get = async |stage: &Stage| stage.world.get(&stage.gone, &token, "/api/perf/gone").await;
    get(&stage).await.refused("unknown_host", "still trusted");
    let lists = stage.revoke(&stage.gone);
    get(&stage)
        .await
        .refused("unknown_host", "the receiver has not heard of it");
    stage.put(lists.clone()).await.no_content("a new list");
    get(&stage)
        .await
        .refused("certificate_revoked", "the open connection");
    for story in ["at once", "after a restart"] {
        assert!(!stage.can_connect(&stage.gone).await, "{story}");
        assert!(stage.can_connect(&stage.node).await, "{story}");
        stage
            .put(lists.clone())
            .await
            .no_content("the very same again");
        stage.world.restart().await;
    }
}

/// A revoked host is listed as revoked and not only as silent, whether it retries or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_certificate_was_revoked_is_listed_as_such() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let reader = world.reader();
    let now = world.clock.now();
    for holder in [&stage.node, &stage.gone] {
        let token = world.token(holder).await;
        let path = format!("/api/perf/{}/{}", holder.name, now);
        let sent = world.post(holder, &token, &path, r#"{"cpu":1}"#).await;
        sent.no_content("a sample");
    }
    world.clock.set(now + 5);
    let states = async || {
        let token = world.token(&reader).await;
        let list = world.get(&reader, &token, "/api/perf").await;
        let list = list.json("the list");
        let hosts = list["hosts"].as_array().unwrap().clone();
        let state = |name: &str| {
            let host = hosts.iter().find(|host| host["name"] == name);
            host.unwrap()["state"].as_str().map(str::to_owned)
        };
        (state("a"), state("gone"))
    };
    assert_eq!(states().await, (None, None));
    let lists = stage.revoke(&stage.gone);
    stage.put(lists).await.no_content("a new list");
    for story in ["at once", "and from then on"] {
        assert_eq!(states().await, (None, Some("revoked".into())), "{story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_operator_pushes_crls() {
    let stage = Stage::set().await;
    let lists = stage.revoke(&stage.gone);
    let world = &stage.world;
    let reader = world.reader();
    let url = world.url("/api/crl");
    for holder in [&stage.node, &stage.gone, &reader] {
        let token = world.token(holder).await;
        let got = answer(holder.http.put(&url).bearer_auth(token).body(lists.clone())).await;
        got.refused("insufficient_scope", &holder.name);
    }
    let put = |client: &reqwest::Client| client.put(&url).body(lists.clone());
    answer(put(&stage.operator.http))
        .await
        .refused("token_missing", "no token");
    let token = world.token(&stage.operator).await;
    answer(put(&reader.http).bearer_auth(&token))
        .await
        .refused("certificate_mismatch", "another's certificate");
    let anonymous = world.client(None, &["http/1.1"]);
    answer(put(&anonymous).bearer_auth(&token))
        .await
        .refused("certificate_mismatch", "no certificate");
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "metrics:read"),
    ];
    let less = world
        .ask_token(&stage.operator.http, &form)
        .await
        .json("less");
    let less = less["access_token"].as_str().unwrap();
    answer(put(&stage.operator.http).bearer_auth(less))
        .await
        .refused("insufficient_scope", "a token for less");
    assert!(
        stage.can_connect(&stage.gone).await,
        "nothing of it was taken"
    );
    for method in ["GET", "POST", "DELETE", "PATCH"] {
        let request = stage
            .operator
            .http
            .request(method.parse().unwrap(), &url)
            .bearer_auth(&token);
        answer(request.body(lists.clone()))
            .await
            .refused("method_not_allowed", method);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crls_that_are_refused() {
    let stage = Stage::set().await;
    let first = fs::read(stage.lists()).unwrap();
    let lists = stage.revoke(&stage.gone);
    let elsewhere = World::without_receiver(|_| ());
    let foreign = fs::read(elsewhere.certs().join("crl.pem")).unwrap();
    let ders: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&lists)
        .map(|list| list.unwrap().to_vec())
        .collect();
    let longest = ders.iter().max_by_key(|der| der.len()).unwrap();
    let mut signature = longest.clone();
    *signature.last_mut().unwrap() ^= 1;
    let mut inside = longest.clone();
    let middle = inside.len() / 2;
    inside[middle] ^= 1;
    let pem = String::from_utf8(lists.clone()).unwrap();
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("nothing", Vec::new(), &[400]),
        ("text", b"hello".to_vec(), &[400]),
        (
            "a certificate",
            fs::read(stage.world.root()).unwrap(),
            &[400],
        ),
        ("a key", fs::read(&stage.node.key).unwrap(), &[400]),
        ("half a list", pem.as_bytes()[..200].to_vec(), &[400]),
        (
            "half of its DER",
            longest[..longest.len() / 2].to_vec(),
            &[400],
        ),
        (
            "DER and a tail",
            [longest.clone(), vec![0]].concat(),
            &[400],
        ),
        ("another signature", signature, &[400, 422]),
        ("another content", inside, &[400, 422]),
        ("of another CA with the same names", foreign.clone(), &[422]),
        (
            "ours, and another's behind it",
            [lists.clone(), foreign].concat(),
            &[422],
        ),
        (
            "more than sixteen mebibytes",
            vec![b' '; (16 << 20) + 1],
            &[413],
        ),
    ];
    for (story, body, statuses) in cases {
        let got = stage.put(body).await;
        assert!(
            statuses.contains(&got.status),
            "{story}: {} {}",
            got.status,
            got.text()
        );
        assert_eq!(
            got.header("content-type"),
            "application/problem+json",
            "{story}"
        );
        assert!(
            stage.can_connect(&stage.gone).await,
            "{story}: nothing of it was taken"
        );
        stage.world.healthy().await;
    }
    stage.put(lists.clone()).await.no_content("the good one");
    assert!(!stage.can_connect(&stage.gone).await);
    // An older CRL does not undo a revocation.
    let got = stage.put(first).await;
    assert_eq!(got.status, 409, "an older one: {}", got.text());
    assert!(!stage.can_connect(&stage.gone).await);
}
