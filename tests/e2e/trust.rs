//! Trust changes while the receiver runs: revocation, expiring CRLs, replaced files.

use std::fs;
use std::time::Duration;

use lizmon_ca::authority::Request;
use lizmon_ca::pki::Reason;
use lizmon_protocol::name::Role;
use rustls::{CipherSuite, ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::crash::start_receiver;
use crate::harness::raw::{self, tls_config};
use crate::harness::{Answer, Holder, World, answer};

const DAY: u64 = 86_400;
/// Files are checked every second; this is far more.
const SOON: Duration = Duration::from_secs(20);
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Revokes this holder's certificates, and publishes the CRL.
fn revoke(world: &World, name: &str) {
    for entry in world
        .ca
        .entries()
        .unwrap()
        .iter()
        .filter(|entry| entry.name == name)
    {
        let serial = entry.serial.parse().unwrap();
        world
            .ca
            .revoke(&serial, Reason::KeyCompromise, world.clock.now())
            .unwrap();
    }
}

/// Repeats the request until the status is this one, up to the time limit.
async fn until(story: &str, mut ask: impl AsyncFnMut() -> Answer, status: u16) -> Answer {
    let asked = async {
        loop {
            let got = ask().await;
            if got.status == status {
                return got;
            }
        }
    };
    tokio::time::timeout(SOON, asked)
        .await
        .unwrap_or_else(|_| panic!("{story}: no {status} in time"))
}

/// A GET on its own raw connection: the response, and whether the TLS session was resumed.
async fn resumable(
    world: &World,
    config: &ClientConfig,
    request: &str,
) -> std::io::Result<(u16, HandshakeKind)> {
    let mut stream = raw::connect(world, config.clone()).await?;
    let said = raw::exchange(&mut stream, request.as_bytes()).await?;
    let kind = stream.get_ref().1.handshake_kind().expect("it is over");
    Ok((raw::status(&said), kind))
}

fn get(token: &str) -> String {
    format!(
        "GET /api/perf/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
}

/// A body may take a while: what is revoked before all of it has come is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_after_the_revocation_is_refused() {
    let world = World::start().await;
    let (a, reader) = (world.node("a"), world.reader());
    let token = world.token(&a).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let config = tls_config(&world.root(), Some(a.shown()), &["http/1.1"]);
    let mut stream = raw::connect(&world, config).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 9\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It asks for the body once the certificate and the token are found good.
    let mut said = [0; 64];
    let read = stream.read(&mut said).await.unwrap();
    assert_eq!(raw::status(&said[..read]), 100);
    revoke(&world, "a");
    let post = async || world.post(&a, &token, &path, r#"{"cpu":1}"#).await;
    until("the revocation", post, 401).await;
    let stored = world.stored(&reader).await;
    let said = raw::exchange(&mut stream, br#"{"cpu":7}"#).await.unwrap();
    assert_eq!(raw::status(&said), 401);
    assert!(String::from_utf8_lossy(&said).contains("certificate_revoked"));
    assert_eq!(world.stored(&reader).await, stored, "nothing is counted");
}

/// A resumed or long-open connection and an unexpired token stop working with the revocation.
#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_open_connections_and_resumed_sessions() {
    let world = World::start().await;
    let (a, b, reader) = (world.node("a"), world.node("b"), world.reader());
    let token = world.token(&a).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let post = async || world.post(&a, &token, &path, r#"{"cpu":1}"#).await;
    post().await.no_content("before");
    let config = tls_config(&world.root(), Some(a.shown()), &["http/1.1"]);
    let (status, _) = resumable(&world, &config, &get(&token)).await.unwrap();
    assert_eq!(status, 200);
    let (status, kind) = resumable(&world, &config, &get(&token)).await.unwrap();
    assert_eq!(
        (status, kind),
        (200, HandshakeKind::Resumed),
        "sessions are resumed at all"
    );

    revoke(&world, "a");
    until("the revocation", post, 401)
        .await
        .refused("certificate_revoked", "the open connection");
    let stored = world.stored(&reader).await;
    for request in [
        a.http.get(world.url("/api/perf/a")),
        a.http.get(world.url("/api/delivery/a")),
        a.http
            .post(world.url("/api/perf/a"))
            .body(r#"{"producer":"1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b","records":[]}"#),
    ] {
        answer(request.bearer_auth(&token))
            .await
            .refused("certificate_revoked", "the open connection");
    }
    let form = [("grant_type", "client_credentials")];
    world
        .ask_token(&a.http, &form)
        .await
        .token_error(401, "invalid_client", "no new token");
    match resumable(&world, &config, &get(&token)).await {
        Ok((status, kind)) => assert_eq!(status, 401, "{kind:?}"),
        Err(error) => assert!(
            error.to_string().to_lowercase().contains("revoked"),
            "{error}"
        ),
    }
    // Others are not affected.
    let token = world.token(&b).await;
    let path = format!("/api/perf/b/{}", world.clock.now());
    world
        .post(&b, &token, &path, r#"{"cpu":1}"#)
        .await
        .no_content("somebody else");
    assert_eq!(world.stored(&reader).await["a"], stored["a"]);
}

/// A resumed session is not verified again by TLS: its first request does that.
#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_ends_with_its_certificate() {
    let world = World::start().await;
    let a = world.holder_for(Role::Node, "a", 7_200);
    world.clock.advance(7_000);
    let config = tls_config(&world.root(), Some(a.shown()), &["http/1.1"]);
    let token = world.token(&a).await;
    for _ in 0..2 {
        let (status, _) = resumable(&world, &config, &get(&token)).await.unwrap();
        assert_eq!(status, 404, "good, but no samples");
    }
    world.clock.advance(201);
    match resumable(&world, &config, &get(&token)).await {
        Ok((status, kind)) => assert_eq!((status, kind), (401, HandshakeKind::Resumed)),
        Err(error) => assert!(
            error.to_string().to_lowercase().contains("expired"),
            "{error}"
        ),
    }
}

/// TLS does not verify a certificate again when a session is resumed, so the first request verifies
/// the whole chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_is_verified_again() {
    let world = World::start().await;
    let a = world.node("a");
    let config = tls_config(&world.root(), Some(a.shown()), &["http/1.1"]);
    let token = world.token(&a).await;
    assert_eq!(
        resumable(&world, &config, &get(&token)).await.unwrap().0,
        404,
        "good, but no samples"
    );
    // Before the certificate begins: a full handshake would end in an alert.
    world.clock.set(world.clock.now() - 4 * 3_600);
    let mut stream = raw::connect(&world, config).await.unwrap();
    let said = raw::exchange(&mut stream, get(&token).as_bytes())
        .await
        .unwrap();
    assert_eq!(
        stream.get_ref().1.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("certificate_expired") && said.contains("is not valid yet"),
        "the certificate is what is wrong, whatever the token says: {said}"
    );
}

/// A reload builds a new TLS configuration with a new ticket key: no earlier session is resumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_older_trust_is_not_resumed() {
    let world = World::start().await;
    let (a, b) = (world.node("a"), world.node("b"));
    let config = tls_config(&world.root(), Some(a.shown()), &["http/1.1"]);
    let token = world.token(&a).await;
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let got = resumable(&world, &config, &get(&token)).await.unwrap();
        assert_eq!(got, (404, kind), "within one trust");
    }
    // Somebody else's revocation: this session's certificate has not changed.
    let of_b = world.token(&b).await;
    revoke(&world, "b");
    let asked = async || world.get(&b, &of_b, "/api/perf/b").await;
    until("the revocation", asked, 401).await;
    let got = resumable(&world, &config, &get(&token)).await.unwrap();
    assert_eq!(got, (404, HandshakeKind::Full), "of the older trust");
    let got = resumable(&world, &config, &get(&token)).await.unwrap();
    assert_eq!(got, (404, HandshakeKind::Resumed), "of the new one");
}

/// Handshakes are cheapest with this cipher suite if the hardware has AES; SHA-384 has no hardware
/// support.
#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_chooses_the_cheapest_cipher_suite() {
    let world = World::start().await;
    let config = tls_config(&world.root(), None, &["http/1.1"]);
    let offered = &config.crypto_provider().cipher_suites;
    assert_ne!(
        offered[0].suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        "the client would rather have another"
    );
    let stream = raw::connect(&world, config).await.unwrap();
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
    assert_eq!(suite.suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
}

/// An expired CRL still revokes; after the grace period nobody is accepted, and health reports it.
#[tokio::test(flavor = "multi_thread")]
async fn a_crl_expires() {
    // The root's CRL is valid much longer: the issuing CA's expires.
    let world = World::start().await;
    let (a, gone) = (world.node("a"), world.node("gone"));
    revoke(&world, "gone");
    let config = || tls_config(&world.root(), Some(gone.shown()), &["http/1.1"]);
    let refused = async { while resumable(&world, &config(), &get("x")).await.is_ok() {} };
    tokio::time::timeout(SOON, refused)
        .await
        .expect("the revocation is seen");
    let anonymous = world.client(None, &["http/1.1"]);
    let ask = async |path: &str| answer(anonymous.get(world.url(path))).await;
    let warned = async || ask("/healthz").await.json("health")["warnings"].is_array();
    assert!(!warned().await, "nothing to warn of yet");
    let begin = world.clock.now();
    for (days, is_let_in) in [
        (14, true),
        (16, true),
        (31, true),
        (32, true),
        (34, false),
        (60, false),
    ] {
        let story = format!("{days} days later");
        world.clock.set(begin + days * DAY);
        assert!(
            resumable(&world, &config(), &get("x")).await.is_err(),
            "{story}: revoked stays revoked"
        );
        assert_eq!(
            warned().await,
            days >= 16,
            "{story}: health warns from half its life"
        );
        let form = [("grant_type", "client_credentials")];
        let token = world.ask_token(&a.http, &form).await;
        if is_let_in {
            let token = token.json(&story)["access_token"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(ask("/readyz").await.status, 200, "{story}");
            let path = format!("/api/perf/a/{}", world.clock.now());
            world
                .post(&a, &token, &path, r#"{"cpu":1}"#)
                .await
                .no_content(&story);
            continue;
        }
        token.refused("crl_expired", &story);
        ask("/readyz").await.refused("crl_expired", &story);
        for path in [
            "/api/perf",
            "/api/perf/a",
            "/api/perf/a/cpu",
            "/api/delivery/a",
            "/.well-known/jwks.json",
            "/.well-known/oauth-authorization-server",
        ] {
            ask(path)
                .await
                .refused("crl_expired", &format!("{story}: {path}"));
        }
        let path = format!("/api/perf/a/{}", world.clock.now());
        world
            .post(&a, "x", &path, r#"{"cpu":1}"#)
            .await
            .refused("crl_expired", &story);
    }
    // Opening the CA signs its CRLs again.
    drop(lizmon_ca::authority::Authority::open(&world.certs(), world.clock.now()).unwrap());
    until("the new list", async || ask("/readyz").await, 200).await;
    let token = world.token(&a).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    world
        .post(&a, &token, &path, r#"{"cpu":1}"#)
        .await
        .no_content("with a new list");
}

/// New connections get the receiver's new certificate; open connections continue.
#[tokio::test(flavor = "multi_thread")]
async fn the_receivers_certificate_is_replaced() {
    let world = World::start().await;
    let a = world.node("a");
    let token = world.token(&a).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let shown = async || {
        let config = tls_config(&world.root(), None, &["http/1.1"]);
        let mut stream = raw::connect(&world, config).await.unwrap();
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        assert_eq!(
            raw::status(&raw::exchange(&mut stream, HEALTH).await.unwrap()),
            200
        );
        leaf
    };
    let before = shown().await;
    let mut request = Request::new(Role::Receiver, "main".parse().unwrap());
    request.sans = vec!["localhost".parse().unwrap()];
    world.ca.issue(request, world.clock.now() - 3_600).unwrap();
    let changed = async {
        loop {
            // An open connection is served meanwhile.
            world
                .post(&a, &token, &path, r#"{"cpu":1}"#)
                .await
                .no_content("meanwhile");
            if shown().await != before {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, changed)
        .await
        .expect("the new one is shown");
}

/// Unreadable files change nothing: the last good ones stay in force, and the log says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_files_stay_in_force() {
    let mut world = World::without_receiver(|_| ());
    let (a, b): (Holder, Holder) = (world.node("a"), world.node("b"));
    let mut running = start_receiver(&mut world);
    let token = world.token(&a).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let files = world.trust_files();
    // The receiver's root file is damaged too, so the clients of this test need a copy.
    let root = world.folder().join("root.crt");
    fs::copy(world.root(), &root).unwrap();
    for file in [&files.crl, &files.cert, &files.key, &files.ca] {
        let good = fs::read(file).unwrap();
        // Truncated in its first block, and another kind of content.
        for bad in [&good[..200], &fs::read(&a.key).unwrap()] {
            fs::write(file, bad).unwrap();
            running.wait_for("not_in_use=1");
            world
                .post(&a, &token, &path, r#"{"cpu":1}"#)
                .await
                .no_content(&file.display().to_string());
            // Also new connections.
            let config = tls_config(&root, Some(b.shown()), &["http/1.1"]);
            let mut stream = raw::connect(&world, config).await.unwrap();
            let said = raw::exchange(&mut stream, HEALTH).await.unwrap();
            assert_eq!(raw::status(&said), 200, "{}", file.display());
        }
        fs::write(file, good).unwrap();
        running.wait_for("reloaded");
    }
    revoke(&world, "a");
    running.wait_for("reloaded");
    world
        .post(&a, &token, &path, r#"{"cpu":1}"#)
        .await
        .refused("certificate_revoked", "it still listens to good ones");
}
