//! A renewal ends the certificate before it after a short overlap, and no holder has more than a few.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use lizmon_ca::authority::{
    Authority, Enrolled, InitOptions, IssuanceError, OVERLAP, RENEWED_VALID_MAX, RenewalError,
    Request, SUPERSEDED_INTERVAL,
};
use lizmon_ca::ledger::{CertState, Entry};
use lizmon_ca::pki::Reason;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::Role;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;
const LATER: u64 = NOW + OVERLAP.as_secs();
const DAY: u64 = 86_400;

struct House {
    _dir: TempDir,
    ca: Authority,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::init(
            &dir.path().join("certs"),
            &InitOptions::default(),
            NOW - 60 * DAY,
        )
        .unwrap();
        Self { _dir: dir, ca }
    }

    fn issue(&self, name: &str, now: u64) -> Identity {
        let request = Request::new(Role::Node, name.parse().unwrap());
        let issued = self.ca.issue(request, now).unwrap();
        let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
        Identity::from_der(&der).unwrap()
    }

    fn renew(&self, current: &Identity, now: u64) -> Identity {
        shown(&self.ca.renew(current, &request(&key()), now).unwrap())
    }

    fn entry(&self, of: &Identity) -> Entry {
        let serial = hex(of);
        let entries = self.ca.entries().unwrap();
        entries
            .into_iter()
            .find(|entry| entry.serial == serial)
            .unwrap()
    }

    fn is_valid(&self, of: &Identity) -> bool {
        self.entry(of).state == CertState::Valid
    }

    /// What the issuing CA's list names.
    fn on_the_list(&self) -> Vec<String> {
        let crl = std::fs::read(&self.ca.files().crl).unwrap();
        let items = inspect(&crl).unwrap().into_iter();
        let revoked = items.flat_map(|item| match item {
            Item::Crl { revoked, .. } => revoked,
            other => panic!("{other:?}"),
        });
        revoked.map(|entry| entry.serial).collect()
    }

    /// How many certificates of the name count.
    fn valid(&self, name: &str, now: u64) -> usize {
        let entries = self.ca.entries().unwrap();
        entries
            .iter()
            .filter(|entry| entry.name == name && entry.is_live(now))
            .count()
    }
}

fn hex(of: &Identity) -> String {
    of.serial_hex()
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn request(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    request.der().to_vec()
}

fn shown(enrolled: &Enrolled) -> Identity {
    Identity::from_der(&enrolled.der).unwrap()
}

#[test]
fn the_one_before_ends_when_the_new_one_has_been_in_use_for_the_overlap() {
    let house = House::new();
    let first = house.issue("web1", NOW - 60 * DAY);
    let second = house.renew(&first, NOW);
    // Lost in a crash, for a month: the old one is all that the holder has.
    house.ca.revoke_superseded(NOW + 25 * DAY).unwrap();
    assert!(house.is_valid(&first));

    house.ca.record_use(&second, NOW).unwrap();
    house.ca.revoke_superseded(LATER - 1).unwrap();
    assert!(house.is_valid(&first) && house.on_the_list().is_empty());
    let done = house.ca.revoke_superseded(LATER).unwrap();
    assert_eq!(done.crls.len(), 1);
    assert_eq!(house.on_the_list(), [hex(&first)]);
    assert_eq!(house.entry(&first).revoked_reason, Some(4));
    assert!(house.is_valid(&second));
    // It does not renew any more; what came of it does.
    let refused = house.ca.renew(&first, &request(&key()), LATER);
    assert!(
        matches!(refused, Err(IssuanceError::Renewal(RenewalError::Revoked))),
        "{refused:?}"
    );
    let third = house.renew(&second, LATER);
    // Nothing to do, nothing signed.
    assert!(house.ca.revoke_superseded(LATER).unwrap().crls.is_empty());
    // A renewal shows the certificate too.
    house.renew(&third, LATER);
    house
        .ca
        .revoke_superseded(LATER + OVERLAP.as_secs())
        .unwrap();
    assert!(!house.is_valid(&second) && house.is_valid(&third));
    // It leaves the list a day after its end.
    let over = house.entry(&first).not_after + DAY + 1;
    house.ca.sign_crls(None, over).unwrap();
    assert!(!house.on_the_list().contains(&hex(&first)));
    house.ca.verify_audit(None).unwrap();
}

#[test]
fn one_list_is_signed_for_all_that_were_replaced() {
    let house = House::new();
    let first: Vec<_> = (0..20)
        .map(|at| house.issue(&format!("web{at}"), NOW))
        .collect();
    for one in &first {
        house.ca.record_use(&house.renew(one, NOW), NOW).unwrap();
    }
    let done = house.ca.revoke_superseded(LATER).unwrap();
    assert_eq!((done.revoked.len(), done.crls.len()), (20, 1));
    assert_eq!(house.on_the_list().len(), 20);
}

#[test]
fn a_renewal_that_was_never_used_ends_with_the_next() {
    let house = House::new();
    let first = house.issue("web1", NOW);
    let lost = house.renew(&first, NOW);
    // As long as there is no other, it may yet be used.
    house.ca.revoke_superseded(LATER).unwrap();
    assert!(house.is_valid(&lost));
    let next = house.renew(&first, LATER);
    house.ca.revoke_superseded(LATER).unwrap();
    assert!(!house.is_valid(&lost) && house.is_valid(&next) && house.is_valid(&first));

    // The other way round: the later of two is the one that was lost.
    let first = house.issue("web2", NOW);
    let (used, lost) = (house.renew(&first, NOW), house.renew(&first, NOW));
    house.ca.record_use(&used, NOW).unwrap();
    house.ca.revoke_superseded(LATER).unwrap();
    assert!(house.is_valid(&used) && !house.is_valid(&lost) && !house.is_valid(&first));

    // Two machines that use one certificate, and each its own renewal of it.
    let first = house.issue("web3", NOW);
    let both = [house.renew(&first, NOW), house.renew(&first, NOW)];
    for one in &both {
        house.ca.record_use(one, NOW).unwrap();
    }
    house.ca.revoke_superseded(LATER).unwrap();
    assert!(both.iter().all(|one| house.is_valid(one)));
    house.ca.verify_audit(None).unwrap();
}

/// One node was given thirty valid certificates at once.
#[test]
fn there_are_few_valid_ones_a_holder_at_a_time() {
    // From the first again and again, or from each the next, in use or not.
    for (from_the_last, in_use) in [(false, false), (false, true), (true, false), (true, true)] {
        let house = House::new();
        let first = house.issue("web1", NOW);
        house.issue("web2", NOW);
        let mut all = vec![first.clone()];
        let mut refused = 0;
        for minute in 0..240 {
            let now = NOW + minute * 60;
            let current = if from_the_last {
                all.last().unwrap()
            } else {
                &first
            };
            match house.ca.renew(current, &request(&key()), now) {
                Ok(next) => {
                    let next = shown(&next);
                    if in_use {
                        house.ca.record_use(&next, now).unwrap();
                    }
                    all.push(next);
                }
                Err(IssuanceError::Renewal(RenewalError::TooMany { valid, wait })) => {
                    assert!(
                        valid >= RENEWED_VALID_MAX
                            && wait > Duration::ZERO
                            && wait <= OVERLAP + SUPERSEDED_INTERVAL
                    );
                    refused += 1;
                }
                // The first ends when what came of it was used.
                Err(IssuanceError::Renewal(RenewalError::Revoked)) => break,
                Err(other) => panic!("{other:?}"),
            }
            if minute % 10 == 0 {
                house.ca.revoke_superseded(now).unwrap();
            }
            // The first, the one that is shown, and the others.
            assert!(house.valid("web1", now) <= RENEWED_VALID_MAX + 2);
        }
        assert!(refused > 10, "{from_the_last} {in_use}");
        // Nobody else is concerned.
        let web2 = house.issue("web2", NOW);
        house.renew(&web2, NOW);
        house.ca.verify_audit(None).unwrap();
    }
}

#[test]
fn a_holder_that_was_told_to_wait_gets_one_then() {
    let house = House::new();
    let first = house.issue("web1", NOW);
    for _ in 0..RENEWED_VALID_MAX {
        house.renew(&first, NOW);
    }
    let refused = house.ca.renew(&first, &request(&key()), NOW + 60);
    let Err(IssuanceError::Renewal(RenewalError::TooMany { wait, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        wait,
        OVERLAP - Duration::from_secs(60) + SUPERSEDED_INTERVAL
    );
    house.ca.revoke_superseded(LATER).unwrap();
    house.renew(&first, LATER);
    // The clock was ahead when the others were given: they do not stand in the way until then.
    let first = house.issue("web2", NOW);
    for _ in 0..RENEWED_VALID_MAX {
        house.renew(&first, NOW + 20 * DAY);
    }
    house.ca.revoke_superseded(NOW).unwrap();
    house.renew(&first, NOW);
}

/// A holder with two certificates asked by each of them for one key, and was given two.
#[test]
fn a_key_is_given_one_certificate_whatever_is_shown() {
    let house = House::new();
    let (one, two) = (house.issue("web1", NOW), house.issue("web1", NOW));
    let key = key();
    let renew = |current: &Identity, now| house.ca.renew(current, &request(&key), now).unwrap();
    let given = renew(&one, NOW);
    for current in [&two, &one, &shown(&given)] {
        let again = renew(current, NOW + DAY / 48);
        assert!(again.again && again.der == given.der);
    }
    // Not another holder, not another key, and not what came before the one that is shown.
    let other = house.issue("web2", NOW);
    assert!(!renew(&other, NOW).again);
    assert!(
        !house
            .ca
            .renew(&two, &request(&self::key()), NOW)
            .unwrap()
            .again
    );
    let later = renew(&shown(&given), LATER);
    assert!(!later.again);
    let latest = renew(&shown(&later), LATER + OVERLAP.as_secs());
    assert!(!latest.again && latest.der != given.der);
    // Nor one that follows a certificate which was stolen.
    let third = house.issue("web3", NOW);
    let fourth = house.issue("web3", NOW);
    let stolen = renew(&third, NOW);
    let serial = hex(&third).parse().unwrap();
    house
        .ca
        .revoke(&serial, Reason::KeyCompromise, NOW)
        .unwrap();
    assert_ne!(renew(&fourth, NOW).der, stolen.der);
}

#[test]
fn the_same_key_is_given_the_same_certificate() {
    let house = House::new();
    let first = house.issue("web1", NOW);
    let key = key();
    let renew = |current: &Identity, now| house.ca.renew(current, &request(&key), now).unwrap();
    let given = renew(&first, NOW);
    assert!(!given.again);
    for (current, now) in [
        (&first, NOW),
        (&first, NOW + 4 * DAY),
        (&shown(&given), NOW),
        (&shown(&given), LATER - 1),
    ] {
        let again = renew(current, now);
        assert!(again.again && again.der == given.der, "{now}");
    }
    // Who keeps its key has to get a new one at some time.
    assert!(!renew(&shown(&given), LATER).again);
    // One that is due for renewal itself, or is revoked, is no answer.
    let due = NOW + 61 * DAY;
    let key2 = self::key();
    let web2 = house.issue("web2", NOW);
    let given = house.ca.renew(&web2, &request(&key2), NOW).unwrap();
    let late = house.ca.renew(&web2, &request(&key2), due).unwrap();
    assert!(!late.again);
    for serial in [&given.serial, &late.serial] {
        house
            .ca
            .revoke(&serial.parse().unwrap(), Reason::Superseded, due)
            .unwrap();
    }
    let anew = house.ca.renew(&web2, &request(&key2), due).unwrap();
    assert!(!anew.again);
    house.ca.verify_audit(None).unwrap();
}
