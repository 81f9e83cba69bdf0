//! `lizctl join` and `renew`: from an empty folder to the files of a monitor.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lizmon_protocol::name::Role;
use rcgen::KeyPair;
use serde_json::Value;

use super::{CaServer, certificate_in, id_of, join, joined, request_for, root_fingerprint, token};
use crate::harness::World;
use crate::harness::process::{Finished, Running, program, run};
use crate::harness::raw::Shown;

/// In a blocking thread, because the event loop serves the program's requests.
async fn ran(mut command: Command) -> Finished {
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .map(|entries| {
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// As an instance of an autoscaling group does: nobody issues a certificate to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_joins_with_the_names_of_its_token() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let mut command = program("lizctl");
    command.args(["join-token", "rx9", "--role", "receiver", "--certs"]);
    command.arg(world.certs());
    let refused = ran(command).await;
    let said = refused.failure(1);
    assert!(said.contains("--san"), "{said}");
    let mut command = program("lizctl");
    command.args(["join-token", "rx9", "--role", "receiver", "--certs"]);
    command.arg(world.certs());
    command.args(["--san", "metrics.example,10.0.0.5"]);
    let token = ran(command).await.success().trim_end().to_owned();

    let out = world.folder().join("rx9");
    let fingerprint = root_fingerprint(&world);
    let done = ran(join(&ca_server.base(), &token, &fingerprint, &out)).await;
    assert!(done.stderr.contains("liz-receiver "), "{}", done.stderr);
    assert!(done.success().contains("receiver rx9"));
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]);
    command.arg(out.join("rx9.crt"));
    let names = ran(command).await.success();
    let names = names.lines().nth(1).unwrap().trim();
    assert_eq!(
        names,
        "URI:spiffe://lizmon.internal/receiver/rx9, DNS:metrics.example, IP Address:10.0.0.5"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_becomes_files_ready_for_a_monitor() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let mut command = program("lizctl");
    command.args([
        "join-token",
        "web1",
        "--ca-url",
        &ca_server.base(),
        "--certs",
    ]);
    command.arg(world.certs());
    let made = ran(command).await;
    let fingerprint = root_fingerprint(&world);
    for part in [&*fingerprint, &ca_server.base(), "lizctl join ", "web1"] {
        assert!(made.stderr.contains(part), "{part}: {}", made.stderr);
    }
    assert_eq!(made.stdout.lines().count(), 1, "the token alone");
    let token = made.stdout.trim_end().to_owned();
    assert!(!made.stderr.contains(&token), "no secret in a script's log");

    let out = world.folder().join("deep/down");
    let plain = join(&ca_server.base(), &token, &fingerprint, &out);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(plain.get_args());
    let done = ran(command).await;
    assert!(
        done.stderr.contains("liz-monitor --this-host web1 "),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains(&token) && !done.stdout.contains(&token));
    assert!(done.success().contains("node web1"));
    assert_eq!(files(&out), ["root.crt", "web1.crt", "web1.key"]);
    assert_eq!(mode(&out.join("web1.key")), 0o600);
    assert_eq!(mode(&out), 0o700);
    assert_eq!(
        fs::read(out.join("root.crt")).unwrap(),
        fs::read(world.root()).unwrap()
    );

    // A receiver accepts it.
    let node = joined(&world, &out, "web1");
    let bearer = world.token(&node).await;
    let path = format!("/api/perf/web1/{}", world.clock.now());
    world
        .post(&node, &bearer, &path, r#"{"cpu":1}"#)
        .await
        .no_content("a sample");

    // The token is used up: refused, with exit code 3. With the key of the first join it succeeds
    // and changes nothing.
    let before = fs::read(out.join("web1.crt")).unwrap();
    let elsewhere = world.folder().join("elsewhere");
    let done = ran(join(&ca_server.base(), &token, &fingerprint, &elsewhere)).await;
    let said = done.failure(3);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("lizctl join-token"), "{said}");
    assert!(files(&elsewhere).is_empty());
    ran(join(&ca_server.base(), &token, &fingerprint, &out))
        .await
        .success();
    assert_eq!(fs::read(out.join("web1.crt")).unwrap(), before);
    assert_eq!(files(&out), ["root.crt", "web1.crt", "web1.key"]);

    // After a certificate expired or was lost, a new token replaces the pair.
    let done = ran(join(
        &ca_server.base(),
        &super::token(&world, "web1"),
        &fingerprint,
        &out,
    ))
    .await;
    done.success();
    assert_ne!(fs::read(out.join("web1.crt")).unwrap(), before);
    world.token(&joined(&world, &out, "web1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_trusted_before_the_fingerprint_fits() {
    let (world, elsewhere) = (
        World::without_receiver(|_| ()),
        World::without_receiver(|_| ()),
    );
    let ca_server = CaServer::open(&world).await;
    let out = world.folder().join("out");
    let good = token(&world, "web1");
    let wrong = root_fingerprint(&elsewhere);
    let done = ran(join(&ca_server.base(), &good, &wrong, &out)).await;
    let said = done.failure(1);
    assert!(
        said.contains(&root_fingerprint(&world)) && said.contains(&wrong),
        "{said}"
    );
    assert!(files(&out).is_empty());
    for bad in ["", "abc", &wrong[1..], &format!("{wrong}00")] {
        let done = ran(join(&ca_server.base(), &good, bad, &out)).await;
        assert_eq!(done.status.code(), Some(2), "{bad}: {}", done.stderr);
    }
    // The fingerprint as OpenSSL writes it; the token from stdin, where it is not in the process
    // list.
    let openssl: Vec<String> = root_fingerprint(&world)
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8(pair.to_vec()).unwrap())
        .collect();
    let plain = join(&ca_server.base(), "-", &openssl.join(":"), &out);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "token=$1; shift; echo \"$token\" | \"$@\"",
        "sh",
        &good,
    ]);
    command.arg(plain.get_program()).args(plain.get_args());
    ran(command).await.success();
    // If another CA's root is there, nothing is overwritten.
    let theirs = elsewhere.certs();
    let done = ran(join(
        &ca_server.base(),
        &token(&world, "web2"),
        &root_fingerprint(&world),
        &theirs,
    ))
    .await;
    assert!(done.failure(1).contains("--out"), "{}", done.stderr);
    assert!(!theirs.join("web2.key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_and_what_is_no_token() {
    let world = World::without_receiver(|_| ());
    let fingerprint = root_fingerprint(&world);
    let out = world.folder().join("out");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let good = token(&world, "web1");
    ran(join(&url, &good, &fingerprint, &out)).await.failure(4);
    for bad in ["x", "web1", &good[..good.len() - 1]] {
        let done = ran(join(&url, bad, &fingerprint, &out)).await;
        assert_eq!(done.failure(2).lines().count(), 1, "{bad}");
    }
}

/// The response is lost after the certificate was issued: the same command continues with the same
/// key.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_was_cut_short_goes_on() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let (token, out) = (token(&world, "web1"), world.folder().join("out"));
    fs::create_dir(&out).unwrap();
    // As the first run leaves it: the key is written before anything is sent.
    let key = KeyPair::generate().unwrap();
    fs::write(out.join("web1.key.new"), key.serialize_pem()).unwrap();
    let lost = ca_server
        .enroll(&world, "web1", &token, request_for(&key))
        .await;
    let lost = certificate_in(world.folder(), &lost);
    let done = ran(join(
        &ca_server.base(),
        &token,
        &root_fingerprint(&world),
        &out,
    ))
    .await;
    done.success();
    let got = joined(&world, &out, "web1").shown();
    assert_eq!(got.chain[0], lost);
    assert_eq!(files(&out), ["root.crt", "web1.crt", "web1.key"]);
    // A join that was killed after its last step, or is repeated: the same command finds everything
    // done.
    let fingerprint = root_fingerprint(&world);
    let again = ran(join(&ca_server.base(), &token, &fingerprint, &out)).await;
    again.success();
    let same = joined(&world, &out, "web1").shown();
    assert_eq!((same.chain, same.key), (got.chain, got.key));
    assert_eq!(files(&out), ["root.crt", "web1.crt", "web1.key"]);
}

/// `list` shows who let a holder in, and when it renewed last.
async fn check_inventory(world: &World, name: &str, let_in_by: &str, renewed: bool) {
    let mut command = program("lizctl");
    command
        .args(["list", "--json", "--certs"])
        .arg(world.certs());
    let listed: Value = serde_json::from_str(&ran(command).await.success()).unwrap();
    let of_holder = |entry: &&Value| entry["name"] == name;
    let listed = listed["certificates"].as_array().unwrap();
    let newest = listed.iter().rfind(of_holder).unwrap();
    let told = newest["let-in-by"].as_str().unwrap();
    assert!(told.starts_with(let_in_by), "{newest}");
    let expected = renewed.then(|| newest["issued-at"].clone());
    assert_eq!(
        newest["last-renewal"],
        expected.unwrap_or_default(),
        "{newest}"
    );
}

/// Regression: a renewal overwrote the key in the same file with the certificate, and reported
/// success.
#[tokio::test(flavor = "multi_thread")]
async fn renew_keeps_all_that_a_file_holds() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let holder = world.node("web1");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (cert, key, root) = (read(&holder.cert), read(&holder.key), read(&world.root()));
    let at = |name: &str| world.folder().join(name);
    let renew = |cert: &str, key: &str, ca: &str| {
        let mut command = program("lizctl");
        command.args(["renew", "--ca-url", &ca_server.base(), "--cert"]);
        command
            .arg(at(cert))
            .arg("--key")
            .arg(at(key))
            .arg("--ca")
            .arg(at(ca));
        command
    };
    std::fs::write(at("ca.pem"), format!("# the root\n{root}")).unwrap();
    std::fs::write(at("both.pem"), format!("# web1\n{cert}{key}# end\n")).unwrap();
    let before = Shown::from_files(&at("both.pem"), &at("both.pem"));
    for _again in 0..2 {
        ran(renew("both.pem", "both.pem", "ca.pem")).await.success();
    }
    let after = Shown::from_files(&at("both.pem"), &at("both.pem"));
    assert!(after.key != before.key && after.chain[0] != before.chain[0]);
    let text = read(&at("both.pem"));
    assert!(
        text.starts_with("# web1\n") && text.ends_with("# end\n"),
        "{text}"
    );
    assert_eq!(mode(&at("both.pem")), 0o600);
    assert_eq!(read(&at("ca.pem")), format!("# the root\n{root}"));

    let issued = world.ca.entries().unwrap().len();
    std::fs::write(at("all.pem"), format!("{cert}{key}{root}")).unwrap();
    std::fs::write(at("cert.pem"), &cert).unwrap();
    std::fs::write(at("key.pem"), &key).unwrap();
    std::fs::hard_link(at("both.pem"), at("linked.pem")).unwrap();
    for (cert, key, ca) in [
        ("all.pem", "all.pem", "all.pem"),
        ("all.pem", "key.pem", "all.pem"),
        ("cert.pem", "all.pem", "all.pem"),
        ("both.pem", "linked.pem", "ca.pem"),
    ] {
        let files = [cert, key, ca].map(|name| read(&at(name)));
        let refused = ran(renew(cert, key, ca)).await;
        let said = refused.failure(1);
        assert!(
            said.contains("are one file") && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!(
            [cert, key, ca].map(|name| read(&at(name))),
            files,
            "nothing is touched"
        );
    }
    assert_eq!(
        world.ca.entries().unwrap().len(),
        issued,
        "the CA was not asked"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn renew_replaces_the_pair() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    for (role, name) in [
        (Role::Node, "web1"),
        (Role::Reader, "alice"),
        (Role::Receiver, "rx"),
        (Role::Summarizer, "sum1"),
    ] {
        let holder = world.holder(role, name);
        let old = holder.shown();
        let renew = || {
            let mut command = program("lizctl");
            command.args(["renew", "--ca-url", &ca_server.base(), "--cert"]);
            command.arg(&holder.cert).arg("--key").arg(&holder.key);
            command.arg("--ca").arg(world.root());
            command
        };
        ran(renew()).await.success();
        let new = holder.shown();
        assert_ne!(new.chain[0], old.chain[0], "{name}");
        assert_ne!(new.key, old.key, "a new key each time");
        assert_eq!(new.chain.len(), 2, "with the issuing certificate");
        assert_eq!(id_of(&new.chain[0]), id_of(&old.chain[0]));
        assert_eq!(mode(&holder.key), 0o600);
        // And again with the result.
        ran(renew()).await.success();
        let now = world.clock.now();
        world
            .ca
            .revoke_holder(
                role,
                &name.parse().unwrap(),
                lizmon_ca::pki::Reason::Unspecified,
                now,
            )
            .unwrap();
        let done = ran(renew()).await;
        assert_eq!(done.failure(3).lines().count(), 1, "{}", done.stderr);
    }
    let by_hand = world.ca.entries().unwrap()[0].issued_by.clone();
    check_inventory(&world, "web1", &by_hand, true).await;
    let out = world.folder().join("out");
    let fingerprint = root_fingerprint(&world);
    let token = token(&world, "web2");
    ran(join(&ca_server.base(), &token, &fingerprint, &out))
        .await
        .success();
    check_inventory(&world, "web2", "join token ", false).await;
    let mut command = program("lizctl");
    command.args(["renew", "--ca-url", &ca_server.base(), "--cert"]);
    command.arg(out.join("web2.crt")).arg("--key");
    command
        .arg(out.join("web2.key"))
        .arg("--ca")
        .arg(world.root());
    ran(command).await.success();
    check_inventory(&world, "web2", "join token ", true).await;
}

/// From an empty folder with a token to the first accepted sample in under 5 s, in one of a few
/// attempts, because other tests run at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_token_to_the_first_sample() {
    const GOAL: Duration = Duration::from_secs(5);
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let mut measured = Vec::new();
    for name in ["web1", "web2", "web3", "web4", "web5"] {
        let (joined, whole) = first_sample_after(&world, &ca_server, name).await;
        println!("joined after {joined:?}, first accepted sample after {whole:?}");
        measured.push(whole);
        if whole < GOAL {
            return;
        }
    }
    panic!("never under {GOAL:?}: {measured:?}");
}

/// Duration of a join, and from its start to the first accepted sample.
async fn first_sample_after(
    world: &World,
    ca_server: &CaServer,
    name: &str,
) -> (Duration, Duration) {
    let (token, out) = (token(world, name), world.folder().join(name));
    let join = join(&ca_server.base(), &token, &root_fingerprint(world), &out);
    let mut monitor = program("liz-monitor");
    monitor.args(["--this-host", name, "--publish", &world.url("/api/perf")]);
    monitor.arg("--cert").arg(out.join(format!("{name}.crt")));
    monitor.arg("--key").arg(out.join(format!("{name}.key")));
    monitor.arg("--ca").arg(out.join("root.crt"));
    monitor.args(["--ca-url", &ca_server.base()]);
    #[expect(
        clippy::disallowed_methods,
        reason = "what is tested is how long it takes"
    )]
    let begin = std::time::Instant::now();
    ran(join).await.success();
    let joined = begin.elapsed();
    let first = tokio::task::spawn_blocking(move || {
        let mut running = Running::start(&mut monitor);
        running.wait_for("Publish was successful to");
    });
    first.await.unwrap();
    (joined, begin.elapsed())
}
