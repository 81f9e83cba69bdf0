//! Every step of a rotation, forward and back: which certificates a receiver accepts that reads the
//! files after it.

#[cfg(unix)]
mod interruption;

use std::path::{Path, PathBuf};

use lizmon_ca::Error;
use lizmon_ca::authority::{
    Authority, CaKind, InitOptions, Issued, Request, RotateOptions, Rotation, RotationError, Stage,
};
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::verify::{Verdict, VerifyError};
use lizmon_ca::pki::{Passphrase, Reason, Unlock};
use lizmon_protocol::name::Role;
use tempfile::TempDir;

use crate::sandbox::{NOW, folder, node, read, verify_as_receiver, verify_with};

/// A CA in rotation, and the certificates that it issued.
struct TestCa {
    _dir: TempDir,
    certs: PathBuf,
    authority: Authority,
    now: u64,
    count: usize,
}

impl TestCa {
    fn new(options: &InitOptions) -> Self {
        let (dir, certs) = folder();
        let authority = Authority::init(&certs, options, NOW).unwrap();
        Self {
            _dir: dir,
            certs,
            authority,
            now: NOW,
            count: 0,
        }
    }

    /// A certificate of a new holder.
    fn issue(&mut self) -> Issued {
        self.count += 1;
        self.issue_to(&format!("web{}", self.count))
    }

    fn issue_to(&mut self, name: &str) -> Issued {
        self.authority.issue(node(name), self.now).unwrap()
    }

    fn step(&mut self, rotated: CaKind, forward: bool, force: bool) -> Result<Rotation, Error> {
        self.now += 60;
        let options = RotateOptions {
            force,
            ..RotateOptions::default()
        };
        if forward {
            self.authority.rotate_next(rotated, &options, self.now)
        } else {
            self.authority.rotate_back(rotated, &options, self.now)
        }
    }

    fn verify_as_receiver(&self, issued: &Issued) -> Result<Verdict, VerifyError> {
        verify_as_receiver(&self.certs, issued, self.now)
    }

    #[track_caller]
    fn good(&self, issued: &[&Issued]) {
        for issued in issued {
            self.verify_as_receiver(issued).unwrap();
        }
    }

    #[track_caller]
    fn refused(&self, issued: &Issued) {
        assert!(self.verify_as_receiver(issued).is_err());
    }

    /// The key files: they must be the same after a step and back.
    fn keys(&self) -> Vec<PathBuf> {
        let mut keys: Vec<PathBuf> = Vec::new();
        for folder in [self.certs.clone(), self.certs.join("generations")] {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            let paths = entries.map(|entry| entry.unwrap().path());
            keys.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "key")));
        }
        keys
    }
}

/// How many roots are trusted, and how many CRLs there are.
fn shape(certs: &Path) -> (usize, usize) {
    let count = |file| inspect(&read(certs, file)).unwrap().len();
    (count("root.crt"), count("crl.pem"))
}

#[test]
fn every_step_forward_and_back() {
    // Roots and CRLs while steady, published, in use, and steady again.
    for (rotated, shapes) in [
        (CaKind::Issuing, [(1, 2), (1, 3), (1, 3), (1, 2)]),
        (CaKind::Root, [(1, 2), (2, 4), (2, 4), (1, 2)]),
    ] {
        let mut fixture = TestCa::new(&InitOptions::default());
        let old = fixture.issue();
        let subject = |fixture: &TestCa| issuer_of(&fixture.certs.join("issuing.crt"));
        let first = subject(&fixture);
        assert_eq!(shape(&fixture.certs), shapes[0], "{rotated}");

        // Forward and back: nothing has changed.
        assert_eq!(
            fixture.step(rotated, true, true).unwrap().stage,
            Stage::Published
        );
        assert_eq!(shape(&fixture.certs), shapes[1], "{rotated}");
        let published = fixture.issue();
        assert_eq!(subject(&fixture), first, "it does not sign yet");
        assert_eq!(
            fixture.step(rotated, false, false).unwrap().stage,
            Stage::Steady
        );
        assert_eq!(shape(&fixture.certs), shapes[0], "{rotated}");
        assert_eq!(fixture.keys().len(), 2, "{:?}", fixture.keys());
        fixture.good(&[&old, &published]);

        fixture.step(rotated, true, false).unwrap();
        fixture.good(&[&old, &published]);
        let held_roots = read(&fixture.certs, "root.crt");
        let held_crls = read(&fixture.certs, "crl.pem");
        assert_eq!(
            fixture.step(rotated, true, true).unwrap().stage,
            Stage::InUse
        );
        assert_eq!(shape(&fixture.certs), shapes[2], "{rotated}");
        assert_ne!(subject(&fixture), first, "another subject");
        let new = fixture.issue();
        fixture.good(&[&old, &published, &new]);
        // A receiver that read the files when the new CA was published accepts what it signs.
        verify_with(
            &held_roots,
            &held_crls,
            new.chain_pem.as_bytes(),
            fixture.now,
        )
        .unwrap();

        // Back from use: what was signed meanwhile is still valid.
        assert_eq!(
            fixture.step(rotated, false, false).unwrap().stage,
            Stage::Published
        );
        assert_eq!(subject(&fixture), first);
        fixture.good(&[&old, &new]);
        let kept = fixture.step(rotated, false, false);
        assert!(
            matches!(
                kept,
                Err(Error::Rotation(RotationError::StillInUse { count: 1, .. }))
            ),
            "{kept:?}"
        );
        fixture.good(&[&new]);
        fixture.step(rotated, true, true).unwrap();

        // To the end and back.
        let early = fixture.step(rotated, true, false);
        assert!(
            matches!(
                early,
                Err(Error::Rotation(RotationError::StillInUse { count: 2, .. }))
            ),
            "{early:?}"
        );
        fixture.good(&[&old, &published, &new]);
        assert_eq!(
            fixture.step(rotated, true, true).unwrap().stage,
            Stage::Steady
        );
        assert_eq!(shape(&fixture.certs), shapes[3], "{rotated}");
        fixture.good(&[&new]);
        fixture.refused(&old);
        if rotated == CaKind::Issuing {
            // A receiver that keeps the old CA's CRL learns of it from the root's.
            let both = [held_crls, read(&fixture.certs, "crl.pem")];
            let newest = [&both[1][..], &both[0][..]].concat();
            let judged = verify_with(
                &read(&fixture.certs, "root.crt"),
                &newest,
                old.chain_pem.as_bytes(),
                fixture.now,
            );
            assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
        }
        assert_eq!(
            fixture.step(rotated, false, false).unwrap().stage,
            Stage::InUse
        );
        fixture.good(&[&old, &published, &new]);
        assert_eq!(
            fixture.step(rotated, true, true).unwrap().stage,
            Stage::Steady
        );
        fixture.refused(&old);

        // The next rotation deletes the first CA's key, so there is no way back to it.
        fixture.step(rotated, true, true).unwrap();
        fixture.refused(&old);
        let living = if rotated == CaKind::Root { 4 } else { 3 };
        assert_eq!(fixture.keys().len(), living, "{:?}", fixture.keys());
        fixture.step(rotated, false, false).unwrap();
        let nothing = fixture.step(rotated, false, false);
        assert!(
            matches!(
                nothing,
                Err(Error::Rotation(RotationError::NothingToTakeBack(_)))
            ),
            "{nothing:?}"
        );
        fixture.good(&[&new]);
        fixture.authority.verify_audit(None).unwrap();
    }
}

fn issuer_of(certificate: &Path) -> String {
    match &inspect(&std::fs::read(certificate).unwrap()).unwrap()[0] {
        Item::Certificate { subject, .. } => subject.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_rotation_at_a_time() {
    let mut fixture = TestCa::new(&InitOptions::default());
    fixture.step(CaKind::Issuing, true, false).unwrap();
    for forward in [true, false] {
        let other = fixture.step(CaKind::Root, forward, true);
        assert!(
            matches!(
                other,
                Err(Error::Rotation(RotationError::OtherInProgress(
                    CaKind::Issuing
                )))
            ),
            "{other:?}"
        );
    }
    fixture.step(CaKind::Issuing, false, false).unwrap();
    fixture.step(CaKind::Root, true, false).unwrap();
    let other = fixture.step(CaKind::Issuing, true, true);
    assert!(
        matches!(
            other,
            Err(Error::Rotation(RotationError::OtherInProgress(
                CaKind::Root
            )))
        ),
        "{other:?}"
    );
}

#[test]
fn no_holder_is_left_behind_unless_forced() {
    let mut fixture = TestCa::new(&InitOptions::default());
    fixture.issue_to("web1");
    fixture.issue_to("web2");
    let published = fixture.step(CaKind::Root, true, false).unwrap();
    let waiting: Vec<String> = published.waiting.iter().map(ToString::to_string).collect();
    assert_eq!(waiting, ["node `web1`", "node `web2`"]);
    let early = fixture.step(CaKind::Root, true, false).unwrap_err();
    assert!(
        matches!(
            &early,
            Error::Rotation(RotationError::RootUnknown { count: 2, .. })
        ),
        "{early}"
    );
    // A holder that renews learns the new root; a revoked one does not need it.
    fixture.issue_to("web1");
    let name = "web2".parse().unwrap();
    fixture
        .authority
        .revoke_holder(Role::Node, &name, Reason::Unspecified, fixture.now)
        .unwrap();
    let used = fixture.step(CaKind::Root, true, false).unwrap();
    assert_eq!((used.stage, used.waiting.len()), (Stage::InUse, 1));
    fixture.issue_to("web1");
    let retired = fixture.step(CaKind::Root, true, false).unwrap();
    assert_eq!((retired.stage, retired.waiting.len()), (Stage::Steady, 0));
}

#[test]
fn revocation_reaches_the_crl_of_its_own_issuer() {
    let mut fixture = TestCa::new(&InitOptions::default());
    let old = fixture.issue_to("web1");
    fixture.step(CaKind::Issuing, true, true).unwrap();
    fixture.step(CaKind::Issuing, true, true).unwrap();
    let new = fixture.issue_to("web1");
    let other = fixture.issue_to("web2");
    fixture.good(&[&old, &new, &other]);
    let name = "web1".parse().unwrap();
    let done = fixture
        .authority
        .revoke_holder(Role::Node, &name, Reason::KeyCompromise, fixture.now)
        .unwrap();
    assert_eq!((done.revoked.len(), done.crls.len()), (2, 2));
    for issued in [&old, &new] {
        let judged = fixture.verify_as_receiver(issued);
        assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
    }
    fixture.good(&[&other]);
    // A certificate revoked while its issuer was retired stays revoked when that is reinstated.
    let spare = fixture.issue_to("spare");
    fixture.step(CaKind::Issuing, false, true).unwrap();
    fixture.step(CaKind::Issuing, true, true).unwrap();
    fixture.step(CaKind::Issuing, true, true).unwrap();
    fixture.good(&[&spare]);
    fixture.refused(&old);
    fixture.step(CaKind::Issuing, false, true).unwrap();
    let judged = fixture.verify_as_receiver(&old);
    assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
}

/// Another process that has the CA open must not sign with a replaced CA.
#[test]
fn a_process_with_the_ca_open_has_to_reopen_it() {
    let mut fixture = TestCa::new(&InitOptions::default());
    let held = Authority::open(&fixture.certs, NOW).unwrap();
    fixture.step(CaKind::Issuing, true, true).unwrap();
    let request = || Request::new(Role::Node, "web1".parse().unwrap());
    held.issue(request(), fixture.now).unwrap();
    fixture.step(CaKind::Issuing, true, true).unwrap();
    let stale = held.issue(request(), fixture.now);
    assert!(matches!(stale, Err(Error::Rotated)), "{stale:?}");
    let issued = held
        .reopen(fixture.now)
        .unwrap()
        .issue(request(), fixture.now)
        .unwrap();
    fixture.good(&[&issued]);
}

#[test]
fn roots_that_are_kept_offline_rotate_too() {
    let stick = tempfile::tempdir().unwrap();
    let offline = InitOptions {
        offline_root: Some(stick.path().to_owned()),
        passphrase: Some(Passphrase::new(b"p".to_vec()).unwrap()),
        ..InitOptions::default()
    };
    let mut fixture = TestCa::new(&offline);
    let without = Unlock {
        root_key: None,
        ..Unlock::with(Passphrase::new(b"p".to_vec()).unwrap())
    };
    let with = |file: &Path| Unlock {
        root_key: Some(file.to_owned()),
        ..without.clone()
    };
    let open = |fixture: &mut TestCa, unlock: Unlock| {
        fixture.authority = Authority::open_with(&fixture.certs, unlock, fixture.now).unwrap();
    };
    let first = stick.path().join("root.key");
    // The issuing CA: the first and the last step need the root's key, and say so.
    open(&mut fixture, without.clone());
    let away = fixture.step(CaKind::Issuing, true, true);
    assert!(matches!(away, Err(Error::RootKeyMissing(_))), "{away:?}");
    assert_eq!(
        fixture.authority.rotation(NOW).unwrap().stage,
        Stage::Steady
    );
    open(&mut fixture, with(&first));
    fixture.step(CaKind::Issuing, true, true).unwrap();
    open(&mut fixture, without.clone());
    fixture.step(CaKind::Issuing, true, true).unwrap();
    let away = fixture.step(CaKind::Issuing, true, true);
    assert!(matches!(away, Err(Error::RootKeyMissing(_))), "{away:?}");
    open(&mut fixture, with(&first));
    fixture.step(CaKind::Issuing, true, true).unwrap();

    // The root: no key of it is ever in the CA's folder, and the old one's key is not needed.
    open(&mut fixture, without.clone());
    let old = fixture.issue();
    let options = RotateOptions {
        force: true,
        offline_root: Some(stick.path().to_owned()),
        ..RotateOptions::default()
    };
    fixture.now += 60;
    fixture
        .authority
        .rotate_next(CaKind::Root, &options, fixture.now)
        .unwrap();
    fixture.step(CaKind::Root, true, true).unwrap();
    let new = fixture.issue();
    fixture.good(&[&old, &new]);
    fixture.step(CaKind::Root, true, true).unwrap();
    fixture.good(&[&new]);
    fixture.refused(&old);
    let keys = fixture.keys();
    let of_root = |path: &&PathBuf| {
        let pem = std::fs::read(path).unwrap();
        pem == std::fs::read(&first).unwrap() || path.ends_with("root.key")
    };
    assert_eq!(keys.iter().filter(of_root).count(), 0, "{keys:?}");
    for key in keys {
        let pem = std::fs::read_to_string(&key).unwrap();
        assert!(pem.contains("ENCRYPTED"), "{}", key.display());
    }
    assert_eq!(std::fs::read_dir(stick.path()).unwrap().count(), 2);
}

/// Others issue during a rotation: each gets a valid certificate, or is told to reopen the CA.
#[test]
fn issuing_goes_on_through_a_rotation() {
    const ISSUED_A_STEP: usize = 3;
    let mut fixture = TestCa::new(&InitOptions::default());
    let certs = fixture.certs.clone();
    let issued: Vec<Issued> = std::thread::scope(|scope| {
        let issuers: Vec<_> = (0..3)
            .map(|thread| {
                let (go, wait) = std::sync::mpsc::channel::<()>();
                let certs = &certs;
                let issuer = scope.spawn(move || {
                    let mut authority = Authority::open(certs, NOW).unwrap();
                    let mut issued = Vec::new();
                    for () in wait {
                        let name = format!("t{thread}-{}", issued.len());
                        issued.push(issue_or_reopen(&mut authority, &name));
                    }
                    issued
                });
                (go, issuer)
            })
            .collect();
        for forward in [true, true, false, true] {
            for (go, _) in &issuers {
                (0..ISSUED_A_STEP).for_each(|_| go.send(()).unwrap());
            }
            fixture.step(CaKind::Root, forward, true).unwrap();
        }
        let threads = issuers.into_iter().map(|(_, issuer)| issuer);
        threads.flat_map(|issuer| issuer.join().unwrap()).collect()
    });
    assert_eq!(issued.len(), 3 * 4 * ISSUED_A_STEP);
    fixture.good(&issued.iter().collect::<Vec<_>>());
    fixture.authority.verify_audit(None).unwrap();
}

fn issue_or_reopen(authority: &mut Authority, name: &str) -> Issued {
    loop {
        match authority.issue(node(name), NOW) {
            Ok(leaf) => return leaf,
            Err(Error::Rotated) => *authority = authority.reopen(NOW).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}
