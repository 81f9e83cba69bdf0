//! Chromium shows the pages: Debian's, with a certificate in its NSS store and a policy that chooses
//! it, as in a company.
//!
//! The policy is a file below `/etc`, so the browser runs in a mount namespace of its own. What it
//! does there is in `browser.mjs`; `tests/run` installs the browser, playwright-core, which drives
//! it, and axe-core, which judges accessibility.

use std::f64::consts::TAU;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lizmon_protocol::name::Role;
use rustix::process::Signal;
use serde_json::json;

use super::fleet::{SentHost, fill};
use super::post;
use crate::harness::World;
use crate::harness::process::{Running, program, run};
use crate::harness::world::wall_clock;

const PASSPHRASE: &str = "for-this-test";
/// More than anybody has seen of one receiver.
const HOSTS: usize = 5_000;
/// How many of them have values for each minute: those that are shown first.
const HOSTS_IN_FULL: usize = 60;
const LABELS: [&str; 10] = [
    "cpu",
    "mem",
    "load-1",
    "swap",
    "disk-used:/",
    "disk-used:/var",
    "net-rx:eth0",
    "net-tx:eth0",
    "uptime",
    "temperature:cpu",
];
/// Labels that try to be something else.
const HOSTILE: [&str; 6] = [
    "<img src=x onerror=\"document.title='owned'\">",
    "שלום 12 עולם",
    "</script><script>document.title='owned'</script>",
    "=cmd|'/c calc'!A1",
    "負荷平均負荷平均負荷平均負荷平均",
    "a/../../?x=1&y=2#z\"'`",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A value that looks measured.
fn wave(host: usize, label: usize, minute: u64) -> f64 {
    let turn = minute as f64 / (17.0 + (host % 7) as f64) + label as f64;
    let base = 22.0 + ((host * 37 + label * 11) % 45) as f64;
    let value = base + 12.0 * (TAU * turn / 3.0).sin() + 5.0 * (TAU * turn * 1.7).cos();
    (value.max(0.5) * 100.0).round() / 100.0
}

fn hosts(now: u64) -> Vec<SentHost> {
    let labels = || LABELS.map(str::to_owned).to_vec();
    let in_full = |number: usize, epochs: &mut dyn Iterator<Item = u64>| {
        let values = |epoch: u64| {
            (0..LABELS.len())
                .map(|at| wave(number, at, epoch / 60))
                .collect()
        };
        epochs
            .map(|epoch| (epoch, values(epoch)))
            .collect::<Vec<_>>()
    };
    // A sample a minute for a day.
    let day = |until: u64| (0..24 * 60).rev().map(move |back| until - back * 60);
    let mut hosts: Vec<SentHost> = (0..HOSTS)
        .map(|number| {
            let records = match number < HOSTS_IN_FULL {
                true => in_full(number, &mut day(now)),
                false => in_full(number, &mut [now - 60, now].into_iter()),
            };
            SentHost {
                name: format!("host-{number:04}"),
                certificate_end: now + 60 * 86_400,
                records,
                labels: labels(),
            }
        })
        .collect();
    let mut edit = |at: usize, name: &str, edit: &dyn Fn(&mut SentHost)| {
        hosts[at].name = name.to_owned();
        edit(&mut hosts[at]);
    };
    edit(1, "db2", &|host| {
        host.records.retain(|(epoch, _)| *epoch + 3 * 3_600 < now);
    });
    edit(2, "backup1", &|host| {
        host.records.retain(|(epoch, _)| {
            let hours_back = (now - epoch) / 3_600;
            !(5..8).contains(&hours_back)
        });
    });
    edit(3, "db1", &|host| {
        host.records
            .iter_mut()
            .for_each(|(_, values)| values[5] = 98.2);
    });
    edit(4, "build3", &|host| host.certificate_end = now + 20 * 3_600);
    edit(5, "web1", &|host| {
        let gap = |epoch: u64| (20..26).contains(&((now - epoch) / 60));
        host.records.retain(|(epoch, _)| !gap(*epoch));
        let records = host.records.clone();
        for (epoch, values) in records.iter().rev().take(90).rev() {
            // Six a minute in the last hour, but for a few minutes.
            let number = if epoch / 60 % 13 == 0 { 3 } else { 6 };
            host.records.extend((1..number).map(|tenth| {
                let part = (tenth * 7 % 5) as f64 - 2.0;
                (
                    epoch - tenth * 10,
                    values.iter().map(|v| (v + part).max(0.0)).collect(),
                )
            }));
        }
        host.records.sort_by_key(|(epoch, _)| *epoch);
    });
    hosts.push(SentHost {
        name: "hostile".to_owned(),
        certificate_end: now + 60 * 86_400,
        records: day(now)
            .map(|epoch| (epoch, vec![1.5; HOSTILE.len()]))
            .collect(),
        labels: HOSTILE.map(str::to_owned).to_vec(),
    });
    hosts
}

/// The home of a user whose browser knows the root, and has the reader's certificate.
fn home(world: &World) -> PathBuf {
    let home = world.folder().join("home");
    let store = home.join(".pki/nssdb");
    fs::create_dir_all(&store).unwrap();
    let p12 = world.folder().join("ada.p12");
    let mut issue = program("lizctl");
    issue.args(["--certs"]).arg(world.certs());
    issue.args(["issue-reader", "ada", "--p12"]).arg(&p12);
    let passphrase = world.folder().join("passphrase");
    fs::write(&passphrase, PASSPHRASE).unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    issue.arg("--p12-passphrase-file").arg(&passphrase);
    run(&mut issue).success();
    let database = format!("sql:{}", store.display());
    let nss = |tool: &str, args: &[&str], file: &Path| {
        let mut command = Command::new(tool);
        command.args(["-d", &database]).args(args).arg(file);
        run(&mut command).success();
    };
    run(Command::new("certutil").args(["-d", &database, "-N", "--empty-password"])).success();
    nss(
        "certutil",
        &["-A", "-t", "C,,", "-n", "lizmon", "-i"],
        &world.root(),
    );
    nss("pk12util", &["-W", PASSPHRASE, "-i"], &p12);
    home
}

/// A shell in namespaces of its own, as root or as any user.
fn shell_inside(script: &str) -> Command {
    let whos = [&[][..], &["--user", "--map-root-user"][..]];
    let may = whos.into_iter().find(|who| {
        let mut trial = Command::new("unshare");
        let trial = trial
            .args(*who)
            .args(["--mount", "true"])
            .stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    });
    let who = may.expect("this test makes a mount namespace: docs/testing.md, Chaos");
    let mut command = Command::new("unshare");
    command.args(who).args(["--mount", "sh", "-euc", script]);
    command
}

/// `lizctl open` of an operator, where the CA is.
fn open_beside_ca(world: &World) -> Command {
    let operator = world.holder(Role::Operator, "root");
    let mut open = program("lizctl");
    open.arg("--certs").arg(world.certs());
    open.args(["open", "--print", "--receiver"])
        .arg(world.issuer());
    open.arg("--cert").arg(&operator.cert);
    open.arg("--key").arg(&operator.key);
    open.arg("--ca").arg(world.root());
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_every_page() {
    let mut world = World::without_receiver(|_| ());
    let now = world.clock.now();
    fill(&world, &hosts(now));
    world.boot_on_same_port().await;
    let home = home(&world);
    let origin = world.issuer();
    let pattern = json!({"pattern": origin, "filter": {}}).to_string();
    let policy = json!({"AutoSelectCertificateForUrls": [pattern]});
    let policy_file = world.folder().join("policy.json");
    fs::write(&policy_file, policy.to_string()).unwrap();
    // Node looks for modules from the folder of the script.
    let script = repository().join("target/tools/node/browser.mjs");
    fs::copy(repository().join("tests/e2e/page/browser.mjs"), &script)
        .expect("target/tools/node is made by ./tests/run");
    let mut browser = shell_inside(
        "mount -t tmpfs tmpfs /etc/chromium; mkdir -p /etc/chromium/policies/managed; \
         cp \"$1\" /etc/chromium/policies/managed/; exec node \"$2\" \"$3\" \"$4\" \"$5\"",
    );
    browser.arg("sh").args([&policy_file, &script]).arg(&origin);
    let mut opened = Running::start(&mut open_beside_ca(&world));
    let address = opened.wait_for("http://");
    browser.arg(&home).arg(&address).env("HOME", &home);
    let mut browser = Running::start(&mut browser);
    let (web8, web9) = (world.node("web8"), world.node("web9"));
    browser.wait_for("waiting for a host");
    post(&world, &web9, r#"{"cpu": 12.5}"#).await;
    world.clock.advance(1);
    browser.wait_for("waiting for a value");
    post(&world, &web9, r#"{"cpu": 37.5}"#).await;
    world.clock.advance(1);
    browser.wait_for("waiting for a machine");
    // After its token was made, and the CRL will be signed, by the clock of `lizctl`.
    world.clock.set(wall_clock() + 60);
    post(&world, &web8, r#"{"cpu": 12.5}"#).await;
    let finished = tokio::task::spawn_blocking(move || browser.wait())
        .await
        .unwrap();
    eprintln!("{}", finished.stdout);
    assert!(
        finished.status.success(),
        "{}\n{}",
        finished.stdout,
        finished.stderr
    );
    opened.signal(Signal::INT);
    opened.wait().success();
}
