//! The CA over time: revocation, the audit log, access to its keys.

use std::path::Path;

use lizmon_ca::Error;
use lizmon_ca::authority::{
    Authority, CaKind, InitOptions, Issued, Request, RevokeError, RotateOptions,
};
use lizmon_ca::files::CaFileError;
use lizmon_ca::ledger::CertState;
use lizmon_ca::pki::verify::VerifyError;
use lizmon_ca::pki::{DAY_SECS, KeyFileError, Passphrase, Reason, Unlock};
use lizmon_protocol::name::{Attributes, Role};

use crate::sandbox::{NOW, folder, new_ca, node_name, verify_as_receiver};

fn issue(authority: &Authority, role: Role, text: &str, now: u64) -> Issued {
    authority
        .issue(Request::new(role, node_name(text)), now)
        .unwrap()
}

#[test]
fn revoking_a_holder_ends_all_of_its_certificates_and_no_others() {
    let (_dir, certs, authority) = new_ca();
    let old = issue(&authority, Role::Node, "web1", NOW);
    let new = issue(&authority, Role::Node, "web1", NOW + 60);
    let reader = issue(&authority, Role::Reader, "web1", NOW);
    let other = issue(&authority, Role::Node, "web2", NOW);
    let now = NOW + 120;
    let done = authority
        .revoke_holder(Role::Node, &node_name("web1"), Reason::KeyCompromise, now)
        .unwrap();
    let ended: Vec<&str> = done
        .revoked
        .iter()
        .map(|entry| entry.serial.as_str())
        .collect();
    assert_eq!(ended, [old.serial.to_string(), new.serial.to_string()]);
    let numbers: Vec<u64> = done.crls.iter().map(|crl| crl.number).collect();
    assert_eq!(numbers, [2]);
    for (issued, good) in [
        (&old, false),
        (&new, false),
        (&reader, true),
        (&other, true),
    ] {
        let judged = verify_as_receiver(&certs, issued, now);
        let as_expected = match &judged {
            Ok(_) => good,
            Err(why) => !good && matches!(why, VerifyError::Revoked(_)),
        };
        assert!(as_expected, "{}: {judged:?}", issued.spiffe_id);
    }
    let entries = authority.entries().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry.serial == ended[0])
        .unwrap();
    assert_eq!(entry.state, CertState::Revoked);
    assert_eq!(entry.revoked_reason, Some(1));
    assert!(entry.revoked_by.is_some());

    // Again: nothing is left to revoke, and no CRL is signed.
    let again = authority
        .revoke_holder(Role::Node, &node_name("web1"), Reason::Unspecified, now)
        .unwrap();
    assert!(again.revoked.is_empty() && again.crls.is_empty());
    // A new certificate is valid.
    let anew = issue(&authority, Role::Node, "web1", now);
    verify_as_receiver(&certs, &anew, now).unwrap();

    let unknown =
        authority.revoke_holder(Role::Operator, &node_name("web1"), Reason::Unspecified, now);
    assert!(matches!(
        unknown,
        Err(Error::Revoke(RevokeError::UnknownHolder { .. }))
    ));
}

#[test]
fn expired_certificates_are_not_revoked() {
    let (_dir, _certs, authority) = new_ca();
    issue(&authority, Role::Node, "web1", NOW);
    let done = authority
        .revoke_holder(
            Role::Node,
            &node_name("web1"),
            Reason::Unspecified,
            NOW + 91 * DAY_SECS,
        )
        .unwrap();
    assert!(done.revoked.is_empty());
}

#[test]
fn a_root_cannot_be_revoked() {
    let (_dir, _certs, authority) = new_ca();
    let root = authority.generations().unwrap().remove(0).entry;
    let refused = authority.revoke(&root.serial.parse().unwrap(), Reason::Unspecified, NOW);
    assert!(
        matches!(
            refused,
            Err(Error::Revoke(RevokeError::RootNotRevocable(_)))
        ),
        "{refused:?}"
    );
}

#[test]
fn every_action_has_its_log_line() {
    let (_dir, certs, authority) = new_ca();
    let issued = issue(&authority, Role::Node, "web1", NOW);
    authority
        .revoke(&issued.serial, Reason::KeyCompromise, NOW)
        .unwrap();
    drop(authority);
    // Past half the CRL's lifetime.
    let authority = Authority::open(&certs, NOW + 16 * DAY_SECS).unwrap();
    let lines = authority.audit_log().unwrap();
    let what: Vec<&str> = lines.iter().map(|line| line.what.as_str()).collect();
    let expected = [
        "init", "sign-crl", "sign-crl", "issue", "revoke", "sign-crl", "sign-crl",
    ];
    assert_eq!(what, expected);
    assert!(lines[4].details.contains("key-compromise"));
    assert!(lines[3].details.contains(&issued.serial.to_string()));
    assert!(lines.iter().all(|line| !line.who.is_empty()));
    let head = authority.verify_audit(None).unwrap().unwrap();
    assert_eq!(head.number, 7);
    authority.verify_audit(Some(&head)).unwrap();
    // A refused action leaves no line.
    authority
        .issue(Request::new(Role::Node, node_name("WEB1")), NOW)
        .unwrap_err();
    assert_eq!(authority.audit_log().unwrap(), lines);
}

/// As an attacker would who can write the file and drops the triggers first.
#[test]
fn a_ledger_that_was_changed_is_detected() {
    let cases = [
        ("UPDATE audit SET who = 'nobody' WHERE number = 4", "line 4"),
        ("DELETE FROM audit WHERE number = 4", "line 4"),
        ("DELETE FROM audit WHERE number > 3", "no line records"),
        (
            "DELETE FROM certificate WHERE name = 'web1'",
            "line 4 records",
        ),
        (
            "UPDATE certificate SET state = 'valid' WHERE name = 'web2'",
            "disagree",
        ),
        (
            "INSERT INTO certificate SELECT '7f', profile, name, issuer, key_sha256, not_before, not_after,
             issued_at, issued_by, 'valid', NULL, NULL, NULL, NULL, pem FROM certificate WHERE name = 'web1'",
            "no line records the certificate 7f",
        ),
    ];
    for (statement, expected) in cases {
        let (_dir, certs, authority) = new_ca();
        issue(&authority, Role::Node, "web1", NOW);
        let bad = issue(&authority, Role::Node, "web2", NOW);
        authority
            .revoke(&bad.serial, Reason::Unspecified, NOW)
            .unwrap();
        let raw = rusqlite::Connection::open(certs.join("ledger.db")).unwrap();
        raw.execute_batch("DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete;")
            .unwrap();
        raw.execute_batch(statement).unwrap();
        let found = authority.verify_audit(None);
        let error = found.unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains(expected), "{statement}: {why}");
    }
}

/// A log without its last line is detected, whatever that recorded: the chain cannot tell, the
/// ledger can.
#[test]
fn a_truncated_log_is_detected() {
    type Action = fn(&mut Authority);
    let actions: [(&str, Action, &str); 5] = [
        (
            "a list signed",
            |ca| drop(ca.sign_crls(None, NOW + 1).unwrap()),
            "CRL",
        ),
        (
            "a token made",
            |ca| {
                let ttl = std::time::Duration::from_secs(600);
                let made = ca.make_join_token(
                    Role::Node,
                    &node_name("web2"),
                    &[],
                    &Attributes::default(),
                    ttl,
                    NOW,
                );
                made.unwrap();
            },
            "join token",
        ),
        (
            "a certificate issued",
            |ca| drop(issue(ca, Role::Node, "web2", NOW)),
            "certificate",
        ),
        (
            "a step of a rotation",
            |ca| {
                let options = RotateOptions::default();
                for at in 1..=2 {
                    ca.rotate_next(CaKind::Issuing, &options, NOW + at).unwrap();
                }
            },
            "last rotation step of the CA",
        ),
        (
            "a certificate revoked",
            |ca| {
                let reason = Reason::Unspecified;
                ca.revoke_holder(Role::Node, &node_name("web1"), reason, NOW + 1)
                    .unwrap();
            },
            "",
        ),
    ];
    for (story, action, expected) in actions {
        let (_dir, certs, mut authority) = new_ca();
        issue(&authority, Role::Node, "web1", NOW);
        action(&mut authority);
        authority.verify_audit(None).unwrap();
        let raw = rusqlite::Connection::open(certs.join("ledger.db")).unwrap();
        raw.execute_batch(
            "DROP TRIGGER audit_no_delete;
             DELETE FROM audit WHERE number = (SELECT max(number) FROM audit);",
        )
        .unwrap();
        let error = authority.verify_audit(None).unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains(expected), "{story}: {why}");
    }
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec()).unwrap()
}

#[test]
fn a_ca_under_a_passphrase() {
    let (_dir, certs) = folder();
    let options = InitOptions {
        passphrase: Some(passphrase("correct horse")),
        ..InitOptions::default()
    };
    drop(Authority::init(&certs, &options, NOW).unwrap());
    for key in ["root.key", "issuing.key"] {
        let pem = std::fs::read_to_string(certs.join(key)).unwrap();
        assert!(
            pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            "{key}"
        );
    }
    let issue_with = |unlock| {
        let authority = Authority::open_with(&certs, unlock, NOW)?;
        authority.issue(Request::new(Role::Node, node_name("web1")), NOW)
    };
    issue_with(Unlock::with(passphrase("correct horse"))).unwrap();
    let wrong = issue_with(Unlock::with(passphrase("wrong horse")));
    assert!(
        matches!(wrong, Err(Error::KeyFile(KeyFileError::WrongPassphrase(_)))),
        "{wrong:?}"
    );
    let nobody = issue_with(Unlock::default());
    assert!(
        matches!(nobody, Err(Error::KeyFile(KeyFileError::Locked(_)))),
        "{nobody:?}"
    );
    // Reading needs no passphrase, not even when CRLs are due; signing them does.
    let later = NOW + 16 * DAY_SECS;
    let authority = Authority::open_read_only(&certs, Unlock::default(), later).unwrap();
    assert_eq!(authority.entries().unwrap().len(), 3);
    assert!(authority.crls_are_due(later).unwrap());
    let due = Authority::open(&certs, later);
    assert!(
        matches!(due, Err(Error::KeyFile(KeyFileError::Locked(_)))),
        "{due:?}"
    );
}

#[test]
fn a_root_that_is_kept_offline() {
    let (dir, certs) = folder();
    let stick = dir.path().join("stick");
    let options = InitOptions {
        offline_root: Some(stick.clone()),
        ..InitOptions::default()
    };
    let missing = Authority::init(&certs, &options, NOW);
    assert!(
        matches!(missing, Err(Error::File(CaFileError::Io { .. }))),
        "{missing:?}"
    );
    assert!(!Authority::exists(&certs), "nothing is left of it");

    std::fs::create_dir(&stick).unwrap();
    let authority = Authority::init(&certs, &options, NOW).unwrap();
    assert!(stick.join("root.key").exists() && !certs.join("root.key").exists());
    drop(authority);
    let authority = Authority::open(&certs, NOW).unwrap();
    let issued = issue(&authority, Role::Node, "web1", NOW);
    verify_as_receiver(&certs, &issued, NOW).unwrap();
    // Only the root's own actions need its key.
    let issuing = authority.generations().unwrap().remove(1).entry;
    let serial = issuing.serial.parse().unwrap();
    let away = authority.revoke(&serial, Reason::KeyCompromise, NOW);
    assert!(matches!(away, Err(Error::RootKeyMissing(_))), "{away:?}");
    verify_as_receiver(&certs, &issued, NOW).unwrap();
    let unlock = Unlock {
        root_key: Some(stick.join("root.key")),
        ask: None,
    };
    Authority::open_with(&certs, unlock, NOW)
        .unwrap()
        .revoke(&serial, Reason::KeyCompromise, NOW)
        .unwrap();
    let refused = verify_as_receiver(&certs, &issued, NOW);
    assert!(
        matches!(refused, Err(VerifyError::Revoked(_))),
        "{refused:?}"
    );

    // An existing key is not overwritten.
    let again = Authority::init(&dir.path().join("other"), &options, NOW);
    assert!(
        matches!(again, Err(Error::File(CaFileError::AlreadyExists(_)))),
        "{again:?}"
    );
}

#[cfg(unix)]
#[test]
fn files_that_others_can_reach_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, certs, authority) = new_ca();
    drop(authority);
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (file, good, bad) in [
        ("issuing.key", 0o600, &[0o640, 0o604, 0o660, 0o602][..]),
        ("root.key", 0o400, &[0o644]),
        ("ledger.db", 0o600, &[0o644, 0o666]),
        ("", 0o755, &[0o775, 0o757, 0o777]),
    ] {
        let path = certs.join(file);
        for mode in bad {
            set(&path, *mode);
            let error = Authority::open(&certs, NOW).unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, Error::File(CaFileError::Exposed { .. })),
                "{file}: {text}"
            );
            assert!(text.contains("chmod") && text.contains(file), "{text}");
        }
        set(&path, good);
        Authority::open(&certs, NOW).unwrap();
    }
}

#[test]
fn a_backup_takes_the_cas_place() {
    let (dir, certs, authority) = new_ca();
    let before = issue(&authority, Role::Node, "web1", NOW);
    let copy = dir.path().join("copy");
    // While others sign: the backup is consistent.
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let other = Authority::open(&certs, NOW).unwrap();
            for number in 0..5 {
                issue(&other, Role::Node, &format!("busy{number}"), NOW);
            }
        });
        authority.backup(&copy).unwrap();
        busy.join().unwrap();
    });
    let taken = authority.backup(&copy);
    assert!(
        matches!(taken, Err(Error::File(CaFileError::AlreadyExists(_)))),
        "{taken:?}"
    );
    // The backup does not know what happened after it: a revocation, and the CRL's number.
    authority
        .revoke(&before.serial, Reason::KeyCompromise, NOW)
        .unwrap();
    let held = authority.sign_crls(None, NOW).unwrap();
    let (root, fingerprint) = (authority.root_validity(), authority.root_fingerprint());
    drop(authority);
    std::fs::rename(&certs, dir.path().join("lost")).unwrap();
    std::fs::rename(&copy, &certs).unwrap();

    let restored = Authority::open(&certs, NOW).unwrap();
    assert_eq!(
        (restored.root_validity(), restored.root_fingerprint()),
        (root, fingerprint)
    );
    restored.verify_audit(None).unwrap();
    verify_as_receiver(&certs, &before, NOW).unwrap();
    restored
        .revoke(&before.serial, Reason::KeyCompromise, NOW)
        .unwrap();
    let highest = held.iter().map(|crl| crl.number).max();
    let signed = restored.sign_crls(highest, NOW).unwrap();
    assert_eq!(signed.len(), 2);
    assert!(
        signed.iter().all(|crl| Some(crl.number) > highest),
        "{signed:?}"
    );
    let refused = verify_as_receiver(&certs, &before, NOW);
    assert!(
        matches!(refused, Err(VerifyError::Revoked(_))),
        "{refused:?}"
    );
    issue(&restored, Role::Node, "web2", NOW);
}
