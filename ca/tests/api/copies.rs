//! A CA that was restored or copied, or whose files are from different days: no CRL number is
//! reused, and no revocation is lost that its own files record.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, Issued, RestoreError, RevokeError};
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::verify::{Verdict, VerifyError};
use lizmon_ca::pki::{Reason, Unlock};
use tempfile::TempDir;

use crate::sandbox::{NOW, new_ca, node, verify_as_receiver};

struct TestCa {
    _dir: TempDir,
    certs: PathBuf,
    sibling: PathBuf,
}

impl TestCa {
    fn new() -> (Self, Authority) {
        let (dir, certs, authority) = new_ca();
        let fixture = Self {
            sibling: dir.path().join("beside"),
            _dir: dir,
            certs,
        };
        (fixture, authority)
    }

    fn open(&self) -> Authority {
        Authority::open(&self.certs, NOW).unwrap()
    }

    /// Copies a folder as `cp -a` does.
    fn copy(&self, from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }

    /// Replaces the CA's folder by the copy.
    fn restore(&self) {
        fs::remove_dir_all(&self.certs).unwrap();
        self.copy(&self.sibling, &self.certs);
    }

    /// The number of each CRL in `crl.pem`, the root's first.
    fn numbers(&self) -> Vec<u64> {
        let items = inspect(&fs::read(self.certs.join("crl.pem")).unwrap()).unwrap();
        let numbers = items.into_iter().map(|item| match item {
            Item::Crl { number, .. } => number.unwrap().parse().unwrap(),
            other => panic!("{other:?}"),
        });
        numbers.collect()
    }

    fn verify_as_receiver(&self, issued: &Issued) -> Result<Verdict, VerifyError> {
        verify_as_receiver(&self.certs, issued, NOW)
    }

    #[track_caller]
    fn assert_revoked(&self, issued: &Issued) {
        let judged = self.verify_as_receiver(issued);
        assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
    }
}

fn issue(authority: &Authority, name: &str) -> Issued {
    authority.issue(node(name), NOW).unwrap()
}

fn revoke(authority: &Authority, issued: &Issued) -> u64 {
    let done = authority.revoke(&issued.serial, Reason::KeyCompromise, NOW);
    done.unwrap().crls[0].number
}

/// A restored CA reused the CRL numbers that followed the backup: receivers already held CRLs with
/// those numbers, and ignored later revocations.
#[test]
fn crl_numbers_are_not_reused_after_a_restore() {
    for by_hand in [false, true] {
        let (fixture, authority) = TestCa::new();
        let leaves: Vec<_> = (0..6)
            .map(|at| issue(&authority, &format!("web{at}")))
            .collect();
        if by_hand {
            drop(authority);
            fixture.copy(&fixture.certs, &fixture.sibling);
        } else {
            authority.backup(&fixture.sibling).unwrap();
            drop(authority);
        }
        let authority = fixture.open();
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
            fixture.restore();
            let authority = fixture.open();
            assert_eq!(authority.copied_at().unwrap(), Some(NOW), "{by_hand}");
            for leaf in &leaves[round..round + 2] {
                let number = revoke(&authority, leaf);
                assert!(
                    number > 3 && used.insert(number),
                    "{by_hand}: {number} again"
                );
                fixture.assert_revoked(leaf);
            }
            authority.verify_audit(None).unwrap();
            drop(authority);
            // Opening it again does not make it a new copy.
            let before = fixture.numbers();
            fixture.open().sign_crls(None, NOW).unwrap();
            let after = fixture.numbers();
            assert_eq!(after[1], before[1] + 1, "{by_hand}");
        }
    }
}

/// An old ledger beside a newer `crl.pem`: the CRL was overwritten by an older one, and its
/// revocations were lost.
#[test]
fn a_newer_crl_in_the_folder_is_adopted() {
    let (fixture, authority) = TestCa::new();
    let known = issue(&authority, "web1");
    authority.backup(&fixture.sibling).unwrap();
    let unknown = issue(&authority, "web2");
    revoke(&authority, &known);
    let highest = revoke(&authority, &unknown);
    drop(authority);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(fixture.certs.join(format!("ledger.db{suffix}")));
    }
    fs::copy(
        fixture.sibling.join("ledger.db"),
        fixture.certs.join("ledger.db"),
    )
    .unwrap();

    let authority = fixture.open();
    assert!(fixture.numbers()[1] > highest);
    for leaf in [&known, &unknown] {
        fixture.assert_revoked(leaf);
    }
    let rows = authority.unknown_revoked().unwrap();
    let serials: Vec<_> = rows.iter().map(|row| row.serial.clone()).collect();
    assert_eq!(serials, [unknown.serial.to_string()]);
    authority.verify_audit(None).unwrap();
    // It stays revoked.
    drop(authority);
    fixture.open().sign_crls(None, NOW + 60).unwrap();
    fixture.assert_revoked(&unknown);
}

/// A reason that this CA does not use, as other software may give it, is not lost silently.
#[test]
fn an_unsupported_reason_in_an_adopted_crl_is_logged() {
    let (fixture, authority) = TestCa::new();
    let serial = issue(&authority, "web1").serial;
    drop(authority);
    let read = |name: &str| fs::read_to_string(fixture.certs.join(name)).unwrap();
    let key = rcgen::KeyPair::from_pem(&read("issuing.key")).unwrap();
    let issuing = rcgen::Issuer::from_ca_cert_pem(&read("issuing.crt"), key).unwrap();
    let at = |epoch: u64| {
        let epoch = i64::try_from(epoch).unwrap();
        time::OffsetDateTime::from_unix_timestamp(epoch).unwrap()
    };
    let crl = rcgen::CertificateRevocationListParams {
        this_update: at(NOW),
        next_update: at(NOW + 86_400),
        crl_number: rcgen::SerialNumber::from(1000),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from_slice(serial.as_bytes()),
            revocation_time: at(NOW),
            reason_code: Some(rcgen::RevocationReason::AffiliationChanged),
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let crl = crl.signed_by(&issuing).unwrap().pem().unwrap();
    fs::write(fixture.certs.join("crl.pem"), crl).unwrap();

    let log = fixture.certs.join("log");
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(fs::File::create(&log).unwrap()))
        .finish();
    let authority = tracing::subscriber::with_default(subscriber, || fixture.open());
    let log = fs::read_to_string(log).unwrap();
    let line = log.lines().find(|line| line.contains("unsupported reason"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in [" WARN ", " code=3", &format!(" serial=\"{serial}\"")] {
        assert!(line.contains(part), "{part}: {line}");
    }
    authority.verify_audit(None).unwrap();
}

#[test]
fn foreign_crls_in_crl_pem_are_ignored() {
    let (other, elsewhere) = TestCa::new();
    elsewhere.sign_crls(Some(1000), NOW).unwrap();
    drop(elsewhere);
    let foreign = fs::read(other.certs.join("crl.pem")).unwrap();
    let (fixture, authority) = TestCa::new();
    let own = fs::read(fixture.certs.join("crl.pem")).unwrap();
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
        fs::write(fixture.certs.join("crl.pem"), bytes).unwrap();
        let authority = fixture.open();
        assert_eq!(fs::read(fixture.certs.join("crl.pem")).unwrap(), own);
        authority.verify_audit(None).unwrap();
    }
}

/// A certificate issued after the backup is in no ledger, and can still be revoked by its serial
/// number.
#[test]
fn certificates_unknown_to_a_restored_ledger_can_be_revoked() {
    let (fixture, authority) = TestCa::new();
    authority.backup(&fixture.sibling).unwrap();
    let issued = issue(&authority, "web1");
    // In a complete ledger, an unknown serial number is a typing error.
    let wrong = "1234567890abcdef1234567890abcdef".parse().unwrap();
    let refused = authority.revoke(&wrong, Reason::Unspecified, NOW);
    assert!(
        matches!(refused, Err(Error::Revoke(RevokeError::UnknownSerial(_)))),
        "{refused:?}"
    );
    drop(authority);
    fixture.restore();
    let authority = fixture.open();
    fixture.verify_as_receiver(&issued).unwrap();
    let done = authority
        .revoke(&issued.serial, Reason::Superseded, NOW)
        .unwrap();
    assert_eq!(done.revoked_unknown, [issued.serial.to_string()]);
    fixture.assert_revoked(&issued);
    let again = authority
        .revoke(&issued.serial, Reason::Superseded, NOW)
        .unwrap();
    assert!(again.revoked_unknown.is_empty() && again.crls.is_empty());
    authority.verify_audit(None).unwrap();
    authority.sign_crls(None, NOW).unwrap();
    fixture.assert_revoked(&issued);
}

#[test]
fn a_backup_is_restored_and_nothing_is_lost_by_it() {
    let (fixture, authority) = TestCa::new();
    let before = issue(&authority, "web1");
    authority.backup(&fixture.sibling).unwrap();
    let restore = |force| {
        Authority::restore(
            &fixture.sibling,
            &fixture.certs,
            Unlock::default(),
            force,
            NOW,
        )
    };
    // Nothing has happened since the backup: nothing can be lost.
    drop(authority);
    restore(false).unwrap();
    let authority = fixture.open();
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
    fixture.assert_revoked(&before);

    let restored = restore(true).unwrap();
    // The current CRL is adopted.
    for leaf in [&before, &after] {
        fixture.assert_revoked(leaf);
    }
    assert!(fixture.numbers()[1] > highest);
    restored
        .authority
        .verify_audit(restored.head.as_ref())
        .unwrap();
    assert!(restored.aside.unwrap().join("ledger.db").exists());
    issue(&restored.authority, "web3");
    drop(restored.authority);

    // Replacing a damaged or lost ledger needs no force.
    for damage in [&b"rubbish"[..], b""] {
        fs::write(fixture.certs.join("ledger.db"), damage).unwrap();
        drop(restore(false).unwrap().authority);
    }
    fs::remove_dir_all(&fixture.certs).unwrap();
    drop(restore(false).unwrap().authority);
    // Another CA is not replaced by mistake, and a damaged copy is not restored.
    let (other, _open) = TestCa::new();
    let refused = Authority::restore(
        &fixture.sibling,
        &other.certs,
        Unlock::default(),
        false,
        NOW,
    );
    assert!(
        matches!(refused, Err(Error::Restore(RestoreError::OtherCa(_)))),
        "{refused:?}"
    );
    let good = fs::read(fixture.sibling.join("ledger.db")).unwrap();
    for broken in [&good[..good.len() / 2], b"rubbish", b""] {
        fs::write(fixture.sibling.join("ledger.db"), broken).unwrap();
        restore(true).unwrap_err();
        fixture.open();
    }
    fs::write(fixture.sibling.join("ledger.db"), &good).unwrap();
    fs::write(fixture.sibling.join("issuing.key"), "rubbish").unwrap();
    restore(true).unwrap_err();
    fixture.open();
}
