//! Renewals whose certificate cannot be used or stored yet: each is issued once, and none is lost.
//!
//! Regressions: a machine ten minutes behind its CA refused each new certificate as not valid yet,
//! and requested the next one at once; and a certificate that could not be written was lost with
//! its key.

use std::path::Path;
use std::time::Duration;

use lizmon_protocol::name::Role;
use rustix::process::Signal;

use super::CaServer;
use crate::harness::World;
use crate::harness::process::{Finished, Running, program, run};
use crate::harness::raw::Shown;
use crate::harness::world::Holder;
use crate::programs;

const AT_ONCE: Duration = Duration::from_secs(10);
/// Past two thirds of its lifetime at the world's start: it was issued three hours ago.
const DUE_SECS: u64 = 1800;

/// How many renewed certificates this name has.
fn renewed(world: &World, name: &str) -> usize {
    let entries = world.ca.entries().unwrap().into_iter();
    entries
        .filter(|entry| entry.name == name && entry.renews.is_some())
        .count()
}

async fn renew(world: &World, ca_server: &CaServer, cert: &Path, key: &Path) -> Finished {
    let mut command = program("lizctl");
    command.arg("renew").arg("--cert").arg(cert).arg("--key");
    command.arg(key).arg("--ca").arg(world.root());
    command.args(["--ca-url", &ca_server.base()]);
    let done = tokio::task::spawn_blocking(move || run(&mut command));
    done.await.unwrap()
}

/// The CA's and the receiver's clocks are ahead by this, so the machine is behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_behind_renews_once() {
    for behind_secs in [200, 600, 3600, 86_400] {
        let world = World::without_receiver(|_| ());
        let ca_server = CaServer::open(&world).await;
        let node = world.node("web1");
        world.clock.advance(behind_secs);
        let done = renew(&world, &ca_server, &node.cert, &node.key).await;
        let told = done.stderr.clone();
        done.success();
        let is_told = told.contains("this machine's clock is behind the CA's");
        assert_eq!(is_told, behind_secs > 300, "{behind_secs}: {told}");
        assert_eq!(renewed(&world, "web1"), 1, "{behind_secs}");
    }

    let mut world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let node = world.holder_for(Role::Node, "web1", DUE_SECS);
    world.clock.advance(600);
    let mut command = programs::monitor::monitor(&world, &node);
    command.args(["--ca-url", &ca_server.base()]);
    let done = tokio::task::spawn_blocking(move || {
        let mut running = Running::start(&mut command);
        let said = running.wait_for("the new certificate begins at 20");
        assert!(said.contains("the clock here says 20"), "{said}");
        running.wait_for("keeping the certificate files read before");
        running.wait_for("Publish was successful to");
        running.signal(Signal::TERM);
        running.wait_within(AT_ONCE)
    });
    let log = done.await.unwrap();
    assert!(
        !log.stderr.contains("cannot renew the certificate"),
        "{}",
        log.stderr
    );
    assert_eq!(renewed(&world, "web1"), 1);
    world.stop().await;
}

/// The write fails after the CA has issued: the key is stored, and the same certificate is returned
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_kept_is_issued_once() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let node = world.node("web1");
    let old = node.shown();
    let beside = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        std::path::PathBuf::from(name)
    };
    // Nobody, not even root, can write a file where a folder is.
    let in_the_way = beside(&node.cert, ".new");
    std::fs::create_dir(&in_the_way).unwrap();
    for _ in 0..3 {
        let done = renew(&world, &ca_server, &node.cert, &node.key).await;
        assert!(done.failure(1).contains("web1.crt.new"), "{}", done.stderr);
        assert_eq!(renewed(&world, "web1"), 1);
        let kept = Shown::from_files(&node.cert, &node.key);
        assert_eq!((&kept.chain, &kept.key), (&old.chain, &old.key));
        assert!(beside(&node.key, ".new").is_file(), "the new key is kept");
    }
    std::fs::remove_dir(&in_the_way).unwrap();
    renew(&world, &ca_server, &node.cert, &node.key)
        .await
        .success();
    assert_eq!(renewed(&world, "web1"), 1);
    let new = node.shown();
    assert_ne!((&new.chain, &new.key), (&old.chain, &old.key));
    assert!(!beside(&node.key, ".new").exists());
    world.client(Some(new), &["http/1.1"]);
}

/// The CA's ledger rejects rows, so it cannot issue: the key of the request is kept and used again,
/// because a lost response may have issued a certificate for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_on_disk_before_the_ca_is_asked() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let node = world.node("web1");
    let waiting = node.key.with_extension("key.new");
    let ledger = rusqlite::Connection::open(world.certs().join("ledger.db")).unwrap();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON certificate
         BEGIN SELECT RAISE(ABORT, 'full'); END";
    ledger.execute_batch(refuse).unwrap();
    let done = renew(&world, &ca_server, &node.cert, &node.key).await;
    assert!(!done.status.success(), "{}", done.stderr);
    let key = std::fs::read_to_string(&waiting).unwrap();
    ledger.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(renewed(&world, "web1"), 0);
    renew(&world, &ca_server, &node.cert, &node.key)
        .await
        .success();
    assert_eq!(std::fs::read_to_string(&node.key).unwrap(), key);
    assert!(!waiting.exists());
}

/// Certificate and key in one file: a monitor's renewal keeps both there, and everything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_renews_a_file_of_both() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let node = world.holder_for(Role::Node, "web1", DUE_SECS);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    for (at, order) in [[&node.cert, &node.key], [&node.key, &node.cert]]
        .into_iter()
        .enumerate()
    {
        let path = world.folder().join(format!("both{at}.pem"));
        let text = format!("# web1\n{}# and\n{}# end\n", read(order[0]), read(order[1]));
        std::fs::write(&path, text).unwrap();
        let both = Holder {
            cert: path.clone(),
            key: path.clone(),
            ..node.clone()
        };
        let old = both.shown();
        let mut command = programs::monitor::monitor(&world, &both);
        command.args(["--ca-url", &ca_server.base()]);
        let done = tokio::task::spawn_blocking(move || {
            let mut running = Running::start(&mut command);
            running.wait_for("was renewed");
            running.wait_for("loaded new certificate files");
            running.wait_for("Publish was successful to");
            running.signal(Signal::TERM);
            running.wait_within(AT_ONCE)
        });
        done.await.unwrap().success();
        let new = both.shown();
        assert_ne!((&new.chain, &new.key), (&old.chain, &old.key));
        let text = read(&path);
        for kept in ["# web1\n", "# and\n", "# end\n"] {
            assert!(text.contains(kept), "{text}");
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
