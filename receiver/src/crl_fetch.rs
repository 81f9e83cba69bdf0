//! Fetches CRLs from a `liz-ca`. They are verified as those of `PUT /api/crl` are, and stored
//! before they take effect.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lizmon_enrol::crls::{FetchedCrls, RECEIVER_EVERY_SECS};
use lizmon_enrol::fetch_schedule::{FetchOutcome, FetchSchedule};
use lizmon_enrol::log_once::LogOnce;
use lizmon_mtls::Clock;
use lizmon_mtls::revocation::{Crl, CrlRefused, in_words};
use lizmon_mtls::trust::CrlUpdate;
use lizmon_pki::error_chain::in_one_line;

use crate::config::CrlFetch;
use crate::router::ReceiverState;

/// How often to check whether a needed CRL is missing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Never returns. Fetches every ten minutes, and soon after a client is rejected because a CRL is
/// missing.
#[expect(clippy::disallowed_methods, reason = "paces background work")]
pub(crate) async fn run(app: Arc<ReceiverState>, from: Option<CrlFetch>, clock: Clock) {
    let Some(from) = from else {
        return std::future::pending().await;
    };
    let mut pace = FetchSchedule::new(RECEIVER_EVERY_SECS);
    let mut logged = LoggedProblems::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let missed = app.trust.current().misses_crl();
        if pace.is_due(clock(), missed) {
            let outcome = ask(&app, &from, &mut logged).await;
            pace.asked(clock(), missed, outcome, (from.chance)());
        }
    }
}

/// What was logged, so that it is not logged again.
#[derive(Default)]
struct LoggedProblems {
    failure: LogOnce,
    refusals: LogOnce,
}

async fn ask(
    app: &Arc<ReceiverState>,
    from: &CrlFetch,
    logged: &mut LoggedProblems,
) -> FetchOutcome {
    let url = &from.source.url;
    match fetch(app, from).await {
        Ok((newer, unusable)) => {
            if logged.failure.clear() {
                tracing::info!("CRLs can be fetched from {url} again");
            }
            let refusals = newer.refused.iter().map(ToString::to_string);
            let refusals: Vec<_> = refusals.chain(unusable.iter().cloned()).collect();
            let is_unknown_signer =
                |refused: &CrlRefused| matches!(refused, CrlRefused::NotSigned(_));
            let all_unknown_signers =
                unusable.is_empty() && newer.refused.iter().all(is_unknown_signer);
            logged.refusals.about(refusals.join("; "), |text| {
                match (text, all_unknown_signers) {
                    ("", _) => (),
                    (text, true) => tracing::info!(
                        "{text}: if it is a new root's, it is accepted once the next renewal has installed that root"
                    ),
                    (text, false) => {
                        tracing::warn!("some CRLs of {url} are not accepted: {text}");
                    }
                }
            });
            let Some(trust) = newer.trust else {
                return FetchOutcome::Same;
            };
            tracing::info!(
                generation = trust.generation(),
                crls = in_words(trust.crls()),
                "CRLs fetched and in force"
            );
            FetchOutcome::New
        }
        Err(text) => {
            logged.failure.about(text, |text| {
                tracing::warn!("cannot fetch CRLs, the present ones stay in force: {text}");
            });
            FetchOutcome::Failed
        }
    }
}

async fn fetch(
    app: &Arc<ReceiverState>,
    from: &CrlFetch,
) -> Result<(CrlUpdate, Vec<String>), String> {
    let FetchedCrls { pem, authorities } = from
        .source
        .fetch()
        .await
        .map_err(|error| in_one_line(&error))?;
    let app = app.clone();
    // Waits for the disk, and a long CRL takes a while to verify.
    let take = move || {
        let (crls, unusable) = read_usable(&pem)?;
        let mut trust = app
            .trust_writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        trust
            .add_fetched_crls(crls, &authorities)
            .map(|newer| (newer, unusable))
            .map_err(|error| in_one_line(&error))
    };
    tokio::task::spawn_blocking(take)
        .await
        .map_err(|error| error.to_string())?
}

/// The CRLs that can be used, and why others cannot: those do not hold back the rest.
fn read_usable(pem: &[u8]) -> Result<(Vec<Crl>, Vec<String>), String> {
    let (crls, unusable) = Crl::read_usable(pem);
    let unusable: Vec<_> = unusable.iter().map(ToString::to_string).collect();
    match crls.is_empty() {
        true if unusable.is_empty() => {
            Err("the answer contains no CRLs: is it a liz-ca?".to_owned())
        }
        true => Err(unusable.join("; ")),
        false => Ok((crls, unusable)),
    }
}
