//! What rustls does not do for us. Each test fails without our own code for it.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::client_quota::ClientQuotas;
use crate::connection::Connection;
use crate::limits::Limits;

const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

type Lists = fn(&House) -> String;

/// Without CRLs rustls does not check revocation. Therefore a missing CRL is an error.
#[test]
fn without_a_crl_no_client_is_trusted() {
    let crls: [(&str, Lists); 2] = [
        ("an empty file", |_| String::new()),
        ("lists that ended long ago, and are dropped", |_| {
            root("stranger").crl_from(1, &[], NOW - 40 * DAY)
        }),
    ];
    for (story, crls) in crls {
        let house = House::new();
        house.write("crl.pem", &crls(&house));
        let opened = house.open();
        assert!(matches!(opened, Err(TrustError::NoLists { .. })), "{story}");
    }
}

/// rustls requires a CRL of every issuer in the chain.
#[test]
fn every_issuer_in_a_chain_needs_a_crl() {
    let crls: [(&str, Lists); 3] = [
        ("the root's alone", |house| house.root.crl(2, &[])),
        ("the issuing CA's alone", |house| house.issuing.crl(2, &[])),
        ("a stranger's", |_| root("stranger").crl(2, &[])),
    ];
    for (story, crls) in crls {
        let house = House::new();
        house.write("crl.pem", &crls(&house));
        let opened = house.open();
        assert!(matches!(opened, Err(TrustError::NoLists { .. })), "{story}");
    }
}

/// Every one of these CRLs is checked, not only the one for the leaf.
#[test]
fn every_issuer_in_a_chain_may_revoke() {
    let crls: [(&str, Lists, Result<(), PeerRefusal>); 3] = [
        (
            "nothing",
            |house| house.root.crl(2, &[]) + &house.issuing.crl(2, &[]),
            Ok(()),
        ),
        (
            "the leaf",
            |house| house.root.crl(2, &[]) + &house.issuing.crl(2, &[NODE]),
            Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf))),
        ),
        (
            "the issuing CA",
            |house| {
                let authority = house.issuing.certificate.der();
                let (_, authority) = X509Certificate::from_der(authority).unwrap();
                let serials = vec![authority.raw_serial().to_vec()];
                house.root.crl_naming(2, serials, NOW - DAY) + &house.issuing.crl(2, &[])
            },
            Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Authority(
                "CN=issuing 1".to_owned(),
            )))),
        ),
    ];
    for (revoked, crls, expected) in crls {
        let house = House::new();
        let (mut writer, reader) = house.open().unwrap();
        house.write("crl.pem", &crls(&house));
        writer.reload_if_changed().unwrap().unwrap();
        let judged = reader.current().verify(&house.node, NOW);
        assert_eq!(judged, expected, "{revoked} is revoked");
    }
}

/// rustls uses the first CRL with a matching issuer name. We give it only one per name, the newest.
#[test]
fn of_two_crls_of_one_name_the_newest_counts() {
    let orders: [(&str, Lists); 2] = [
        ("the older one first", |house| {
            house.issuing.crl(1, &[]) + &house.issuing.crl(2, &[NODE])
        }),
        ("the newer one first", |house| {
            house.issuing.crl(2, &[NODE]) + &house.issuing.crl(1, &[])
        }),
    ];
    for (story, crls) in orders {
        let house = House::new();
        house.write_crls(&crls(&house));
        let (_writer, reader) = house.open().unwrap();
        let judged = reader.current().verify(&house.node, NOW);
        assert_eq!(
            judged,
            Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf))),
            "{story}"
        );
        assert_eq!(reader.current().crls().len(), 2, "{story}");
    }
}

/// An expired CRL still revokes, and certificates that it does not list are accepted. What else
/// happens is decided by the receiver and its configured grace period.
#[test]
fn an_expired_crl_still_revokes() {
    let house = House::new();
    house.write_crls(&house.issuing.crl(2, &[NODE]));
    let (_writer, reader) = house.open_at(Arc::new(|| NOW + 60 * DAY)).unwrap();
    let trust = reader.current();
    assert!(
        trust
            .crls()
            .iter()
            .all(|crl| crl.next_update < NOW + 60 * DAY)
    );
    assert_eq!(
        trust.verify(&house.node, NOW + 60 * DAY),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    assert_eq!(trust.verify_own(NOW + 60 * DAY), Ok(()));
}

/// TLS verifies a certificate once, in a full handshake, and not at all in a resumed session.
/// Therefore every request checks: a chain that was not verified under the current trust is
/// verified completely.
#[test]
fn a_chain_is_verified_again_by_the_first_request_under_a_new_trust() {
    let house = House::new();
    let (mut writer, reader) = house.open().unwrap();
    let connection = |generation| {
        let identity = Identity::from_der(&house.node[0]).unwrap();
        let quota = ClientQuotas::new().of(&identity.spiffe_id, &Limits::default());
        Connection::authenticated(HERE, identity, house.node.clone(), quota, generation)
    };
    let ask = |connection: &Connection| {
        let peer = connection.peer(&reader.current(), NOW);
        peer.expect("it shows a certificate").map(drop)
    };
    let (full, resumed) = (connection(1), connection(0));
    assert_eq!((ask(&full), ask(&resumed)), (Ok(()), Ok(())));
    let unasked = connection(0);
    house
        .push(&mut writer, &house.issuing.crl(2, &[NODE]))
        .unwrap();
    for (story, connection) in [
        ("open since before the revocation", full),
        ("resumed before it, and asked", resumed),
        ("resumed before it, and never asked", unasked),
    ] {
        assert_eq!(
            ask(&connection),
            Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf))),
            "{story}"
        );
    }
}

/// Used for work that is done once a minute per connection. The clock may go backwards.
#[test]
fn the_first_request_of_a_minute_is_known() {
    let house = House::new();
    let identity = Identity::from_der(&house.node[0]).unwrap();
    let quota = ClientQuotas::new().of(&identity.spiffe_id, &Limits::default());
    let connection = Connection::authenticated(HERE, identity, house.node.clone(), quota, 1);
    for (now, expected) in [(0, true), (59, false), (60, true), (60, false), (5, true)] {
        assert_eq!(connection.is_first_of_minute(now), expected, "{now}");
    }
    assert!(!Connection::anonymous(HERE).is_first_of_minute(0));
}

/// A result is cached until the next reload, except when it depends on the time.
#[test]
fn what_begins_is_taken_when_it_has_begun() {
    let house = House::new();
    let (_writer, reader) = house.open().unwrap();
    let identity = Identity::from_der(&house.node[0]).unwrap();
    let quota = ClientQuotas::new().of(&identity.spiffe_id, &Limits::default());
    let begin = identity.not_before;
    let connection = Connection::authenticated(HERE, identity, house.node.clone(), quota, 0);
    let ask = |now| {
        let peer = connection.peer(&reader.current(), now);
        peer.expect("it shows a certificate").map(drop)
    };
    let early = ask(begin - 1).unwrap_err();
    assert!(early.is_about_time(), "{early}");
    assert_eq!(ask(NOW), Ok(()));
}

/// rustls does not verify the certificate again while a connection is open. Every request checks
/// whether it has expired.
#[test]
fn an_open_connection_ends_with_its_certificate() {
    let house = House::new();
    let (_writer, reader) = house.open().unwrap();
    let identity = Identity::from_der(&house.node[0]).unwrap();
    let quota = ClientQuotas::new().of(&identity.spiffe_id, &Limits::default());
    let end = identity.not_after;
    let connection = Connection::authenticated(HERE, identity, house.node.clone(), quota, 1);
    let ended = Fault::Expired {
        member: ChainMember::Leaf,
        not_after: end,
        now: end + 1,
    };
    for (now, expected) in [
        (NOW, Ok(())),
        (end, Ok(())),
        (end + 1, Err(PeerRefusal::Chain(ended))),
    ] {
        let peer = connection.peer(&reader.current(), now);
        let judged = peer.expect("it shows a certificate").map(drop);
        assert_eq!(judged, expected, "{now}");
    }
}

/// A change of any file is detected. A certificate and its key are replaced one after the other.
#[test]
fn a_change_of_any_file_is_seen() {
    for name in ["rx.crt", "rx.key", "root.crt", "crl.pem", "kept.pem"] {
        let house = House::new();
        house.write("kept.pem", &house.root.crl(1, &[]));
        let (mut writer, reader) = house.open().unwrap();
        assert!(writer.reload_if_changed().is_none(), "{name}");
        let file = house.folder.path().join(name);
        let fresh = house.folder.path().join("fresh");
        std::fs::copy(&file, &fresh).unwrap();
        std::fs::rename(&fresh, &file).unwrap();
        writer
            .reload_if_changed()
            .unwrap_or_else(|| panic!("{name} was replaced"))
            .unwrap();
        assert_eq!(reader.current().generation(), 2, "{name}");
    }
}
