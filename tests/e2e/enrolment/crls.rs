//! CRLs that nobody pushes: a receiver fetches them from `liz-ca` for its clients, a monitor for
//! its receivers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lizmon_ca::authority::{Authority, CaKind, Request, RotateOptions};
use lizmon_ca::pki::Reason;
use lizmon_protocol::name::Role;
use rustix::process::Signal;

use super::CaServer;
use crate::ca_life::{can_connect, renewed, until};
use crate::crash::{receiver_command, started};
use crate::harness::World;
use crate::harness::process::{Running, program, run};
use crate::harness::world::Holder;

const AT_ONCE: Duration = Duration::from_secs(10);

/// A receiver that reads a copy of the first CRLs, whatever the CA signs later, with its own data.
fn apart(world: &World) -> Command {
    let copy = world.folder().join("crl-of-the-start.pem");
    if !copy.exists() {
        fs::copy(world.certs().join("crl.pem"), &copy).expect("the CA has lists");
    }
    let whole = receiver_command(world);
    let mut command = program("liz-receiver");
    let data = world.folder().join("data-apart");
    let (lists_of_ca, data_of_world) = (world.trust_files().crl, world.data());
    for argument in whole.get_args() {
        let path = Path::new(argument);
        command.arg(match path {
            path if path == lists_of_ca => &copy,
            path if path == data_of_world => &data,
            path => path,
        });
    }
    command
}

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn revoke(world: &World, role: Role, name: &str) {
    let now = world.clock.now();
    let done = world
        .ca
        .revoke_holder(role, &name.parse().unwrap(), Reason::KeyCompromise, now);
    assert_eq!(done.unwrap().revoked.len(), 1, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_fetches_revocations_and_rotations() {
    let mut world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let (gone, stays) = (world.node("gone"), world.node("stays"));
    let mut command = apart(&world);
    command.args(["--ca-url", &ca_server.base()]);
    revoke(&world, Role::Node, "gone");
    let mut running = tokio::task::block_in_place(|| started(&mut world, &mut command));
    let running = in_background(move || {
        running.wait_for("CRLs fetched and in force");
        running
    })
    .await;
    assert!(!can_connect(&world, &gone).await);
    assert!(can_connect(&world, &stays).await);

    // The next CA's first leaf is refused, because there is no CRL of its issuer; so the CRL is
    // fetched.
    let now = world.clock.now();
    for _ in ["publish", "use"] {
        let options = RotateOptions::default();
        world
            .ca
            .rotate_next(CaKind::Issuing, &options, now)
            .unwrap();
    }
    world.ca = Authority::open(&world.certs(), now).unwrap();
    let new = renewed(&world, Role::Node, "new");
    until("the next CA's list", async || {
        can_connect(&world, &new).await
    })
    .await;
    assert!(!can_connect(&world, &gone).await);
    running.kill();

    // Fetched CRLs are stored: a receiver without --ca-url that reads the old file has them too.
    let mut command = apart(&world);
    let running = tokio::task::block_in_place(|| started(&mut world, &mut command));
    assert!(!can_connect(&world, &gone).await);
    assert!(can_connect(&world, &stays).await);
    assert!(can_connect(&world, &new).await);
    running.signal(Signal::TERM);
    in_background(move || running.wait_within(AT_ONCE))
        .await
        .success();
}

/// CRLs from another CA, or from a receiver in its place, are not accepted, and the present ones
/// stay in force.
#[tokio::test(flavor = "multi_thread")]
async fn crls_come_only_from_the_ca() {
    let mut world = World::start().await;
    let elsewhere = World::without_receiver(|_| ());
    let other = CaServer::open(&elsewhere).await;
    let a_receiver = world.issuer();
    let node = world.node("web1");
    for (url, why) in [
        (other.base(), "was not issued by the CA given"),
        (a_receiver, "only the role ca enrols"),
    ] {
        let mut command = apart(&world);
        command.args(["--ca-url", &url]);
        let mut running = tokio::task::block_in_place(|| started(&mut world, &mut command));
        let (said, running) = in_background(move || {
            let said = running.wait_for("cannot fetch CRLs");
            (said, running)
        })
        .await;
        assert!(said.contains("WARN") && said.contains(why), "{said}");
        assert!(can_connect(&world, &node).await, "{url}");
        running.signal(Signal::TERM);
        in_background(move || running.wait_within(AT_ONCE))
            .await
            .success();
    }
}

/// A receiver's key was stolen and its certificate revoked: monitors with --ca-url no longer talk
/// to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_receiver_gets_nothing_from_a_monitor() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let node = world.node("web1");
    revoke(&world, Role::Receiver, "main");
    let mut running = Running::start(&mut monitor(&world, &node, &ca_server.base()));
    let running = in_background(move || {
        let said = running.wait_for("its certificate is revoked");
        assert!(said.contains("its records are kept"), "{said}");
        running
    });
    let mut running = running.await;
    // It gets a new certificate, and then all spooled records.
    let mut request = Request::new(Role::Receiver, "main".parse().unwrap());
    request.sans = vec!["localhost".parse().unwrap()];
    world.ca.issue(request, world.clock.now()).unwrap();
    let done = in_background(move || {
        let said = running.wait_for("Publish was successful to");
        assert!(said.contains("that waited are delivered"), "{said}");
        running.signal(Signal::TERM);
        running.wait_within(AT_ONCE)
    });
    done.await.success();
}

fn monitor(world: &World, node: &Holder, ca_url: &str) -> Command {
    let mut command = program("liz-monitor");
    command.args(["--this-host", &node.name, "--ca-url", ca_url]);
    command.args(["--publish", &world.url("/api/perf")]);
    let files = [
        ("--cert", node.cert.clone()),
        ("--key", node.key.clone()),
        ("--ca", world.root()),
    ];
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    command
}

/// A receiver that is killed as soon as `lizctl` has pushed a CRL, and restarted with the first CRL
/// file, still has the pushed one.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_right_after_still_knows() {
    let mut world = World::without_receiver(|_| ());
    let (gone, operator) = (world.node("gone"), world.holder(Role::Operator, "olga"));
    let mut command = apart(&world);
    let running = tokio::task::block_in_place(|| started(&mut world, &mut command));
    assert!(can_connect(&world, &gone).await);
    let mut revoke = program("lizctl");
    revoke.args(["revoke", "gone", "--receiver", &world.issuer()]);
    let files = [
        ("--certs", world.certs()),
        ("--cert", operator.cert.clone()),
        ("--key", operator.key.clone()),
        ("--ca", world.root()),
    ];
    for (flag, file) in files {
        revoke.arg(flag).arg(file);
    }
    in_background(move || {
        run(&mut revoke).success();
        running.kill();
    })
    .await;
    let mut command = apart(&world);
    let running = tokio::task::block_in_place(|| started(&mut world, &mut command));
    assert!(!can_connect(&world, &gone).await);
    assert!(can_connect(&world, &operator).await);
    running.kill();
}
