//! What an `Authority` issues and revokes.

use std::path::Path;
use std::time::Duration;

use lizmon_ca::Error;
use lizmon_ca::authority::{
    Authority, CaKind, InitOptions, IssueError, KeySource, Request, RevokeError, RotateOptions,
};
use lizmon_ca::files::LeafFiles;
use lizmon_ca::ledger::CertState;
use lizmon_ca::pki::crl::CRL_LIFETIME_SECS;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::verify::{Verdict, VerifyError};
use lizmon_ca::pki::{DAY_SECS, KeyAlg, Reason, San, Validity};
use lizmon_protocol::name::{NodeName, Role};

use crate::sandbox::{NOW, folder, new_ca, node, node_name, read, snapshot, verify_with};

/// A receiver's judgement of a file, which has the certificate's issuer as well.
fn verify_file(certs: &Path, file: &Path, now: u64) -> Result<Verdict, VerifyError> {
    let (roots, crls) = (read(certs, "root.crt"), read(certs, "crl.pem"));
    verify_with(&roots, &crls, &std::fs::read(file).unwrap(), now)
}

/// Number and end of each CRL, the root's first.
fn crls(certs: &Path) -> Vec<(String, u64)> {
    let items = inspect(&std::fs::read(certs.join("crl.pem")).unwrap()).unwrap();
    let numbered = items.into_iter().map(|item| match item {
        Item::Crl {
            number,
            next_update,
            ..
        } => (number.unwrap(), next_update.unwrap()),
        other => panic!("{other:?}"),
    });
    numbered.collect()
}

#[test]
fn every_role_is_accepted_by_a_receiver_under_its_name() {
    let (_dir, certs, authority) = new_ca();
    let longest = "n".repeat(200);
    for role in Role::ALL {
        for alg in [KeyAlg::P256, KeyAlg::Ed25519] {
            for text in ["web1", "a.b_c-D", longest.as_str()] {
                let mut request = Request::new(role, node_name(text));
                request.key = KeySource::New(alg);
                if role.is_server() {
                    request.sans = vec!["a.example".parse().unwrap(), "::1".parse().unwrap()];
                }
                if role == Role::Gateway {
                    request.attributes.hosts.insert("web*".parse().unwrap());
                }
                let issued = authority.issue(request, NOW).unwrap();
                let verdict = verify_file(&certs, &issued.certificate_path, NOW).unwrap();
                let expected = format!("spiffe://lizmon.internal/{role}/{text}");
                assert_eq!(verdict.spiffe_id.to_string(), expected);
                assert_eq!(verdict.not_after, NOW + 90 * DAY_SECS);
            }
        }
    }
}

#[test]
fn a_certificate_says_what_its_profile_says() {
    let (_dir, certs, authority) = new_ca();
    let mut request = Request::new(Role::Receiver, node_name("metrics"));
    request.sans = ["Metrics.Example", "10.0.0.5"]
        .map(|san| san.parse::<San>().unwrap())
        .to_vec();
    let issued = authority.issue(request, NOW).unwrap();
    let items = inspect(issued.chain_pem.as_bytes()).unwrap();
    let [
        Item::Certificate {
            subject,
            uris,
            names,
            ca,
            path_len,
            key_usage,
            extended_key_usage,
            authority_key_id,
            not_before,
            serial,
            issuer,
            ..
        },
        Item::Certificate {
            subject: ca_subject,
            subject_key_id: ca_key_id,
            ca: true,
            path_len: Some(0),
            key_usage: ca_usage,
            ..
        },
    ] = items.as_slice()
    else {
        panic!("{items:?}");
    };
    assert_eq!(subject, "CN=metrics");
    assert_eq!(uris, &["spiffe://lizmon.internal/receiver/metrics"]);
    assert_eq!(names, &["metrics.example", "10.0.0.5"]);
    assert_eq!((*ca, *path_len), (false, None));
    assert_eq!(key_usage, &["digitalSignature"]);
    assert_eq!(extended_key_usage, &["clientAuth", "serverAuth"]);
    assert!(ca_key_id.is_some() && authority_key_id == ca_key_id);
    assert_eq!(issuer, ca_subject);
    assert_eq!(ca_usage, &["keyCertSign", "cRLSign"]);
    assert_eq!(*not_before, NOW - 300);
    assert_eq!(serial.len(), 32);
    let key = inspect(&std::fs::read(certs.join("receivers/metrics.key")).unwrap()).unwrap();
    assert!(matches!(&key[0], Item::PrivateKey { key, .. } if key == "P-256"));
}

/// The root signs issuing CAs, those sign leaves, and nothing else signs. rcgen writes the
/// authority key identifier only on request.
#[test]
fn the_root_signs_one_issuing_ca_and_that_one_signs_leaves() {
    let (_dir, certs, authority) = new_ca();
    let issued = authority.issue(node("web1"), NOW).unwrap();
    let ids = |file: &Path| {
        let items = inspect(&std::fs::read(file).unwrap()).unwrap();
        let Item::Certificate {
            ca,
            path_len,
            subject_key_id,
            authority_key_id,
            ..
        } = &items[0]
        else {
            panic!("{items:?}");
        };
        let ids = (subject_key_id.clone(), authority_key_id.clone());
        ((*ca, *path_len), ids)
    };
    let (root_may, (root, _)) = ids(&certs.join("root.crt"));
    let (issuing_may, (issuing, of_root)) = ids(&certs.join("issuing.crt"));
    let (leaf_may, (_, of_issuing)) = ids(&issued.certificate_path);
    assert_eq!(
        [root_may, issuing_may, leaf_may],
        [(true, Some(1)), (true, Some(0)), (false, None)]
    );
    assert!(root.is_some() && of_root == root, "{of_root:?}");
    assert!(issuing.is_some() && of_issuing == issuing, "{of_issuing:?}");
    let below = authority.entries().unwrap();
    let signer = |name: &str| {
        let entry = below.iter().find(|entry| entry.name.contains(name));
        entry.unwrap().issuer.clone()
    };
    assert_eq!(signer("issuing CA"), below[0].serial);
    assert_eq!(signer("web1"), below[1].serial);
}

#[test]
fn a_ca_without_its_roots_key_goes_on() {
    let (_dir, certs, authority) = new_ca();
    drop(authority);
    std::fs::remove_file(certs.join("root.key")).unwrap();
    std::fs::remove_file(certs.join("crl.pem")).unwrap();
    let later = NOW + 200 * DAY_SECS;
    let authority = Authority::open(&certs, later).unwrap();
    let issued = authority.issue(node("web1"), later).unwrap();
    verify_file(&certs, &issued.certificate_path, later).unwrap();
    let ends: Vec<u64> = crls(&certs).into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, [NOW + 365 * DAY_SECS, later + CRL_LIFETIME_SECS]);
}

#[test]
fn crls_are_signed_again_past_half_their_life_with_a_higher_number() {
    let (_dir, certs, authority) = new_ca();
    drop(authority);
    let issuing_end = NOW + 365 * DAY_SECS;
    let opened = |days| {
        Authority::open(&certs, NOW + days * DAY_SECS).unwrap();
        crls(&certs)
    };
    for (day, root, issuing, signed_on) in [
        (0, 1, 1, 0),
        (14, 1, 1, 0),
        (16, 1, 2, 16),
        (30, 1, 2, 16),
        (100, 1, 3, 100),
        // The root's key is here, so its CRL is kept fresh as well.
        (190, 2, 4, 190),
        (360, 3, 5, 360),
        // The issuing CA has expired: nothing valid can be signed.
        (365, 3, 5, 360),
        (400, 3, 5, 360),
    ] {
        let end = (NOW + signed_on * DAY_SECS + CRL_LIFETIME_SECS).min(issuing_end);
        let expected = [(root.to_string(), issuing_end), (issuing.to_string(), end)];
        assert_eq!(opened(day), expected, "day {day}");
    }
}

#[test]
fn nothing_outlives_the_issuing_ca() {
    let (_dir, _certs, authority) = new_ca();
    let end = authority.issuing_validity().not_after;
    let near_end = end - DAY_SECS;
    let issued = authority.issue(node("web1"), near_end).unwrap();
    assert_eq!(issued.validity.not_after, end);
    assert!(issued.cut_short);
    for now in [end, end + 1, end + 1000 * DAY_SECS] {
        let error = authority.issue(node("web2"), now).unwrap_err();
        assert!(
            matches!(error, Error::Issue(IssueError::IssuerExpired { .. })),
            "{error}"
        );
    }
    let error = authority.issue(node("web2"), NOW - 1000).unwrap_err();
    assert!(
        matches!(error, Error::Issue(IssueError::IssuerNotStarted { .. })),
        "{error}"
    );
    let short = InitOptions {
        root_days: 10,
        ..InitOptions::default()
    };
    let (_dir, certs) = folder();
    let authority = Authority::init(&certs, &short, NOW).unwrap();
    assert_eq!(authority.issuing_validity(), authority.root_validity());
}

/// Leaves never outlive their CA, so the warning has to come long before it expires.
#[test]
fn a_ca_that_should_be_replaced_says_so() {
    let (_dir, certs, authority) = new_ca();
    let (issuing, root) = (authority.issuing_validity(), authority.root_validity());
    let late = |validity: Validity| {
        let life = validity.not_after - validity.not_before;
        validity.not_before + life / 3 * 2
    };
    for (now, expected) in [
        (NOW, None),
        (late(issuing), None),
        (
            late(issuing) + 1,
            Some((CaKind::Issuing, issuing.not_after)),
        ),
        (
            issuing.not_after + 1,
            Some((CaKind::Issuing, issuing.not_after)),
        ),
    ] {
        let found = authority.expiry(now);
        let named = found.map(|ending| (ending.which, ending.not_after));
        assert_eq!(named, expected, "{now}");
        if let Some(ending) = found {
            assert_eq!(ending.has_ended, now > issuing.not_after);
            let words = ending.to_string();
            let helps = words.contains("`lizctl rotate issuing --next`");
            assert!(helps, "{words}");
        }
    }
    let mut authority = Authority::open(&certs, NOW).unwrap();
    let later = late(root) + 1;
    let options = RotateOptions {
        force: true,
        ..RotateOptions::default()
    };
    for _ in ["publish", "use"] {
        authority
            .rotate_next(CaKind::Issuing, &options, later)
            .unwrap();
    }
    let found = authority.expiry(later).unwrap();
    assert_eq!(
        (found.which, found.not_after),
        (CaKind::Root, root.not_after),
        "a new issuing CA is no new root"
    );
}

#[test]
fn names_that_differ_only_by_case_are_refused() {
    let (_dir, certs, authority) = new_ca();
    authority.issue(node("web1"), NOW).unwrap();
    let error = authority.issue(node("WEB1"), NOW).unwrap_err();
    assert!(
        matches!(error, Error::Issue(IssueError::CaseConflict { .. })),
        "{error}"
    );
    assert!(!certs.join("nodes/WEB1.crt").exists() && !certs.join("nodes/WEB1.key").exists());
    // In another role it is another holder.
    authority
        .issue(Request::new(Role::Reader, node_name("WEB1")), NOW)
        .unwrap();

    let cases: [(&[&str], bool); 6] = [
        (&["web1", "web2"], true),
        (&[], true),
        (&["web3", "Web3"], false),
        (&["web3", "web3"], false),
        (&["web2", "wEb1"], false),
        (&["WEB2"], true),
    ];
    for (names, good) in cases {
        let parsed: Vec<NodeName> = names.iter().map(|text| node_name(text)).collect();
        let checked = authority.check_names(Role::Node, &parsed);
        assert_eq!(checked.is_ok(), good, "{names:?}: {checked:?}");
    }
}

#[test]
fn a_name_issued_again_gets_a_new_key_and_keeps_its_history() {
    let (_dir, certs, authority) = new_ca();
    let key = || std::fs::read(certs.join("nodes/web1.key")).unwrap();
    let first = authority.issue(node("web1"), NOW).unwrap();
    let first_key = key();
    let second = authority.issue(node("web1"), NOW + 60).unwrap();
    assert_ne!(first.serial, second.serial);
    assert_ne!(first_key, key());
    let of_web1 = |entry: &lizmon_ca::ledger::Entry| entry.name == "web1";
    let entries: Vec<_> = authority
        .entries()
        .unwrap()
        .into_iter()
        .filter(of_web1)
        .collect();
    assert_eq!(entries.len(), 2);
    assert_ne!(entries[0].key_sha256, entries[1].key_sha256);
    assert!(entries.iter().all(|entry| !entry.issued_by.is_empty()));
}

#[test]
fn a_revoked_certificate_is_refused_and_others_are_not() {
    let (_dir, certs, authority) = new_ca();
    let bad = authority.issue(node("bad"), NOW).unwrap();
    let good = authority.issue(node("good"), NOW).unwrap();
    authority
        .revoke(&bad.serial, Reason::KeyCompromise, NOW)
        .unwrap();
    let refusal = verify_file(&certs, &bad.certificate_path, NOW).unwrap_err();
    assert!(matches!(refusal, VerifyError::Revoked(_)), "{refusal}");
    verify_file(&certs, &good.certificate_path, NOW).unwrap();
    let numbers = || {
        crls(&certs)
            .into_iter()
            .map(|(number, _)| number)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(), ["1", "2"]);
    authority
        .revoke(&bad.serial, Reason::Unspecified, NOW)
        .unwrap();
    assert_eq!(numbers(), ["1", "2"], "revoked again");
    let entries = authority.entries().unwrap();
    let entry = entries.iter().find(|entry| entry.name == "bad").unwrap();
    assert_eq!(
        (entry.state, entry.revoked_at),
        (CertState::Revoked, Some(NOW))
    );
    let unknown = "7f".repeat(16).parse().unwrap();
    let error = authority
        .revoke(&unknown, Reason::Unspecified, NOW)
        .unwrap_err();
    assert!(
        matches!(error, Error::Revoke(RevokeError::UnknownSerial(_))),
        "{error}"
    );
}

#[test]
fn a_revoked_issuing_ca_takes_its_leaves_with_it() {
    let (_dir, certs, authority) = new_ca();
    let issued = authority.issue(node("web1"), NOW).unwrap();
    let issuing = authority.entries().unwrap().into_iter().nth(1).unwrap();
    let serial = issuing.serial.parse().unwrap();
    let key = certs.join("root.key");
    let away = certs.join("away");
    std::fs::rename(&key, &away).unwrap();
    let error = authority
        .revoke(&serial, Reason::KeyCompromise, NOW)
        .unwrap_err();
    assert!(matches!(error, Error::RootKeyMissing(_)), "{error}");
    verify_file(&certs, &issued.certificate_path, NOW).unwrap();
    std::fs::rename(&away, &key).unwrap();
    authority
        .revoke(&serial, Reason::KeyCompromise, NOW)
        .unwrap();
    let refusal = verify_file(&certs, &issued.certificate_path, NOW).unwrap_err();
    let said = refusal.to_string();
    assert!(said.contains("above it has been revoked"), "{said}");
}

#[test]
fn twenty_names_by_twenty_openers_of_one_ledger() {
    let (_dir, certs, authority) = new_ca();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let certs = &certs;
            scope.spawn(move || {
                let authority = Authority::open(certs, NOW).unwrap();
                authority.issue(node(&format!("web{number}")), NOW).unwrap();
                // All issue this one: the last one wins, with key and certificate.
                authority.issue(node("shared"), NOW).unwrap();
            });
        }
    });
    let entries = authority.entries().unwrap();
    assert_eq!(entries.len(), 2 + 40);
    let files = LeafFiles::new(&certs, Role::Node, &node_name("shared"));
    let of = |path: &Path| match &inspect(&std::fs::read(path).unwrap()).unwrap()[0] {
        Item::Certificate { key_sha256, .. } | Item::PrivateKey { key_sha256, .. } => {
            key_sha256.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&files.certificate), of(&files.key));
    let left: Vec<_> = snapshot(&certs)
        .into_keys()
        .filter(|path| path.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn invalid_requests_leave_no_trace() {
    let (_dir, certs, authority) = new_ca();
    let before = authority.entries().unwrap();
    let sans = vec!["a.example".parse::<San>().unwrap()];
    let requests = [
        Request {
            sans: sans.clone(),
            ..node("web1")
        },
        Request {
            lifetime: Duration::ZERO,
            ..node("web1")
        },
        Request {
            lifetime: Duration::MAX,
            ..node("web1")
        },
        Request {
            key: KeySource::Csr(vec![]),
            ..node("web1")
        },
        Request::new(Role::Receiver, node_name("metrics")),
        Request {
            sans: vec![sans[0].clone(); 101],
            ..Request::new(Role::Receiver, node_name("metrics"))
        },
    ];
    for request in requests {
        let shown = format!("{request:?}");
        assert!(authority.issue(request, NOW).is_err(), "{shown}");
    }
    assert_eq!(authority.entries().unwrap(), before);
    assert!(!certs.join("nodes").exists() && !certs.join("receivers").exists());
}
