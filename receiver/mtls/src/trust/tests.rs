//! Trust from files on disk. Each test creates its own CA.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use lizmon_pki::path::ChainMember;

use self::pki::*;
use super::*;
use crate::Clock;
use crate::identity::Identity;
use crate::revocation::{Crl, CrlRefused};
use crate::version::TlsMin;

mod pki;
mod rustls_facts;
mod statements;

const NOW: u64 = 1_465_001_814;
const DAY: u64 = 86_400;

#[test]
fn a_pushed_crl_is_in_force_at_once_and_after_a_restart_with_an_older_file() {
    let house = House::new();
    let (mut writer, reader) = house.open().unwrap();
    assert_eq!(reader.current().verify(&house.node, NOW), Ok(()));
    house
        .push(&mut writer, &house.issuing.crl(2, &[NODE]))
        .unwrap();
    assert_eq!(reader.current().generation(), 2);
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    drop(writer);
    let (_writer, reader) = house.open().unwrap();
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
}

#[test]
fn invalid_crls_cannot_be_pushed() {
    let house = House::new();
    let stranger = root("root");
    let imposter = stranger.issuing("issuing 1");
    let (mut writer, reader) = house.open().unwrap();
    house.push(&mut writer, &house.issuing.crl(5, &[])).unwrap();
    let cases = [
        (
            "signed by another key of the same name",
            imposter.crl(9, &[]),
        ),
        (
            "of an unknown CA",
            stranger.issuing("issuing 7").crl(9, &[]),
        ),
        ("older than the one in force", house.issuing.crl(4, &[NODE])),
        ("ended", house.issuing.crl_from(6, &[], NOW - 40 * DAY)),
        ("from tomorrow", house.issuing.crl_from(6, &[], NOW + DAY)),
        (
            "one good, one bad",
            format!("{}{}", house.issuing.crl(6, &[NODE]), imposter.crl(9, &[])),
        ),
    ];
    for (story, crls) in cases {
        assert!(house.push(&mut writer, &crls).is_err(), "{story}");
        assert_eq!(reader.current().generation(), 2, "{story}");
        assert_eq!(reader.current().verify(&house.node, NOW), Ok(()), "{story}");
    }
}

#[test]
fn a_forged_ca_certificate_is_not_trusted() {
    let house = House::new();
    let imposter = root("root").issuing("issuing 1");
    let (mut writer, _reader) = house.open().unwrap();
    let shown = chain(&imposter.leaf("spiffe://lizmon.internal/operator/eve", 9).0);
    let crls = Crl::read_all(imposter.crl(9, &[]).as_bytes()).unwrap();
    assert!(matches!(
        writer.add_crls(crls, &shown).unwrap(),
        Err(CrlRefused::NotSigned(_))
    ));
}

#[test]
fn the_next_generations_crl_is_accepted_with_its_ca_certificate() {
    let house = House::new();
    let next = house.root.issuing("issuing 2");
    let node = chain(&next.leaf("spiffe://lizmon.internal/node/web2", 7).0);
    let (mut writer, reader) = house.open().unwrap();
    assert!(matches!(
        reader.current().verify(&node, NOW),
        Err(PeerRefusal::Chain(Fault::NoCrl { .. }))
    ));
    let crls = Crl::read_all(next.crl(1, &[]).as_bytes()).unwrap();
    writer.add_crls(crls, &node).unwrap().unwrap();
    assert_eq!(reader.current().verify(&node, NOW), Ok(()));
    assert_eq!(reader.current().verify(&house.node, NOW), Ok(()));
}

#[test]
fn the_same_crl_again_changes_nothing() {
    let house = House::new();
    let (mut writer, reader) = house.open().unwrap();
    let crl = house.issuing.crl(2, &[NODE]);
    house.push(&mut writer, &crl).unwrap();
    house.push(&mut writer, &crl).unwrap();
    assert_eq!(reader.current().generation(), 2);
}

#[test]
fn a_changed_file_is_reloaded_but_an_older_crl_undoes_no_revocation() {
    let house = House::new();
    let (mut writer, reader) = house.open().unwrap();
    assert!(writer.reload_if_changed().is_none());
    house.write_crls(&house.issuing.crl(3, &[NODE]));
    writer.reload_if_changed().unwrap().unwrap();
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    house.write_crls(&house.issuing.crl(2, &[]));
    writer.reload_if_changed().unwrap().unwrap();
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
}

#[test]
fn what_cannot_be_used_leaves_trust_as_it_was() {
    let another = House::new()
        .issuing
        .leaf("spiffe://lizmon.internal/receiver/rx", 8);
    for (name, text, part) in [
        ("rx.key", another.1.as_str(), TrustPart::Own),
        ("crl.pem", "-----BEGIN X509 CRL-----", TrustPart::Crls),
        ("root.crt", "", TrustPart::Roots),
        ("rx.crt", "-----", TrustPart::Own),
    ] {
        let house = House::new();
        let (mut writer, reader) = house.open().unwrap();
        house.write(name, text);
        let trust = writer.reload_if_changed().unwrap().unwrap();
        let parts: Vec<TrustPart> = trust
            .warnings()
            .iter()
            .map(|warning| warning.part)
            .collect();
        assert_eq!(parts, [part], "{name}");
        assert_eq!(reader.current().verify(&house.node, NOW), Ok(()), "{name}");
    }
}

#[test]
fn our_own_revocation_does_not_hold_back_the_others() {
    let house = House::new();
    let (mut writer, reader) = house.open().unwrap();
    house.write_crls(&house.issuing.crl(2, &[RECEIVER, NODE]));
    writer.reload_if_changed().unwrap().unwrap();
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    assert_eq!(
        reader.current().verify_own(NOW),
        Err(Fault::Revoked(ChainMember::Leaf))
    );
    assert!(matches!(
        house.open(),
        Err(TrustError::OwnRefused {
            source: Fault::Revoked(ChainMember::Leaf),
            ..
        })
    ));
}

/// Regression test: a certificate that no client accepts came into use, and the valid one was
/// dropped.
#[test]
fn our_own_pair_is_swapped_for_one_that_clients_take() {
    const ID: &str = "spiffe://lizmon.internal/receiver/rx";
    let key = KeyPair::generate().unwrap();
    let with = |ca: &Ca, behind: &str, bend: &dyn Fn(&mut CertificateParams)| {
        let mut params = ca.leaf_params(ID, 9);
        bend(&mut params);
        let leaf = params.signed_by(&key, &ca.issuer).unwrap();
        format!("{}{behind}", leaf.pem())
    };
    let house = House::new();
    let (issuing, other) = (&house.issuing, root("other"));
    let behind = issuing.certificate.pem();
    let cases = [
        (
            "no chain",
            with(issuing, "", &|_| ()),
            "the certificate of that CA was not sent",
        ),
        (
            "of another CA",
            with(&other, &other.certificate.pem(), &|_| ()),
            "not a trusted root",
        ),
        (
            "ended",
            with(issuing, &behind, &|params| params.not_after = at(NOW - 1)),
            "expired",
        ),
        (
            "not begun",
            with(issuing, &behind, &|params| {
                params.not_before = at(NOW + DAY)
            }),
            "not valid yet",
        ),
        (
            "a client's",
            with(issuing, &behind, &|params| {
                params.extended_key_usages.pop();
            }),
            "extended key usage",
        ),
        (
            "no name",
            with(issuing, &behind, &|params| {
                params.subject_alt_names.pop();
            }),
            "no DNS name",
        ),
        (
            "revoked",
            with(issuing, &behind, &|params| {
                params.serial_number = Some(SerialNumber::from_slice(&[77]))
            }),
            "revoked",
        ),
    ];
    house.write_crls(&issuing.crl(2, &[77]));
    let clock = Arc::new(std::sync::atomic::AtomicU64::new(NOW));
    let told = clock.clone();
    let (mut writer, reader) = house
        .open_at(Arc::new(move || told.load(Ordering::Relaxed)))
        .unwrap();
    let good = reader.current().own().clone();
    let set = |now: u64| clock.store(now, Ordering::Relaxed);
    for (story, cert, reason) in &cases {
        house.write("rx.key", &key.serialize_pem());
        house.write("rx.crt", cert);
        let trust = writer.reload_if_changed().unwrap().unwrap();
        assert_eq!(*trust.own(), good, "{story}");
        trust.verify_own(NOW).unwrap();
        let [warning] = trust.warnings() else {
            panic!("{story}: {:?}", trust.warnings())
        };
        assert_eq!(warning.part, TrustPart::Own, "{story}");
        assert!(
            warning.reason.contains(reason) && warning.reason.contains("kept"),
            "{story}: {warning}"
        );
        assert!(writer.reload_if_changed().is_none(), "{story}: said once");
    }
    // A pair that is not valid yet comes into use when it becomes valid, without a change of the
    // files.
    house.write("rx.crt", &cases[3].1);
    writer.reload_if_changed().unwrap().unwrap();
    set(NOW + DAY);
    let trust = writer.reload_if_changed().unwrap().unwrap();
    assert_ne!(*trust.own(), good);
    assert!(trust.warnings().is_empty(), "{:?}", trust.warnings());
    // If the held pair is no better, the pair in the files is used.
    set(NOW + 91 * DAY);
    house.write("rx.crt", &cases[2].1);
    let trust = writer.reload_if_changed().unwrap().unwrap();
    assert!(trust.verify_own(NOW + 91 * DAY).is_err());
    assert_eq!(trust.own().not_after, NOW - 1);
    assert!(writer.reload_if_changed().is_none());
}

#[test]
fn a_node_cannot_be_a_server() {
    let house = House::new();
    let (cert, key) = house.issuing.leaf("spiffe://lizmon.internal/node/web1", 9);
    house.write("rx.crt", &cert);
    house.write("rx.key", &key);
    assert!(matches!(
        house.open(),
        Err(TrustError::WrongRole {
            role: lizmon_protocol::name::Role::Node,
            ..
        })
    ));
}

#[test]
fn other_trust_domains_are_refused() {
    let house = House::new();
    let (_writer, reader) = house.open().unwrap();
    let foreign = chain(&house.issuing.leaf("spiffe://other.example/node/web1", 9).0);
    assert!(matches!(
        reader.current().verify(&foreign, NOW),
        Err(PeerRefusal::OtherDomain { .. })
    ));
}

/// The CRL of a retired CA expires like any other. It is never signed again, and no client must be
/// rejected because of it.
#[test]
fn a_retired_cas_crl_expires_without_harm() {
    let house = House::new();
    let next = house.root.issuing("issuing 2");
    let now = Arc::new(std::sync::atomic::AtomicU64::new(NOW));
    let clock = now.clone();
    let (mut writer, reader) = house
        .open_at(Arc::new(move || {
            clock.load(std::sync::atomic::Ordering::Relaxed)
        }))
        .unwrap();
    house
        .push(&mut writer, &house.issuing.crl(2, &[NODE]))
        .unwrap();
    // The rotation is complete: our own certificate and the CRLs come from the new CA.
    let (cert, key) = next.leaf("spiffe://lizmon.internal/receiver/rx", RECEIVER);
    house.write("rx.crt", &cert);
    house.write("rx.key", &key);
    house.write_crls(&next.crl(1, &[]));
    writer.reload_if_changed().unwrap().unwrap();
    let required = |reader: &TrustReader| {
        reader
            .current()
            .crls()
            .iter()
            .filter(|crl| crl.is_required)
            .count()
    };
    assert_eq!(
        (reader.current().crls().len(), required(&reader)),
        (3, 2),
        "the old list is held, but not required"
    );
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    now.store(NOW + 33 * DAY, std::sync::atomic::Ordering::Relaxed);
    writer.reload_if_changed().unwrap().unwrap();
    assert_eq!(
        (reader.current().crls().len(), required(&reader)),
        (2, 2),
        "it has ended, and is forgotten"
    );
    assert!(writer.reload_if_changed().is_none(), "once");
    assert!(
        reader.current().verify(&house.node, NOW).is_err(),
        "clients of its CA are refused without a CRL"
    );
    drop(writer);
    let reopened = house.open_at(Arc::new(|| NOW + 33 * DAY)).unwrap().1;
    assert_eq!(
        reopened.current().crls().len(),
        2,
        "the kept file does not bring it back"
    );
}

/// Regression test: the key of a retired CA was lost and its last CRL had expired. No revocation
/// could be uploaded any more, because all CRLs are uploaded together.
#[test]
fn an_expired_crl_does_not_block_a_newer_one() {
    let house = House::new();
    let next = house.root.issuing("issuing 2");
    let now = Arc::new(std::sync::atomic::AtomicU64::new(NOW));
    let clock = now.clone();
    let time = move || clock.load(std::sync::atomic::Ordering::Relaxed);
    let (mut writer, reader) = house.open_at(Arc::new(time)).unwrap();
    let old = house.issuing.crl(2, &[NODE]);
    house.push(&mut writer, &old).unwrap();
    let later = NOW + 30 * DAY;
    now.store(later, std::sync::atomic::Ordering::Relaxed);
    let shown = [next.certificate.der().clone()];
    let both = old + &next.crl_from(1, &[], later - DAY);
    let crls = Crl::read_all(both.as_bytes()).unwrap();
    writer.add_crls(crls, &shown).unwrap().unwrap();
    let node = chain(&next.leaf("spiffe://lizmon.internal/node/web2", 7).0);
    assert_eq!(reader.current().verify(&node, later), Ok(()));
    let revoked = reader.current().verify(&house.node, later);
    assert_eq!(
        revoked,
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf))),
        "what it says still holds"
    );
}

/// Fetched files may contain CRLs that are already in force, and CRLs of untrusted CAs.
#[test]
fn newer_fetched_crls_are_accepted() {
    let house = House::new();
    let next = house.root.issuing("issuing 2");
    let stranger = root("root").issuing("issuing 1");
    let shown = [next.certificate.der().clone()];
    let (mut writer, reader) = house.open().unwrap();
    let take = |writer: &mut TrustWriter, crls: &[String]| {
        let crls = Crl::read_all(crls.concat().as_bytes()).unwrap();
        let newer = writer.add_fetched_crls(crls, &shown).unwrap();
        (
            newer.trust.map(|trust| trust.generation()),
            newer.refused.len(),
        )
    };
    let of_root = std::fs::read_to_string(house.folder.path().join("crl.pem")).unwrap();
    let of_root = of_root
        .split_inclusive("-----END X509 CRL-----\n")
        .next()
        .unwrap();
    // The generation if a CRL was accepted, and the number of rejected CRLs.
    type Outcome = (Option<u64>, usize);
    let cases: [(&str, Vec<String>, Outcome); 6] = [
        ("those in force", vec![of_root.to_owned()], (None, 0)),
        (
            "a newer one beside one in force",
            vec![of_root.to_owned(), house.issuing.crl(5, &[NODE])],
            (Some(2), 0),
        ),
        ("an older one", vec![house.issuing.crl(4, &[])], (None, 1)),
        (
            "a forged one does not keep the next generation's back",
            vec![stranger.crl(9, &[]), next.crl(1, &[])],
            (Some(3), 1),
        ),
        (
            "of an authority unknown here",
            vec![root("root 2").crl(1, &[])],
            (None, 1),
        ),
        (
            "one that has ended",
            vec![house.issuing.crl_from(6, &[], NOW - 40 * DAY)],
            (None, 1),
        ),
    ];
    for (story, crls, expected) in cases {
        assert_eq!(take(&mut writer, &crls), expected, "{story}");
    }
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    let node = chain(&next.leaf("spiffe://lizmon.internal/node/web2", 7).0);
    assert_eq!(reader.current().verify(&node, NOW), Ok(()));
    drop(writer);
    let reader = house.open().unwrap().1;
    let judged = [&house.node, &node].map(|chain| reader.current().verify(chain, NOW));
    assert_eq!(
        judged,
        [
            Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf))),
            Ok(())
        ],
        "what was fetched is kept"
    );
}

/// A missing CRL is reported, but only for a chain that leads to a trusted root.
#[test]
fn a_missing_crl_is_noticed() {
    let house = House::new();
    let next = house.root.issuing("issuing 2");
    let (mut writer, reader) = house.open().unwrap();
    let misses = || reader.current().misses_crl();
    let verify = |ca: &Ca| {
        let node = chain(&ca.leaf("spiffe://lizmon.internal/node/web2", 7).0);
        reader.current().verify(&node, NOW)
    };
    assert!(!misses(), "all are here");
    verify(&root("root").issuing("issuing 3")).unwrap_err();
    assert!(!misses(), "a stranger is missed by nobody");
    verify(&next).unwrap_err();
    assert!(misses(), "the next generation's leaf");
    let crls = Crl::read_all(next.crl(1, &[]).as_bytes()).unwrap();
    writer
        .add_fetched_crls(crls, &[next.certificate.der().clone()])
        .unwrap();
    assert!(!misses(), "it is here now");
    let new_root = root("root 2");
    let both = house.root.certificate.pem() + &new_root.certificate.pem();
    house.write("root.crt", &both);
    writer.reload_if_changed().unwrap().unwrap();
    assert!(misses(), "a root that is trusted, and has no list");
}

mod crls;
