//! Revocation lists from a `liz-ca`: fetched at a bounded pace, by a receiver for its clients and by a monitor for its
//! receivers.
//!
//! They are signed, so whoever takes them judges them by that; TLS keeps away who would rather have them not arrive.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use lizmon_pki::held;
use lizmon_pki::list::RevocationList;
use lizmon_protocol::enrol::{CACERTS, CRL};
use rustls::pki_types::CertificateDer;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::answer::read_certificates;
use super::renewer::{Chance, Now};
use super::{Ca, EnrolError};
use crate::base_url::BaseUrl;
use crate::credentials::anonymous_tls;
use crate::error::{Error, in_one_line};

/// How often a receiver asks: a revocation that nobody handed in is in force after that at the latest.
pub const RECEIVER_EVERY_SECS: u64 = 600;
/// How often a monitor asks whether its receivers are still good: there may be very many monitors.
pub const MONITOR_EVERY_SECS: u64 = 3600;
/// The first wait after a failure, and before a list that is missed is asked for again. Both double, up to the usual wait.
const FIRST_WAIT_SECS: u64 = 10;
/// Part of the usual wait by which askers spread: a tenth.
const SPREAD: u64 = 10;
/// How often a monitor asks itself whether anything is due. It wakes for each sample anyway, and these fall far apart.
const LOOK_SECS: u64 = 10;
/// Largest body with lists: 16 MiB, as a receiver takes it. Half a million certificates are in less.
const LISTS_BYTES_MAX: usize = 16 << 20;

/// Where lists are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where `liz-ca` is.
    pub url: BaseUrl,
    /// The roots one of which must vouch for it: PEM.
    pub ca: PathBuf,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// The lists, PEM, as the CA has them. Nothing of them was judged.
    pub pem: Vec<u8>,
    /// Certificates among which those of the lists' authorities are. They are not to be believed unjudged either.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Source {
    /// Asks now. No certificate of ours is shown: what is public is had even where ours has ended.
    pub async fn fetch(&self) -> Result<Lists, EnrolError> {
        let ca = self.connect()?;
        let authorities = read_certificates(&ca.send(ca.http.get(ca.at(CACERTS))).await?);
        let authorities = authorities.map_err(|flaw| ca.flawed(flaw))?;
        let pem = ca
            .send_for(ca.http.get(ca.at(CRL)), LISTS_BYTES_MAX)
            .await?;
        Ok(Lists { pem, authorities })
    }

    async fn fetch_lists_alone(&self) -> Result<Vec<u8>, EnrolError> {
        let ca = self.connect()?;
        ca.send_for(ca.http.get(ca.at(CRL)), LISTS_BYTES_MAX).await
    }

    fn connect(&self) -> Result<Ca, EnrolError> {
        let tls = anonymous_tls(&self.ca).map_err(Error::from)?;
        Ca::new(self.url.clone(), tls, None)
    }
}

/// When to ask next: pure, time and chance are arguments.
///
/// ```text
/// asked --every, less up to a tenth--> due      failed --10 s, 20 s, 40 s … every--> due      a list is missed --10 s, 20 s …--> due
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    every: u64,
    /// Epoch seconds.
    next: u64,
    /// When somebody misses a list: epoch seconds.
    next_missed: u64,
    /// Failures, or times that a list was missed and not there, in a row.
    in_vain: u32,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// There was something new.
    New,
    /// There was nothing new.
    Same,
    /// There was no answer.
    Failed,
}

impl Pace {
    /// Due at once, and then every so many seconds.
    pub fn new(every: u64) -> Self {
        Self {
            every,
            next: 0,
            next_missed: 0,
            in_vain: 0,
        }
    }

    /// Whether to ask at `now` (epoch seconds). `missed`: somebody is turned away for want of a list.
    pub fn is_due(&self, now: u64, missed: bool) -> bool {
        // Of a clock that was set back nothing is further away than the usual wait.
        let due = |at: u64| now >= at || at - now > self.every;
        due(self.next) || (missed && due(self.next_missed))
    }

    /// It was asked at `now`, and `missed` was so.
    pub fn asked(&mut self, now: u64, missed: bool, came: Asked, chance: f64) {
        let in_vain = came == Asked::Failed || (missed && came == Asked::Same);
        let wait = FIRST_WAIT_SECS
            .checked_shl(self.in_vain.min(32))
            .map_or(self.every, |wait| wait.min(self.every));
        self.in_vain = if in_vain {
            self.in_vain.saturating_add(1)
        } else {
            0
        };
        let spread = (self.every as f64 / SPREAD as f64 * chance.clamp(0.0, 1.0)) as u64;
        let usual = now + self.every - spread;
        self.next_missed = now + if in_vain { wait } else { FIRST_WAIT_SECS };
        self.next = match came {
            Asked::Failed => usual.min(now + wait),
            Asked::New | Asked::Same => usual,
        };
    }
}

/// Says each complaint once, for as long as it stays the same.
#[derive(Debug, Default)]
pub struct Complaint(String);

impl Complaint {
    /// Runs `say` if this is new.
    pub fn about(&mut self, text: String, say: impl FnOnce(&str)) {
        if self.0 != text {
            say(&text);
            self.0 = text;
        }
    }

    /// It is over. Says whether there was anything.
    pub fn is_over(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }
}

/// The lists by which a client judges servers. Until there are any, nobody is refused for being on one, and never for want
/// of one: a client must not fall silent because a CA is away.
#[derive(Clone, Default)]
pub struct ServerLists(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    version: u64,
    lists: Vec<RevocationList>,
}

/// What came of taking lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Whether it changed anything.
    pub is_new: bool,
    /// Why others are not in force.
    pub unusable: Vec<String>,
}

/// Bytes that are no lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came is not revocation lists in PEM: is it a liz-ca?")]
pub struct NotLists;

impl fmt::Debug for ServerLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerLists(version {})", self.version())
    }
}

impl ServerLists {
    /// Takes the lists of a CA, PEM: each for itself, and what is newer by number and date in the place of what was there.
    /// What the CA has no list of any more is forgotten. Whoever judges by them checks their signatures.
    pub fn take(&self, pem: &[u8]) -> Result<Taken, NotLists> {
        let (mut fresh, mut unusable) = (Vec::new(), Vec::new());
        for list in RevocationList::read_each(pem) {
            match list {
                Ok(list) => fresh.push(list),
                Err(why) => unusable.push(why.to_string()),
            }
        }
        if fresh.is_empty() {
            return Err(NotLists);
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_still_there = |held: &&RevocationList| {
            let names = fresh.iter().map(RevocationList::issuer_name);
            names.into_iter().any(|name| name == held.issuer_name())
        };
        let mut lists: Vec<_> = known.lists.iter().filter(is_still_there).cloned().collect();
        for list in fresh {
            held::add_unjudged(&mut lists, list);
        }
        let is_new = lists != known.lists;
        if is_new {
            known.lists = lists;
            known.version += 1;
        }
        Ok(Taken { is_new, unusable })
    }

    /// Rises whenever they change.
    pub(crate) fn version(&self) -> u64 {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .version
    }

    pub(crate) fn all(&self) -> Vec<RevocationList> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.lists.clone()
    }
}

/// Keeps [`ServerLists`] fresh for as long as a program runs.
pub struct ServerWatch {
    /// Where they come from.
    pub source: Source,
    /// What is kept fresh.
    pub lists: ServerLists,
    /// The time.
    pub clock: Now,
    /// Spreads a fleet.
    pub chance: Chance,
}

impl ServerWatch {
    /// Never returns: end it with the program. A CA that is away is no misfortune: the lists that are there go on to hold.
    pub async fn run(self) {
        let mut pace = Pace::new(MONITOR_EVERY_SECS);
        let mut complaint = Complaint::default();
        loop {
            let now = (self.clock)();
            if pace.is_due(now, false) {
                let came = self.ask(&mut complaint).await;
                pace.asked((self.clock)(), false, came, (self.chance)());
            }
            sleep(Duration::from_secs(LOOK_SECS)).await;
        }
    }

    async fn ask(&self, complaint: &mut Complaint) -> Asked {
        let url = &self.source.url;
        let taken = match self.source.fetch_lists_alone().await {
            Ok(pem) => self.lists.take(&pem).map_err(|error| error.to_string()),
            Err(error) => Err(in_one_line(&error)),
        };
        match taken {
            Ok(Taken {
                is_new: new,
                unusable,
            }) => {
                match unusable.is_empty() {
                    true if complaint.is_over() => {
                        info!("the revocation lists of {url} are to be had again");
                    }
                    true => (),
                    false => complaint.about(unusable.join("; "), |text| {
                        warn!("not every revocation list of {url} is in force: {text}");
                    }),
                }
                debug!(new, "has asked {url} which receivers are revoked");
                if new { Asked::New } else { Asked::Same }
            }
            Err(text) => {
                complaint.about(text, |text| {
                    warn!("whether receivers are revoked is not known anew: {text}");
                });
                Asked::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
        KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
    };

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn it_is_asked_at_a_bounded_pace() {
        use Asked::{Failed, New, Same};
        // (missed, what came, chance), and how long after it is due: usually, and for who is missed.
        type Step = ((bool, Asked, f64), (u64, u64));
        let cases: &[(&str, &[Step])] = &[
            ("nothing happens", &[((false, Same, 0.0), (600, 10)); 3]),
            (
                "spread",
                &[
                    ((false, Same, 1.0), (540, 10)),
                    ((false, New, 0.5), (570, 10)),
                ],
            ),
            (
                "the CA is away, and comes back",
                &[
                    ((false, Failed, 0.0), (10, 10)),
                    ((false, Failed, 0.0), (20, 20)),
                    ((true, Failed, 0.0), (40, 40)),
                    ((false, Same, 0.0), (600, 10)),
                    ((false, Failed, 0.0), (10, 10)),
                ],
            ),
            (
                "a list is missed that the CA has not either",
                &[
                    ((true, Same, 0.0), (600, 10)),
                    ((true, Same, 0.0), (600, 20)),
                    ((true, Same, 0.0), (600, 40)),
                    ((true, New, 0.0), (600, 10)),
                ],
            ),
        ];
        for (story, steps) in cases {
            let mut pace = Pace::new(600);
            assert!(pace.is_due(NOW, false), "{story}: at the start");
            for (at, ((missed, came, chance), (usual, for_missed))) in steps.iter().enumerate() {
                pace.asked(NOW, *missed, *came, *chance);
                for (missed, wait) in [(false, *usual), (true, *for_missed.min(usual))] {
                    assert!(
                        !pace.is_due(NOW + wait - 1, missed),
                        "{story} {at} {missed}"
                    );
                    assert!(pace.is_due(NOW + wait, missed), "{story} {at} {missed}");
                }
            }
        }
    }

    #[test]
    fn waits_end_at_the_usual_one_and_a_clock_set_back_is_survived() {
        let mut pace = Pace::new(600);
        for _ in 0..40 {
            pace.asked(NOW, true, Asked::Failed, 0.0);
        }
        assert!(!pace.is_due(NOW + 599, true) && pace.is_due(NOW + 600, true));
        assert!(
            pace.is_due(NOW - 1, false),
            "further away than it ever waits"
        );
    }

    #[test]
    fn a_complaint_is_made_once() {
        let mut complaint = Complaint::default();
        let mut said = Vec::new();
        for text in ["away", "away", "gone"] {
            complaint.about(text.to_owned(), |text| said.push(text.to_owned()));
        }
        assert_eq!(said, ["away", "gone"]);
        assert!(complaint.is_over());
        assert!(!complaint.is_over());
    }

    fn list(issuer: &str, number: u64) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, issuer);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 2, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&Issuer::new(params, key))
        .unwrap()
        .pem()
        .unwrap()
    }

    /// An older list never takes a newer one's place; what the CA has no more is forgotten.
    #[test]
    fn of_each_authority_the_newest_list() {
        let (a1, a2, b1) = (list("a", 1), list("a", 2), list("b", 1));
        let steps = [
            (a1.clone(), true, 1),
            (a1.clone(), false, 1),
            (format!("{a1}{b1}"), true, 2),
            (format!("{a2}{b1}"), true, 2),
            (format!("{a1}{b1}"), false, 2),
            (b1, true, 1),
            (a1, true, 1),
        ];
        let lists = ServerLists::default();
        let mut version = 0;
        for (at, (pem, changes, count)) in steps.into_iter().enumerate() {
            let taken = lists.take(pem.as_bytes()).unwrap();
            assert_eq!(
                (taken.is_new, taken.unusable),
                (changes, Vec::new()),
                "{at}"
            );
            version += u64::from(changes);
            assert_eq!(
                (lists.version(), lists.all().len()),
                (version, count),
                "{at}"
            );
        }
        for bad in [
            "",
            "hello",
            "-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n",
        ] {
            assert_eq!(lists.take(bad.as_bytes()), Err(NotLists), "{bad}");
        }
        assert_eq!(lists.version(), version, "what is no list changes nothing");
    }
}
