//! A CA that was restored, copied, or whose files are of different days: no number of a list comes twice, and nothing that
//! was revoked is forgotten where its own files say so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, InitOptions, Issued, Request, RestoreError, RevokeError};
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::verify::{Trusted, VerifyError, verify};
use lizmon_ca::pki::{Reason, Unlock};
use lizmon_protocol::name::Role;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;

struct House {
    _dir: TempDir,
    certs: PathBuf,
    sibling: PathBuf,
}

impl House {
    fn new() -> (Self, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let (certs, sibling) = (dir.path().join("certs"), dir.path().join("beside"));
        let authority = Authority::init(&certs, &InitOptions::default(), NOW).unwrap();
        let house = Self {
            _dir: dir,
            certs,
            sibling,
        };
        (house, authority)
    }

    fn open(&self) -> Authority {
        Authority::open(&self.certs, NOW).unwrap()
    }

    /// What `cp -a` would put there.
    fn copy(&self, from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }

    /// Puts the other folder in the place of the CA's.
    fn restore(&self) {
        fs::remove_dir_all(&self.certs).unwrap();
        self.copy(&self.sibling, &self.certs);
    }

    /// The number of each list in `crl.pem`, the root's first.
    fn numbers(&self) -> Vec<u64> {
        let items = inspect(&fs::read(self.certs.join("crl.pem")).unwrap()).unwrap();
        let numbers = items.into_iter().map(|item| match item {
            Item::Crl { number, .. } => number.unwrap().parse().unwrap(),
            other => panic!("{other:?}"),
        });
        numbers.collect()
    }

    fn judge(&self, issued: &Issued) -> Result<(), VerifyError> {
        let read = |name: &str| fs::read(self.certs.join(name)).unwrap();
        let (roots_pem, crls_pem) = (read("root.crt"), read("crl.pem"));
        let trusted = Trusted {
            roots_pem: &roots_pem,
            crls_pem: &crls_pem,
        };
        verify(issued.chain_pem.as_bytes(), trusted, NOW).map(drop)
    }

    #[track_caller]
    fn assert_revoked(&self, issued: &Issued) {
        let judged = self.judge(issued);
        assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
    }
}

fn issue(authority: &Authority, name: &str) -> Issued {
    authority
        .issue(Request::new(Role::Node, name.parse().unwrap()), NOW)
        .unwrap()
}

fn revoke(authority: &Authority, issued: &Issued) -> u64 {
    let done = authority.revoke(&issued.serial, Reason::KeyCompromise, NOW);
    done.unwrap().crls[0].number
}

/// A restored CA went on counting from where it was when the copy was made: receivers held lists with those numbers
/// already, and passed over what was revoked from then on.
#[test]
fn no_number_comes_twice_after_a_restore() {
    for by_hand in [false, true] {
        let (house, authority) = House::new();
        let leaves: Vec<_> = (0..6)
            .map(|at| issue(&authority, &format!("web{at}")))
            .collect();
        if by_hand {
            drop(authority);
            house.copy(&house.certs, &house.sibling);
        } else {
            authority.backup(&house.sibling).unwrap();
            drop(authority);
        }
        let authority = house.open();
        let mut used = HashSet::from([2]);
        assert_eq!(
            revoke(&authority, &leaves[0]),
            2,
            "without a copy they rise by one"
        );
        used.insert(revoke(&authority, &leaves[1]));
        drop(authority);
        // Twice from the same copy, in the same second.
        for round in [2, 4] {
            house.restore();
            let authority = house.open();
            assert_eq!(authority.copied_at().unwrap(), Some(NOW), "{by_hand}");
            for leaf in &leaves[round..round + 2] {
                let number = revoke(&authority, leaf);
                assert!(
                    number > 3 && used.insert(number),
                    "{by_hand}: {number} again"
                );
                house.assert_revoked(leaf);
            }
            authority.verify_audit(None).unwrap();
            drop(authority);
            // Opened again it is no new copy.
            let before = house.numbers();
            house.open().sign_crls(None, NOW).unwrap();
            let after = house.numbers();
            assert_eq!(after[1], before[1] + 1, "{by_hand}");
        }
    }
}

/// An old ledger beside a newer `crl.pem`: the list was overwritten by an older one, and its revocations with it.
#[test]
fn a_newer_list_in_the_folder_is_taken_in() {
    let (house, authority) = House::new();
    let known = issue(&authority, "web1");
    authority.backup(&house.sibling).unwrap();
    let unknown = issue(&authority, "web2");
    revoke(&authority, &known);
    let highest = revoke(&authority, &unknown);
    drop(authority);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(house.certs.join(format!("ledger.db{suffix}")));
    }
    fs::copy(
        house.sibling.join("ledger.db"),
        house.certs.join("ledger.db"),
    )
    .unwrap();

    let authority = house.open();
    assert!(house.numbers()[1] > highest);
    for leaf in [&known, &unknown] {
        house.assert_revoked(leaf);
    }
    let rows = authority.unknown_revoked().unwrap();
    let serials: Vec<_> = rows.iter().map(|row| row.serial.clone()).collect();
    assert_eq!(serials, [unknown.serial.to_string()]);
    authority.verify_audit(None).unwrap();
    // And it stays so.
    drop(authority);
    house.open().sign_crls(None, NOW + 60).unwrap();
    house.assert_revoked(&unknown);
}

#[test]
fn what_is_no_list_of_ours_in_crl_pem_changes_nothing() {
    let (other, elsewhere) = House::new();
    elsewhere.sign_crls(Some(1000), NOW).unwrap();
    drop(elsewhere);
    let foreign = fs::read(other.certs.join("crl.pem")).unwrap();
    let (house, authority) = House::new();
    let own = fs::read(house.certs.join("crl.pem")).unwrap();
    drop(authority);
    let mut cut = own.clone();
    cut.truncate(own.len() / 2);
    let forms: [&[u8]; 5] = [
        &foreign,
        &cut,
        b"",
        b"\0\0rubbish",
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    ];
    for bytes in forms {
        fs::write(house.certs.join("crl.pem"), bytes).unwrap();
        let authority = house.open();
        assert_eq!(fs::read(house.certs.join("crl.pem")).unwrap(), own);
        authority.verify_audit(None).unwrap();
    }
}

/// What was issued after the backup is in no ledger any more, and can be ended by its number all the same.
#[test]
fn what_a_restored_ledger_does_not_know_can_be_revoked() {
    let (house, authority) = House::new();
    authority.backup(&house.sibling).unwrap();
    let issued = issue(&authority, "web1");
    // Where nothing can be missing, a number that is not there is a typing error.
    let wrong = "1234567890abcdef1234567890abcdef".parse().unwrap();
    let refused = authority.revoke(&wrong, Reason::Unspecified, NOW);
    assert!(
        matches!(refused, Err(Error::Revoke(RevokeError::UnknownSerial(_)))),
        "{refused:?}"
    );
    drop(authority);
    house.restore();
    let authority = house.open();
    house.judge(&issued).unwrap();
    let done = authority
        .revoke(&issued.serial, Reason::Superseded, NOW)
        .unwrap();
    assert_eq!(done.revoked_unknown, [issued.serial.to_string()]);
    house.assert_revoked(&issued);
    let again = authority
        .revoke(&issued.serial, Reason::Superseded, NOW)
        .unwrap();
    assert!(again.revoked_unknown.is_empty() && again.crls.is_empty());
    authority.verify_audit(None).unwrap();
    authority.sign_crls(None, NOW).unwrap();
    house.assert_revoked(&issued);
}

#[test]
fn a_backup_is_restored_and_nothing_is_lost_by_it() {
    let (house, authority) = House::new();
    let before = issue(&authority, "web1");
    authority.backup(&house.sibling).unwrap();
    let restore =
        |force| Authority::restore(&house.sibling, &house.certs, Unlock::default(), force, NOW);
    // Nothing has happened since: there is nothing to lose.
    drop(authority);
    restore(false).unwrap();
    let authority = house.open();
    let after = issue(&authority, "web2");
    revoke(&authority, &before);
    let highest = revoke(&authority, &after);
    drop(authority);
    let refused = restore(false).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Restore(RestoreError::WouldLoseRecords { lines: 1.., .. })
        ),
        "{refused:?}"
    );
    house.assert_revoked(&before);

    let restored = restore(true).unwrap();
    // The list that was in force is taken in.
    for leaf in [&before, &after] {
        house.assert_revoked(leaf);
    }
    assert!(house.numbers()[1] > highest);
    restored
        .authority
        .verify_audit(restored.head.as_ref())
        .unwrap();
    assert!(restored.aside.unwrap().join("ledger.db").exists());
    issue(&restored.authority, "web3");
    drop(restored.authority);

    // A damaged or lost ledger is what a backup is for, and needs no force.
    for damage in [&b"rubbish"[..], b""] {
        fs::write(house.certs.join("ledger.db"), damage).unwrap();
        drop(restore(false).unwrap().authority);
    }
    fs::remove_dir_all(&house.certs).unwrap();
    drop(restore(false).unwrap().authority);
    // Another CA is not replaced by mistake, and a damaged copy by nothing.
    let (other, _open) = House::new();
    let refused = Authority::restore(&house.sibling, &other.certs, Unlock::default(), false, NOW);
    assert!(
        matches!(refused, Err(Error::Restore(RestoreError::OtherCa(_)))),
        "{refused:?}"
    );
    let good = fs::read(house.sibling.join("ledger.db")).unwrap();
    for broken in [&good[..good.len() / 2], b"rubbish", b""] {
        fs::write(house.sibling.join("ledger.db"), broken).unwrap();
        restore(true).unwrap_err();
        house.open();
    }
    fs::write(house.sibling.join("ledger.db"), &good).unwrap();
    fs::write(house.sibling.join("issuing.key"), "rubbish").unwrap();
    restore(true).unwrap_err();
    house.open();
}
