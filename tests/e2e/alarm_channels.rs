//! Channels of alarms over TLS, to real servers: certificates that are not theirs are refused, and the
//! operator who tests a channel is told why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use http::StatusCode;
use lizmon_protocol::name::Role;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use time::{Duration, OffsetDateTime};

use crate::alarms::Alertmanager;
use crate::crash::{receiver_command, started};
use crate::harness::World;
use crate::harness::forge::{Forger, uri};
use crate::harness::process::{Running, program, run};
use crate::harness::raw::Shown;
use crate::harness::world::wall_clock;
use crate::oauth_clients::python;

/// A certificate of the world's CA for `localhost`; one that has ended.
fn server(world: &World, has_ended: bool) -> Shown {
    let now = OffsetDateTime::from_unix_timestamp(wall_clock() as i64).unwrap();
    Forger::with_issuing_key(world).leaf("spiffe://lizmon.internal/receiver/ops", |leaf| {
        let name = SanType::DnsName("localhost".try_into().unwrap());
        leaf.subject_alt_names = vec![uri("spiffe://lizmon.internal/receiver/ops"), name];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if has_ended {
            leaf.not_after = now - Duration::hours(1);
        }
    })
}

/// A webhook over TLS; its port.
async fn webhook(shown: Shown) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(shown.chain, shown.key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/", post(async || StatusCode::NO_CONTENT));
    let tls = RustlsConfig::from_config(Arc::new(config));
    let served = axum_server::from_tcp_rustls(listener, tls).unwrap();
    tokio::spawn(served.serve(router.into_make_service()));
    port
}

/// Files in PEM: the chain, and the key.
fn files(folder: &Path, name: &str, shown: &Shown) -> [PathBuf; 2] {
    let pem = |tag: &str, der: &[u8]| pem_of(tag, der);
    let chain: String = shown
        .chain
        .iter()
        .map(|der| pem("CERTIFICATE", der))
        .collect();
    let PrivateKeyDer::Pkcs8(key) = &shown.key else {
        panic!("PKCS#8");
    };
    let key = pem("PRIVATE KEY", key.secret_pkcs8_der());
    [("crt", chain), ("key", key)].map(|(end, text)| {
        let file = folder.join(format!("{name}.{end}"));
        std::fs::write(&file, text).unwrap();
        file
    })
}

fn pem_of(tag: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
        lines.join("\n")
    )
}

fn smtp(mode: &str, [cert, key]: &[PathBuf; 2]) -> (Running, u16) {
    let mut command = python("smtp_server.py");
    command.arg(mode).arg(cert).arg(key);
    let mut running = Running::start(&mut command);
    let port = running.wait_for("READY").replace("READY ", "");
    (running, port.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_wrong_certificates_are_refused() {
    let mut world = World::without_receiver(|_| ());
    let folder = world.folder().to_owned();
    let other = World::without_receiver(|_| ());
    let (good, ended) = (server(&world, false), server(&world, true));
    let [good_files, ended_files] =
        [("good", &good), ("ended", &ended)].map(|(name, shown)| files(&folder, name, shown));
    let (hook, ended_hook) = (webhook(good.clone()).await, webhook(ended).await);
    let servers = [
        smtp("starttls", &good_files),
        smtp("tls", &good_files),
        smtp("starttls", &ended_files),
        smtp("tls", &ended_files),
    ];
    let [starttls, tls, ended_starttls, ended_tls] = servers.each_ref().map(|(_, port)| *port);
    let alertmanager = Alertmanager::start_with_tls(&world, &good_files).await;
    let reader = world.reader();
    let (root, other_root) = (world.root(), other.root());
    let own = format!(
        "cert-file = \"{}\"\nkey-file = \"{}\"\n",
        reader.cert.display(),
        reader.key.display()
    );
    let mut rules = String::new();
    let mut expected = Vec::new();
    // Each kind of server: as it is, of an unknown CA, under another name, with an ended certificate.
    let mut add = |name: &str, kind: &str, lines: String, why: Option<&'static str>| {
        rules.push_str(&format!("[channels.{name}.{kind}]\n{lines}\n"));
        expected.push((name.to_owned(), why));
    };
    let of = |ca: &Path| format!("ca-file = \"{}\"", ca.display());
    let (ca, wrong_ca) = (of(&root), of(&other_root));
    let (unknown, name, ended) = (
        Some("UnknownIssuer"),
        Some("not valid for name"),
        Some("certificate expired"),
    );
    for (case, host, port, ca, why) in [
        ("good", "localhost", hook, &ca, None),
        ("ca", "localhost", hook, &wrong_ca, unknown),
        ("name", "127.0.0.1", hook, &ca, name),
        ("ended", "localhost", ended_hook, &ca, ended),
    ] {
        let lines = format!("url = \"https://{host}:{port}/\"\n{ca}");
        add(&format!("hook-{case}"), "webhook", lines, why);
    }
    for (mode, port, ended_port) in [
        ("starttls", starttls, ended_starttls),
        ("tls", tls, ended_tls),
    ] {
        for (case, host, port, ca, why) in [
            ("good", "localhost", port, &ca, None),
            ("ca", "localhost", port, &wrong_ca, unknown),
            ("name", "127.0.0.1", port, &ca, name),
            ("ended", "localhost", ended_port, &ca, ended),
        ] {
            let lines = format!(
                "server = \"{host}\"\nport = {port}\ntls = \"{mode}\"\nfrom = \"lizmon@example.org\"\nto = [\"ops@example.org\"]\n{ca}"
            );
            add(&format!("mail-{mode}-{case}"), "mail", lines, why);
        }
    }
    // A server without TLS, where STARTTLS is wanted, gets neither password nor alarm.
    let plain = Running::start(&mut python("smtp_server.py"));
    let mut plain = plain;
    let port = plain.wait_for("READY").replace("READY ", "");
    let lines = format!(
        "server = \"localhost\"\nport = {port}\nfrom = \"lizmon@example.org\"\nto = [\"ops@example.org\"]\n{ca}"
    );
    add("mail-plain", "mail", lines, Some("STARTTLS"));
    let port = alertmanager.port();
    for (case, host, lines, why) in [
        ("good", "localhost", format!("{ca}\n{own}"), None),
        ("ca", "localhost", format!("{wrong_ca}\n{own}"), unknown),
        ("name", "127.0.0.1", format!("{ca}\n{own}"), name),
        // It asks for a certificate.
        ("nobody", "localhost", ca.clone(), Some("ertificate")),
    ] {
        let lines = format!("url = \"https://{host}:{port}\"\n{lines}");
        add(&format!("am-{case}"), "alertmanager", lines, why);
    }
    let file = folder.join("rules.toml");
    std::fs::write(&file, rules).unwrap();
    let mut command = receiver_command(&world);
    command.arg("--rules").arg(&file);
    let _receiver = started(&mut world, &mut command);
    let operator = world.holder(Role::Operator, "ada");
    for (channel, why) in expected {
        let mut lizctl = program("lizctl");
        lizctl.args(["alarms", "--test", &channel, "--receiver", &world.issuer()]);
        lizctl.arg("--cert").arg(&operator.cert);
        lizctl.arg("--key").arg(&operator.key);
        lizctl.arg("--ca").arg(world.root());
        let done = run(&mut lizctl);
        match why {
            None => drop(done.success()),
            Some(why) => {
                let told = done.failure(1);
                assert!(told.contains(why), "{channel}: {told}");
            }
        }
    }
}
