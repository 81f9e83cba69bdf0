//! Certificates in groups.

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, IssueError, LeafTerms, has_leaf};
use lizmon_ca::files::LeafFiles;
use lizmon_ca::pki::KeyAlg;
use lizmon_protocol::name::{Attributes, NodeName, Role};

use crate::sandbox::{DAY, NOW, new_ca, node, node_name, snapshot, verify_as_receiver};

fn terms(role: Role) -> LeafTerms {
    LeafTerms {
        role,
        attributes: Attributes {
            tags: ["env=prod".parse().unwrap()].into_iter().collect(),
            ..Attributes::default()
        },
        lifetime: std::time::Duration::from_secs(30 * DAY),
        key_alg: KeyAlg::default(),
    }
}

fn names(count: usize) -> Vec<NodeName> {
    (0..count)
        .map(|at| node_name(&format!("web{at}")))
        .collect()
}

/// As one that is issued alone: the receiver takes it, ledger and audit log have it.
#[test]
fn a_group_is_issued_as_each_alone_would_be() {
    for count in [0, 1, 3, 40] {
        let (_dir, certs, authority) = new_ca();
        let names = names(count);
        let issued = authority
            .issue_group(&terms(Role::Node), &names, NOW)
            .unwrap();
        assert_eq!(issued.len(), count);
        let entries = authority.entries().unwrap();
        assert_eq!(entries.len(), 2 + count);
        for ((one, name), entry) in issued.iter().zip(&names).zip(&entries[2..]) {
            let verdict = verify_as_receiver(&certs, one, NOW).unwrap();
            assert_eq!(verdict.spiffe_id.name, *name);
            assert_eq!(verdict.not_after, NOW + 30 * DAY);
            assert_eq!(entry.serial, one.serial.to_string());
            assert_eq!(entry.name, name.as_str());
            let files = LeafFiles::new(&certs, Role::Node, name);
            let chain = std::fs::read_to_string(&files.certificate).unwrap();
            assert_eq!(chain, one.chain_pem);
            assert_eq!(one.key_path.as_ref(), Some(&files.key));
            assert!(has_leaf(&certs, Role::Node, name).unwrap());
        }
        let lines = authority.audit_log().unwrap();
        let of_group = lines.iter().filter(|line| line.what == "issue");
        assert_eq!(of_group.count(), count);
        authority.verify_audit(None).unwrap();
    }
}

#[test]
fn a_group_with_a_refused_name_leaves_nothing() {
    let (_dir, certs, authority) = new_ca();
    authority.issue(node("WEB7"), NOW).unwrap();
    let before = snapshot(&certs.join("nodes"));
    let refused = authority
        .issue_group(&terms(Role::Node), &names(10), NOW)
        .unwrap_err();
    assert!(
        matches!(refused, Error::Issue(IssueError::CaseConflict { .. })),
        "{refused}"
    );
    assert_eq!(authority.entries().unwrap().len(), 3);
    assert_eq!(snapshot(&certs.join("nodes")), before);
    // A server has DNS names of its own.
    authority
        .issue_group(&terms(Role::Receiver), &names(10), NOW)
        .unwrap_err();
    assert!(!certs.join("receivers").exists());
}

#[test]
fn a_group_of_a_ca_that_was_rotated_meanwhile_is_not_issued() {
    use lizmon_ca::authority::{CaKind, RotateOptions};
    let (_dir, certs, authority) = new_ca();
    let mut other = Authority::open(&certs, NOW).unwrap();
    for _ in ["publish", "use"] {
        let options = RotateOptions {
            force: true,
            ..RotateOptions::default()
        };
        other
            .rotate_next(CaKind::Issuing, &options, NOW + 1)
            .unwrap();
    }
    let refused = authority
        .issue_group(&terms(Role::Node), &names(10), NOW)
        .unwrap_err();
    assert!(matches!(refused, Error::Rotated), "{refused}");
    assert!(snapshot(&certs.join("nodes")).is_empty());
}

/// A process that was killed between two files has left the key of one certificate beside another.
#[test]
fn what_is_there() {
    let (_dir, certs, authority) = new_ca();
    authority
        .issue_group(&terms(Role::Node), &names(2), NOW)
        .unwrap();
    let files = |at: usize| LeafFiles::new(&certs, Role::Node, &names(2)[at]);
    let is_there = || has_leaf(&certs, Role::Node, &names(1)[0]).unwrap();
    assert!(is_there());
    assert!(!has_leaf(&certs, Role::Reader, &names(1)[0]).unwrap());
    let key = std::fs::read(files(0).key).unwrap();
    std::fs::copy(files(1).key, files(0).key).unwrap();
    assert!(!is_there(), "the key of another");
    std::fs::write(files(0).key, "no key").unwrap();
    assert!(!is_there(), "no key");
    std::fs::write(files(0).key, key).unwrap();
    assert!(is_there());
    std::fs::remove_file(files(0).key).unwrap();
    assert!(is_there(), "the key is elsewhere");
    std::fs::write(files(0).certificate, "no certificate").unwrap();
    std::fs::copy(files(1).key, files(0).key).unwrap();
    assert!(!is_there(), "no certificate");
    std::fs::remove_file(files(0).certificate).unwrap();
    assert!(!is_there(), "nothing");
}
