//! A renewal ends the previous certificate after a short overlap, and no holder has more than a
//! few.

use std::time::Duration;

use lizmon_ca::authority::{
    Authority, Enrolled, IssuanceError, OVERLAP, RENEWED_VALID_MAX, RenewalError, Request,
    SUPERSEDED_INTERVAL,
};
use lizmon_ca::ledger::{CertState, Entry};
use lizmon_ca::pki::Reason;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::Role;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

use crate::sandbox::{DAY, NOW, new_ca_at, signing_request};

const LATER: u64 = NOW + OVERLAP.as_secs();

struct TestCa {
    _dir: TempDir,
    ca: Authority,
}

impl TestCa {
    fn new() -> Self {
        let (dir, _, ca) = new_ca_at(NOW - 60 * DAY);
        Self { _dir: dir, ca }
    }

    fn issue(&self, name: &str, now: u64) -> Identity {
        let request = Request::new(Role::Node, name.parse().unwrap());
        let issued = self.ca.issue(request, now).unwrap();
        let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
        Identity::from_der(&der).unwrap()
    }

    fn renew(&self, current: &Identity, now: u64) -> Identity {
        shown(&self.renew_key(current, &key(), now))
    }

    fn renew_key(&self, current: &Identity, key: &KeyPair, now: u64) -> Enrolled {
        self.ca.renew(current, &signing_request(key), now).unwrap()
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

    /// What the issuing CA's CRL lists.
    fn listed(&self) -> Vec<String> {
        let crl = std::fs::read(&self.ca.files().crl).unwrap();
        let items = inspect(&crl).unwrap().into_iter();
        let revoked = items.flat_map(|item| match item {
            Item::Crl { revoked, .. } => revoked,
            other => panic!("{other:?}"),
        });
        revoked.map(|entry| entry.serial).collect()
    }

    /// How many certificates of the name are valid.
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

fn shown(enrolled: &Enrolled) -> Identity {
    Identity::from_der(&enrolled.der).unwrap()
}

#[test]
fn a_certificate_ends_after_its_successor_was_in_use_for_the_overlap() {
    let fixture = TestCa::new();
    let first = fixture.issue("web1", NOW - 60 * DAY);
    let second = fixture.renew(&first, NOW);
    // The new one was lost in a crash, for a month: the holder has only the old one.
    fixture.ca.revoke_superseded(NOW + 25 * DAY).unwrap();
    assert!(fixture.is_valid(&first));

    fixture.ca.record_use(&second, NOW).unwrap();
    fixture.ca.revoke_superseded(LATER - 1).unwrap();
    assert!(fixture.is_valid(&first) && fixture.listed().is_empty());
    let done = fixture.ca.revoke_superseded(LATER).unwrap();
    assert_eq!(done.crls.len(), 1);
    assert_eq!(fixture.listed(), [hex(&first)]);
    assert_eq!(fixture.entry(&first).revoked_reason, Some(4));
    assert!(fixture.is_valid(&second));
    // It cannot renew any more; its successor can.
    let refused = fixture.ca.renew(&first, &signing_request(&key()), LATER);
    assert!(
        matches!(refused, Err(IssuanceError::Renewal(RenewalError::Revoked))),
        "{refused:?}"
    );
    let third = fixture.renew(&second, LATER);
    // Nothing to do, so nothing is signed.
    assert!(fixture.ca.revoke_superseded(LATER).unwrap().crls.is_empty());
    // A renewal shows the certificate too.
    fixture.renew(&third, LATER);
    fixture
        .ca
        .revoke_superseded(LATER + OVERLAP.as_secs())
        .unwrap();
    assert!(!fixture.is_valid(&second) && fixture.is_valid(&third));
    // It leaves the CRL a day after its end.
    let over = fixture.entry(&first).not_after + DAY + 1;
    fixture.ca.sign_crls(None, over).unwrap();
    assert!(!fixture.listed().contains(&hex(&first)));
    fixture.ca.verify_audit(None).unwrap();
}

#[test]
fn one_crl_is_signed_for_all_superseded_certificates() {
    let fixture = TestCa::new();
    let first: Vec<_> = (0..20)
        .map(|at| fixture.issue(&format!("web{at}"), NOW))
        .collect();
    for one in &first {
        fixture
            .ca
            .record_use(&fixture.renew(one, NOW), NOW)
            .unwrap();
    }
    let done = fixture.ca.revoke_superseded(LATER).unwrap();
    assert_eq!((done.revoked.len(), done.crls.len()), (20, 1));
    assert_eq!(fixture.listed().len(), 20);
}

#[test]
fn an_unused_renewal_ends_with_the_next() {
    let fixture = TestCa::new();
    let first = fixture.issue("web1", NOW);
    let lost = fixture.renew(&first, NOW);
    // As long as there is no other, it may still be used.
    fixture.ca.revoke_superseded(LATER).unwrap();
    assert!(fixture.is_valid(&lost));
    let next = fixture.renew(&first, LATER);
    fixture.ca.revoke_superseded(LATER).unwrap();
    assert!(!fixture.is_valid(&lost) && fixture.is_valid(&next) && fixture.is_valid(&first));

    // The reverse: the later of two is the one that was lost.
    let first = fixture.issue("web2", NOW);
    let (used, lost) = (fixture.renew(&first, NOW), fixture.renew(&first, NOW));
    fixture.ca.record_use(&used, NOW).unwrap();
    fixture.ca.revoke_superseded(LATER).unwrap();
    assert!(fixture.is_valid(&used) && !fixture.is_valid(&lost) && !fixture.is_valid(&first));

    // Two machines with one certificate, each with its own renewal.
    let first = fixture.issue("web3", NOW);
    let both = [fixture.renew(&first, NOW), fixture.renew(&first, NOW)];
    for one in &both {
        fixture.ca.record_use(one, NOW).unwrap();
    }
    fixture.ca.revoke_superseded(LATER).unwrap();
    assert!(both.iter().all(|one| fixture.is_valid(one)));
    fixture.ca.verify_audit(None).unwrap();
}

/// One node got thirty valid certificates at once.
#[test]
fn a_holder_has_few_valid_certificates_at_a_time() {
    // From the first one repeatedly, or each from the previous one, in use or not.
    for (from_the_last, in_use) in [(false, false), (false, true), (true, false), (true, true)] {
        let fixture = TestCa::new();
        let first = fixture.issue("web1", NOW);
        fixture.issue("web2", NOW);
        let mut all = vec![first.clone()];
        let mut refused = 0;
        for minute in 0..240 {
            let now = NOW + minute * 60;
            let current = if from_the_last {
                all.last().unwrap()
            } else {
                &first
            };
            match fixture.ca.renew(current, &signing_request(&key()), now) {
                Ok(next) => {
                    let next = shown(&next);
                    if in_use {
                        fixture.ca.record_use(&next, now).unwrap();
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
                // The first one ends when its successor was used.
                Err(IssuanceError::Renewal(RenewalError::Revoked)) => break,
                Err(other) => panic!("{other:?}"),
            }
            if minute % 10 == 0 {
                fixture.ca.revoke_superseded(now).unwrap();
            }
            // The first one, the one that is shown, and the others.
            assert!(fixture.valid("web1", now) <= RENEWED_VALID_MAX + 2);
        }
        assert!(refused > 10, "{from_the_last} {in_use}");
        // Other holders are not affected.
        let web2 = fixture.issue("web2", NOW);
        fixture.renew(&web2, NOW);
        fixture.ca.verify_audit(None).unwrap();
    }
}

#[test]
fn a_holder_that_waited_for_retry_after_is_renewed() {
    let fixture = TestCa::new();
    let first = fixture.issue("web1", NOW);
    for _ in 0..RENEWED_VALID_MAX {
        fixture.renew(&first, NOW);
    }
    let refused = fixture.ca.renew(&first, &signing_request(&key()), NOW + 60);
    let Err(IssuanceError::Renewal(RenewalError::TooMany { wait, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        wait,
        OVERLAP - Duration::from_secs(60) + SUPERSEDED_INTERVAL
    );
    fixture.ca.revoke_superseded(LATER).unwrap();
    fixture.renew(&first, LATER);
    // The clock was ahead when the others were issued: they do not block until then.
    let first = fixture.issue("web2", NOW);
    for _ in 0..RENEWED_VALID_MAX {
        fixture.renew(&first, NOW + 20 * DAY);
    }
    fixture.ca.revoke_superseded(NOW).unwrap();
    fixture.renew(&first, NOW);
}

/// A holder with two certificates requested one key with each of them, and got two.
#[test]
fn a_key_gets_one_certificate_whatever_is_shown() {
    let fixture = TestCa::new();
    let (one, two) = (fixture.issue("web1", NOW), fixture.issue("web1", NOW));
    let key = key();
    let renew = |current: &Identity, now| fixture.renew_key(current, &key, now);
    let given = renew(&one, NOW);
    for current in [&two, &one, &shown(&given)] {
        let again = renew(current, NOW + DAY / 48);
        assert!(again.again && again.der == given.der);
    }
    // Not another holder, not another key, and not a certificate before the one that is shown.
    let other = fixture.issue("web2", NOW);
    assert!(!renew(&other, NOW).again);
    assert!(!fixture.renew_key(&two, &self::key(), NOW).again);
    let later = renew(&shown(&given), LATER);
    assert!(!later.again);
    let latest = renew(&shown(&later), LATER + OVERLAP.as_secs());
    assert!(!latest.again && latest.der != given.der);
    // Nor one that renews a stolen certificate.
    let third = fixture.issue("web3", NOW);
    let fourth = fixture.issue("web3", NOW);
    let stolen = renew(&third, NOW);
    let serial = hex(&third).parse().unwrap();
    fixture
        .ca
        .revoke(&serial, Reason::KeyCompromise, NOW)
        .unwrap();
    assert_ne!(renew(&fourth, NOW).der, stolen.der);
}

#[test]
fn the_same_key_gets_the_same_certificate() {
    let fixture = TestCa::new();
    let first = fixture.issue("web1", NOW);
    let key = key();
    let renew = |current: &Identity, now| fixture.renew_key(current, &key, now);
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
    // A holder that keeps its key has to get a new certificate at some time.
    assert!(!renew(&shown(&given), LATER).again);
    // One that is due for renewal itself, or is revoked, does not count.
    let due = NOW + 61 * DAY;
    let key2 = self::key();
    let web2 = fixture.issue("web2", NOW);
    let given = fixture
        .ca
        .renew(&web2, &signing_request(&key2), NOW)
        .unwrap();
    let late = fixture
        .ca
        .renew(&web2, &signing_request(&key2), due)
        .unwrap();
    assert!(!late.again);
    for serial in [&given.serial, &late.serial] {
        fixture
            .ca
            .revoke(&serial.parse().unwrap(), Reason::Superseded, due)
            .unwrap();
    }
    let anew = fixture
        .ca
        .renew(&web2, &signing_request(&key2), due)
        .unwrap();
    assert!(!anew.again);
    fixture.ca.verify_audit(None).unwrap();
}
