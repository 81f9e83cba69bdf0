//! Every step of a rotation, forward and back: who is taken by a receiver that reads the files as they are then.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use lizmon_ca::Error;
use lizmon_ca::authority::{
    Authority, CaKind, InitOptions, Issued, Request, RotateOptions, Rotation, RotationError, Stage,
};
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::verify::{Trusted, VerifyError, verify};
use lizmon_ca::pki::{Passphrase, Reason, Unlock};
use lizmon_protocol::name::Role;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;

/// A CA in rotation, and the certificates it gave out on the way.
struct House {
    _dir: TempDir,
    certs: PathBuf,
    authority: Authority,
    now: u64,
    count: usize,
}

impl House {
    fn new(options: &InitOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
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
        let request = Request::new(Role::Node, name.parse().unwrap());
        self.authority.issue(request, self.now).unwrap()
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

    fn judge(&self, issued: &Issued) -> Result<(), VerifyError> {
        judge(
            &read(&self.certs, "root.crt"),
            &read(&self.certs, "crl.pem"),
            issued,
            self.now,
        )
    }

    #[track_caller]
    fn good(&self, issued: &[&Issued]) {
        for issued in issued {
            self.judge(issued).unwrap();
        }
    }

    #[track_caller]
    fn refused(&self, issued: &Issued) {
        assert!(self.judge(issued).is_err());
    }

    /// Every file of the CA and its place: what must be as it was after a step and back.
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

fn read(certs: &Path, file: &str) -> Vec<u8> {
    std::fs::read(certs.join(file)).unwrap()
}

fn judge(roots_pem: &[u8], crls_pem: &[u8], issued: &Issued, now: u64) -> Result<(), VerifyError> {
    let trusted = Trusted {
        roots_pem,
        crls_pem,
    };
    verify(issued.chain_pem.as_bytes(), trusted, now).map(|_| ())
}

/// How many roots are trusted, and how many lists there are.
fn shape(certs: &Path) -> (usize, usize) {
    let count = |file| inspect(&read(certs, file)).unwrap().len();
    (count("root.crt"), count("crl.pem"))
}

#[test]
fn every_step_forward_and_back() {
    // Roots and lists while steady, published, in use, and steady again.
    for (rotated, shapes) in [
        (CaKind::Issuing, [(1, 2), (1, 3), (1, 3), (1, 2)]),
        (CaKind::Root, [(1, 2), (2, 4), (2, 4), (1, 2)]),
    ] {
        let mut house = House::new(&InitOptions::default());
        let old = house.issue();
        let subject = |house: &House| issuer_of(&house.certs.join("issuing.crt"));
        let first = subject(&house);
        assert_eq!(shape(&house.certs), shapes[0], "{rotated}");

        // There and back: as if nothing had been.
        assert_eq!(
            house.step(rotated, true, true).unwrap().stage,
            Stage::Published
        );
        assert_eq!(shape(&house.certs), shapes[1], "{rotated}");
        let published = house.issue();
        assert_eq!(subject(&house), first, "it does not sign yet");
        assert_eq!(
            house.step(rotated, false, false).unwrap().stage,
            Stage::Steady
        );
        assert_eq!(shape(&house.certs), shapes[0], "{rotated}");
        assert_eq!(house.keys().len(), 2, "{:?}", house.keys());
        house.good(&[&old, &published]);

        house.step(rotated, true, false).unwrap();
        house.good(&[&old, &published]);
        let held_roots = read(&house.certs, "root.crt");
        let held_crls = read(&house.certs, "crl.pem");
        assert_eq!(house.step(rotated, true, true).unwrap().stage, Stage::InUse);
        assert_eq!(shape(&house.certs), shapes[2], "{rotated}");
        assert_ne!(subject(&house), first, "another subject");
        let new = house.issue();
        house.good(&[&old, &published, &new]);
        // Who read the files when the new one was published, and not since, takes what it signs.
        judge(&held_roots, &held_crls, &new, house.now).unwrap();

        // Back from use: what was signed meanwhile is still good.
        assert_eq!(
            house.step(rotated, false, false).unwrap().stage,
            Stage::Published
        );
        assert_eq!(subject(&house), first);
        house.good(&[&old, &new]);
        let kept = house.step(rotated, false, false);
        assert!(
            matches!(
                kept,
                Err(Error::Rotation(RotationError::StillInUse { count: 1, .. }))
            ),
            "{kept:?}"
        );
        house.good(&[&new]);
        house.step(rotated, true, true).unwrap();

        // To the end, and back from it.
        let early = house.step(rotated, true, false);
        assert!(
            matches!(
                early,
                Err(Error::Rotation(RotationError::StillInUse { count: 2, .. }))
            ),
            "{early:?}"
        );
        house.good(&[&old, &published, &new]);
        assert_eq!(
            house.step(rotated, true, true).unwrap().stage,
            Stage::Steady
        );
        assert_eq!(shape(&house.certs), shapes[3], "{rotated}");
        house.good(&[&new]);
        house.refused(&old);
        if rotated == CaKind::Issuing {
            // A receiver that keeps the old CA's list hears of it by the root's.
            let both = [held_crls, read(&house.certs, "crl.pem")];
            let newest = [&both[1][..], &both[0][..]].concat();
            let judged = judge(&read(&house.certs, "root.crt"), &newest, &old, house.now);
            assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
        }
        assert_eq!(
            house.step(rotated, false, false).unwrap().stage,
            Stage::InUse
        );
        house.good(&[&old, &published, &new]);
        assert_eq!(
            house.step(rotated, true, true).unwrap().stage,
            Stage::Steady
        );
        house.refused(&old);

        // The next rotation ends the way back to the first CA, and its key.
        house.step(rotated, true, true).unwrap();
        house.refused(&old);
        let living = if rotated == CaKind::Root { 4 } else { 3 };
        assert_eq!(house.keys().len(), living, "{:?}", house.keys());
        house.step(rotated, false, false).unwrap();
        let nothing = house.step(rotated, false, false);
        assert!(
            matches!(
                nothing,
                Err(Error::Rotation(RotationError::NothingToTakeBack(_)))
            ),
            "{nothing:?}"
        );
        house.good(&[&new]);
        house.authority.verify_audit(None).unwrap();
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
    let mut house = House::new(&InitOptions::default());
    house.step(CaKind::Issuing, true, false).unwrap();
    for forward in [true, false] {
        let other = house.step(CaKind::Root, forward, true);
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
    house.step(CaKind::Issuing, false, false).unwrap();
    house.step(CaKind::Root, true, false).unwrap();
    let other = house.step(CaKind::Issuing, true, true);
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
fn nobody_is_left_behind_unless_told_to() {
    let mut house = House::new(&InitOptions::default());
    house.issue_to("web1");
    house.issue_to("web2");
    let published = house.step(CaKind::Root, true, false).unwrap();
    let waiting: Vec<String> = published.waiting.iter().map(ToString::to_string).collect();
    assert_eq!(waiting, ["node `web1`", "node `web2`"]);
    let early = house.step(CaKind::Root, true, false).unwrap_err();
    assert!(
        matches!(
            &early,
            Error::Rotation(RotationError::RootUnknown { count: 2, .. })
        ),
        "{early}"
    );
    // Who renews learns the new root; who is revoked needs it no more.
    house.issue_to("web1");
    let name = "web2".parse().unwrap();
    house
        .authority
        .revoke_holder(Role::Node, &name, Reason::Unspecified, house.now)
        .unwrap();
    let used = house.step(CaKind::Root, true, false).unwrap();
    assert_eq!((used.stage, used.waiting.len()), (Stage::InUse, 1));
    house.issue_to("web1");
    let retired = house.step(CaKind::Root, true, false).unwrap();
    assert_eq!((retired.stage, retired.waiting.len()), (Stage::Steady, 0));
}

#[test]
fn revocation_reaches_the_list_of_its_own_issuer() {
    let mut house = House::new(&InitOptions::default());
    let old = house.issue_to("web1");
    house.step(CaKind::Issuing, true, true).unwrap();
    house.step(CaKind::Issuing, true, true).unwrap();
    let new = house.issue_to("web1");
    let other = house.issue_to("web2");
    house.good(&[&old, &new, &other]);
    let name = "web1".parse().unwrap();
    let done = house
        .authority
        .revoke_holder(Role::Node, &name, Reason::KeyCompromise, house.now)
        .unwrap();
    assert_eq!((done.revoked.len(), done.crls.len()), (2, 2));
    for issued in [&old, &new] {
        let judged = house.judge(issued);
        assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
    }
    house.good(&[&other]);
    // Revoked while its issuer was retired, it stays revoked when that is trusted again.
    let spare = house.issue_to("spare");
    house.step(CaKind::Issuing, false, true).unwrap();
    house.step(CaKind::Issuing, true, true).unwrap();
    house.step(CaKind::Issuing, true, true).unwrap();
    house.good(&[&spare]);
    house.refused(&old);
    house.step(CaKind::Issuing, false, true).unwrap();
    let judged = house.judge(&old);
    assert!(matches!(judged, Err(VerifyError::Revoked(_))), "{judged:?}");
}

/// Another process that held the CA open must not sign with what was replaced.
#[test]
fn who_held_the_ca_open_has_to_open_it_again() {
    let mut house = House::new(&InitOptions::default());
    let held = Authority::open(&house.certs, NOW).unwrap();
    house.step(CaKind::Issuing, true, true).unwrap();
    let request = || Request::new(Role::Node, "web1".parse().unwrap());
    held.issue(request(), house.now).unwrap();
    house.step(CaKind::Issuing, true, true).unwrap();
    let stale = held.issue(request(), house.now);
    assert!(matches!(stale, Err(Error::Rotated)), "{stale:?}");
    let issued = held
        .reopen(house.now)
        .unwrap()
        .issue(request(), house.now)
        .unwrap();
    house.good(&[&issued]);
}

#[test]
fn roots_that_are_kept_offline_rotate_too() {
    let stick = tempfile::tempdir().unwrap();
    let offline = InitOptions {
        offline_root: Some(stick.path().to_owned()),
        passphrase: Some(Passphrase::new(b"p".to_vec()).unwrap()),
        ..InitOptions::default()
    };
    let mut house = House::new(&offline);
    let without = Unlock {
        root_key: None,
        ..Unlock::with(Passphrase::new(b"p".to_vec()).unwrap())
    };
    let with = |file: &Path| Unlock {
        root_key: Some(file.to_owned()),
        ..without.clone()
    };
    let open = |house: &mut House, unlock: Unlock| {
        house.authority = Authority::open_with(&house.certs, unlock, house.now).unwrap();
    };
    let first = stick.path().join("root.key");
    // The issuing CA: its beginning and its end need the root's key, and say so.
    open(&mut house, without.clone());
    let away = house.step(CaKind::Issuing, true, true);
    assert!(matches!(away, Err(Error::RootKeyMissing(_))), "{away:?}");
    assert_eq!(house.authority.rotation(NOW).unwrap().stage, Stage::Steady);
    open(&mut house, with(&first));
    house.step(CaKind::Issuing, true, true).unwrap();
    open(&mut house, without.clone());
    house.step(CaKind::Issuing, true, true).unwrap();
    let away = house.step(CaKind::Issuing, true, true);
    assert!(matches!(away, Err(Error::RootKeyMissing(_))), "{away:?}");
    open(&mut house, with(&first));
    house.step(CaKind::Issuing, true, true).unwrap();

    // The root: nothing of it is ever in the CA's folder, and the old one's key is not needed.
    open(&mut house, without.clone());
    let old = house.issue();
    let options = RotateOptions {
        force: true,
        offline_root: Some(stick.path().to_owned()),
        ..RotateOptions::default()
    };
    house.now += 60;
    house
        .authority
        .rotate_next(CaKind::Root, &options, house.now)
        .unwrap();
    house.step(CaKind::Root, true, true).unwrap();
    let new = house.issue();
    house.good(&[&old, &new]);
    house.step(CaKind::Root, true, true).unwrap();
    house.good(&[&new]);
    house.refused(&old);
    let keys = house.keys();
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

#[cfg(unix)]
type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// The CA's own files but the ledger.
#[cfg(unix)]
fn files(house: &House) -> Files {
    let mut files = Files::new();
    for name in [
        "root.key",
        "issuing.key",
        "issuing.crt",
        "crl.pem",
        "root.crt",
    ] {
        files.insert(name.to_owned(), read(&house.certs, name));
    }
    for path in house.keys() {
        let name = path.strip_prefix(&house.certs).unwrap().to_string_lossy();
        files.insert(name.into_owned(), std::fs::read(&path).unwrap());
    }
    files
}

/// Power fails between the ledger's commit and the last file: whoever opens the CA next finishes it, and receivers that
/// read the files in between refuse nobody who is good before and after.
#[cfg(unix)]
#[test]
fn a_step_that_is_cut_off_is_finished_by_the_next_opener() {
    let steps = [true, true, false, true, true, false];
    for rotated in [CaKind::Issuing, CaKind::Root] {
        let mut house = House::new(&InitOptions::default());
        let mut leaves = vec![house.issue()];
        for forward in steps {
            let before = files(&house);
            let good_before: Vec<bool> = leaves
                .iter()
                .map(|leaf| house.judge(leaf).is_ok())
                .collect();
            house.step(rotated, forward, true).unwrap();
            let after = files(&house);
            let good: Vec<&Issued> = leaves
                .iter()
                .zip(good_before)
                .filter(|(leaf, before)| *before && house.judge(leaf).is_ok())
                .map(|(leaf, _)| leaf)
                .collect();
            cut_off_everywhere(&house, &before, &after, &good);
            house.authority = Authority::open(&house.certs, house.now).unwrap();
            leaves.push(house.issue());
        }
        house.authority.verify_audit(None).unwrap();
    }
}

#[cfg(unix)]
fn cut_off_everywhere(house: &House, before: &Files, after: &Files, good: &[&Issued]) {
    // Keys first, then the certificate to them, then what receivers read: see `settle`.
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
            // What the step made before it told the ledger is there in any case.
            let made = !before.contains_key(*name);
            let state = if index < done || made { after } else { before };
            let path = house.certs.join(name);
            match state.get(*name) {
                Some(bytes) => write(&path, bytes),
                None => drop(std::fs::remove_file(&path)),
            }
        }
        house.good(good);
        let raw = rusqlite::Connection::open(house.certs.join("ledger.db")).unwrap();
        raw.execute_batch("INSERT OR IGNORE INTO reconcile_pending VALUES (1)")
            .unwrap();
        drop(raw);
        Authority::open(&house.certs, house.now).unwrap();
        assert_eq!(&files(house), after, "{done} of {order:?} were done");
    }
}

#[cfg(unix)]
fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let folder = path.parent().unwrap();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let options = options.create(true).truncate(true).write(true).mode(0o600);
    std::io::Write::write_all(&mut options.open(path).unwrap(), bytes).unwrap();
}

/// Others issue while it rotates: each gets a good certificate, or is told to open the CA again.
#[test]
fn issuing_goes_on_through_a_rotation() {
    const ISSUED_A_STEP: usize = 3;
    let mut house = House::new(&InitOptions::default());
    let certs = house.certs.clone();
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
            house.step(CaKind::Root, forward, true).unwrap();
        }
        let threads = issuers.into_iter().map(|(_, issuer)| issuer);
        threads.flat_map(|issuer| issuer.join().unwrap()).collect()
    });
    assert_eq!(issued.len(), 3 * 4 * ISSUED_A_STEP);
    house.good(&issued.iter().collect::<Vec<_>>());
    house.authority.verify_audit(None).unwrap();
}

fn issue_or_reopen(authority: &mut Authority, name: &str) -> Issued {
    loop {
        let request = Request::new(Role::Node, name.parse().unwrap());
        match authority.issue(request, NOW) {
            Ok(leaf) => return leaf,
            Err(Error::Rotated) => *authority = authority.reopen(NOW).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}
