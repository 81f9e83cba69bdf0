//! Renews a certificate while its program runs, and warns early if renewal does not work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lizmon_pki::certificate_files::{CertificateFiles, FileError, check_replaceable};
use lizmon_pki::credentials::{Credentials, CredentialsError, Validity};
use lizmon_pki::date::{ApproxDuration, rfc3339};
use lizmon_pki::error_chain::in_one_line;
use lizmon_pki::renewal_schedule::{RenewalAction, RenewalSchedule};
use lizmon_transport::BaseUrl;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use crate::enrolment::{Obtained, renew};
use crate::error::EnrolError;

/// How often the files are checked for changes, in seconds: a user may have issued a new
/// certificate by hand, or joined again.
const LOOK_SECS_MAX: u64 = 60;
/// From this number of consecutive failures on, each failure is a warning that includes the
/// remedies.
const FAILURES_MANY: u32 = 3;

/// The minimum time between two warnings about the expiry, in seconds.
const WARN_SECS_MIN: u64 = 3600;

/// Returns the current time: epoch seconds.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;
/// Returns a random number between 0 and 1.
pub type Chance = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Receives a short status text.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// Renews one certificate and key on disk. The program that uses the files detects the change and
/// reloads them.
#[derive(Clone)]
pub struct Renewer {
    /// The URL of `liz-ca`. Without it nothing is renewed, and the renewer only warns about the
    /// expiry.
    pub url: Option<BaseUrl>,
    /// The files to renew.
    pub credentials: Credentials,
    /// The current time.
    pub clock: Now,
    /// Randomness that spreads the requests of many clients.
    pub chance: Chance,
    /// Called with the remaining lifetime of the certificate when that text changes.
    pub tell: Tell,
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewer")
            .field("url", &self.url)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// The certificate that is monitored.
struct Watched {
    validity: Validity,
    schedule: RenewalSchedule,
    said_ended: bool,
}

impl Renewer {
    /// Finishes a replacement that a crash interrupted. Call it before the files are loaded.
    pub fn finish_install(&self) -> Result<(), FileError> {
        let (cert, key) = (self.credentials.cert.clone(), self.credentials.key.clone());
        if (CertificateFiles { cert, key }).finish_install()? {
            info!("finished an interrupted renewal");
        }
        self.try_to_write();
        Ok(())
    }

    /// Checks that the files can be replaced, so that a problem shows at startup and not when the
    /// certificate expires.
    fn try_to_write(&self) {
        if self.url.is_none() {
            return;
        }
        let Credentials { cert, key, ca } = &self.credentials;
        for file in [cert, key, ca] {
            if let Err(error) = check_replaceable(file) {
                error!(
                    "renewed certificates cannot be saved: {}: make that folder writable for this user, or omit --ca-url",
                    in_one_line(&error)
                );
            }
        }
    }

    /// Never returns: drop it when the program ends. Logs its actions and errors.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for as long as pure code has decided"
    )]
    pub async fn run(self) {
        let mut watched: Option<Watched> = None;
        let mut last_warning = String::new();
        let mut told = String::new();
        loop {
            let now = (self.clock)();
            match self.credentials.validity() {
                Ok(validity)
                    if watched
                        .as_ref()
                        .is_none_or(|known| known.validity != validity) =>
                {
                    watched = Some(self.watch(validity, validity.not_before, now));
                }
                Ok(_) => last_warning.clear(),
                Err(error) => warn_once(&error, &mut last_warning),
            }
            let wait = match watched.as_mut() {
                None => LOOK_SECS_MAX,
                Some(watched) => self.step(watched, now).await,
            };
            let words = status(watched.as_ref(), (self.clock)());
            if words != told {
                (self.tell)(&words);
                told = words;
            }
            sleep(Duration::from_secs(wait.clamp(1, LOOK_SECS_MAX))).await;
        }
    }

    fn watch(&self, validity: Validity, from: u64, now: u64) -> Watched {
        let schedule = RenewalSchedule::new(from, validity.not_after, (self.chance)());
        if let RenewalAction::Wait(secs) = schedule.action(now) {
            debug!(
                "the certificate is valid for {}, and is renewed in {}",
                ApproxDuration(validity.not_after.saturating_sub(now)),
                ApproxDuration(secs)
            );
        }
        Watched {
            validity,
            schedule,
            said_ended: false,
        }
    }

    /// Renews the certificate if that is due. Returns the time to wait afterwards, in seconds.
    async fn step(&self, watched: &mut Watched, now: u64) -> u64 {
        match watched.schedule.action(now) {
            RenewalAction::Wait(secs) => secs,
            RenewalAction::Ended => {
                if !watched.said_ended {
                    error!(
                        "the certificate `{}` has expired and was not renewed: {}",
                        self.credentials.cert.display(),
                        self.recovery_advice()
                    );
                    watched.said_ended = true;
                }
                LOOK_SECS_MAX
            }
            RenewalAction::Renew => {
                match &self.url {
                    Some(url) => self.renew(url, watched, now).await,
                    None => self.warn_of_end(watched, now),
                }
                1
            }
        }
    }

    async fn renew(&self, url: &BaseUrl, watched: &mut Watched, now: u64) {
        let renewed = renew(url, &self.credentials, now).await;
        let after = (self.clock)();
        match renewed {
            Ok(obtained) => {
                say_renewed(&obtained, after);
                if let Ok(validity) = self.credentials.validity() {
                    *watched = self.watch(validity, after, after);
                }
            }
            Err(error) => {
                let (wait, chance) = (error.retry_after(), (self.chance)());
                match error.is_for_long() {
                    true => watched.schedule.failed_for_long(after, chance),
                    false => watched.schedule.failed(after, wait, chance),
                }
                self.say_failed(&error, watched, after);
            }
        }
    }

    fn say_failed(&self, error: &EnrolError, watched: &Watched, now: u64) {
        let left = ApproxDuration(watched.validity.not_after.saturating_sub(now));
        let error = in_one_line(error);
        if error_needs_a_person(watched) {
            let recovery_advice = self.recovery_advice();
            warn!(
                "cannot renew the certificate, which expires in {left}: {error}; once it has expired, {recovery_advice}"
            );
        } else {
            warn!("cannot renew the certificate yet, it is valid for {left}: {error}");
        }
    }

    fn recovery_advice(&self) -> &'static str {
        let is_server = self
            .credentials
            .identity()
            .is_ok_and(|id| id.role.is_server());
        RECOVERY_ADVICE[usize::from(is_server)]
    }

    fn warn_of_end(&self, watched: &mut Watched, now: u64) {
        let left = watched.validity.not_after.saturating_sub(now);
        warn!(
            "the certificate `{}` expires in {} and nothing renews it: give --ca-url, or issue a new one with lizctl",
            self.credentials.cert.display(),
            ApproxDuration(left),
        );
        let wait = Duration::from_secs((left / 10).max(WARN_SECS_MIN));
        watched.schedule.failed(now, Some(wait), (self.chance)());
    }
}

/// The remedies when renewal fails: a new join for clients with a token, and a new certificate from
/// the CA for servers, because their names need approval.
const RECOVERY_ADVICE: [&str; 2] = [
    "join again with a token from `lizctl join-token NAME` on the CA: lizctl join URL --token T --ca-fingerprint HEX",
    "issue a new one on the CA: lizctl issue-receiver NAME --san DNS-OR-IP",
];

fn say_renewed(obtained: &Obtained, now: u64) {
    let left = ApproxDuration(obtained.not_after.saturating_sub(now));
    let identity = &obtained.identity;
    info!("the certificate of {identity} was renewed, it is valid for {left}");
    if obtained.not_before > now {
        warn!(
            "the new certificate begins at {}, and the clock here says {}: this machine's clock is behind the CA's; \
             the one before is used until then",
            rfc3339(obtained.not_before),
            rfc3339(now)
        );
    }
    if obtained.roots_changed {
        let path = obtained.credentials.ca.display();
        info!("updated `{path}` to the roots that the CA trusts now");
    }
}

fn error_needs_a_person(watched: &Watched) -> bool {
    watched.schedule.failures() >= FAILURES_MANY
}

/// The status of the certificate as a short text.
fn status(watched: Option<&Watched>, now: u64) -> String {
    let Some(watched) = watched else {
        return "its certificate cannot be read".to_owned();
    };
    match watched
        .validity
        .not_after
        .checked_sub(now)
        .map(ApproxDuration)
    {
        None => "its certificate has expired".to_owned(),
        Some(left) if watched.schedule.failures() > 0 => {
            format!("its certificate expires in {left}, and was not renewed")
        }
        Some(left) => format!("its certificate is valid for {left}"),
    }
}

/// Logs each new reason once.
fn warn_once(error: &CredentialsError, last: &mut String) {
    let text = error.to_string();
    if *last != text {
        warn!("the certificate is not renewed: {text}");
        *last = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_words() {
        const END: u64 = 1_800_000_000;
        let validity = Validity {
            not_before: END - 600_000,
            not_after: END,
        };
        let well = Watched {
            validity,
            schedule: RenewalSchedule::new(validity.not_before, END, 0.0),
            said_ended: false,
        };
        let mut failed = Watched {
            schedule: well.schedule.clone(),
            ..well
        };
        failed.schedule.failed(END - 100_000, None, 0.0);
        let cases = [
            (None, END, "its certificate cannot be read"),
            (
                Some(&well),
                END - 500_000,
                "its certificate is valid for 5 days",
            ),
            (
                Some(&failed),
                END - 90_000,
                "its certificate expires in 25 hours, and was not renewed",
            ),
            (
                Some(&failed),
                END,
                "its certificate expires in 0 seconds, and was not renewed",
            ),
            (Some(&failed), END + 1, "its certificate has expired"),
        ];
        for (watched, now, expected) in cases {
            assert_eq!(status(watched, now), expected);
        }
    }
}
