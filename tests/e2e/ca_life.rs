//! The CA with a running receiver: pushed CRLs, rotations under load, verification by other
//! implementations.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lizmon_ca::authority::{Authority, CaKind, InitOptions, Issued, Request, RotateOptions, Stage};
use lizmon_ca::pki::San;
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_protocol::name::{Label, NodeName, Role};
use lizmon_protocol::sample::{Epoch, SampleSet, Value};
use tokio::task::JoinHandle;

use crate::harness::process::{program, run};
use crate::harness::raw::{self, tls_config};
use crate::harness::world::wall_clock;
use crate::harness::{Holder, World};

/// Files are checked every second; this is far more.
const SOON: Duration = Duration::from_secs(30);
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// `lizctl` on the world's CA.
fn lizctl(world: &World, line: &str) -> Command {
    let mut command = program("lizctl");
    command.args(line.split_whitespace());
    command.arg("--certs").arg(world.certs());
    command
}

/// The same, pushing to the world's receiver as this operator.
fn telling(world: &World, operator: &Holder, line: &str) -> Command {
    let mut command = lizctl(world, line);
    command.arg("--receiver").arg(world.issuer());
    command.arg("--cert").arg(&operator.cert);
    command.arg("--key").arg(&operator.key);
    command.arg("--ca").arg(world.root());
    command
}

/// A receiver that reads none of the CA's files: it has the first CRL, and those that are pushed.
async fn apart() -> World {
    World::start_with(|config| {
        let copy = config.data.with_file_name("crl-of-the-start.pem");
        if !copy.exists() {
            fs::copy(&config.trust.crl, &copy).expect("the CA has lists");
        }
        config.trust.crl = copy;
    })
    .await
}

pub(crate) async fn can_connect(world: &World, holder: &Holder) -> bool {
    let config = tls_config(&world.root(), Some(holder.shown()), &["http/1.1"]);
    let Ok(mut stream) = raw::connect(world, config).await else {
        return false;
    };
    let said = raw::exchange(&mut stream, HEALTH).await;
    said.is_ok_and(|said| raw::status(&said) == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lizctl_revokes_the_receiver_refuses_when_it_returns() {
    let world = apart().await;
    let operator = world.holder(Role::Operator, "olga");
    let (gone, stays) = (world.node("gone"), world.node("stays"));
    let token = world.token(&gone).await;
    let path = format!("/api/perf/gone/{}", world.clock.now());
    let post = async || world.post(&gone, &token, &path, r#"{"cpu":1}"#).await;
    post().await.no_content("before");
    // Without a push it continues to trust, and lizctl says how it can learn of the revocation.
    let told_nobody = run(&mut lizctl(&world, "revoke stays --role reader"));
    told_nobody.failure(1);
    let done = run(&mut telling(
        &world,
        &operator,
        "revoke gone --reason key-compromise",
    ));
    let stdout = done.success();
    assert!(stdout.contains("revoked node gone"), "{stdout}");
    assert!(stdout.contains(" ms after this command began"), "{stdout}");
    println!("{stdout}");
    post()
        .await
        .refused("certificate_revoked", "the open connection");
    assert!(!can_connect(&world, &gone).await);
    assert!(can_connect(&world, &stays).await);

    // Pushing the same CRL again is no error, so it can be repeated until every receiver was
    // reached.
    let again = run(&mut telling(&world, &operator, "revoke gone"));
    assert!(again.success().contains("no certificate was valid"));
    // With a certificate that is not an operator's, the ledger is updated but the push is refused.
    let refused = run(&mut telling(&world, &stays, "revoke gone"));
    let why = refused.failure(3);
    assert!(why.contains("does not have the new CRLs"), "{why}");
    // One of two receivers is unreachable: the other gets the CRL.
    let mut command = telling(&world, &operator, "revoke stays");
    command.args(["--receiver", "https://127.0.0.1:1"]);
    let half = run(&mut command);
    half.failure(4);
    assert!(
        half.stdout.contains(&format!("{} has the", world.issuer())),
        "{half:?}"
    );
    assert!(!can_connect(&world, &stays).await);
}

/// How a client continues while its certificate is revoked.
#[derive(Debug, Clone, Copy)]
enum Way {
    OpenHttp1,
    OpenHttp2,
    /// A handshake for each request.
    Anew,
    /// A token request instead of a sample.
    NewToken,
}

/// The requests of one kind, each with its start and whether it was accepted.
type Tried = Vec<(Duration, bool)>;

/// On open connections of both kinds, on new ones, and for new tokens: requests that start after
/// the command has returned are refused. Prints how long before that the last one was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_that_is_begun_after_revoke_has_returned() {
    const MORE: usize = 20;
    let world = apart().await;
    let operator = world.holder(Role::Operator, "olga");
    let gone = world.node("gone");
    let token = world.token(&gone).await;
    let (begin, stop) = (stopwatch(), AtomicBool::new(false));
    let after: AtomicU64 = AtomicU64::new(u64::MAX);
    let try_on = async |way: Way| -> Tried {
        let alpn: &[&str] = if matches!(way, Way::OpenHttp2) {
            &["h2"]
        } else {
            &["http/1.1"]
        };
        let kept = world.client(Some(gone.shown()), alpn);
        let (mut tried, mut more) = (Tried::new(), 0);
        while !stop.load(Ordering::SeqCst) || more < MORE {
            let at = begin.elapsed();
            more += usize::from(at > Duration::from_micros(after.load(Ordering::SeqCst)));
            let taken = match way {
                Way::NewToken => {
                    let form = [("grant_type", "client_credentials")];
                    kept.post(world.url("/oauth2/token")).form(&form)
                }
                way => {
                    let anew = || world.client(Some(gone.shown()), alpn);
                    let client = if matches!(way, Way::Anew) {
                        anew()
                    } else {
                        kept.clone()
                    };
                    let path = format!("/api/perf/gone/{}", world.clock.now());
                    client
                        .post(world.url(&path))
                        .bearer_auth(&token)
                        .body(r#"{"cpu":1}"#)
                }
            };
            let answer = taken.send().await;
            tried.push((at, answer.is_ok_and(|answer| answer.status().is_success())));
        }
        tried
    };
    let mut command = telling(&world, &operator, "revoke gone");
    let revoke = async {
        let done = tokio::task::spawn_blocking(move || run(&mut command)).await;
        let returned = begin.elapsed();
        after.store(returned.as_micros() as u64, Ordering::SeqCst);
        stop.store(true, Ordering::SeqCst);
        (done.unwrap().success(), returned)
    };
    let ways = [Way::OpenHttp1, Way::OpenHttp2, Way::Anew, Way::NewToken];
    let all = futures_util::future::join_all(ways.map(&try_on));
    let (all, (stdout, returned)) = tokio::join!(all, revoke);
    println!("{stdout}");
    for (way, tried) in ways.into_iter().zip(all) {
        let last = tried.iter().rfind(|(_, taken)| *taken);
        let (last, _) = last.unwrap_or_else(|| panic!("{way:?} never worked"));
        assert!(
            *last <= returned,
            "{way:?}: taken after the command has returned"
        );
        println!(
            "{way:?}: the last of {} requests that was taken was begun {:?} before the command returned",
            tried.len(),
            returned - *last
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is tested is what comes before what"
)]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

/// In a rotation the next CA's CRL is pushed before any of its certificates was seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_pushed_to_receivers() {
    let mut world = apart().await;
    let operator = world.holder(Role::Operator, "olga");
    let old = world.node("old");
    for stage in ["published", "in use"] {
        let told = run(&mut telling(&world, &operator, "rotate issuing --next")).success();
        assert!(told.contains(stage), "{told}");
        assert!(can_connect(&world, &old).await);
    }
    reopen(&mut world);
    let new = renewed(&world, Role::Node, "new");
    assert!(
        can_connect(&world, &new).await,
        "at once: its list is there"
    );
    let step = "rotate issuing --next --force";
    run(&mut telling(&world, &operator, step)).success();
    assert!(!can_connect(&world, &old).await, "the old CA is on hold");
    assert!(can_connect(&world, &new).await);
    // That revoked the operator's own certificate too.
    let refused = run(&mut telling(&world, &operator, "rotate issuing --back"));
    refused.failure(3);
    let operator = renewed(&world, Role::Operator, "olga");
    run(&mut telling(&world, &operator, "sign-crl")).success();
    assert!(can_connect(&world, &old).await, "trusted again");
}

fn reopen(world: &mut World) {
    world.ca = Authority::open(&world.certs(), world.clock.now()).unwrap();
}

/// Issues a current certificate into its holder's files.
pub(crate) fn renewed(world: &World, role: Role, name: &str) -> Holder {
    let mut request = Request::new(role, name.parse().unwrap());
    if role.is_server() {
        request.sans = ["localhost", "127.0.0.1"]
            .map(|san| san.parse::<San>().unwrap())
            .to_vec();
    }
    let issued = world.ca.issue(request, world.clock.now()).unwrap();
    let (cert, key) = (issued.certificate_path, issued.key_path.unwrap());
    let shown = raw::Shown::from_files(&cert, &key);
    Holder {
        name: name.to_owned(),
        http: world.client(Some(shown), &["http/1.1"]),
        cert,
        key,
    }
}

/// Copies a holder's files, so that it continues to use its current certificate.
fn set_aside(world: &World, mut holder: Holder) -> Holder {
    for file in [&mut holder.cert, &mut holder.key] {
        let serial = world.ca.entries().unwrap().pop().unwrap().serial;
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let copy = world.folder().join(format!("{serial}-{name}"));
        fs::copy(&*file, &copy).unwrap();
        *file = copy;
    }
    holder
}

/// A node that publishes continuously, reloads its files when they change, and counts.
struct Publisher {
    name: NodeName,
    sent: Arc<AtomicU64>,
    task: JoinHandle<Vec<String>>,
}

impl Publisher {
    fn start(world: &World, name: &str, stop: &Arc<AtomicBool>) -> Self {
        let holder = world.node(name);
        let credentials = Credentials {
            cert: holder.cert,
            key: holder.key,
            ca: world.root(),
        };
        let name: NodeName = name.parse().unwrap();
        let url: BaseUrl = world.issuer().parse().unwrap();
        let mut client = Client::new(url, &credentials, world.clock.now()).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let (clock, stop) = (world.clock.clone(), stop.clone());
        let (host, count) = (name.clone(), sent.clone());
        let task = tokio::spawn(async move {
            let values =
                SampleSet::new(vec![(Label::new("cpu").unwrap(), Value::new(1.0).unwrap())]);
            let mut failures = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                // A half-written pair is not loaded; the next reload gets both files.
                let _ = client.reload(clock.now());
                let epoch = Epoch::new(clock.now()).unwrap();
                let published = client.publish(&host, epoch, &values, None, clock.now());
                match published.await {
                    Ok(()) => drop(count.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => failures.push(format!("{host}: {error:?}")),
                }
            }
            failures
        });
        Self { name, sent, task }
    }
}

/// Waits until everybody has published this much more, and so has seen the last change.
async fn go_on(publishers: &[Publisher]) {
    const SAMPLES: u64 = 20;
    for publisher in publishers {
        let goal = publisher.sent.load(Ordering::SeqCst) + SAMPLES;
        let reached = async {
            while publisher.sent.load(Ordering::SeqCst) < goal && !publisher.task.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(SOON, reached).await;
        in_time.unwrap_or_else(|_| panic!("{} publishes no more", publisher.name));
    }
}

pub(crate) async fn until(story: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(SOON, waited).await;
    in_time.unwrap_or_else(|_| panic!("{story}: not in time"));
}

/// The receiver's certificate on a connection.
async fn shown_by_receiver(world: &World) -> Vec<u8> {
    let config = tls_config(&world.root(), None, &["http/1.1"]);
    let mut stream = raw::connect(world, config).await.unwrap();
    let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    raw::exchange(&mut stream, HEALTH).await.unwrap();
    leaf
}

/// Receiver and nodes get current certificates, and use them.
async fn renew_all(world: &World, publishers: &[Publisher]) {
    let before = shown_by_receiver(world).await;
    renewed(world, Role::Receiver, "main");
    until("the receiver's certificate", async || {
        shown_by_receiver(world).await != before
    })
    .await;
    for publisher in publishers {
        renewed(world, Role::Node, publisher.name.as_str());
    }
    go_on(publishers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sample_fails_while_a_ca_is_replaced() {
    for rotated in [CaKind::Issuing, CaKind::Root] {
        let mut world = World::start().await;
        let stop = Arc::new(AtomicBool::new(false));
        let publishers = ["a", "b", "c"].map(|name| Publisher::start(&world, name, &stop));
        let witness = set_aside(&world, world.node("witness"));
        go_on(&publishers).await;
        let now = world.clock.now();
        let options = RotateOptions::default();
        let next = |world: &mut World| world.ca.rotate_next(rotated, &options, now).unwrap().stage;

        assert_eq!(next(&mut world), Stage::Published);
        // A renewal now returns the new root, and the receiver has read it before the next step.
        renew_all(&world, &publishers).await;
        let witness_anew = set_aside(&world, renewed(&world, Role::Node, "witness"));
        assert_eq!(next(&mut world), Stage::InUse);
        go_on(&publishers).await;
        let probe = renewed(&world, Role::Node, "probe");
        until("the new CA's leaf", async || {
            can_connect(&world, &probe).await
        })
        .await;
        assert!(
            can_connect(&world, &witness).await,
            "{rotated}: the old one's too"
        );
        renew_all(&world, &publishers).await;
        renewed(&world, Role::Node, "witness");

        // All holders have renewed, so --force is not needed.
        assert_eq!(next(&mut world), Stage::Steady);
        until("the old CA's end", async || {
            !can_connect(&world, &witness).await && !can_connect(&world, &witness_anew).await
        })
        .await;
        go_on(&publishers).await;

        stop.store(true, Ordering::SeqCst);
        let mut sent = 0;
        for publisher in publishers {
            let failures = publisher.task.await.unwrap();
            assert!(failures.is_empty(), "{rotated}: {failures:?}");
            sent += publisher.sent.load(Ordering::SeqCst);
        }
        println!("{rotated}: {sent} samples, none failed");
        world.stop().await;
    }
}

/// OpenSSL as another receiver: verifies a chain with the current files.
fn openssl_takes(certs: &Path, issued: &Issued, purpose: &str) -> bool {
    let chain: PathBuf = certs.join(format!("{}.pem", issued.serial));
    fs::write(&chain, &issued.chain_pem).unwrap();
    let mut command = Command::new("openssl");
    command.args([
        "verify",
        "-x509_strict",
        "-crl_check_all",
        "-purpose",
        purpose,
    ]);
    command.arg("-CAfile").arg(certs.join("root.crt"));
    command.arg("-CRLfile").arg(certs.join("crl.pem"));
    command.arg("-untrusted").arg(&chain).arg(&chain);
    command.output().expect("openssl is there").status.success()
}

#[test]
fn openssl_agrees_in_every_phase() {
    for rotated in [CaKind::Issuing, CaKind::Root] {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
        let now = wall_clock();
        let mut ca = Authority::init(&certs, &InitOptions::default(), now).unwrap();
        let issue = |ca: &Authority, name: &str| {
            let request = Request::new(Role::Node, name.parse().unwrap());
            ca.issue(request, now).unwrap()
        };
        let forced = RotateOptions {
            force: true,
            ..RotateOptions::default()
        };
        let old = issue(&ca, "old");
        let check = |story: &str, expected: &[(&Issued, bool)]| {
            for (issued, good) in expected {
                let taken = openssl_takes(&certs, issued, "sslclient");
                assert_eq!(taken, *good, "{rotated}, {story}: {}", issued.spiffe_id);
            }
        };
        check("steady", &[(&old, true)]);
        ca.rotate_next(rotated, &forced, now).unwrap();
        check("published", &[(&old, true)]);
        ca.rotate_next(rotated, &forced, now).unwrap();
        let new = issue(&ca, "new");
        check("in use", &[(&old, true), (&new, true)]);
        ca.rotate_back(rotated, &forced, now).unwrap();
        check("back from use", &[(&old, true), (&new, true)]);
        ca.rotate_next(rotated, &forced, now).unwrap();
        ca.rotate_next(rotated, &forced, now).unwrap();
        check("retired", &[(&old, false), (&new, true)]);
        ca.rotate_back(rotated, &forced, now).unwrap();
        check("trusted again", &[(&old, true), (&new, true)]);
        ca.revoke(&old.serial, "key-compromise".parse().unwrap(), now)
            .unwrap();
        check("revoked", &[(&old, false), (&new, true)]);
    }
}
