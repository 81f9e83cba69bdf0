//! A step that is cut off anywhere.

use std::collections::BTreeMap;
use std::path::Path;

use lizmon_ca::authority::{Authority, CaKind, InitOptions, Issued};

use super::TestCa;
use crate::sandbox::read;

type Files = BTreeMap<String, Vec<u8>>;

/// The CA's own files except the ledger.
fn files(fixture: &TestCa) -> Files {
    let mut files = Files::new();
    for name in [
        "root.key",
        "issuing.key",
        "issuing.crt",
        "crl.pem",
        "root.crt",
    ] {
        files.insert(name.to_owned(), read(&fixture.certs, name));
    }
    for path in fixture.keys() {
        let name = path.strip_prefix(&fixture.certs).unwrap().to_string_lossy();
        files.insert(name.into_owned(), std::fs::read(&path).unwrap());
    }
    files
}

/// Power fails between the commit of the ledger and the last file: the next process that opens the
/// CA finishes the step, and receivers that read the files in between refuse no certificate that is
/// valid before and after.
#[test]
fn an_interrupted_step_is_finished_by_the_next_opener() {
    let steps = [true, true, false, true, true, false];
    for rotated in [CaKind::Issuing, CaKind::Root] {
        let mut fixture = TestCa::new(&InitOptions::default());
        let mut leaves = vec![fixture.issue()];
        for forward in steps {
            let before = files(&fixture);
            let good_before: Vec<bool> = leaves
                .iter()
                .map(|leaf| fixture.verify_as_receiver(leaf).is_ok())
                .collect();
            fixture.step(rotated, forward, true).unwrap();
            let after = files(&fixture);
            let good: Vec<&Issued> = leaves
                .iter()
                .zip(good_before)
                .filter(|(leaf, before)| *before && fixture.verify_as_receiver(leaf).is_ok())
                .map(|(leaf, _)| leaf)
                .collect();
            cut_off_everywhere(&fixture, &before, &after, &good);
            fixture.authority = Authority::open(&fixture.certs, fixture.now).unwrap();
            leaves.push(fixture.issue());
        }
        fixture.authority.verify_audit(None).unwrap();
    }
}

fn cut_off_everywhere(fixture: &TestCa, before: &Files, after: &Files, good: &[&Issued]) {
    // Keys first, then the certificate, then what receivers read: see `reconcile`.
    let removes_root = before["root.crt"].len() > after["root.crt"].len();
    let trust = if removes_root {
        ["root.crt", "crl.pem"]
    } else {
        ["crl.pem", "root.crt"]
    };
    let keys = before
        .keys()
        .chain(after.keys())
        .filter(|name| name.ends_with(".key"));
    let mut order: Vec<&str> = keys.map(String::as_str).collect();
    order.sort_unstable_by_key(|name| {
        (!name.ends_with("root.key"), name.starts_with("generations"))
    });
    order.dedup();
    order.push("issuing.crt");
    order.extend(trust);
    for done in 0..=order.len() {
        for (index, name) in order.iter().enumerate() {
            // What the step created before the commit exists in any case.
            let made = !before.contains_key(*name);
            let state = if index < done || made { after } else { before };
            let path = fixture.certs.join(name);
            match state.get(*name) {
                Some(bytes) => write(&path, bytes),
                None => drop(std::fs::remove_file(&path)),
            }
        }
        fixture.good(good);
        let raw = rusqlite::Connection::open(fixture.certs.join("ledger.db")).unwrap();
        raw.execute_batch("INSERT OR IGNORE INTO reconcile_pending VALUES (1)")
            .unwrap();
        drop(raw);
        Authority::open(&fixture.certs, fixture.now).unwrap();
        assert_eq!(&files(fixture), after, "{done} of {order:?} were done");
    }
}

fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let folder = path.parent().unwrap();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let options = options.create(true).truncate(true).write(true).mode(0o600);
    std::io::Write::write_all(&mut options.open(path).unwrap(), bytes).unwrap();
}
