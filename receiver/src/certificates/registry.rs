//! The certificates that were seen here. A CA that was restored from a backup does not know what it
//! issued since: its operator asks the receivers.
//!
//! Kept beside the database, not in it: no answer depends on it, and a minute of it may be lost.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lizmon_mtls::identity::{self, Identity};
use lizmon_pki::atomic_file::Access;
use lizmon_protocol::certificate::{SeenCertificate, SeenCertificates};

use crate::authorize::{ListCertificates, Permit, ViewPage};

/// The file in the data folder.
const FILE: &str = "certificates-seen.json";
/// At some 400 bytes each, those of 25,000 holders within a renewal's overlap.
pub(crate) const CERTIFICATES_MAX: usize = 50_000;

/// The certificates, in memory; [`CertificateRegistry::save`] writes them to the disk.
pub(crate) struct CertificateRegistry {
    file: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    since: u64,
    by_thumbprint: HashMap<[u8; 32], Arc<SeenCertificate>>,
    certificates_max: usize,
    is_complete: bool,
    is_saved: bool,
}

/// What was held at a moment. It is made a list of while requests note further certificates.
struct HeldThen {
    since: u64,
    is_complete: bool,
    certificates: Vec<Arc<SeenCertificate>>,
}

impl CertificateRegistry {
    /// Loads what was saved in this folder. A file that cannot be read is logged, and the registry
    /// starts empty: holders reconnect.
    pub(crate) fn open(folder: &Path, now: u64) -> Self {
        let file = folder.join(FILE);
        let kept = match read(&file) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot read the certificate registry: starting with an empty one");
                None
            }
        };
        let mut held = Held {
            since: now,
            by_thumbprint: HashMap::new(),
            certificates_max: CERTIFICATES_MAX,
            is_complete: true,
            is_saved: false,
        };
        if let Some(kept) = kept {
            held.since = kept.since.min(now);
            held.is_complete = kept.complete;
            for certificate in kept.certificates.into_iter().take(CERTIFICATES_MAX) {
                let mut thumbprint = [0; 32];
                if hex::decode_to_slice(&certificate.sha256, &mut thumbprint).is_ok() {
                    held.by_thumbprint.insert(thumbprint, Arc::new(certificate));
                }
            }
        }
        Self {
            file,
            held: Mutex::new(held),
        }
    }

    /// A trusted client has just shown this certificate, or it is our own.
    pub(crate) fn note(&self, shown: &Identity, der: &[u8], now: u64) {
        let mut held = self.lock();
        if let Some(certificate) = held.by_thumbprint.get_mut(&shown.thumbprint) {
            if certificate.last_seen < now {
                Arc::make_mut(certificate).last_seen = now;
            }
            return;
        }
        if held.by_thumbprint.len() >= held.certificates_max {
            held.remove_ended(now);
        }
        if held.by_thumbprint.len() >= held.certificates_max {
            held.is_complete = false;
            return;
        }
        let certificate = SeenCertificate {
            identity: shown.spiffe_id.clone(),
            serial: shown.serial_hex(),
            issuer: identity::issuer(der).unwrap_or_default(),
            not_after: shown.not_after,
            first_seen: now,
            last_seen: now,
            sha256: hex::encode(shown.thumbprint),
        };
        held.by_thumbprint
            .insert(shown.thumbprint, Arc::new(certificate));
        held.is_saved = false;
    }

    /// All that have not expired.
    pub(crate) fn list(&self, _permit: &Permit<ListCertificates>, now: u64) -> SeenCertificates {
        self.held_now().list_from(now)
    }

    /// The same for a page.
    pub(crate) fn list_for_page(&self, _permit: &Permit<ViewPage>, now: u64) -> SeenCertificates {
        self.held_now().list_from(now)
    }

    /// Saves the list if it has changed, with the expired ones: a clock that is ahead for a moment
    /// must not remove any.
    pub(crate) fn save(&self) -> io::Result<()> {
        if std::mem::replace(&mut self.lock().is_saved, true) {
            return Ok(());
        }
        let list = self.held_now().list_from(0);
        let written = serde_json::to_vec(&list)
            .map_err(io::Error::from)
            .and_then(|bytes| lizmon_pki::atomic_file::write(&self.file, &bytes, Access::Secret));
        if written.is_err() {
            self.lock().is_saved = false;
        }
        written
    }

    fn held_now(&self) -> HeldThen {
        let held = self.lock();
        HeldThen {
            since: held.since,
            is_complete: held.is_complete,
            certificates: held.by_thumbprint.values().cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Removes expired certificates: no receiver accepts them.
    fn remove_ended(&mut self, now: u64) {
        self.by_thumbprint
            .retain(|_, certificate| certificate.not_after >= now);
    }
}

impl HeldThen {
    /// Those that end at this time or later.
    fn list_from(&self, now: u64) -> SeenCertificates {
        let all = self.certificates.iter();
        let good = all.filter(|certificate| certificate.not_after >= now);
        let mut certificates: Vec<_> = good
            .map(|certificate| SeenCertificate::clone(certificate))
            .collect();
        certificates.sort_by_cached_key(|certificate| {
            (certificate.identity.to_string(), certificate.serial.clone())
        });
        SeenCertificates {
            since: self.since,
            complete: self.is_complete,
            certificates,
        }
    }
}

fn read(file: &Path) -> io::Result<Option<SeenCertificates>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    fn shown(name: &str, serial: u8, not_after: u64) -> Identity {
        Identity {
            spiffe_id: format!("spiffe://d/node/{name}").parse().unwrap(),
            attributes: lizmon_protocol::name::Attributes::default(),
            serial: Box::new([1, serial]),
            thumbprint: [serial; 32],
            not_before: 0,
            not_after,
        }
    }

    fn serials(seen: &CertificateRegistry, now: u64) -> Vec<String> {
        let list = seen.held_now().list_from(now);
        list.certificates.into_iter().map(|c| c.serial).collect()
    }

    #[test]
    fn what_was_seen_is_listed_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let seen = CertificateRegistry::open(folder.path(), NOW);
        seen.note(&shown("b", 1, NOW + 10), b"", NOW);
        seen.note(&shown("a", 2, NOW + 20), b"", NOW + 1);
        seen.note(&shown("b", 1, NOW + 10), b"", NOW + 5);
        assert_eq!(serials(&seen, NOW + 10), ["0102", "0101"]);
        assert_eq!(serials(&seen, NOW + 11), ["0102"]);
        let list = seen.held_now().list_from(NOW);
        let of_b = &list.certificates[1];
        assert_eq!((of_b.first_seen, of_b.last_seen), (NOW, NOW + 5));
        assert!(list.complete);
    }

    /// Of 50,000 certificates the list was sorted, and cloned, while all requests that noted theirs
    /// waited.
    #[test]
    fn nobody_waits_for_a_list() {
        let folder = tempfile::tempdir().unwrap();
        let seen = CertificateRegistry::open(folder.path(), NOW);
        seen.note(&shown("a", 1, NOW + 10), b"", NOW);
        let then = seen.held_now();
        assert!(seen.held.try_lock().is_ok());
        seen.note(&shown("a", 1, NOW + 10), b"", NOW + 5);
        let last_seen = |held: HeldThen| held.list_from(NOW).certificates[0].last_seen;
        assert_eq!(last_seen(then), NOW);
        assert_eq!(last_seen(seen.held_now()), NOW + 5);
    }

    #[test]
    fn it_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let seen = CertificateRegistry::open(folder.path(), NOW);
        seen.note(&shown("a", 1, NOW + 100), b"", NOW);
        seen.save().unwrap();
        let file = folder.path().join(FILE);
        let written = std::fs::read(&file).unwrap();
        // What is not new is not written again.
        std::fs::remove_file(&file).unwrap();
        seen.save().unwrap();
        assert!(!file.exists());
        std::fs::write(&file, written).unwrap();
        let seen = CertificateRegistry::open(folder.path(), NOW + 50);
        assert_eq!(serials(&seen, NOW + 50), ["0101"]);
        assert_eq!(seen.held_now().list_from(NOW + 50).since, NOW);
        for damaged in [&b""[..], b"{", b"[]", br#"{"since":"x"}"#, &[0xff; 9]] {
            std::fs::write(&file, damaged).unwrap();
            let seen = CertificateRegistry::open(folder.path(), NOW + 60);
            assert!(serials(&seen, NOW + 60).is_empty());
            assert_eq!(seen.held_now().list_from(NOW + 60).since, NOW + 60);
        }
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_moment_removes_no_holder() {
        let folder = tempfile::tempdir().unwrap();
        let seen = CertificateRegistry::open(folder.path(), NOW);
        seen.note(&shown("a", 1, NOW + 100), b"", NOW);
        let later = NOW + 1_000_000;
        seen.note(&shown("b", 2, later + 100), b"", later);
        seen.save().unwrap();
        assert_eq!(serials(&seen, later), ["0102"]);
        assert_eq!(serials(&seen, NOW), ["0101", "0102"]);
        let again = CertificateRegistry::open(folder.path(), NOW);
        assert_eq!(serials(&again, NOW), ["0101", "0102"]);
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let seen = CertificateRegistry::open(&gone, NOW);
        seen.note(&shown("a", 1, NOW + 100), b"", NOW);
        seen.save().unwrap_err();
        std::fs::create_dir(&gone).unwrap();
        seen.save().unwrap();
        assert_eq!(
            serials(&CertificateRegistry::open(&gone, NOW), NOW),
            ["0101"]
        );
    }

    #[test]
    fn there_is_room_for_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let seen = CertificateRegistry::open(folder.path(), NOW);
        seen.lock().certificates_max = 3;
        for serial in 1..=3 {
            seen.note(&shown("a", serial, NOW + 10), b"", NOW);
        }
        assert!(seen.held_now().list_from(NOW).complete);
        // The ended make room first.
        seen.note(&shown("a", 4, NOW + 30), b"", NOW + 11);
        assert_eq!(serials(&seen, NOW + 11), ["0104"]);
        for serial in 5..=9 {
            seen.note(&shown("a", serial, NOW + 30), b"", NOW + 12);
        }
        let list = seen.held_now().list_from(NOW + 12);
        assert_eq!((list.certificates.len(), list.complete), (3, false));
    }
}
