//! The CA and the three certificates of `lizctl up`: made where there are none, renewed where they are due.

use std::path::{Path, PathBuf};

use lizmon_ca::Error;
use lizmon_ca::authority::{
    Authority, Ending, InitOptions, Request, RotateOptions, Rotated, Stage,
};
use lizmon_ca::inspect::{Item, inspect};
use lizmon_ca::layout::{CaFiles, LeafFiles};
use lizmon_ca::ledger::{Entry, Generation, Phase, State};
use lizmon_ca::passphrase::Unlock;
use lizmon_ca::profile::{Profile, San, Validity};
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

/// Whether anything runs on the files that are looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Nothing runs yet: all that is due is done at once.
    Starting,
    /// Programs have to take up what each step changes: one step of a rotation a time.
    Running,
}

impl House {
    /// Makes and renews what has to be there before anything starts.
    pub(crate) fn open(
        certs: PathBuf,
        unlock: Unlock,
        place: &Place,
        this_host: Option<&NodeName>,
        now: u64,
    ) -> anyhow::Result<Self> {
        let mut house = Self {
            unlock,
            ca: CaFiles::new(&certs),
            host: match this_host {
                Some(name) => name.clone(),
                None => name_of(&rustix::system::uname().nodename().to_string_lossy())?,
            },
            local: LOCAL_NAME.parse()?,
            receiver_sans: place.sans.clone(),
            certs,
        };
        let authority = house.authority(now)?;
        house.take_issued_name(&authority.entries()?)?;
        house.keep_with(authority, Pace::Starting, now)?;
        Ok(house)
    }

    /// Makes what is missing, renews what is past two thirds of its life, replaces a CA that comes to its end if it is
    /// nobody else's, and signs revocation lists again that are past half of their life.
    pub(crate) fn keep(&self, pace: Pace, now: u64) -> Result<(), Error> {
        self.keep_with(self.authority(now)?, pace, now)
    }

    fn authority(&self, now: u64) -> Result<Authority, Error> {
        if Authority::is_there(&self.certs) {
            return Authority::open_with(&self.certs, self.unlock.clone(), now);
        }
        let authority = Authority::init(&self.certs, &InitOptions::default(), now)?;
        output::note(format!("made a CA in {}", self.certs.display()));
        Ok(authority)
    }

    /// No two names may differ only by case, and a machine's name changes its case by a whim of DHCP.
    fn take_issued_name(&mut self, entries: &[Entry]) -> Result<(), NameError> {
        let host = self.host.as_str();
        let is_node = |entry: &&Entry| entry.profile == Profile::Leaf(Role::Node);
        let mut twins = entries.iter().filter(is_node).map(|entry| &entry.name);
        if twins.clone().any(|name| name == host) {
            return Ok(());
        }
        if let Some(issued) = twins.find(|name| name.eq_ignore_ascii_case(host)) {
            output::note(format!(
                "this host `{host}` goes as `{issued}`: that is how its certificates were issued"
            ));
            self.host = issued.parse()?;
        }
        Ok(())
    }

    fn keep_with(&self, mut authority: Authority, pace: Pace, now: u64) -> Result<(), Error> {
        let rounds = match pace {
            // One CA may be due after the other: each is begun, its leaves issued anew, the old one ended.
            Pace::Starting => 2 * 2,
            Pace::Running => 1,
        };
        for _ in 0..rounds {
            let stepped = self.replace_ending(&mut authority, pace, now)?;
            self.keep_leaves(&authority, now)?;
            if !stepped {
                break;
            }
        }
        Ok(())
    }

    fn keep_leaves(&self, authority: &Authority, now: u64) -> Result<(), Error> {
        let entries = authority.entries()?;
        let generations = authority.generations()?;
        let signs =
            |ca: &&Generation| ca.phase == Phase::Current && ca.entry.profile == Profile::Issuing;
        let issuer = generations.iter().find(signs).map(|ca| &*ca.entry.serial);
        for (role, name, sans) in self.leaves() {
            let files = LeafFiles::new(&self.certs, role, name);
            if is_good(&files, sans, &entries, issuer, now) {
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

    fn leaves(&self) -> [(Role, &NodeName, &[San]); 3] {
        [
            (Role::Receiver, &self.local, &self.receiver_sans),
            (Role::Node, &self.host, &[]),
            (Role::Reader, &self.local, &[]),
        ]
    }

    /// Takes the steps of a rotation that a CA's coming end asks for, and says whether it took any. Where the CA has let in
    /// others, they may have to be told of each step: then it is only said what to do, until the end is there and nobody
    /// is left to be told.
    fn replace_ending(
        &self,
        authority: &mut Authority,
        pace: Pace,
        now: u64,
    ) -> Result<bool, Error> {
        let options = RotateOptions {
            force: true,
            ..RotateOptions::default()
        };
        let mut stepped = false;
        while let Some((which, due)) = next_step(authority, now)? {
            if due.advice.is_some() && !self.is_alone(&authority.entries()?, now) {
                if let (Pace::Starting, Some(advice)) = (pace, due.advice) {
                    output::note(advice);
                }
                return Ok(false);
            }
            let stage = match authority.rotate_next(which, &options, now) {
                Ok(rotation) => rotation.stage,
                Err(error) if due.can_wait => {
                    output::note(format!("{}; it could not be replaced: {error}", due.story));
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            output::note(format!("{}: {}", due.story, told(which, stage)));
            stepped = true;
            // The old one goes only once nobody shows its certificates.
            if pace == Pace::Running || stage == Stage::InUse {
                break;
            }
        }
        Ok(stepped)
    }

    /// Whether every certificate that counts is one of ours.
    fn is_alone(&self, entries: &[Entry], now: u64) -> bool {
        let ours = self.leaves();
        let is_ours = |entry: &Entry, role: Role| {
            ours.iter()
                .any(|(our_role, name, _)| *our_role == role && name.as_str() == entry.name)
        };
        let live = entries.iter().filter(|entry| entry.is_live(now));
        live.into_iter().all(|entry| match entry.profile {
            Profile::Leaf(role) => is_ours(entry, role),
            Profile::Root | Profile::Issuing => true,
        })
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

/// Why a CA has to be replaced.
struct Due {
    story: String,
    /// What to tell instead, where others have certificates of it. Nobody has any that count once it has ended.
    advice: Option<String>,
    can_wait: bool,
}

impl Due {
    fn of(which: Rotated, life: Validity, now: u64) -> Option<Self> {
        if now < life.not_before {
            let begins = output::date(life.not_before);
            let story = format!("the {which} CA begins at {begins}, later than now");
            return Some(Self {
                advice: Some(format!("{story}: is the clock right?")),
                story,
                can_wait: false,
            });
        }
        let ending = Ending::of(which, life, now)?;
        Some(Self {
            story: ending.story(),
            advice: (!ending.has_ended).then(|| ending.to_string()),
            can_wait: !ending.has_ended,
        })
    }
}

/// The rotation that is to be begun or to go on, and why.
fn next_step(authority: &Authority, now: u64) -> Result<Option<(Rotated, Due)>, Error> {
    let rotation = authority.rotation(now)?;
    if rotation.stage == Stage::InUse {
        let old = |ca: &&Generation| ca.phase == Phase::Old;
        let due = rotation.generations.iter().filter(old).find_map(|ca| {
            let which = match ca.entry.profile {
                Profile::Root => Rotated::Root,
                _ => Rotated::Issuing,
            };
            let life = Validity {
                not_before: ca.entry.not_before,
                not_after: ca.entry.not_after,
            };
            Due::of(which, life, now)
        });
        // Who still shows a certificate of the old one is not left behind.
        let due = due.filter(|_| rotation.waiting.is_empty());
        return Ok(rotation.rotated.zip(due));
    }
    // One that somebody has begun goes on, whichever it is.
    let under_way = rotation.rotated.filter(|_| rotation.stage != Stage::Steady);
    let root = authority.root_validity();
    let which = match authority.ending(now) {
        Some(ending) => ending.which,
        None if now < root.not_before => Rotated::Root,
        None => Rotated::Issuing,
    };
    let life = match which {
        Rotated::Root => root,
        Rotated::Issuing => authority.issuing_validity(),
    };
    let due = Due::of(which, life, now);
    Ok(due.map(|due| (under_way.unwrap_or(which), due)))
}

fn told(which: Rotated, stage: Stage) -> String {
    match stage {
        Stage::Published => format!("made a new {which} CA"),
        Stage::InUse => format!("the new {which} CA signs now"),
        Stage::Steady => format!("the old {which} CA is not trusted any more"),
    }
}

/// Whether the CA that signs now issued the certificate, it is not revoked, has begun, has a third of its life before it,
/// bears the names and has its key beside it.
fn is_good(
    files: &LeafFiles,
    sans: &[San],
    entries: &[Entry],
    issuer: Option<&str>,
    now: u64,
) -> bool {
    let chain = std::fs::read_to_string(&files.certificate).unwrap_or_default();
    let Some(entry) = entries.iter().find(|entry| chain.starts_with(&entry.pem)) else {
        return false;
    };
    let life = entry.not_after.saturating_sub(entry.not_before);
    let renew_at = entry.not_before + life / 3 * 2;
    entry.state == State::Valid
        && Some(&*entry.issuer) == issuer
        && (entry.not_before..renew_at).contains(&now)
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

/// The name of this machine, and a word about it where it could not be taken as it is.
fn name_of(host_name: &str) -> Result<NodeName, NameError> {
    let name = node_name(host_name)?;
    if name.as_str() != host_name {
        output::note(format!(
            "this host is called `{}`, which no certificate can say: it goes as `{name}`; --this-host gives it another name",
            host_name.escape_debug()
        ));
    }
    Ok(name)
}

/// What an operating system takes for a host name may be no node name: what does not fit becomes `-`.
fn node_name(host_name: &str) -> Result<NodeName, NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fitted: String = host_name
        .trim_end_matches('.')
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
            ("web1.example.", "web1.example"),
            (&long[..64], &long[..64]),
            ("my host", "my-host"),
            ("under_score", "under_score"),
            ("::1", "1"),
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
        ground_at(NOW)
    }

    fn ground_at(now: u64) -> Ground {
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
        house.keep(Pace::Starting, now).unwrap();
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
        ground.house.keep(Pace::Starting, NOW + later).unwrap();
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
        ground.house.keep(Pace::Running, NOW + 14 * DAY).unwrap();
        assert_eq!(crl(), first);
        ground.house.keep(Pace::Running, NOW + 16 * DAY).unwrap();
        assert_ne!(crl(), first);
    }

    fn issuing(house: &House) -> Vec<u8> {
        std::fs::read(&house.ca.issuing_certificate).unwrap()
    }

    fn root(house: &House) -> Vec<u8> {
        std::fs::read(&house.ca.root_certificate).unwrap()
    }

    /// A folder that lay still for so long is used again as if nothing had been.
    #[test]
    fn a_ca_that_ends_is_replaced_at_the_start() {
        for (days, new_issuing, new_root) in [
            (240, false, false),
            (250, true, false),
            (366, true, false),
            (2_400, true, false),
            (2_500, true, true),
            (3_651, true, true),
            (20_000, true, true),
        ] {
            let mut ground = ground();
            let before = (issuing(&ground.house), root(&ground.house));
            check(&mut ground, days * DAY, [true; 3], |_| ());
            let house = &ground.house;
            assert_eq!(issuing(house) != before.0, new_issuing, "{days} days");
            assert_eq!(root(house) != before.1, new_root, "{days} days");
            let authority = Authority::open(&house.certs, NOW + days * DAY).unwrap();
            let ending = authority.ending(NOW + days * DAY);
            // A root is not replaced before its own last third, though an issuing CA may be in its last by then.
            assert!(ending.is_none(), "{days} days: {ending:?}");
            assert_eq!(
                authority.rotation(NOW + days * DAY).unwrap().stage,
                Stage::Steady,
                "{days} days"
            );
            check(&mut ground, days * DAY + 1, [false; 3], |_| ());
        }
    }

    /// While programs run on the files they have to take up each step before the next one comes.
    #[test]
    fn a_ca_that_ends_is_replaced_step_by_step_while_it_runs() {
        for (days, what) in [(250, Rotated::Issuing), (2_438, Rotated::Root)] {
            let ground = ground();
            let house = &ground.house;
            let now = NOW + days * DAY;
            // As if it had run until then: what it shows is good.
            if what == Rotated::Root {
                house.keep(Pace::Starting, NOW + 2_400 * DAY).unwrap();
            }
            house.keep(Pace::Running, now - 8 * DAY).unwrap();
            let mut stages = Vec::new();
            for round in 0..5 {
                house.keep(Pace::Running, now + round * 600).unwrap();
                let authority = Authority::open(&house.certs, now + round * 600).unwrap();
                stages.push(authority.rotation(now + round * 600).unwrap().stage);
                for credentials in [house.node(), house.reader()] {
                    let url = "https://localhost".parse().unwrap();
                    lizmon_client::Client::new(url, &credentials, now + round * 600).unwrap();
                }
            }
            let expected = [
                Stage::Published,
                Stage::InUse,
                Stage::Steady,
                Stage::Steady,
                Stage::Steady,
            ];
            assert_eq!(stages, expected, "{what}");
        }
    }

    /// Others would have to be told of each step: nothing is done behind their backs while their certificates count.
    #[test]
    fn a_ca_of_others_is_replaced_only_when_it_has_ended() {
        let mut ground = ground();
        let before = issuing(&ground.house);
        let authority = Authority::open(&ground.house.certs, NOW).unwrap();
        let other = Request::new(Role::Node, "web9".parse().unwrap());
        authority.issue(other, NOW + 240 * DAY).unwrap();
        check(&mut ground, 250 * DAY, [true; 3], |_| ());
        assert_eq!(issuing(&ground.house), before);
        check(&mut ground, 366 * DAY, [true; 3], |_| ());
        assert_ne!(issuing(&ground.house), before);
    }

    /// A machine without a clock of its own makes its CA in 2036, and hears of the right time later; or the other way round.
    #[test]
    fn a_ca_that_was_made_by_a_wrong_clock_is_replaced() {
        for (made, now) in [
            (NOW + 3_650 * DAY, NOW),
            (NOW + DAY, NOW),
            (86_400, NOW),
            (NOW, 86_400),
        ] {
            let ground = ground_at(made);
            let house = &ground.house;
            house.keep(Pace::Starting, now).unwrap();
            let authority = Authority::open(&house.certs, now).unwrap();
            assert_eq!(authority.rotation(now).unwrap().stage, Stage::Steady);
            for credentials in [house.node(), house.reader()] {
                let url = "https://localhost".parse().unwrap();
                lizmon_client::Client::new(url, &credentials, now).unwrap();
            }
        }
    }

    #[test]
    fn what_was_issued_by_a_clock_that_was_ahead_is_issued_again() {
        let mut ground = ground();
        ground.house.keep(Pace::Starting, NOW + 65 * DAY).unwrap();
        check(&mut ground, DAY, [true; 3], |_| ());
        check(&mut ground, DAY, [false; 3], |_| ());
    }

    /// A machine's name may change its case from one day to the next; its certificates go on.
    #[test]
    fn the_issued_spelling_of_a_name_is_used() {
        let ground = ground();
        let authority = Authority::open(&ground.house.certs, NOW).unwrap();
        let entries = authority.entries().unwrap();
        for (called, used) in [
            ("web1", "web1"),
            ("WEB1", "web1"),
            ("Web1", "web1"),
            ("web1.example", "web1.example"),
            ("web", "web"),
            // A receiver's name is nobody's host name.
            ("LOCALHOST", "LOCALHOST"),
        ] {
            let mut house = House {
                host: called.parse().unwrap(),
                ca: CaFiles::new(&ground.house.certs),
                certs: ground.house.certs.clone(),
                unlock: Unlock::default(),
                local: LOCAL_NAME.parse().unwrap(),
                receiver_sans: Vec::new(),
            };
            house.take_issued_name(&entries).unwrap();
            assert_eq!(house.host.as_str(), used, "{called}");
        }
    }
}
