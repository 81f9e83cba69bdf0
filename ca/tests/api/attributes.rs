//! Tags and limits: in the certificate as they were asked for, in its renewals, and nobody chooses
//! their own.

use lizmon_ca::authority::{Authority, IssuanceError, JoinTokenError, Request, TOKEN_TTL};
use lizmon_ca::pki::Reason;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{Attributes, Role};
use rcgen::{CustomExtension, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::sandbox::{NOW, new_ca, node_name, signing_request};

fn of(texts: &[&str]) -> Attributes {
    Attributes::of_texts(texts.iter().copied()).unwrap()
}

fn request(role: Role, name: &str, texts: &[&str]) -> Request {
    Request {
        attributes: of(texts),
        ..Request::new(role, node_name(name))
    }
}

fn issue(ca: &Authority, role: Role, name: &str, texts: &[&str]) -> Identity {
    let issued = ca.issue(request(role, name, texts), NOW).unwrap();
    let Item::Certificate { attributes, .. } = &inspect(issued.chain_pem.as_bytes()).unwrap()[0]
    else {
        panic!("a certificate comes first");
    };
    assert_eq!(*attributes, of(texts).texts().collect::<Vec<_>>());
    let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
    Identity::from_der(&der).unwrap()
}

fn key() -> Vec<u8> {
    signing_request(&KeyPair::generate().unwrap())
}

#[test]
fn certificates_and_their_renewals_have_them() {
    let (_dir, _, ca) = new_ca();
    for (role, texts) in [
        (Role::Node, &["env=prod", "team=web"][..]),
        (Role::Reader, &["web*", "env=prod", "env=test"]),
        (Role::Reader, &[]),
        (Role::Operator, &[]),
        (Role::Gateway, &["db1", "web*", "env=prod"]),
    ] {
        let first = issue(&ca, role, &format!("a{}", texts.len()), texts);
        assert_eq!(first.attributes, of(texts), "{role}");
        let renewed = ca.renew(&first, &key(), NOW).unwrap();
        let renewed = Identity::from_der(&renewed.der).unwrap();
        assert_eq!(renewed.attributes, of(texts), "{role}");
    }
    // What a certificate is issued with anew counts, whatever the one before it had.
    let without = issue(&ca, Role::Node, "a2", &[]);
    assert!(without.attributes.is_empty());
}

#[test]
fn roles_have_no_others() {
    let (_dir, _, ca) = new_ca();
    for (role, texts) in [
        (Role::Node, &["web*"][..]),
        (Role::Node, &["env=prod", "env=test"]),
        (Role::Operator, &["env=prod"]),
        (Role::Summarizer, &["web*"]),
        (Role::Proxy, &["env=prod"]),
        (Role::Gateway, &[]),
        (Role::Gateway, &["env=prod"]),
    ] {
        let issued = ca.issue(request(role, "a", texts), NOW);
        assert!(issued.is_err(), "{role} {texts:?}");
        let token = ca.make_join_token(role, &node_name("a"), &[], &of(texts), TOKEN_TTL, NOW);
        assert!(token.is_err(), "{role} {texts:?}");
    }
}

#[test]
fn the_join_token_decides_not_its_bearer() {
    let (_dir, _, ca) = new_ca();
    for (role, texts) in [
        (Role::Node, &["env=test"][..]),
        (Role::Node, &[]),
        (Role::Reader, &["web*", "env=prod"]),
        (Role::Gateway, &["web1"]),
    ] {
        let name = node_name(&format!("{role}{}", texts.len()));
        let token = ca
            .make_join_token(role, &name, &[], &of(texts), TOKEN_TTL, NOW)
            .unwrap();
        // A request that asks for the tags of production.
        let mut params = rcgen::CertificateParams::default();
        let asked = lizmon_pki::attributes::encode(&of(&["env=prod"])).unwrap();
        let asked = CustomExtension::from_oid_content(&lizmon_pki::attributes::EXTENSION, asked);
        params.custom_extensions.push(asked);
        let asked = params.serialize_request(&KeyPair::generate().unwrap());
        let got = ca.enrol(&name, token.as_str(), asked.unwrap().der(), NOW);
        let got = Identity::from_der(&got.unwrap().der).unwrap();
        assert_eq!(got.attributes, of(texts), "{role}");
        assert_eq!(got.spiffe_id.role, role);
    }
}

/// A ledger that a program wrote which does not know limits, or that lost them.
#[test]
fn a_token_that_lost_its_limits_is_none() {
    let (_dir, _, ca) = new_ca();
    let name = node_name("ada");
    let limits = of(&["web*"]);
    let token = ca
        .make_join_token(Role::Reader, &name, &[], &limits, TOKEN_TTL, NOW)
        .unwrap();
    let ledger = rusqlite::Connection::open(&ca.files().ledger).unwrap();
    let sql = "DELETE FROM join_token_attribute";
    assert_eq!(ledger.execute(sql, []).unwrap(), 1);
    let got = ca.enrol(&name, token.as_str(), &key(), NOW);
    assert!(matches!(got, Err(IssuanceError::Ca(_))), "{got:?}");
    // Withdrawn with a revocation like every other token of the holder.
    let token = ca
        .make_join_token(
            Role::Reader,
            &node_name("bob"),
            &[],
            &limits,
            TOKEN_TTL,
            NOW,
        )
        .unwrap();
    issue(&ca, Role::Reader, "bob", &[]);
    ca.revoke_holder(Role::Reader, &node_name("bob"), Reason::Unspecified, NOW)
        .unwrap();
    let got = ca.enrol(&node_name("bob"), token.as_str(), &key(), NOW);
    let ended = matches!(got, Err(IssuanceError::Token(JoinTokenError::Ended)));
    assert!(ended, "{got:?}");
}
