//! Fetches CRLs from a `liz-ca` at a limited rate. A receiver uses them to check its clients, a
//! monitor to check its receivers.
//!
//! CRLs are signed, and their users verify the signatures. TLS prevents an attacker from
//! suppressing them.

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

/// How often a receiver fetches CRLs, in seconds. A revocation that was not uploaded to the
/// receiver takes effect after this time at the latest.
pub const RECEIVER_EVERY_SECS: u64 = 600;
/// How often a monitor fetches CRLs, in seconds. The interval is long because there may be many
/// monitors.
pub const MONITOR_EVERY_SECS: u64 = 3600;
/// How often a monitor checks whether a fetch is due, in seconds. It wakes up for each sample
/// anyway, so this adds little.
const LOOK_SECS: u64 = 10;
/// The maximum size of a body with CRLs: 16 MiB, the same limit as in a receiver. Enough for half a
/// million revoked certificates.
const CRLS_BYTES_MAX: usize = 16 << 20;

/// Where CRLs are fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlSource {
    /// The URL of `liz-ca`.
    pub url: BaseUrl,
    /// The file of roots that the server's certificate must lead to: PEM.
    pub ca: PathBuf,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedCrls {
    /// The CRLs as the CA sent them: PEM, not verified.
    pub pem: Vec<u8>,
    /// Certificates that include those of the CRL issuers. Not verified.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl CrlSource {
    /// Fetches the CRLs now. Presents no client certificate, so that a fetch also works after our
    /// own certificate has expired.
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

/// Keeps [`ServerCrls`] up to date while a program runs.
pub struct ServerCrlRefresher {
    /// Where the CRLs are fetched from.
    pub source: CrlSource,
    /// The CRLs to update.
    pub crls: ServerCrls,
    /// The current time.
    pub clock: Now,
    /// Randomness that spreads the requests of many clients.
    pub chance: Chance,
}

impl ServerCrlRefresher {
    /// Never returns: drop it when the program ends. If the CA is unreachable, the current CRLs
    /// stay in force.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for as long as pure code has decided"
    )]
    pub async fn run(self) {
        let mut pace = FetchSchedule::new(MONITOR_EVERY_SECS);
        let mut log_once = LogOnce::default();
        loop {
            let now = (self.clock)();
            if pace.is_due(now, false) {
                let outcome = self.fetch(&mut log_once).await;
                pace.asked((self.clock)(), false, outcome, (self.chance)());
            }
            sleep(Duration::from_secs(LOOK_SECS)).await;
        }
    }

    async fn fetch(&self, log_once: &mut LogOnce) -> FetchOutcome {
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
                    true if log_once.clear() => {
                        info!("CRLs can be fetched from {url} again");
                    }
                    true => (),
                    false => log_once.about(unusable.join("; "), |text| {
                        warn!("some CRLs of {url} are not in force: {text}");
                    }),
                }
                debug!(new, "fetched the CRLs of {url}");
                if new {
                    FetchOutcome::New
                } else {
                    FetchOutcome::Same
                }
            }
            Err(text) => {
                log_once.about(text, |text| {
                    warn!("cannot fetch CRLs, new revocations of receivers are unknown: {text}");
                });
                FetchOutcome::Failed
            }
        }
    }
}
