//! Why a certificate is refused: each reason has its own message, the same at both ends.
//!
//! Certificates expired, of a foreign CA, without their chain or for another use were all "not
//! signed by an authority that is trusted here", and a list that did not verify was "does not speak
//! TLS, is the port right?".

mod fixture;

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, NameConstraints, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;

use self::fixture::*;
use crate::harness::World;
use crate::harness::process::{program, run};

#[track_caller]
fn says(text: &str, all: &[&str], story: &str) {
    for part in all {
        assert!(text.contains(part), "{story}: should say {part:?}: {text}");
    }
    assert!(!text.contains("no TLS 1.2"), "{story}: {text}");
    assert!(
        !text.contains("(UNIX)"),
        "{story}: times are RFC 3339: {text}"
    );
}

const CRITICAL: &[u64] = &[1, 3, 6, 1, 4, 1, 99_999, 1];

fn critical(params: &mut CertificateParams) {
    let mut strange = CustomExtension::from_oid_content(CRITICAL, vec![5, 0]);
    strange.set_criticality(true);
    params.custom_extensions.push(strange);
}

/// `lizctl`'s certificate is refused: its message, its exit code, and the message in the receiver's
/// log.
#[test]
fn a_clients_certificate_is_refused_for_its_reason() {
    let fixture = Fixture::new();
    let root = &fixture.root;
    let below = |name: &str, edit: Edit<'_>| Ca::new(name, Some(root), edit);
    let check = |story: &str, shape: Shape, client: &[&str], code: i32, server: &[&str]| {
        let (mut receiver, url) = fixture.receiver(&shape);
        let done = fixture.token(&shape, &url);
        says(done.failure(code), client, story);
        if code == 3 {
            let line = receiver.wait_for("connection rejected");
            says(&line, server, story);
            says(&line, &["shown=\"spiffe://"], story);
        }
    };
    let same = |story: &str, shape: Shape, words: &[&str]| check(story, shape, words, 3, words);

    let server_alone: Edit<'_> =
        &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let words = &[
        "extended key usage does not allow clientAuth",
        "issued with clientAuth",
    ];
    same(
        "for servers",
        shape(root.leaf(NODE, server_alone), &[]),
        words,
    );

    let narrow = below("narrow", &|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".into())],
            excluded_subtrees: vec![],
        });
    });
    let named: Edit<'_> = &|params| {
        let name = SanType::DnsName("web1.example.org".try_into().unwrap());
        params.subject_alt_names.push(name);
    };
    same(
        "names",
        shape(narrow.leaf(NODE, named), &[&narrow]),
        &["name constraints"],
    );

    let issuing = below("issuing", AS_IT_IS);
    let mut alone = shape(issuing.leaf(NODE, AS_IT_IS), &[]);
    alone.lists = issuing.list(&[]);
    let words = &[
        "the certificate of that CA was not sent",
        "append the intermediate certificates",
        "CN=issuing",
    ];
    same("without its chain", alone, words);

    let foreign = Ca::new("elsewhere", None, AS_IT_IS);
    let below_it = Ca::new("below elsewhere", Some(&foreign), AS_IT_IS);
    let strangers = || {
        let mut shape = shape(below_it.leaf(NODE, AS_IT_IS), &[&below_it, &foreign]);
        shape.lists = String::new();
        shape
    };
    same(
        "another CA",
        strangers(),
        &["not a trusted root", "another CA issued it", "CN=elsewhere"],
    );
    let mut known_to_us = strangers();
    known_to_us.client_roots = foreign.pem();
    let client = &["not among the roots that the server trusts", "--ca"];
    check(
        "a CA that only we trust",
        known_to_us,
        client,
        3,
        &["not a trusted root"],
    );

    let double = Ca::new("test root", None, AS_IT_IS);
    same(
        "another CA of the same name",
        shape(double.leaf(NODE, AS_IT_IS), &[]),
        &["not by the key of the CA that it names"],
    );

    let mut unlisted = shape(issuing.leaf(NODE, AS_IT_IS), &[&issuing]);
    unlisted.lists = String::new();
    let client = &["no valid CRL", "--crl"];
    let server = &["no CRL of the CA that issued it", "CN=issuing"];
    check("no list of its CA", unlisted, client, 3, server);

    let mut forged = shape(issuing.leaf(NODE, AS_IT_IS), &[&issuing]);
    forged.lists = Ca::new("issuing", None, AS_IT_IS).list(&[]);
    let server = &[
        "the CRL of `CN=issuing`",
        "does not verify, because another key signed it",
    ];
    check("a list by another key", forged, client, 3, server);

    let mut revoked = shape(issuing.leaf(NODE, AS_IT_IS), &[&issuing]);
    revoked.lists = issuing.list(&[77]);
    check(
        "revoked",
        revoked,
        &["it is revoked"],
        3,
        &["it has been revoked"],
    );

    let strange = below("strange", &critical);
    let words = &[
        "CN=strange",
        "has a critical extension that is not supported",
    ];
    same(
        "a critical extension above it",
        shape(strange.leaf(NODE, AS_IT_IS), &[&strange]),
        words,
    );
    let itself = shape(root.leaf(NODE, &critical), &[]);
    check(
        "one of its own",
        itself,
        &["has a critical extension that is not supported"],
        1,
        &[],
    );

    let last = below("last", &|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
    });
    let beyond = Ca::new("beyond", Some(&last), AS_IT_IS);
    same(
        "path length",
        shape(beyond.leaf(NODE, AS_IT_IS), &[&beyond, &last]),
        &["path length"],
    );

    let no_ca = below("no CA", &|params| params.is_ca = IsCa::ExplicitNoCa);
    same(
        "below a leaf",
        shape(no_ca.leaf(NODE, AS_IT_IS), &[&no_ca]),
        &["is not a CA's"],
    );

    let elsewhere = shape(root.leaf("spiffe://other.example/node/web1", AS_IT_IS), &[]);
    let server = &["trust domain `other.example`", "`lizmon.internal`"];
    check(
        "another trust domain",
        elsewhere,
        &["another trust domain"],
        3,
        server,
    );

    let over = below("over", &|params| params.not_after = now() - HOUR);
    let words = &[
        "the CA `CN=over` above it has expired",
        "was valid until 20",
        "the clock here says 20",
    ];
    same(
        "an authority that has ended",
        shape(over.leaf(NODE, AS_IT_IS), &[&over]),
        words,
    );
    let soon = below("soon", &|params| params.not_before = now() + HOUR);
    let words = &[
        "the CA `CN=soon` above it is not valid yet",
        "begins at 20",
        "the clock here says 20",
        "clocks",
    ];
    same(
        "one that has not begun",
        shape(soon.leaf(NODE, AS_IT_IS), &[&soon]),
        words,
    );

    let ended = shape(
        root.leaf(NODE, &|params| params.not_after = now() - HOUR),
        &[],
    );
    check(
        "ended",
        ended,
        &["has expired 60 minutes ago", "the clock here says 20", "Z"],
        1,
        &[],
    );
    let coming = shape(
        root.leaf(NODE, &|params| params.not_before = now() + HOUR),
        &[],
    );
    check(
        "not begun",
        coming,
        &["is not valid yet", "begins at 20", "clock"],
        1,
        &[],
    );
}

/// A monitor with a certificate that is not valid yet starts, samples, and waits.
#[test]
fn a_monitor_waits_for_its_certificates_time() {
    let fixture = Fixture::new();
    let cases: [(&str, Edit<'_>, &[&str]); 2] = [
        (
            "ended",
            &|params| params.not_after = now() - HOUR,
            &[
                "it has expired: it was valid until 20",
                "the clock here says 20",
            ],
        ),
        (
            "not begun",
            &|params| params.not_before = now() + HOUR,
            &[
                "it is not valid yet: it begins at 20",
                "the clock here says 20",
            ],
        ),
    ];
    for (story, edit, words) in cases {
        let waiting = shape(fixture.root.leaf(NODE, edit), &[]);
        let (mut receiver, url) = fixture.receiver(&waiting);
        let mut monitor = fixture.monitor(&waiting, &url);
        says(&monitor.wait_for("refused our certificate"), words, story);
        says(&receiver.wait_for("connection rejected"), words, story);
        // With a valid certificate, the spooled samples are delivered.
        let (cert, key) = fixture.root.leaf(NODE, AS_IT_IS);
        fixture.write("n.key", &key);
        fixture.write("n.crt", &cert);
        monitor.wait_for("delivered");
    }
}

fn rfc3339(epoch: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(epoch as i64).unwrap();
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

/// Both clocks are reported if a certificate is invalid only by the server's, whichever clock is
/// wrong.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_reported() {
    let world = World::start().await;
    let reader = world.reader();
    let real = world.clock.now();
    let cases = [
        (
            real - 4 * 3600,
            "it is not valid yet by the server's clock, which says 20",
        ),
        (
            real + 100 * 86_400,
            "it has expired by the server's clock, which says 20",
        ),
    ];
    for (there, words) in cases {
        world.clock.set(there);
        let mut command = program("lizctl");
        command.args(["token", "--receiver", &world.issuer(), "--ca"]);
        command.arg(world.root()).arg("--cert").arg(&reader.cert);
        command.arg("--key").arg(&reader.key);
        let command = tokio::task::spawn_blocking(move || run(&mut command));
        let done = command.await.unwrap();
        let said = done.failure(3);
        says(
            said,
            &[words, "the clock here says 20", "set the clock"],
            words,
        );
        says(said, &[&rfc3339(there)[..13]], "the server's own time");
    }
}

/// A server with an arbitrary certificate.
async fn serve(pem: &str, key: &str) -> String {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(key).unwrap();
    // Not `with_single_cert`, which would reject invalid certificates before the client sees them.
    let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _refused = acceptor.accept(stream).await;
        }
    });
    format!("https://localhost:{port}")
}

/// A server's certificate is refused: the message, and that it is neither "no TLS" nor
/// "unreachable".
#[tokio::test(flavor = "multi_thread")]
async fn a_servers_certificate_is_refused_for_its_reason() {
    let fixture = Fixture::new();
    let root = &fixture.root;
    let below = |name: &str, edit: Edit<'_>| Ca::new(name, Some(root), edit);
    let check =
        async |story: &str, (cert, key): (String, String), behind: &[&Ca], words: &[&str]| {
            let chain = cert + &behind.iter().map(|ca| ca.pem()).collect::<String>();
            let url = serve(&chain, &key).await;
            let client = shape(root.leaf(NODE, AS_IT_IS), &[]);
            let done = tokio::task::block_in_place(|| fixture.token(&client, &url));
            let said = done.failure(1);
            says(said, words, story);
            says(said, &["is not trusted: "], story);
        };
    let ended: Edit<'_> = &|params| params.not_after = now() - HOUR;
    let coming: Edit<'_> = &|params| params.not_before = now() + HOUR;
    let client_alone: Edit<'_> =
        &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let words = &[
        "it has expired: it was valid until 20",
        "the clock here says 20",
    ];
    check("ended", root.leaf(RECEIVER, ended), &[], words).await;
    let words = &[
        "it is not valid yet: it begins at 20",
        "the clock here says 20",
        "clocks",
    ];
    check("not begun", root.leaf(RECEIVER, coming), &[], words).await;
    let words = &["extended key usage does not allow serverAuth"];
    check("for clients", root.leaf(RECEIVER, client_alone), &[], words).await;
    let narrow = below("narrow", &|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".into())],
            excluded_subtrees: vec![],
        });
    });
    check(
        "names",
        narrow.leaf(RECEIVER, AS_IT_IS),
        &[&narrow],
        &["name constraints"],
    )
    .await;
    let issuing = below("issuing", AS_IT_IS);
    let words = &[
        "the certificate of that CA was not sent",
        "CN=issuing",
        "check --ca",
    ];
    check(
        "without its chain",
        issuing.leaf(RECEIVER, AS_IT_IS),
        &[],
        words,
    )
    .await;
    let foreign = Ca::new("elsewhere", None, AS_IT_IS);
    let words = &["not issued by the CA given", "CN=elsewhere", "check --ca"];
    check(
        "another CA",
        foreign.leaf(RECEIVER, AS_IT_IS),
        &[&foreign],
        words,
    )
    .await;
    let double = Ca::new("test root", None, AS_IT_IS);
    let words = &["not by the key of the CA that it names", "check --ca"];
    check(
        "another CA of the same name",
        double.leaf(RECEIVER, AS_IT_IS),
        &[],
        words,
    )
    .await;
    let strange = &["has a critical extension that is not supported"];
    check(
        "a critical extension",
        root.leaf(RECEIVER, &critical),
        &[],
        strange,
    )
    .await;
    let last = below("last", &|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
    });
    let beyond = Ca::new("beyond", Some(&last), AS_IT_IS);
    check(
        "path length",
        beyond.leaf(RECEIVER, AS_IT_IS),
        &[&beyond, &last],
        &["path length"],
    )
    .await;
    let over = below("over", ended);
    let words = &[
        "the CA `CN=over` above it has expired",
        "the clock here says 20",
    ];
    check(
        "an authority that has ended",
        over.leaf(RECEIVER, AS_IT_IS),
        &[&over],
        words,
    )
    .await;
    let nameless: Edit<'_> = &|params| {
        params.subject_alt_names.remove(0);
    };
    check(
        "another name",
        root.leaf(RECEIVER, nameless),
        &[],
        &["--san"],
    )
    .await;
    check(
        "a node's",
        root.leaf(NODE, &|params| {
            params
                .subject_alt_names
                .push(SanType::DnsName("localhost".try_into().unwrap()));
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }),
        &[],
        &["a server's role is receiver or ca"],
    )
    .await;
}
