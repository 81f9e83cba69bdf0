//! curl and OpenSSL enrol and renew with the exact commands of docs/enrolment.md.

use std::path::Path;
use std::process::Command;

use super::{
    CACERTS, CaServer, ENROLL, certificate_in, certificates_in, id_of, joined, refused,
    root_fingerprint, token,
};
use crate::harness::World;
use crate::harness::process::run;
use crate::harness::raw::Shown;

/// The ```sh blocks of the manual.
fn manual() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/enrolment.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// Runs lines as if pasted into a shell.
async fn paste(folder: &Path, lines: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", lines]).current_dir(folder);
    // Without the caller's settings: no ~/.curlrc, no proxy.
    command
        .env("CURL_HOME", folder)
        .env("HOME", folder)
        .env("no_proxy", "*");
    command.envs(environment.iter().copied());
    let done = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    assert!(
        done.status.success(),
        "{lines}\n{}{}",
        done.stdout,
        done.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_enrols_and_renews() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    let blocks = manual();
    let [trust, enrol, renew] = &blocks[..] else {
        panic!("the manual has three blocks, not {}", blocks.len());
    };
    let folder = world.folder().join("stranger");
    std::fs::create_dir(&folder).unwrap();
    let (base, token, fingerprint) = (
        ca_server.base(),
        token(&world, "web1"),
        root_fingerprint(&world),
    );
    let environment = [
        ("CA", &*base),
        ("NAME", "web1"),
        ("TOKEN", &*token),
        ("FINGERPRINT", &*fingerprint),
    ];
    paste(&folder, trust, &environment).await;
    let mut last = None;
    for lines in [enrol, renew, renew] {
        paste(&folder, lines, &environment).await;
        let node = joined(&world, &folder, "web1");
        let shown = Shown::from_files(&node.cert, &node.key);
        assert_eq!(id_of(&shown.chain[0]), "spiffe://lizmon.internal/node/web1");
        assert_ne!(
            last.as_ref(),
            Some(&shown.chain[0]),
            "another one each time"
        );
        last = Some(shown.chain[0].clone());
        world.token(&node).await;
    }
    // With another fingerprint the first block fails.
    let elsewhere = world.folder().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", trust]).current_dir(&elsewhere);
    command
        .env("CA", &base)
        .env("FINGERPRINT", "ab".repeat(32))
        .env("no_proxy", "*");
    let done = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    assert!(!done.status.success() && !elsewhere.join("root.crt").exists());
}

/// A base64 body is accepted even with the content type of a form.
#[tokio::test(flavor = "multi_thread")]
async fn any_content_type_will_do() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    for (at, kind) in [
        Some("application/pkcs10"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain; charset=utf-8"),
        Some("application/json"),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("web{at}");
        let secret = token(&world, &name);
        let edit = |mut asked: reqwest::RequestBuilder| {
            if let Some(kind) = kind {
                asked = asked.header("content-type", kind);
            }
            asked
                .basic_auth(&name, Some(&secret))
                .body(super::request())
        };
        let got = ca_server.ask(&world, None, ENROLL, edit).await.unwrap();
        certificate_in(world.folder(), &got);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cacerts_lead_from_leaf_to_root() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let got = ca_server
        .ask(&world, None, CACERTS, |asked| asked)
        .await
        .unwrap();
    let found = certificates_in(world.folder(), &got);
    let of = |name: &str| {
        use rustls::pki_types::pem::PemObject;
        rustls::pki_types::CertificateDer::from_pem_file(world.certs().join(name)).unwrap()
    };
    assert_eq!(found.len(), 2);
    assert!(found.contains(&of("root.crt")) && found.contains(&of("issuing.crt")));
    // A client with an invalid certificate is refused in the handshake, even on this route.
    let stranger = World::without_receiver(|_| ()).node("web1").shown();
    let got = ca_server
        .ask(&world, Some(stranger), CACERTS, |asked| asked)
        .await;
    assert!(got.is_err());
    let got = ca_server.enroll(&world, "web1", "", String::new()).await;
    refused(&got, 401, "no token");
}
