//! After the CA's clock was ahead for a while: what was created then is dated in the future, and
//! must not block anything.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lizmon_ca::authority::{
    Authority, CaKind, IssuanceError, JoinTokenError, Request, RotateOptions, Stage, TOKEN_TTL,
};
use lizmon_ca::pki::Reason;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::service::{Config, Service, ServiceCertificate};
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{Attributes, Role};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::sandbox::{DAY, NOW, new_ca_at, signing_request};

struct List {
    number: u64,
    this_update: u64,
    next_update: u64,
    revoked_since: Vec<u64>,
}

fn lists(certs: &Path) -> Vec<List> {
    let items = inspect(&std::fs::read(certs.join("crl.pem")).unwrap()).unwrap();
    let lists = items.into_iter().map(|item| match item {
        Item::Crl {
            number,
            this_update,
            next_update,
            revoked,
            ..
        } => List {
            number: number.unwrap().parse().unwrap(),
            this_update,
            next_update: next_update.unwrap(),
            revoked_since: revoked.iter().map(|entry| entry.since).collect(),
        },
        other => panic!("{other:?}"),
    });
    lists.collect()
}

/// A CRL that was signed while the clock was ahead was not signed again before that time: receivers
/// refused it, and in the end all clients were locked out.
#[test]
fn crls_dated_in_the_future_are_signed_again_at_once() {
    for ahead in [301, DAY, 100 * DAY, 300 * DAY] {
        let (_dir, certs, authority) = new_ca_at(NOW);
        authority.sign_crls(None, NOW + ahead).unwrap();
        let before = lists(&certs);
        drop(authority);
        let authority = Authority::open(&certs, NOW).unwrap();
        for (list, before) in lists(&certs).iter().zip(&before) {
            assert_eq!(list.number, before.number + 1, "{ahead}");
            assert!(list.this_update <= NOW && list.next_update > NOW, "{ahead}");
        }
        drop(authority);
        // They are signed only once.
        let numbers = |lists: Vec<List>| lists.iter().map(|list| list.number).collect::<Vec<_>>();
        let signed = numbers(lists(&certs));
        let authority = Authority::open(&certs, NOW + 60).unwrap();
        assert_eq!(numbers(lists(&certs)), signed, "{ahead}");
        authority.verify_audit(None).unwrap();
    }
}

#[test]
fn a_revocation_dated_in_the_future_takes_effect_now() {
    let (_dir, certs, authority) = new_ca_at(NOW);
    let web1 = Request::new(Role::Node, "web1".parse().unwrap());
    let issued = authority.issue(web1, NOW).unwrap();
    authority
        .revoke(&issued.serial, Reason::KeyCompromise, NOW + 100 * DAY)
        .unwrap();
    drop(authority);
    Authority::open(&certs, NOW).unwrap();
    assert_eq!(lists(&certs)[1].revoked_since, [NOW]);
}

#[test]
fn a_token_from_the_future_is_refused() {
    let (_dir, _certs, authority) = new_ca_at(NOW);
    for (ahead, good) in [(0, true), (300, true), (301, false), (20 * DAY, false)] {
        let name = format!("web{ahead}").parse().unwrap();
        let token = authority
            .make_join_token(
                Role::Node,
                &name,
                &[],
                &Attributes::default(),
                TOKEN_TTL,
                NOW + ahead,
            )
            .unwrap();
        let done = authority.enrol(
            &name,
            token.as_str(),
            &signing_request(&KeyPair::generate().unwrap()),
            NOW,
        );
        match done {
            Ok(_) => assert!(good, "{ahead}"),
            Err(IssuanceError::Token(JoinTokenError::Ended)) => assert!(!good, "{ahead}"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_leaf_from_the_future_renews() {
    let (_dir, _certs, authority) = new_ca_at(NOW);
    let web1 = Request::new(Role::Node, "web1".parse().unwrap());
    let issued = authority.issue(web1, NOW + 20 * DAY).unwrap();
    let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
    let next = authority
        .renew(
            &Identity::from_der(&der).unwrap(),
            &signing_request(&KeyPair::generate().unwrap()),
            NOW,
        )
        .unwrap();
    let next = Identity::from_der(&next.der).unwrap();
    assert!(next.not_before <= NOW && next.not_after > NOW);
    // The newest is the one issued last, whatever the clock said.
    let entries = authority.entries().unwrap();
    assert_eq!(entries.last().unwrap().not_before, next.not_before);
    authority.verify_audit(None).unwrap();
}

/// A CA that was created while the clock was ahead cannot be used yet. A rotation helps, and the
/// error says so.
#[test]
fn a_ca_from_the_future_is_replaced() {
    for (root_at, which) in [(NOW, CaKind::Issuing), (NOW + 20 * DAY, CaKind::Root)] {
        let (_dir, _certs, mut authority) = new_ca_at(root_at);
        let options = RotateOptions::default();
        if which == CaKind::Issuing {
            for ahead in [20 * DAY, 20 * DAY + 1, 20 * DAY + 2] {
                authority.rotate_next(which, &options, NOW + ahead).unwrap();
            }
        }
        let web1 = || Request::new(Role::Node, "web1".parse().unwrap());
        let refused = authority.issue(web1(), NOW).unwrap_err().to_string();
        assert!(
            refused.contains("lizctl rotate issuing --next"),
            "{refused}"
        );
        for stage in [Stage::Published, Stage::InUse] {
            let rotation = authority.rotate_next(which, &options, NOW).unwrap();
            assert_eq!(rotation.stage, stage);
        }
        authority.issue(web1(), NOW).unwrap();
        authority.verify_audit(None).unwrap();
    }
}

/// liz-ca did not start: the certificate that it had issued to itself was not valid yet.
#[test]
fn the_service_replaces_its_certificate_after_its_clock_was_ahead() {
    let (_dir, certs, authority) = new_ca_at(NOW);
    drop(authority);
    let own = ServiceCertificate::Issued {
        name: "liz-ca".parse().unwrap(),
        sans: vec!["localhost".parse().unwrap()],
    };
    let shown = || {
        let der = CertificateDer::from_pem_file(certs.join("cas/liz-ca.crt")).unwrap();
        Identity::from_der(&der).unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Also just beyond the clock difference that others allow; and back, where a valid certificate
    // is kept.
    for (now, begins) in [
        (NOW + 20 * DAY, NOW + 20 * DAY - 300),
        (NOW + DAY, NOW + DAY - 300),
        (NOW, NOW - 300),
        (NOW + 60, NOW - 300),
        (NOW - 1, NOW - 300),
    ] {
        let config = Config::new(certs.clone(), own.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Service::start(listener, config, Arc::new(move || now));
        let service = runtime.block_on(service).unwrap();
        assert_eq!(shown().not_before, begins, "{now}");
        service
            .trust()
            .current()
            .verify_own(now)
            .unwrap_or_else(|refusal| panic!("{now}: {refusal}"));
        runtime
            .block_on(service.run(std::future::ready(())))
            .unwrap();
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
}
