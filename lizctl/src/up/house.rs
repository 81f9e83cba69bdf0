//! The CA and the three certificates of `lizctl up`: made where there are none, renewed where they are due.

use std::path::{Path, PathBuf};

use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_ca::inspect::{Item, inspect};
use lizmon_ca::layout::{CaFiles, LeafFiles};
use lizmon_ca::ledger::{Entry, State};
use lizmon_ca::passphrase::Unlock;
use lizmon_ca::profile::San;
use lizmon_client::Credentials;
use lizmon_mtls::trust::TrustFiles;
use lizmon_protocol::name::{NODE_NAME_BYTES_MAX, NameError, NodeName, Role};

use super::place::Place;
use crate::output;

/// Receiver and reader are of this machine and for it alone.
const LOCAL_NAME: &str = "localhost";

/// Which files there are, and what must be in them.
pub(crate) struct House {
    certs: PathBuf,
    unlock: Unlock,
    ca: CaFiles,
    /// This machine.
    pub(crate) host: NodeName,
    local: NodeName,
    receiver_sans: Vec<San>,
}

impl House {
    /// Nothing is touched yet.
    pub(crate) fn new(certs: PathBuf, unlock: Unlock, place: &Place) -> Result<Self, NameError> {
        Ok(Self {
            unlock,
            ca: CaFiles::new(&certs),
            host: node_name(&sysinfo::System::host_name().unwrap_or_default())?,
            local: LOCAL_NAME.parse()?,
            receiver_sans: place.sans.clone(),
            certs,
        })
    }

    /// Makes what is missing, renews what is past two thirds of its life, and signs revocation lists again that are past
    /// half of theirs.
    pub(crate) fn keep(&self, now: u64) -> Result<(), lizmon_ca::Error> {
        let authority = if Authority::is_there(&self.certs) {
            Authority::open_with(&self.certs, self.unlock.clone(), now)?
        } else {
            let authority = Authority::init(&self.certs, &InitOptions::default(), now)?;
            output::note(format!("made a CA in {}", self.certs.display()));
            authority
        };
        let entries = authority.entries()?;
        for (role, name, sans) in [
            (Role::Receiver, &self.local, &self.receiver_sans[..]),
            (Role::Node, &self.host, &[]),
            (Role::Reader, &self.local, &[]),
        ] {
            let files = LeafFiles::new(&self.certs, role, name);
            if is_good(&files, sans, &entries, now) {
                continue;
            }
            let mut request = Request::new(role, name.clone());
            request.sans = sans.to_vec();
            let issued = authority.issue(request, now)?;
            output::note(format!(
                "issued {} to {role} {name}, until {}",
                issued.certificate_path.display(),
                output::date(issued.validity.not_after)
            ));
        }
        Ok(())
    }

    /// What the receiver shows and trusts.
    pub(crate) fn trust_files(&self) -> TrustFiles {
        let files = LeafFiles::new(&self.certs, Role::Receiver, &self.local);
        TrustFiles {
            cert: files.certificate,
            key: files.key,
            ca: self.ca.root_certificate.clone(),
            crl: self.ca.crl.clone(),
        }
    }

    /// As whom the monitor publishes.
    pub(crate) fn node(&self) -> Credentials {
        self.credentials(Role::Node, &self.host)
    }

    /// As whom the summaries are read.
    pub(crate) fn reader(&self) -> Credentials {
        self.credentials(Role::Reader, &self.local)
    }

    fn credentials(&self, role: Role, name: &NodeName) -> Credentials {
        let files = LeafFiles::new(&self.certs, role, name);
        Credentials {
            cert: files.certificate,
            key: files.key,
            ca: self.ca.root_certificate.clone(),
        }
    }
}

/// Whether this CA issued the certificate, it is not revoked, has a third of its life before it, bears the names and
/// has its key beside it.
fn is_good(files: &LeafFiles, sans: &[San], entries: &[Entry], now: u64) -> bool {
    let chain = std::fs::read_to_string(&files.certificate).unwrap_or_default();
    let Some(entry) = entries.iter().find(|entry| chain.starts_with(&entry.pem)) else {
        return false;
    };
    let life = entry.not_after.saturating_sub(entry.not_before);
    let renew_at = entry.not_before + life / 3 * 2;
    entry.state == State::Valid
        && now < renew_at
        && key_of(&files.key).is_some_and(|key| key == entry.key_sha256)
        && bears(&chain, sans)
}

fn key_of(path: &Path) -> Option<String> {
    let items = inspect(&std::fs::read(path).ok()?).ok()?;
    items.into_iter().find_map(|item| match item {
        Item::PrivateKey { key_sha256, .. } => Some(key_sha256),
        _ => None,
    })
}

fn bears(chain: &str, sans: &[San]) -> bool {
    match inspect(chain.as_bytes()).unwrap_or_default().first() {
        Some(Item::Certificate { names, .. }) => {
            sans.iter().all(|san| names.contains(&san.to_string()))
        }
        _ => false,
    }
}

/// What an operating system takes for a host name may be no node name: what does not fit becomes `-`.
fn node_name(host_name: &str) -> Result<NodeName, NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fitted: String = host_name
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(NODE_NAME_BYTES_MAX)
        .collect();
    if fitted.is_empty() {
        LOCAL_NAME.parse()
    } else {
        fitted.parse()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    #[test]
    fn host_names_become_node_names() {
        let long = "a".repeat(300);
        for (host_name, expected) in [
            ("web1", "web1"),
            ("web1.example", "web1.example"),
            ("Ada’s Laptop", "Ada-s-Laptop"),
            ("-web", "web"),
            ("über", "ber"),
            ("", "localhost"),
            ("…", "localhost"),
            (&long, &long[..200]),
        ] {
            assert_eq!(node_name(host_name).unwrap().as_str(), expected);
        }
    }

    struct Ground {
        _dir: tempfile::TempDir,
        house: House,
    }

    fn ground() -> Ground {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
        let house = House {
            ca: CaFiles::new(&certs),
            certs,
            unlock: Unlock::default(),
            host: "web1".parse().unwrap(),
            local: LOCAL_NAME.parse().unwrap(),
            receiver_sans: vec![San::Dns("localhost".into())],
        };
        house.keep(NOW).unwrap();
        Ground { _dir: dir, house }
    }

    fn leaves(house: &House) -> [PathBuf; 3] {
        [
            house.trust_files().cert,
            house.node().cert,
            house.reader().cert,
        ]
    }

    /// Which of receiver, node and reader are issued anew by a second look.
    fn check(
        ground: &mut Ground,
        later: u64,
        expected: [bool; 3],
        change: impl FnOnce(&mut House),
    ) {
        let read =
            |house: &House| leaves(house).map(|path| std::fs::read(path).unwrap_or_default());
        let before = read(&ground.house);
        change(&mut ground.house);
        ground.house.keep(NOW + later).unwrap();
        let after = read(&ground.house);
        let anew = [0, 1, 2].map(|at| before[at] != after[at]);
        assert_eq!(anew, expected);
        for credentials in [ground.house.node(), ground.house.reader()] {
            let url = "https://localhost".parse().unwrap();
            lizmon_client::Client::new(url, &credentials, NOW + later).unwrap();
        }
    }

    #[test]
    fn what_is_good_stays() {
        check(&mut ground(), 0, [false; 3], |_| ());
        check(&mut ground(), 59 * DAY, [false; 3], |_| ());
    }

    #[test]
    fn what_is_past_two_thirds_of_its_life_is_renewed() {
        check(&mut ground(), 60 * DAY + 1, [true; 3], |_| ());
    }

    #[test]
    fn what_is_missing_damaged_or_of_another_key_is_made_anew() {
        check(&mut ground(), 0, [false, true, false], |house| {
            std::fs::remove_file(house.node().key).unwrap();
        });
        check(&mut ground(), 0, [false, false, true], |house| {
            std::fs::write(house.reader().cert, "x").unwrap();
        });
        check(&mut ground(), 0, [true, false, false], |house| {
            std::fs::copy(house.node().key, house.trust_files().key).unwrap();
        });
    }

    #[test]
    fn a_new_name_of_the_receiver_needs_a_new_certificate() {
        check(&mut ground(), 0, [true, false, false], |house| {
            house
                .receiver_sans
                .push(San::Ip(Ipv4Addr::new(192, 0, 2, 1).into()));
        });
    }

    #[test]
    fn a_revoked_certificate_is_replaced() {
        check(&mut ground(), 0, [false, true, false], |house| {
            let authority = Authority::open(&house.certs, NOW).unwrap();
            let entries = authority.entries().unwrap();
            let node = entries.iter().find(|entry| entry.name == "web1").unwrap();
            let serial = node.serial.parse().unwrap();
            authority
                .revoke(&serial, "superseded".parse().unwrap(), NOW)
                .unwrap();
        });
    }

    #[test]
    fn revocation_lists_are_signed_again_past_half_their_life() {
        let ground = ground();
        let crl = || std::fs::read(&ground.house.ca.crl).unwrap();
        let first = crl();
        ground.house.keep(NOW + 14 * DAY).unwrap();
        assert_eq!(crl(), first);
        ground.house.keep(NOW + 16 * DAY).unwrap();
        assert_ne!(crl(), first);
    }
}
