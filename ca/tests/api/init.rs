//! Making a CA, and opening it.

use std::path::Path;

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, InitError, InitOptions};
use lizmon_ca::pki::inspect::{Item, inspect};

use crate::sandbox::{NOW, folder, new_ca, node, snapshot};

#[test]
fn two_generations_never_share_a_subject() {
    let subject = |certs: &Path, file: &str| {
        let items = inspect(&std::fs::read(certs.join(file)).unwrap()).unwrap();
        match &items[0] {
            Item::Certificate { subject, .. } => subject.clone(),
            other => panic!("{other:?}"),
        }
    };
    let (_a, one, _) = new_ca();
    let (_b, two, _) = new_ca();
    for file in ["root.crt", "issuing.crt"] {
        assert_ne!(subject(&one, file), subject(&two, file), "{file}");
    }
}

#[test]
fn a_second_ca_is_refused_and_nothing_is_touched() {
    let (_dir, certs, authority) = new_ca();
    authority.issue(node("web1"), NOW).unwrap();
    drop(authority);
    let before = snapshot(&certs);
    let error = Authority::init(&certs, &InitOptions::default(), NOW + 1).unwrap_err();
    assert!(
        matches!(error, Error::Init(InitError::AlreadyExists(_))),
        "{error}"
    );
    assert_eq!(snapshot(&certs), before);
}

#[test]
fn half_a_ca_is_refused_by_name_and_nothing_is_touched() {
    for present in [
        "root.crt",
        "root.key",
        "issuing.crt",
        "issuing.key",
        "crl.pem",
        "ledger.db",
    ] {
        let (_dir, certs) = folder();
        std::fs::create_dir(&certs).unwrap();
        std::fs::write(certs.join(present), "mine").unwrap();
        let error = Authority::init(&certs, &InitOptions::default(), NOW).unwrap_err();
        assert!(
            matches!(error, Error::Init(InitError::Partial { .. })),
            "{error}"
        );
        assert!(error.to_string().contains(present), "{error}");
        assert_eq!(snapshot(&certs).len(), 1, "{present}");
        assert_eq!(std::fs::read(certs.join(present)).unwrap(), b"mine");
    }
}

#[test]
fn opening_says_what_is_missing_or_wrong() {
    let (_dir, certs) = folder();
    let error = Authority::open(&certs, NOW).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");

    type Damage = fn(&Path, &Path);
    let (_other_dir, other, _) = new_ca();
    let copy: Damage = |from, to| {
        std::fs::copy(from, to).unwrap();
    };
    let remove: Damage = |_, to| std::fs::remove_file(to).unwrap();
    let spoil: Damage = |_, to| std::fs::write(to, "spoilt").unwrap();
    let cases = [
        ("root.crt", remove),
        ("issuing.crt", remove),
        ("issuing.key", remove),
        ("ledger.db", remove),
        ("root.crt", copy),
        ("issuing.crt", copy),
        ("issuing.key", copy),
        ("ledger.db", copy),
        ("root.crt", spoil),
        ("issuing.crt", spoil),
        ("issuing.key", spoil),
        ("ledger.db", spoil),
    ];
    for (file, damage) in cases {
        let (_dir, certs, authority) = new_ca();
        drop(authority);
        damage(&other.join(file), &certs.join(file));
        let error = Authority::open(&certs, NOW).unwrap_err().to_string();
        // A foreign root shows in the certificate it did not sign, a foreign ledger in what it does
        // not know.
        let named = error.contains(file) || error.contains("issuing.crt");
        assert!(named, "{file}: {error}");
    }
}

#[test]
fn one_of_many_at_once_makes_the_ca() {
    let (_dir, certs) = folder();
    let made: Vec<bool> = std::thread::scope(|scope| {
        let init = || Authority::init(&certs, &InitOptions::default(), NOW).is_ok();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(init)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
    Authority::open(&certs, NOW).unwrap();
}
