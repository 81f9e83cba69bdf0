//! Programs that renew automatically, without losing samples.

use std::process::Command;
use std::time::Duration;

use lizmon_ca::authority::{Authority, CaKind, Request, RotateOptions, Stage};
use lizmon_protocol::name::Role;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::{CaServer, join, joined, root_fingerprint, token};
use crate::ca_life::until;
use crate::crash::{receiver_command, started};
use crate::harness::process::{Running, program, run};
use crate::harness::world::Holder;
use crate::harness::{World, answer};
use crate::programs;

const AT_ONCE: Duration = Duration::from_secs(10);
/// A certificate that is due at the world's start because it is past two thirds of its lifetime: it
/// was issued three hours ago, and expires in this many seconds.
const DUE_SECS: u64 = 1800;

fn monitor(world: &World, node: &Holder, ca_url: &str) -> Command {
    let mut command = programs::monitor::monitor(world, node);
    command.args(["--ca-url", ca_url]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_renews_without_losing_a_sample() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let node = world.holder_for(Role::Node, "web1", DUE_SECS);
    let old = node.shown();
    let mut command = monitor(&world, &node, &ca_server.base());
    let done = tokio::task::spawn_blocking(move || {
        let mut running = Running::start(&mut command);
        let said = running.wait_for("was renewed");
        assert!(
            said.contains("spiffe://lizmon.internal/node/web1"),
            "{said}"
        );
        // The files are reloaded within ten seconds, and a new token is fetched.
        for _ in 0..15 {
            running.wait_for("Publish was successful to");
        }
        running.signal(Signal::TERM);
        running.wait_within(AT_ONCE)
    });
    done.await.unwrap().success();
    let new = node.shown();
    assert_ne!(new.chain[0], old.chain[0]);
    assert_ne!(new.key, old.key);
    let renewed = Holder {
        http: world.client(Some(new), &["http/1.1"]),
        ..node.clone()
    };
    let token = world.token(&renewed).await;
    let got = world.get(&renewed, &token, "/api/delivery/web1").await;
    let told = got.json("delivery")["producers"][0].clone();
    assert_eq!(told["missing"], json!([]), "{told}");
    assert!(told["received"].as_u64().unwrap() >= 15, "{told}");
}

/// While the CA is unreachable the old certificate is used, and the log says how long it is valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_away_is_tried_again() {
    let world = World::start().await;
    let node = world.holder_for(Role::Node, "web1", DUE_SECS);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut command = monitor(&world, &node, &url);
    let done = tokio::task::spawn_blocking(move || {
        let mut running = Running::start(&mut command);
        let said = running.wait_for("cannot renew the certificate");
        assert!(said.contains("WARN") && said.contains("minutes"), "{said}");
        running.wait_for("Publish was successful to");
        running.signal(Signal::TERM);
        running.wait_within(AT_ONCE)
    });
    done.await.unwrap().success();
}

/// Without --ca-url nothing is renewed, and the log warns long before the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_coming_end_is_complained_of() {
    let world = World::start().await;
    let node = world.holder_for(Role::Node, "web1", DUE_SECS);
    let whole = monitor(&world, &node, "");
    let mut command = program("liz-monitor");
    let arguments: Vec<_> = whole.get_args().collect();
    command.args(&arguments[..arguments.len() - 2]);
    let done = tokio::task::spawn_blocking(move || {
        let mut running = Running::start(&mut command);
        let said = running.wait_for("nothing renews it");
        assert!(said.contains("WARN") && said.contains("--ca-url"), "{said}");
        running.signal(Signal::TERM);
        running.wait_within(AT_ONCE)
    });
    done.await.unwrap().success();
}

/// And a receiver's, which /healthz reports too.
#[tokio::test(flavor = "multi_thread")]
async fn a_receivers_health_tells_of_its_own_end() {
    let world = World::start().await;
    let health = async || {
        let client = world.client(None, &["http/1.1"]);
        answer(client.get(world.url("/healthz"))).await.text()
    };
    assert!(!health().await.contains("the server certificate"));
    world.holder_for(Role::Receiver, "main", DUE_SECS);
    until("a warning", async || {
        health()
            .await
            .contains("the server certificate expires soon, and was not renewed")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_renews_and_goes_on() {
    let mut world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let node = world.node("web1");
    // The receiver's certificate is due.
    let due = world.holder_for(Role::Receiver, "main", DUE_SECS);
    let old = due.shown();
    let mut command = receiver_command(&world);
    command.args(["--ca-url", &ca_server.base()]);
    let mut running = tokio::task::block_in_place(|| started(&mut world, &mut command));
    let token = world.token(&node).await;
    let running = tokio::task::spawn_blocking(move || {
        running.wait_for("was renewed");
        running.wait_for("reloaded");
        running
    });
    let running = running.await.unwrap();
    assert_ne!(due.shown().chain[0], old.chain[0]);
    let server_names = |der: &[u8]| lizmon_mtls::identity::first_server_name(der);
    assert_eq!(
        server_names(&due.shown().chain[0]),
        server_names(&old.chain[0])
    );
    // The open connection and the token continue to work; a new connection gets the new
    // certificate.
    let path = format!("/api/perf/web1/{}", world.clock.now());
    for holder in [&node, &world.node("web1")] {
        let bearer = if holder.cert == node.cert && std::ptr::eq(holder, &node) {
            token.clone()
        } else {
            world.token(holder).await
        };
        world
            .post(holder, &bearer, &path, r#"{"cpu":1}"#)
            .await
            .no_content("a sample");
    }
    running.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || running.wait_within(AT_ONCE));
    ended.await.unwrap().success();
}

/// A liz-ca that was started before the rotation works through all its steps; a renewal returns the
/// roots of its step, and each step's certificate renews at the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_learned_by_renewal() {
    for rotated in [CaKind::Issuing, CaKind::Root] {
        let mut world = World::without_receiver(|_| ());
        let ca_server = CaServer::open(&world).await;
        let node = world.node("web1");
        let roots = world.folder().join("roots.crt");
        std::fs::copy(world.root(), &roots).unwrap();
        let renew = || {
            let mut command = program("lizctl");
            command.args(["renew", "--ca-url", &ca_server.base(), "--cert"]);
            command.arg(&node.cert).arg("--key").arg(&node.key);
            command.arg("--ca").arg(&roots);
            command
        };
        let first_issuer = node.shown().chain[1].clone();
        for stage in [Stage::Published, Stage::InUse, Stage::Steady] {
            let now = world.clock.now();
            let options = RotateOptions {
                force: true,
                ..RotateOptions::default()
            };
            let step = world.ca.rotate_next(rotated, &options, now).unwrap();
            assert_eq!(step.stage, stage);
            world.ca = Authority::open(&world.certs(), now).unwrap();
            let story = format!("{rotated:?} {stage:?}");
            until_done(renew, &story).await;
            let trusted = std::fs::read(&roots).unwrap();
            assert_eq!(
                count(&trusted),
                count(&std::fs::read(world.root()).unwrap()),
                "{story}"
            );
            let own = node.shown();
            let issuing = std::fs::read(world.certs().join("issuing.crt")).unwrap();
            let issuing = CertificateDer::from_pem_slice(&issuing).unwrap();
            assert_eq!(own.chain[1], issuing, "{story}");
        }
        assert_ne!(node.shown().chain[1], first_issuer, "{rotated:?}");
        // A machine that joins now uses the current root.
        let out = world.folder().join("out");
        let (token, fingerprint) = (token(&world, "web2"), root_fingerprint(&world));
        let join = || join(&ca_server.base(), &token, &fingerprint, &out);
        until_done(join, &format!("{rotated:?}, a newcomer")).await;
        world.ca.verify_audit(None).unwrap();
    }
}

/// The new root cannot be stored, so no certificate is requested: the CA would assume that this
/// machine knows the root.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_learn_a_new_root_does_not_renew() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let node = world.node("web1");
    let roots = world.folder().join("root-of-the-start.crt");
    std::fs::copy(world.root(), &roots).unwrap();
    // Nobody can create a file in this folder, not even root.
    let read_only = "/proc/self/fd/0";
    let renew = || {
        let mut command = program("lizctl");
        command.args(["renew", "--ca-url", &ca_server.base(), "--ca", read_only]);
        command.arg("--cert").arg(&node.cert);
        command.arg("--key").arg(&node.key);
        command.stdin(std::fs::File::open(&roots).unwrap());
        command
    };
    until_done(renew, "the roots are as they were").await;
    let now = world.clock.now();
    let mut ca = Authority::open(&world.certs(), now).unwrap();
    ca.rotate_next(CaKind::Root, &RotateOptions::default(), now)
        .unwrap();
    let issued = || ca.entries().unwrap().len();
    let (before, mut command) = (issued(), renew());
    let done = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    assert!(
        done.failure(1).contains("cannot replace `/proc/self/fd/0`"),
        "{}",
        done.stderr
    );
    assert_eq!(issued(), before, "nothing was issued for nothing");
}

/// Retries until it works: liz-ca's own certificate follows a rotation within a second or two, and
/// may not be trusted until then.
async fn until_done(command: impl Fn() -> Command, story: &str) {
    let done = async {
        loop {
            let mut command = command();
            let done = tokio::task::spawn_blocking(move || run(&mut command));
            if done.await.unwrap().status.success() {
                return;
            }
        }
    };
    tokio::time::timeout(AT_ONCE, done).await.expect(story);
}

fn count(pem: &[u8]) -> usize {
    CertificateDer::pem_slice_iter(pem).count()
}

/// The CA was unreachable for longer than a certificate's lifetime, and the machine was restarted
/// meanwhile. The monitor samples anyway and says what to do; spooled records are delivered after a
/// new join.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_from_an_ended_certificate() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let folder = world.folder().join("web1");
    let fingerprint = root_fingerprint(&world);
    let mut first = join(
        &ca_server.base(),
        &token(&world, "web1"),
        &fingerprint,
        &folder,
    );
    tokio::task::spawn_blocking(move || run(&mut first).success())
        .await
        .unwrap();
    // Replaced by a certificate that expired two hours ago.
    let mut request = Request::new(Role::Node, "web1".parse().unwrap());
    request.lifetime = Duration::from_secs(3600);
    let ended = world
        .ca
        .issue(request, world.clock.now() - 3 * 3600)
        .unwrap();
    let node = joined(&world, &folder, "web1");
    std::fs::copy(&ended.certificate_path, &node.cert).unwrap();
    std::fs::copy(ended.key_path.unwrap(), &node.key).unwrap();

    let mut command = monitor(&world, &node, &ca_server.base());
    let mut anew = join(
        &ca_server.base(),
        &token(&world, "web1"),
        &fingerprint,
        &folder,
    );
    let done = tokio::task::spawn_blocking(move || {
        let mut running = Running::start(&mut command);
        let said = running.wait_for("has expired and was not renewed");
        assert!(
            said.contains("ERROR") && said.contains("lizctl join-token"),
            "{said}"
        );
        running.wait_for("it has expired");
        run(&mut anew).success();
        running.wait_for("loaded new certificate files");
        let said = running.wait_for("Publish was successful to");
        assert!(said.contains("that waited are delivered"), "{said}");
        running.signal(Signal::TERM);
        running.wait_within(AT_ONCE)
    });
    done.await.unwrap().success();
}
