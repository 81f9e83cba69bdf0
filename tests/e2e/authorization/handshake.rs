//! Certificates that the handshake refuses.

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::AlertDescription;
use rustls::version::{TLS12, TLS13};
use time::{Duration, OffsetDateTime};

use crate::harness::World;
use crate::harness::forge::{Forger, second_san, self_signed, uri};
use crate::harness::raw::{self, Shown, tls_config, tls_config_of};
use crate::harness::world::wall_clock;

/// Which certificates the handshake refuses, and with which alert.
#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_end_in_the_handshake() {
    let world = World::start().await;
    let forger = Forger::with_issuing_key(&world);
    let a = world.node("a");
    let other = World::without_receiver(|_| ());
    let id = "spiffe://lizmon.internal/node/a";
    let now = OffsetDateTime::from_unix_timestamp(wall_clock() as i64).unwrap();
    let mut without_intermediate = a.shown();
    without_intermediate.chain.truncate(1);
    let any = &[][..];
    let cases: Vec<(&str, Shown, &[AlertDescription])> = vec![
        (
            "another CA with the same names",
            other.node("a").shown(),
            &[AlertDescription::UnknownCA, AlertDescription::DecryptError],
        ),
        (
            "a CA key of one's own below our names",
            Forger::with_same_names(&world).leaf(id, |_| ()),
            any,
        ),
        (
            "a leaf that signs",
            Forger::with_leaf_key(&a.shown()).leaf(id, |_| ()),
            any,
        ),
        (
            "self-signed",
            self_signed(id),
            &[AlertDescription::UnknownCA],
        ),
        (
            "without the issuing certificate",
            without_intermediate,
            &[AlertDescription::UnknownCA],
        ),
        (
            "expired",
            forger.leaf(id, |p| p.not_after = now - Duration::hours(1)),
            &[AlertDescription::CertificateExpired],
        ),
        (
            "not yet good",
            forger.leaf(id, |p| p.not_before = now + Duration::hours(1)),
            any,
        ),
        (
            "for servers alone",
            forger.leaf(id, |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
            }),
            any,
        ),
        (
            "two URIs",
            forger.leaf(id, |p| {
                p.subject_alt_names
                    .push(uri("spiffe://lizmon.internal/node/b"))
            }),
            any,
        ),
        (
            "the same URI twice",
            forger.leaf(id, |p| p.subject_alt_names.push(uri(id))),
            any,
        ),
        (
            "two extensions of names",
            forger.leaf(id, |p| {
                p.custom_extensions = vec![second_san("spiffe://lizmon.internal/node/b")]
            }),
            any,
        ),
        (
            "no name",
            forger.leaf(id, |p| p.subject_alt_names.clear()),
            any,
        ),
        (
            "a CN and a DNS name alone",
            forger.leaf(id, |p| {
                p.subject_alt_names = vec![SanType::DnsName("a".try_into().unwrap())];
                p.distinguished_name.push(rcgen::DnType::CommonName, "a");
            }),
            any,
        ),
        (
            "another trust domain",
            forger.leaf("spiffe://evil.internal/node/a", |_| ()),
            any,
        ),
        (
            "a trust domain in capitals",
            forger.leaf("spiffe://LIZMON.internal/node/a", |_| ()),
            any,
        ),
        (
            "an unknown role",
            forger.leaf("spiffe://lizmon.internal/root/a", |_| ()),
            any,
        ),
        (
            "a role in capitals",
            forger.leaf("spiffe://lizmon.internal/Node/a", |_| ()),
            any,
        ),
        (
            "a path below the name",
            forger.leaf("spiffe://lizmon.internal/node/a/b", |_| ()),
            any,
        ),
        (
            "a path that climbs",
            forger.leaf("spiffe://lizmon.internal/reader/../node/a", |_| ()),
            any,
        ),
        (
            "a query",
            forger.leaf("spiffe://lizmon.internal/node/a?b", |_| ()),
            any,
        ),
        (
            "a port",
            forger.leaf("spiffe://lizmon.internal:443/node/a", |_| ()),
            any,
        ),
        (
            "user information",
            forger.leaf("spiffe://x@lizmon.internal/node/a", |_| ()),
            any,
        ),
        (
            "percent-encoding",
            forger.leaf("spiffe://lizmon.internal/node/%61", |_| ()),
            any,
        ),
        (
            "a web address",
            forger.leaf("https://lizmon.internal/node/a", |_| ()),
            any,
        ),
        (
            "a name that starts with a dot",
            forger.leaf("spiffe://lizmon.internal/node/.a", |_| ()),
            any,
        ),
        (
            "a name of 201",
            forger.leaf(
                &format!("spiffe://lizmon.internal/node/{}", "a".repeat(201)),
                |_| (),
            ),
            any,
        ),
    ];
    // The forged leaf is valid except for what each case changes.
    let good = tls_config(&world.root(), Some(forger.leaf(id, |_| ())), &["http/1.1"]);
    let mut stream = raw::connect(&world, good).await.unwrap();
    let answer = raw::exchange(&mut stream, HEALTH).await.unwrap();
    assert_eq!(raw::status(&answer), 200);
    for (story, shown, alerts) in cases {
        let alert = refused_by_alert(&world, shown, story).await;
        assert!(
            alerts.is_empty() || alerts.contains(&alert),
            "{story}: {alert:?}"
        );
    }
    world.healthy().await;
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The handshake fails in both TLS versions, and the alert says why.
async fn refused_by_alert(world: &World, shown: Shown, story: &str) -> AlertDescription {
    let mut last = None;
    for version in [&TLS13, &TLS12] {
        let config = tls_config_of(
            &[version],
            &world.root(),
            Some(shown.clone()),
            &["http/1.1"],
        );
        // Nothing is sent: unread bytes could reset the connection before the alert is read.
        let outcome = match raw::connect(world, config).await {
            Ok(mut stream) => raw::read_to_close(&mut stream).await,
            Err(error) => Err(error),
        };
        let Err(error) = outcome else {
            panic!("{story}: the handshake was good in {version:?}");
        };
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(rustls::Error::AlertReceived(alert)) => last = Some(*alert),
            _ => panic!("{story}: no alert but {error:?}"),
        }
    }
    last.expect("two versions were tried")
}
