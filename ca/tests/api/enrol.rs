//! Join tokens and renewals: who gets a certificate, and who does not.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use lizmon_ca::Error;
use lizmon_ca::authority::{
    Authority, CaKind, Enrolled, IssuanceError, IssueError, JoinTokenError, KeySource,
    LEAF_LIFETIME, RenewalError, Request, RotateOptions, TOKEN_TTL,
};
use lizmon_ca::ledger::Entry;
use lizmon_ca::pki::{Reason, San};
use lizmon_mtls::identity::Identity;
use lizmon_protocol::enrol::JoinToken;
use lizmon_protocol::name::{Attributes, Role};
use rcgen::KeyPair;
use tempfile::TempDir;
use x509_parser::extensions::GeneralName;

use crate::sandbox::{NOW, new_ca, node_name, signing_request};

struct TestCa {
    _dir: TempDir,
    ca: Authority,
}

impl TestCa {
    fn new() -> Self {
        let (dir, _, ca) = new_ca();
        Self { _dir: dir, ca }
    }

    fn token(&self, name: &str) -> JoinToken {
        self.ca
            .make_join_token(
                Role::Node,
                &node_name(name),
                &[],
                &Attributes::default(),
                TOKEN_TTL,
                NOW,
            )
            .unwrap()
    }

    fn enrol(
        &self,
        token: &JoinToken,
        request: &[u8],
        now: u64,
    ) -> Result<Enrolled, IssuanceError> {
        self.ca.enrol(token.name(), token.as_str(), request, now)
    }

    fn joined(&self, name: &str) -> Enrolled {
        self.enrol(&self.token(name), &request(), NOW).unwrap()
    }

    #[track_caller]
    fn refused(&self, token: &JoinToken, request: &[u8], now: u64, expected: JoinTokenError) {
        match self.enrol(token, request, now) {
            Err(IssuanceError::Token(flaw)) => assert_eq!(flaw, expected),
            other => panic!("{other:?}, expected {expected:?}"),
        }
    }

    #[track_caller]
    fn no_renewal(&self, of: &Enrolled, now: u64, expected: RenewalError) {
        match self.ca.renew(&identity(&of.der), &request(), now) {
            Err(IssuanceError::Renewal(flaw)) => assert_eq!(flaw, expected),
            other => panic!("{other:?}, expected {expected:?}"),
        }
    }

    fn renewed(&self, of: &Enrolled, now: u64) -> Enrolled {
        self.ca.renew(&identity(&of.der), &request(), now).unwrap()
    }
}

fn identity(der: &[u8]) -> Identity {
    Identity::from_der(der).unwrap()
}

/// A signing request of a new key.
fn request() -> Vec<u8> {
    signing_request(&KeyPair::generate().unwrap())
}

/// All but a CA, whose bearer could pose as `liz-ca`.
#[test]
fn every_role_but_a_ca_can_join() {
    let fixture = TestCa::new();
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Ca) {
        let sans = sans(if role.is_server() {
            &["a.example"]
        } else {
            &[]
        });
        let mut attributes = Attributes::default();
        if role == Role::Gateway {
            attributes.hosts.insert("web*".parse().unwrap());
        }
        let token = fixture
            .ca
            .make_join_token(role, &node_name("a"), &sans, &attributes, TOKEN_TTL, NOW)
            .unwrap();
        let got = fixture.enrol(&token, &request(), NOW).unwrap();
        assert_eq!(
            (got.spiffe_id.role, got.spiffe_id.name),
            (role, node_name("a"))
        );
    }
}

fn sans(texts: &[&str]) -> Vec<San> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A request may ask for any name. The certificate has those that the token was made with, and so
/// has the next one.
#[test]
fn a_receiver_gets_the_names_of_its_token() {
    let fixture = TestCa::new();
    let vouched = sans(&["metrics.example", "10.0.0.5"]);
    let token = fixture
        .ca
        .make_join_token(
            Role::Receiver,
            &node_name("rx1"),
            &vouched,
            &Attributes::default(),
            TOKEN_TTL,
            NOW,
        )
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    let wanted = wanted.serialize_request(&key).unwrap();
    let first = fixture.enrol(&token, wanted.der(), NOW).unwrap();
    assert_eq!(
        first.spiffe_id.to_string(),
        "spiffe://lizmon.internal/receiver/rx1"
    );
    assert_eq!(server_names(&first.der), vouched);
    let next = fixture.renewed(&first, NOW + 60);
    assert_eq!(server_names(&next.der), vouched);
    fixture.refused(&token, &request(), NOW + 60, JoinTokenError::Used);
    fixture.ca.verify_audit(None).unwrap();
}

fn server_names(der: &[u8]) -> Vec<San> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    (names.value.general_names.iter())
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.parse().unwrap()),
            GeneralName::IPAddress(bytes) => {
                Some(San::Ip(<[u8; 4]>::try_from(*bytes).unwrap().into()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_token_gives_its_name_one_certificate() {
    let fixture = TestCa::new();
    let token = fixture.token("web1");
    let (first, other) = (request(), request());
    let got = fixture.enrol(&token, &first, NOW + 1).unwrap();
    assert_eq!(
        got.spiffe_id.to_string(),
        "spiffe://lizmon.internal/node/web1"
    );
    assert_eq!(got.not_after, NOW + 1 + 7 * 86_400, "short-lived");
    assert_eq!(identity(&got.der).spiffe_id, got.spiffe_id);
    assert!(!got.again);
    // The response was lost: the same key gets the same certificate, another key nothing.
    let again = fixture.enrol(&token, &first, NOW + 60).unwrap();
    assert_eq!((again.serial, again.der), (got.serial, got.der));
    assert!(again.again);
    fixture.refused(&token, &other, NOW + 60, JoinTokenError::Used);
    // Nothing at all once the token has expired.
    let end = NOW + TOKEN_TTL.as_secs();
    assert!(fixture.enrol(&token, &first, end - 1).is_ok());
    fixture.refused(&token, &first, end, JoinTokenError::Ended);
    let entries = fixture.ca.entries().unwrap();
    assert_eq!(entries.len(), 3, "root, issuing CA, and one leaf");
    assert!(
        entries[2].issued_by.starts_with("join token "),
        "{}",
        entries[2].issued_by
    );
    fixture.ca.verify_audit(None).unwrap();
}

#[test]
fn invalid_tokens_are_refused() {
    let fixture = TestCa::new();
    let (token, other) = (fixture.token("web1"), fixture.token("web2"));
    let secret = token.as_str().rsplit_once('.').unwrap().1;
    let made_up = JoinToken::new(node_name("web1"), [7; 32]);
    fixture.refused(&made_up, &request(), NOW, JoinTokenError::Unknown);
    for (name, text) in [
        ("web1", other.as_str()),
        ("web2", token.as_str()),
        ("Web1", token.as_str()),
        ("web1", secret),
        ("web1", &token.as_str().to_uppercase()),
        ("web1", &format!("{} ", token.as_str())),
        ("web1", ""),
    ] {
        let got = fixture.ca.enrol(&node_name(name), text, &request(), NOW);
        assert!(
            matches!(got, Err(IssuanceError::Token(JoinTokenError::Unknown))),
            "{name} {text}: {got:?}"
        );
    }
    fixture.refused(
        &token,
        &request(),
        NOW + TOKEN_TTL.as_secs(),
        JoinTokenError::Ended,
    );
    // A malformed request does not use up the token.
    let got = fixture.enrol(&token, b"no request", NOW);
    assert!(matches!(got, Err(IssuanceError::Request(_))), "{got:?}");
    assert!(fixture.enrol(&token, &request(), NOW).is_ok());
}

#[test]
fn invalid_token_requests_are_refused() {
    let fixture = TestCa::new();
    fixture.joined("web1");
    let make = |role, name: &str, names: &[&str], ttl| {
        (fixture.ca).make_join_token(
            role,
            &node_name(name),
            &sans(names),
            &Attributes::default(),
            ttl,
            NOW,
        )
    };
    let day = Duration::from_secs(86_400);
    let one = ["a.example"].as_slice();
    for (role, name, names, ttl) in [
        (Role::Receiver, "r1", &[][..], TOKEN_TTL),
        (Role::Receiver, "r1", &["a.example"; 101], TOKEN_TTL),
        (Role::Node, "web2", one, TOKEN_TTL),
        (Role::Summarizer, "s1", one, TOKEN_TTL),
        (Role::Ca, "ca1", one, TOKEN_TTL),
        (Role::Ca, "ca1", &[], TOKEN_TTL),
        (Role::Node, "web2", &[], Duration::ZERO),
        (Role::Node, "web2", &[], 7 * day + Duration::from_secs(1)),
        (Role::Node, "WEB1", &[], TOKEN_TTL),
    ] {
        let made = make(role, name, names, ttl);
        assert!(made.is_err(), "{role} {name} {names:?} {ttl:?}");
    }
    assert!(make(Role::Node, "web2", &[], 7 * day).is_ok());
    assert!(make(Role::Reader, "WEB1", &[], TOKEN_TTL).is_ok());
    // Two names that differ by case, each with a token: the first one to enrol gets it.
    let (small, big) = (fixture.token("db1"), fixture.token("DB1"));
    assert!(fixture.enrol(&small, &request(), NOW).is_ok());
    let got = fixture.enrol(&big, &request(), NOW);
    assert!(
        matches!(
            got,
            Err(IssuanceError::Ca(Error::Issue(
                IssueError::CaseConflict { .. }
            )))
        ),
        "{got:?}"
    );
}

#[test]
fn no_secret_is_in_the_ledger() {
    let fixture = TestCa::new();
    let token = fixture.token("web1");
    let got = fixture.enrol(&token, &request(), NOW).unwrap();
    let secret = token.as_str().rsplit_once('.').unwrap().1;
    for name in ["ledger.db", "ledger.db-wal"] {
        let path = fixture.ca.files().ledger.with_file_name(name);
        let bytes = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(secret), "{name}");
    }
    let log = fixture.ca.audit_log().unwrap();
    assert!(log.iter().any(|line| line.details.contains(&got.serial)));
    assert!(log.iter().all(|line| !line.details.contains(secret)));
}

#[test]
fn a_revocation_ends_tokens_and_what_they_gave() {
    let fixture = TestCa::new();
    let (used, unused) = (fixture.token("web1"), fixture.token("web1"));
    let first = request();
    let old = fixture.enrol(&used, &first, NOW).unwrap();
    fixture
        .ca
        .revoke_holder(Role::Node, &node_name("web1"), Reason::KeyCompromise, NOW)
        .unwrap();
    fixture.refused(&used, &first, NOW, JoinTokenError::Ended);
    fixture.refused(&unused, &request(), NOW, JoinTokenError::Ended);
    fixture.no_renewal(&old, NOW, RenewalError::Revoked);
    // A new certificate readmits the holder; the old one stays revoked.
    let new = fixture.joined("web1");
    assert!(
        fixture
            .ca
            .renew(&identity(&new.der), &request(), NOW)
            .is_ok()
    );
    fixture.no_renewal(&old, NOW, RenewalError::Revoked);
    // Revoking by serial number leaves the token, which does not give the certificate again.
    let token = fixture.token("db1");
    let got = fixture.enrol(&token, &first, NOW).unwrap();
    fixture
        .ca
        .revoke(&got.serial.parse().unwrap(), Reason::Unspecified, NOW)
        .unwrap();
    fixture.refused(&token, &first, NOW, JoinTokenError::CertificateEnded);
    fixture.ca.verify_audit(None).unwrap();
}

#[test]
fn a_certificate_renews_as_the_same_holder() {
    let fixture = TestCa::new();
    let mut request_of_receiver = Request::new(Role::Receiver, node_name("main"));
    request_of_receiver.sans = ["localhost", "192.0.2.7", "2001:db8::7"]
        .map(|san| san.parse().unwrap())
        .to_vec();
    request_of_receiver.key = KeySource::Csr(request());
    let issued = fixture.ca.issue(request_of_receiver, NOW).unwrap();
    let first = fixture.ca.entries().unwrap().pop().unwrap();
    assert_eq!(first.serial, issued.serial.to_string());
    let (_, pem) = x509_parser::pem::parse_x509_pem(first.pem.as_bytes()).unwrap();
    let got = fixture
        .ca
        .renew(&identity(&pem.contents), &request(), NOW)
        .unwrap();
    assert_eq!(got.spiffe_id, issued.spiffe_id);
    assert_eq!(got.not_after, issued.validity.not_after, "as long again");
    let names = |der: &[u8]| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        format!("{:?}", names.value.general_names)
    };
    assert_eq!(names(&got.der), names(&pem.contents));
    let entry = fixture.ca.entries().unwrap().pop().unwrap();
    assert_eq!(entry.renews, Some(first.serial));
    fixture.ca.verify_audit(None).unwrap();
}

/// A holder with 90 days does not become one with a week, nor the reverse; a lifetime that the end
/// of the issuing CA cut short does not count.
#[test]
fn a_renewal_keeps_the_lifetime() {
    let fixture = TestCa::new();
    let end = fixture.ca.issuing_validity().not_after;
    let der_of = |entry: &Entry| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(entry.pem.as_bytes()).unwrap();
        pem.contents
    };
    for (role, days) in [
        (Role::Reader, 90),
        (Role::Operator, 90),
        (Role::Node, 90),
        (Role::Node, 1),
        (Role::Reader, 200),
        (Role::Summarizer, 90),
    ] {
        let name = node_name(&format!("{role}{days}"));
        let request = Request {
            lifetime: Duration::from_secs(days * 86_400),
            key: KeySource::Csr(self::request()),
            ..Request::new(role, name)
        };
        fixture.ca.issue(request, NOW).unwrap();
        let mut now = NOW;
        let mut der = der_of(fixture.ca.entries().unwrap().last().unwrap());
        for _ in 0..8 {
            now += days * 86_400 / 3 * 2;
            let Ok(next) = fixture.ca.renew(&identity(&der), &self::request(), now) else {
                assert!(now >= end, "{role} {days}");
                break;
            };
            let expected = (now + days * 86_400).min(end);
            assert_eq!(next.not_after, expected, "{role} {days}");
            der = next.der.to_vec();
        }
    }
}

/// The first and the second certificate of a holder were both cut short by their CA's end.
#[test]
fn a_shortened_lifetime_is_restored_below_the_next_ca() {
    let mut fixture = TestCa::new();
    let end = fixture.ca.issuing_validity().not_after;
    let near = end - 86_400;
    let joined = fixture.joined("web1");
    let week = LEAF_LIFETIME.as_secs();
    let of_node = fixture
        .ca
        .renew(&identity(&joined.der), &request(), NOW + week);
    assert_eq!(of_node.unwrap().not_after, NOW + 2 * week);
    let person = Request {
        key: KeySource::Csr(request()),
        ..Request::new(Role::Reader, node_name("ada"))
    };
    fixture.ca.issue(person, near).unwrap();
    let entry = fixture.ca.entries().unwrap().pop().unwrap();
    assert_eq!(entry.not_after, end);
    let options = RotateOptions::default();
    for _ in ["publish", "use"] {
        fixture
            .ca
            .rotate_next(CaKind::Issuing, &options, near)
            .unwrap();
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(entry.pem.as_bytes()).unwrap();
    let next = fixture.ca.renew(&identity(&pem.contents), &request(), near);
    assert_eq!(next.unwrap().not_after, near + 90 * 86_400);
}

#[test]
fn certificates_that_cannot_be_renewed() {
    let (fixture, other) = (TestCa::new(), TestCa::new());
    let got = fixture.joined("web1");
    fixture.no_renewal(&other.joined("web1"), NOW, RenewalError::Unknown);
    fixture.no_renewal(&got, got.not_after + 1, RenewalError::NotValidNow);
    fixture.no_renewal(&got, NOW - 301, RenewalError::NotValidNow);
    assert!(
        fixture
            .ca
            .renew(&identity(&got.der), b"no request", NOW)
            .is_err()
    );
    // A serial number from the ledger, on a foreign certificate.
    let mut forged = identity(&other.joined("web1").der);
    forged.serial = identity(&got.der).serial;
    let refused = fixture.ca.renew(&forged, &request(), NOW);
    assert!(matches!(
        refused,
        Err(IssuanceError::Renewal(RenewalError::Unknown))
    ));
    assert!(
        fixture
            .ca
            .renew(&identity(&got.der), &request(), got.not_after)
            .is_ok()
    );
}

/// A thief of a key renews before the revocation: the result cannot renew either.
#[test]
fn a_revoked_certificate_ends_its_renewals() {
    for (reason, spoils) in [(Reason::KeyCompromise, true), (Reason::Superseded, false)] {
        let fixture = TestCa::new();
        let first = fixture.joined("web1");
        let second = fixture.renewed(&first, NOW);
        let third = fixture.renewed(&second, NOW);
        fixture
            .ca
            .revoke(&first.serial.parse().unwrap(), reason, NOW)
            .unwrap();
        fixture.no_renewal(&first, NOW, RenewalError::Revoked);
        for follower in [&second, &third] {
            if spoils {
                fixture.no_renewal(follower, NOW, RenewalError::Revoked);
            } else {
                fixture.renewed(follower, NOW);
            }
        }
    }
}

/// A client renews in a tight loop while the holder is revoked: no certificate of it is valid once
/// the revocation has returned. Several CAs in parallel, because most of the time is spent syncing.
#[test]
fn nothing_slips_past_a_revocation() {
    const PARALLEL_CAS: usize = 8;
    const ROUNDS: usize = 125;
    let renewed: usize = std::thread::scope(|scope| {
        let cas: Vec<_> = (0..PARALLEL_CAS)
            .map(|_| scope.spawn(|| rounds_of_revocation(ROUNDS)))
            .collect();
        cas.into_iter().map(|fixture| fixture.join().unwrap()).sum()
    });
    println!(
        "{} revocations, {renewed} renewals before them, none after",
        PARALLEL_CAS * ROUNDS
    );
}

/// Returns how many renewals succeeded before a revocation.
fn rounds_of_revocation(rounds: usize) -> usize {
    let fixture = TestCa::new();
    for round in 0..rounds {
        let first = fixture.joined(&format!("web{round}"));
        let (renewals, revoked) = (AtomicUsize::new(0), AtomicBool::new(false));
        let late = std::thread::scope(|scope| {
            let renewing =
                scope.spawn(|| renew_until_refused(&fixture, &first, &renewals, &revoked));
            // So that a renewal is in progress that could get past.
            while renewals.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            let name = &first.spiffe_id.name;
            let done = fixture
                .ca
                .revoke_holder(Role::Node, name, Reason::Unspecified, NOW);
            revoked.store(true, SeqCst);
            assert!(done.unwrap().revoked.len() >= 2, "round {round}");
            renewing.join().unwrap()
        });
        assert!(late.is_empty(), "round {round}: {late:?}");
    }
    let entries = fixture.ca.entries().unwrap();
    let leaves = entries.iter().filter(|entry| entry.name.starts_with("web"));
    assert!(leaves.clone().all(|entry| !entry.is_live(NOW)));
    leaves.filter(|entry| entry.renews.is_some()).count()
}

/// What a renewal got that started after the revocation had returned.
fn renew_until_refused(
    fixture: &TestCa,
    first: &Enrolled,
    renewals: &AtomicUsize,
    revoked: &AtomicBool,
) -> Vec<Enrolled> {
    let (mut last, mut late) = (first.clone(), Vec::new());
    loop {
        let was_revoked = revoked.load(SeqCst);
        match fixture.ca.renew(&identity(&last.der), &request(), NOW) {
            Ok(next) if was_revoked => late.push(next),
            Ok(next) => {
                last = next;
                renewals.fetch_add(1, SeqCst);
            }
            Err(_) if was_revoked => return late,
            Err(_) => {}
        }
    }
}
