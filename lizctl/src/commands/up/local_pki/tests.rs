use std::net::Ipv4Addr;

use lizmon_ca::authority::{CaKind, Stage};

use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

#[test]
fn host_names_become_node_names() {
    let long = "a".repeat(300);
    for (host_name, expected) in [
        ("web1", "web1"),
        ("web1.example", "web1.example"),
        ("Ada’s Laptop", "Ada-s-Laptop"),
        ("-web", "web"),
        ("über", "ber"),
        ("", "localhost"),
        ("web1.example.", "web1.example"),
        (&long[..64], &long[..64]),
        ("my host", "my-host"),
        ("under_score", "under_score"),
        ("::1", "1"),
        ("…", "localhost"),
        (&long, &long[..200]),
    ] {
        assert_eq!(node_name(host_name).unwrap().as_str(), expected);
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    pki: LocalPki,
}

fn fixture() -> Fixture {
    fixture_at(NOW)
}

fn fixture_at(now: u64) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let pki = LocalPki {
        ca: CaFiles::new(&certs),
        certs,
        unlock: Unlock::default(),
        host: "web1".parse().unwrap(),
        local: LOCAL_NAME.parse().unwrap(),
        receiver_sans: vec![San::Dns("localhost".into())],
    };
    pki.maintain(MaintenanceMode::BeforeStart, now).unwrap();
    Fixture { _dir: dir, pki }
}

fn leaves(pki: &LocalPki) -> [PathBuf; 3] {
    [pki.trust_files().cert, pki.node().cert, pki.reader().cert]
}

/// Which of receiver, node and reader are issued again by a second run.
fn check(
    fixture: &mut Fixture,
    later: u64,
    expected: [bool; 3],
    change: impl FnOnce(&mut LocalPki),
) {
    let read = |pki: &LocalPki| leaves(pki).map(|path| std::fs::read(path).unwrap_or_default());
    let before = read(&fixture.pki);
    change(&mut fixture.pki);
    fixture
        .pki
        .maintain(MaintenanceMode::BeforeStart, NOW + later)
        .unwrap();
    let after = read(&fixture.pki);
    let anew = [0, 1, 2].map(|at| before[at] != after[at]);
    assert_eq!(anew, expected);
    for credentials in [fixture.pki.node(), fixture.pki.reader()] {
        let url = "https://localhost".parse().unwrap();
        lizmon_client::Client::new(url, &credentials, NOW + later).unwrap();
    }
}

#[test]
fn certificates_in_their_first_two_thirds_are_kept() {
    check(&mut fixture(), 0, [false; 3], |_| ());
    check(&mut fixture(), 59 * DAY, [false; 3], |_| ());
}

#[test]
fn certificates_past_two_thirds_of_their_lifetime_are_renewed() {
    check(&mut fixture(), 60 * DAY + 1, [true; 3], |_| ());
}

#[test]
fn missing_damaged_or_mismatched_files_are_issued_again() {
    check(&mut fixture(), 0, [false, true, false], |pki| {
        std::fs::remove_file(pki.node().key).unwrap();
    });
    check(&mut fixture(), 0, [false, false, true], |pki| {
        std::fs::write(pki.reader().cert, "x").unwrap();
    });
    check(&mut fixture(), 0, [true, false, false], |pki| {
        std::fs::copy(pki.node().key, pki.trust_files().key).unwrap();
    });
}

#[test]
fn a_new_name_of_the_receiver_needs_a_new_certificate() {
    check(&mut fixture(), 0, [true, false, false], |pki| {
        pki.receiver_sans
            .push(San::Ip(Ipv4Addr::new(192, 0, 2, 1).into()));
    });
}

#[test]
fn a_revoked_certificate_is_replaced() {
    check(&mut fixture(), 0, [false, true, false], |pki| {
        let authority = Authority::open(&pki.certs, NOW).unwrap();
        let entries = authority.entries().unwrap();
        let node = entries.iter().find(|entry| entry.name == "web1").unwrap();
        let serial = node.serial.parse().unwrap();
        authority
            .revoke(&serial, "superseded".parse().unwrap(), NOW)
            .unwrap();
    });
}

#[test]
fn crls_are_signed_again_past_half_their_lifetime() {
    let fixture = fixture();
    let crl = || std::fs::read(&fixture.pki.ca.crl).unwrap();
    let first = crl();
    fixture
        .pki
        .maintain(MaintenanceMode::WhileRunning, NOW + 14 * DAY)
        .unwrap();
    assert_eq!(crl(), first);
    fixture
        .pki
        .maintain(MaintenanceMode::WhileRunning, NOW + 16 * DAY)
        .unwrap();
    assert_ne!(crl(), first);
}

fn issuing(pki: &LocalPki) -> Vec<u8> {
    std::fs::read(&pki.ca.issuing_certificate).unwrap()
}

fn root(pki: &LocalPki) -> Vec<u8> {
    std::fs::read(&pki.ca.root_certificate).unwrap()
}

/// A folder that was not used for a long time works again.
#[test]
fn an_expiring_ca_is_replaced_at_the_start() {
    for (days, new_issuing, new_root) in [
        (240, false, false),
        (250, true, false),
        (366, true, false),
        (2_400, true, false),
        (2_500, true, true),
        (3_651, true, true),
        (20_000, true, true),
    ] {
        let mut fixture = fixture();
        let before = (issuing(&fixture.pki), root(&fixture.pki));
        check(&mut fixture, days * DAY, [true; 3], |_| ());
        let pki = &fixture.pki;
        assert_eq!(issuing(pki) != before.0, new_issuing, "{days} days");
        assert_eq!(root(pki) != before.1, new_root, "{days} days");
        let authority = Authority::open(&pki.certs, NOW + days * DAY).unwrap();
        let ending = authority.expiry(NOW + days * DAY);
        // A root is not replaced before its own last third, even if the issuing CA is in its last.
        assert!(ending.is_none(), "{days} days: {ending:?}");
        assert_eq!(
            authority.rotation(NOW + days * DAY).unwrap().stage,
            Stage::Steady,
            "{days} days"
        );
        check(&mut fixture, days * DAY + 1, [false; 3], |_| ());
    }
}

/// Running programs must reload the files after each step before the next one.
#[test]
fn an_expiring_ca_is_replaced_step_by_step_while_programs_run() {
    for (days, what) in [(250, CaKind::Issuing), (2_438, CaKind::Root)] {
        let fixture = fixture();
        let pki = &fixture.pki;
        let now = NOW + days * DAY;
        // As if it had run until then, with valid certificates.
        if what == CaKind::Root {
            pki.maintain(MaintenanceMode::BeforeStart, NOW + 2_400 * DAY)
                .unwrap();
        }
        pki.maintain(MaintenanceMode::WhileRunning, now - 8 * DAY)
            .unwrap();
        let mut stages = Vec::new();
        for round in 0..5 {
            pki.maintain(MaintenanceMode::WhileRunning, now + round * 600)
                .unwrap();
            let authority = Authority::open(&pki.certs, now + round * 600).unwrap();
            stages.push(authority.rotation(now + round * 600).unwrap().stage);
            for credentials in [pki.node(), pki.reader()] {
                let url = "https://localhost".parse().unwrap();
                lizmon_client::Client::new(url, &credentials, now + round * 600).unwrap();
            }
        }
        let expected = [
            Stage::Published,
            Stage::InUse,
            Stage::Steady,
            Stage::Steady,
            Stage::Steady,
        ];
        assert_eq!(stages, expected, "{what}");
    }
}

/// Other holders would need to be informed of each step: nothing is replaced while their
/// certificates are valid.
#[test]
fn a_ca_with_other_holders_is_replaced_only_after_it_expired() {
    let mut fixture = fixture();
    let before = issuing(&fixture.pki);
    let authority = Authority::open(&fixture.pki.certs, NOW).unwrap();
    let other = Request::new(Role::Node, "web9".parse().unwrap());
    authority.issue(other, NOW + 240 * DAY).unwrap();
    check(&mut fixture, 250 * DAY, [true; 3], |_| ());
    assert_eq!(issuing(&fixture.pki), before);
    check(&mut fixture, 366 * DAY, [true; 3], |_| ());
    assert_ne!(issuing(&fixture.pki), before);
}

/// A machine without a hardware clock creates its CA in 2036 and learns the right time later, or
/// the other way round.
#[test]
fn a_ca_that_was_created_with_a_wrong_clock_is_replaced() {
    for (made, now) in [
        (NOW + 3_650 * DAY, NOW),
        (NOW + DAY, NOW),
        (86_400, NOW),
        (NOW, 86_400),
    ] {
        let fixture = fixture_at(made);
        let pki = &fixture.pki;
        pki.maintain(MaintenanceMode::BeforeStart, now).unwrap();
        let authority = Authority::open(&pki.certs, now).unwrap();
        assert_eq!(authority.rotation(now).unwrap().stage, Stage::Steady);
        for credentials in [pki.node(), pki.reader()] {
            let url = "https://localhost".parse().unwrap();
            lizmon_client::Client::new(url, &credentials, now).unwrap();
        }
    }
}

#[test]
fn certificates_that_are_not_valid_yet_are_issued_again() {
    let mut fixture = fixture();
    fixture
        .pki
        .maintain(MaintenanceMode::BeforeStart, NOW + 65 * DAY)
        .unwrap();
    check(&mut fixture, DAY, [true; 3], |_| ());
    check(&mut fixture, DAY, [false; 3], |_| ());
}

/// The case of a host name may change; its certificates are kept.
#[test]
fn the_issued_spelling_of_a_name_is_used() {
    let fixture = fixture();
    let authority = Authority::open(&fixture.pki.certs, NOW).unwrap();
    let entries = authority.entries().unwrap();
    for (called, used) in [
        ("web1", "web1"),
        ("WEB1", "web1"),
        ("Web1", "web1"),
        ("web1.example", "web1.example"),
        ("web", "web"),
        // The name of a receiver is not a node's.
        ("LOCALHOST", "LOCALHOST"),
    ] {
        let mut pki = LocalPki {
            host: called.parse().unwrap(),
            ca: CaFiles::new(&fixture.pki.certs),
            certs: fixture.pki.certs.clone(),
            unlock: Unlock::default(),
            local: LOCAL_NAME.parse().unwrap(),
            receiver_sans: Vec::new(),
        };
        pki.adopt_issued_name(&entries).unwrap();
        assert_eq!(pki.host.as_str(), used, "{called}");
    }
}
