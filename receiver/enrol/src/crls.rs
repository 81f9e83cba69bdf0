//! Revocation lists from a `liz-ca`: fetched at a bounded pace, by a receiver for its clients and by a monitor for its
//! receivers.
//!
//! They are signed, so whoever takes them judges them by that; TLS keeps away who would rather have them not arrive.

use std::path::PathBuf;
use std::time::Duration;

use lizmon_pki::credentials::anonymous_tls;
use lizmon_pki::error_chain::in_one_line;
use lizmon_pki::server_crls::{ServerCrlUpdate, ServerCrls};
use lizmon_protocol::enrol::{CACERTS, CRL};
use lizmon_transport::BaseUrl;
use rustls::pki_types::CertificateDer;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::answer::read_certificates;
use crate::ca::Ca;
use crate::error::EnrolError;
use crate::fetch_schedule::{FetchOutcome, FetchSchedule};
use crate::log_once::LogOnce;
use crate::renewer::{Chance, Now};

/// How often a receiver asks: a revocation that nobody handed in is in force after that at the latest.
pub const RECEIVER_EVERY_SECS: u64 = 600;
/// How often a monitor asks whether its receivers are still good: there may be very many monitors.
pub const MONITOR_EVERY_SECS: u64 = 3600;
/// How often a monitor asks itself whether anything is due. It wakes for each sample anyway, and these fall far apart.
const LOOK_SECS: u64 = 10;
/// Largest body with lists: 16 MiB, as a receiver takes it. Half a million certificates are in less.
const CRLS_BYTES_MAX: usize = 16 << 20;

/// Where lists are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlSource {
    /// Where `liz-ca` is.
    pub url: BaseUrl,
    /// The roots one of which must vouch for it: PEM.
    pub ca: PathBuf,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedCrls {
    /// The lists, PEM, as the CA has them. Nothing of them was judged.
    pub pem: Vec<u8>,
    /// Certificates among which those of the lists' authorities are. They are not to be believed unjudged either.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl CrlSource {
    /// Asks now. No certificate of ours is shown: what is public is had even where ours has ended.
    pub async fn fetch(&self) -> Result<FetchedCrls, EnrolError> {
        let ca = self.connect()?;
        let authorities = read_certificates(&ca.send(ca.get(CACERTS)).await?);
        let authorities = authorities.map_err(|flaw| ca.flawed(flaw))?;
        let pem = ca.send_for(ca.get(CRL), CRLS_BYTES_MAX).await?;
        Ok(FetchedCrls { pem, authorities })
    }

    async fn fetch_crls_alone(&self) -> Result<Vec<u8>, EnrolError> {
        let ca = self.connect()?;
        ca.send_for(ca.get(CRL), CRLS_BYTES_MAX).await
    }

    fn connect(&self) -> Result<Ca, EnrolError> {
        let tls = anonymous_tls(&self.ca)?;
        Ca::new(self.url.clone(), tls, None)
    }
}

/// Keeps [`ServerCrls`] fresh for as long as a program runs.
pub struct ServerCrlRefresher {
    /// Where they come from.
    pub source: CrlSource,
    /// What is kept fresh.
    pub crls: ServerCrls,
    /// The time.
    pub clock: Now,
    /// Spreads a fleet.
    pub chance: Chance,
}

impl ServerCrlRefresher {
    /// Never returns: end it with the program. A CA that is away is no misfortune: the lists that are there go on to hold.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for as long as pure code has decided"
    )]
    pub async fn run(self) {
        let mut pace = FetchSchedule::new(MONITOR_EVERY_SECS);
        let mut complaint = LogOnce::default();
        loop {
            let now = (self.clock)();
            if pace.is_due(now, false) {
                let came = self.ask(&mut complaint).await;
                pace.asked((self.clock)(), false, came, (self.chance)());
            }
            sleep(Duration::from_secs(LOOK_SECS)).await;
        }
    }

    async fn ask(&self, complaint: &mut LogOnce) -> FetchOutcome {
        let url = &self.source.url;
        let taken = match self.source.fetch_crls_alone().await {
            Ok(pem) => self.crls.take(&pem).map_err(|error| error.to_string()),
            Err(error) => Err(in_one_line(&error)),
        };
        match taken {
            Ok(ServerCrlUpdate {
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
                if new {
                    FetchOutcome::New
                } else {
                    FetchOutcome::Same
                }
            }
            Err(text) => {
                complaint.about(text, |text| {
                    warn!("whether receivers are revoked is not known anew: {text}");
                });
                FetchOutcome::Failed
            }
        }
    }
}
