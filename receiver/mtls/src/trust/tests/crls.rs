//! Which CRLs are in force for given files.

mod odd;

use self::odd::*;
use super::*;
use crate::revocation::UnusableCrl;

const WEB2: u8 = 3;

impl House {
    fn odd<'a>(&'a self, number: &'a [u8], revoked: &'a [u8], days_ago: u64) -> Odd<'a> {
        Odd {
            ca: &self.issuing,
            number: Some(number),
            revoked,
            this_update: NOW - days_ago * DAY,
            scope: None,
        }
    }

    fn of(&self, serial: u8) -> Vec<CertificateDer<'static>> {
        chain(
            &self
                .issuing
                .leaf("spiffe://lizmon.internal/node/web2", serial)
                .0,
        )
    }
}

/// Regression test: a CA was restored from a backup and used CRL numbers again. Another CA writes
/// no numbers at all, and its second CRL was ignored.
#[test]
fn concurrent_crls_both_revoke_until_a_newer_one_comes() {
    type Signed<'a> = (&'a [u8], &'a [u8], u64, Option<(&'a [u8], bool)>);
    let big = [1; 20];
    // The CRLs in order, whether NODE and WEB2 are revoked in the end, and how many CRLs are
    // concurrent.
    let cases: Vec<(&str, Vec<Signed<'_>>, [bool; 2], usize)> = vec![
        (
            "newer by both",
            vec![(&[5], &[NODE], 9, NONE), (&[6], &[WEB2], 8, NONE)],
            [false, true],
            0,
        ),
        (
            "older by both",
            vec![(&[6], &[NODE], 8, NONE), (&[5], &[WEB2], 9, NONE)],
            [true, false],
            0,
        ),
        (
            "the same number, later",
            vec![(&[5], &[NODE], 9, NONE), (&[5], &[WEB2], 8, NONE)],
            [true, true],
            1,
        ),
        (
            "the same number and date",
            vec![(&[5], &[NODE], 9, NONE), (&[5], &[WEB2], 9, NONE)],
            [true, true],
            1,
        ),
        (
            "a lower number, later",
            vec![(&[7], &[NODE], 9, NONE), (&[5], &[WEB2], 8, NONE)],
            [true, true],
            1,
        ),
        (
            "a higher number, earlier",
            vec![(&[7], &[NODE], 8, NONE), (&[9], &[WEB2], 9, NONE)],
            [true, true],
            1,
        ),
        (
            "a newer one by both than the later of two",
            vec![
                (&[9], &[NODE], 9, NONE),
                (&[5], &[], 8, NONE),
                (&[6], &[WEB2], 7, NONE),
            ],
            [true, true],
            1,
        ),
        (
            "a newer one by both than either",
            vec![
                (&[9], &[NODE], 9, NONE),
                (&[5], &[WEB2], 8, NONE),
                (&[10], &[], 7, NONE),
            ],
            [false, false],
            0,
        ),
        (
            "no numbers, all of the first in the second",
            vec![
                (&[1], &[NODE], 9, NO_NUMBER),
                (&[1], &[NODE, WEB2], 8, NO_NUMBER),
            ],
            [true, true],
            0,
        ),
        (
            "no numbers, each something of its own",
            vec![(&[1], &[NODE], 9, NO_NUMBER), (&[1], &[WEB2], 8, NO_NUMBER)],
            [true, true],
            1,
        ),
        (
            "a number after none",
            vec![(&[1], &[NODE], 9, NO_NUMBER), (&[1], &[WEB2], 8, NONE)],
            [true, true],
            1,
        ),
        (
            "none after a number",
            vec![(&[1], &[NODE], 9, NONE), (&[1], &[WEB2], 8, NO_NUMBER)],
            [true, true],
            1,
        ),
        (
            "numbers of 20 octets",
            vec![(&big, &[NODE], 9, NONE), (&[2; 20], &[WEB2], 8, NONE)],
            [false, true],
            0,
        ),
        (
            "from 20 octets to one",
            vec![(&big, &[NODE], 9, NONE), (&[2], &[WEB2], 8, NONE)],
            [true, true],
            1,
        ),
    ];
    for (story, crls, expected, beside) in cases {
        let house = House::new();
        // None of them equals the first CRL of `House`.
        house.write_crls(
            &crls[..1]
                .iter()
                .map(|(number, revoked, days, other)| house.odd(number, revoked, *days).pem(*other))
                .collect::<String>(),
        );
        let (mut writer, reader) = house.open().unwrap();
        for (number, revoked, days, other) in &crls[1..] {
            house.write_crls(&house.odd(number, revoked, *days).pem(*other));
            writer.reload_if_changed().unwrap().unwrap();
        }
        let judged = |reader: &TrustReader| {
            [house.node.clone(), house.of(WEB2)].map(|chain| {
                reader.current().verify(&chain, NOW)
                    == Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
            })
        };
        assert_eq!(judged(&reader), expected, "{story}");
        let count = reader
            .current()
            .crls()
            .iter()
            .filter(|crl| crl.is_concurrent)
            .count();
        assert_eq!(count, beside, "{story}");
        let told = !reader.current().warnings().is_empty();
        assert_eq!(told, beside > 0 || story.starts_with("older"), "{story}");
        drop(writer);
        let reopened = house.open().unwrap().1;
        assert_eq!(judged(&reopened), expected, "{story}, and started again");
    }
}

/// Each CRL is handled separately: an unusable one blocks neither the others nor our own
/// certificate.
#[test]
fn an_unusable_crl_does_not_block_others() {
    let house = House::new();
    let third = root("somebody else");
    let of = |ca, other| {
        let odd = Odd {
            ca,
            number: Some(&[9]),
            revoked: &[],
            this_update: NOW - DAY,
            scope: None,
        };
        odd.pem(other)
    };
    let imposter = Ca {
        certificate: root("x").certificate,
        issuer: root("issuing 1").issuer,
    };
    let cases: Vec<(&str, String, &str)> = vec![
        (
            "an unknown critical extension",
            of(&house.root, UNKNOWN_CRITICAL),
            "critical extension",
        ),
        ("a delta", of(&house.issuing, DELTA), "delta"),
        ("a stranger's delta", of(&third, DELTA), "delta"),
        (
            "by another key of the name",
            of(&imposter, NONE),
            "another key",
        ),
        (
            "a character that base64 does not have",
            of(&house.root, NONE).replace("-----END", "A*==\n-----END"),
            "base64",
        ),
        (
            "cut in half",
            of(&house.root, NONE)[..200].to_owned(),
            "does not end",
        ),
        (
            "a key",
            KeyPair::generate().unwrap().serialize_pem(),
            "does not belong here",
        ),
    ];
    for (story, bad, why) in cases {
        let house = &house;
        house.write_crls(&house.issuing.crl(1, &[]));
        let _gone = std::fs::remove_file(house.folder.path().join("kept.pem"));
        let (mut writer, reader) = house.open().unwrap();
        let root = house.root.crl(2, &[]);
        house.write(
            "crl.pem",
            &format!("{root}\n{}\n{bad}", house.issuing.crl(2, &[NODE])),
        );
        let (cert, key) = house
            .issuing
            .leaf("spiffe://lizmon.internal/receiver/rx", 77);
        house.write("rx.crt", &cert);
        house.write("rx.key", &key);
        let trust = writer.reload_if_changed().unwrap().unwrap();
        assert_eq!(
            reader.current().verify(&house.node, NOW),
            Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf))),
            "{story}"
        );
        assert_eq!(
            trust.own().serial_hex(),
            "4d",
            "{story}: our own new certificate"
        );
        let [warning] = trust.warnings() else {
            panic!("{story}: {:?}", trust.warnings());
        };
        assert!(
            warning.to_string().contains(why) && warning.to_string().contains("crl.pem"),
            "{story}: {warning}"
        );
        assert_eq!(warning.part, TrustPart::Crls, "{story}");
        house.write("crl.pem", &(root + &house.issuing.crl(3, &[])));
        let trust = writer.reload_if_changed().unwrap().unwrap();
        assert_eq!(trust.warnings(), [], "{story}: mended");
        assert_eq!(trust.verify(&house.node, NOW), Ok(()), "{story}: mended");
    }
}

/// A CRL signed by another key replaces no CRL and rejects no client, whatever its number. The same
/// holds for a stored CRL of a CA that was created again with the same names.
#[test]
fn a_crl_applies_to_the_key_that_signed_it() {
    let house = House::new();
    let (mut writer, reader) = house.open().unwrap();
    house.push(&mut writer, &house.issuing.crl(7, &[])).unwrap();
    let imposter = root("x").issuing("issuing 1");
    house.write_crls(&imposter.crl(9, &[NODE]));
    let trust = writer.reload_if_changed().unwrap().unwrap();
    assert_eq!(trust.verify(&house.node, NOW), Ok(()), "a forged list");
    assert_eq!(trust.warnings().len(), 1);
    house.write_crls(&house.issuing.crl(8, &[NODE]));
    writer.reload_if_changed().unwrap().unwrap();
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    drop(writer);
    let anew = House::new();
    let kept = std::fs::read_to_string(house.folder.path().join("kept.pem")).unwrap();
    anew.write("kept.pem", &kept);
    let reader = anew.open().unwrap().1;
    assert_eq!(
        reader.current().verify(&anew.node, NOW),
        Ok(()),
        "made anew"
    );
}

/// CRLs of one CA with different scopes are in force together: neither replaces the other.
#[test]
fn partitions_of_a_crl_are_in_force_together() {
    let house = House::new();
    let part = |number: &[u8], revoked: &[u8], scope| {
        Odd {
            scope: Some(scope),
            ..house.odd(number, revoked, 1)
        }
        .pem(NONE)
    };
    let users = part(&[2], &[NODE], rcgen::CrlScope::UserCertsOnly);
    let authorities = part(&[3], &[], rcgen::CrlScope::CaCertsOnly);
    for crls in [
        format!("{users}{authorities}"),
        format!("{authorities}{users}"),
    ] {
        house.write_crls(&crls);
        let reader = house.open().unwrap().1;
        assert_eq!(
            reader.current().verify(&house.node, NOW),
            Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
        );
        assert_eq!(reader.current().verify(&house.of(WEB2), NOW), Ok(()));
    }
    house.write_crls(&authorities);
    assert!(house.open().is_err(), "nothing speaks about leaves");
}

/// Regression test: when the issuing CA was in the file of roots, its revocation by the root was
/// ignored.
#[test]
fn who_did_not_sign_itself_is_no_anchor() {
    let house = House::new();
    let both = house.issuing.certificate.pem() + &house.root.certificate.pem();
    house.write("root.crt", &both);
    let (mut writer, reader) = house.open().unwrap();
    let bare = &house.node[..1];
    assert_eq!(
        reader.current().verify(bare, NOW),
        Ok(()),
        "it helps to build the chain"
    );
    let authority = house.issuing.certificate.der();
    let (_, authority) = x509_parser::parse_x509_certificate(authority).unwrap();
    let serials = vec![authority.raw_serial().to_vec()];
    let revoking = house.root.crl_naming(2, serials, NOW - DAY);
    house.write("crl.pem", &(revoking + &house.issuing.crl(1, &[])));
    writer.reload_if_changed().unwrap().unwrap();
    for chain in [bare, &house.node] {
        let judged = reader.current().verify(chain, NOW);
        let authority = ChainMember::Authority("CN=issuing 1".to_owned());
        assert_eq!(judged, Err(PeerRefusal::Chain(Fault::Revoked(authority))));
    }
    house.write("root.crt", &house.issuing.certificate.pem());
    let trust = writer.reload_if_changed().unwrap().unwrap();
    assert!(
        trust.warnings()[0].to_string().contains("is not a root"),
        "{:?}",
        trust.warnings()
    );
}

/// CAs may be at any depth, and are learned from the chains of peers.
#[test]
fn crls_of_deeper_cas_are_accepted() {
    let house = House::new();
    let middle = house.root.issuing("middle");
    let deep = middle.issuing("deep");
    let node = chain(&deep.leaf("spiffe://lizmon.internal/node/web2", WEB2).0);
    let shown = [&node[..], &[middle.certificate.der().clone()]].concat();
    let (mut writer, reader) = house.open().unwrap();
    let crls = |number, revoked: &[u8]| {
        let text = middle.crl(number, &[]) + &deep.crl(number, revoked);
        Crl::read_all(text.as_bytes()).unwrap()
    };
    writer.add_crls(crls(1, &[]), &shown).unwrap().unwrap();
    assert_eq!(reader.current().verify(&shown, NOW), Ok(()));
    writer.add_crls(crls(2, &[WEB2]), &[]).unwrap().unwrap();
    assert_eq!(
        reader.current().verify(&shown, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    drop(writer);
    let reader = house.open().unwrap().1;
    assert_eq!(
        reader.current().verify(&shown, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf))),
        "after a restart"
    );
}

/// An upload returns the number in force, and whether both CRLs are in force because number and
/// date disagree.
#[test]
fn a_pushed_crl_that_is_not_newer_is_refused_but_never_lost() {
    let house = House::new();
    house.write_crls(&house.issuing.crl_from(1, &[], NOW - 9 * DAY));
    let (mut writer, reader) = house.open().unwrap();
    house
        .push(&mut writer, &house.issuing.crl_from(5, &[], NOW - 2 * DAY))
        .unwrap();
    let refused = house
        .push(&mut writer, &house.issuing.crl_from(5, &[NODE], NOW - DAY))
        .unwrap_err();
    assert!(matches!(
        refused,
        CrlRefused::NotNewer {
            is_concurrent: true,
            ..
        }
    ));
    assert!(
        refused.to_string().contains("number 5 is in force"),
        "{refused}"
    );
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Err(PeerRefusal::Chain(Fault::Revoked(ChainMember::Leaf)))
    );
    let older = house
        .push(
            &mut writer,
            &house.issuing.crl_from(4, &[WEB2], NOW - 3 * DAY),
        )
        .unwrap_err();
    assert!(matches!(
        older,
        CrlRefused::NotNewer {
            is_concurrent: false,
            ..
        }
    ));
    assert_eq!(reader.current().verify(&house.of(WEB2), NOW), Ok(()));
    house
        .push(&mut writer, &house.issuing.crl_from(6, &[], NOW))
        .unwrap();
    assert_eq!(
        reader.current().verify(&house.node, NOW),
        Ok(()),
        "newer by both"
    );
}

#[test]
fn invalid_crls_are_explained() {
    let house = House::new();
    let is_critical = |why: &UnusableCrl| matches!(why, UnusableCrl::CriticalExtension(_));
    let is_delta = |why: &UnusableCrl| matches!(why, UnusableCrl::Delta(_));
    for (other, critical, delta) in [(UNKNOWN_CRITICAL, true, false), (DELTA, false, true)] {
        let pem = house.odd(&[2], &[], 1).pem(other);
        let why = Crl::read_all(pem.as_bytes()).unwrap_err();
        let UnusableCrl::At { source, .. } = &why else {
            panic!("{why}");
        };
        assert_eq!(
            (is_critical(source), is_delta(source)),
            (critical, delta),
            "{why}"
        );
        assert!(!why.is_malformed(), "{why}");
    }
    let big = house.odd(&[7; 20], &[], 1).pem(NONE);
    let crl = Crl::read_all(big.as_bytes()).unwrap().remove(0);
    assert_eq!(
        crl.status().numbered(),
        format!("number 0x{}", "07".repeat(20))
    );
}
