//! Publishes to one destination, and logs the results.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lizmon_client::{Client, ConnectError, ConnectFailure, Error};
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::sample::IdempotencyKey;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, error, info, trace, warn};

use super::shared::Shared;
use super::timer::Timer;
use crate::config::PublishUrl;
use crate::environment::Environment;
use crate::health::{DestinationHealth, OutageNotice, REMIND_SECS, SuccessNotice};
use crate::retry::{RefusedRecord, advice};
use crate::scheduler::{Losses, NextStep, Outcome};
use crate::skew::{CorrectionNotice, SkewNotice, WARN_SECS};
use crate::spool::StoredBatch;

/// How often the files of certificate, key and CA are checked.
const RELOAD_SECS: u64 = 10;
const CHECK_INTERVAL: Duration = Duration::from_secs(RELOAD_SECS);
/// How long a receiver may take to say what it misses: nothing is sent to it meanwhile.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes records to one destination.
pub(super) struct Publisher {
    pub(super) destination: usize,
    pub(super) url: PublishUrl,
    pub(super) client: Client,
    pub(super) host: NodeName,
    pub(super) environment: Environment,
    pub(super) shared: Arc<Shared>,
    pub(super) new_records: watch::Receiver<()>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) file_check: watch::Receiver<()>,
    pub(super) health: DestinationHealth,
    pub(super) files_checked_at: u64,
    pub(super) last_reload_error: String,
    pub(super) deferred_logged_at: Option<u64>,
    /// Records of the present repair.
    pub(super) repaired: u64,
}

impl Publisher {
    pub(super) async fn run(mut self) {
        let mut timer = Timer::new();
        loop {
            if self.reload_if_due() {
                self.shared.scheduler().clear_pause(self.destination);
            }
            self.new_records.mark_unchanged();
            let next = self
                .shared
                .scheduler()
                .next_step(self.destination, self.wall_now());
            let wait = match next {
                NextStep::Send(batch) => {
                    self.deliver(batch).await;
                    continue;
                }
                NextStep::CheckDelivery => {
                    self.check_delivery().await;
                    continue;
                }
                NextStep::Wait(_) | NextStep::Idle if *self.stop.borrow() => return,
                NextStep::Wait(wait) => wait.min(CHECK_INTERVAL),
                NextStep::Idle => CHECK_INTERVAL,
            };
            // Neither sender is dropped before the last publisher, which has a reference to both.
            tokio::select! {
                _ = self.new_records.changed() => (),
                _ = self.stop.wait_for(|stop| *stop) => (),
                Ok(()) = self.file_check.changed() => self.files_checked_at = 0,
                () = timer.wait(wait) => (),
            }
        }
    }

    async fn deliver(&mut self, batch: StoredBatch) {
        let sent = self.wall_now();
        let result = self.send(&batch).await;
        let answered = self.wall_now();
        if let Some(theirs) = self.client.take_server_clock() {
            let (skew, correction, correction_secs) = {
                let mut scheduler = self.shared.scheduler();
                let notices = scheduler.on_server_clock(self.destination, theirs, sent, answered);
                (notices.0, notices.1, scheduler.correction_secs())
            };
            self.shared.sample_clock.correct(correction_secs);
            self.log_skew(skew);
            self.log_correction(correction);
        }
        if let Ok(duplicates @ 1..) = result {
            let mut scheduler = self.shared.scheduler();
            scheduler.on_duplicates(self.destination, &batch, duplicates, answered);
        }
        let chance = (self.environment.chance)();
        let outcome = self.shared.scheduler().on_result(
            self.destination,
            &batch,
            result.as_ref().map(|_| ()),
            answered,
            chance,
        );
        match (outcome, result) {
            (Outcome::Delivered(records), _) => self.log_delivered(records),
            (Outcome::Repaired { records, left }, _) => self.log_repaired(records, left),
            (Outcome::RepairRefused(records), Err(error)) => warn!(
                "{} refused {records} records that it had acknowledged and lost: {error}",
                self.url
            ),
            (Outcome::RepairRefused(_), Ok(_)) => (),
            (Outcome::Dropped(dropped), _) => self.log_dropped(&dropped, batch.records.len()),
            (Outcome::Deferred(records), Err(error)) => self.log_deferred(records, &error),
            (Outcome::Deferred(_), Ok(_)) => (),
            (Outcome::ReportsRefused, _) => {
                warn!("{} refused the reports of dropped records", self.url)
            }
            (Outcome::Retry(wait), Err(error)) if !wait.is_zero() => self.log_failed(&error, wait),
            (Outcome::Retry(_), Err(error)) => debug!("retrying at once: {error}"),
            (Outcome::Retry(_), Ok(_)) => (),
        }
    }

    /// A receiver may have lost what it had acknowledged: it was restored from an older copy, or
    /// its store failed over. It gets again what is kept here, and is told what it will not get
    /// again.
    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant"
    )]
    async fn check_delivery(&mut self) {
        let asked = self.client.delivery(&self.host, self.now());
        let Ok(answer) = timeout(DELIVERY_TIMEOUT, asked).await else {
            let error = Error::Connect(ConnectError::Unreachable {
                url: self.url.base().clone(),
                failure: ConnectFailure::Timeout,
                cause: format!("no answer within {} s", DELIVERY_TIMEOUT.as_secs()).into(),
            });
            return self.on_delivery(Err(error));
        };
        self.on_delivery(answer);
    }

    fn on_delivery(&mut self, answer: Result<Delivery, Error>) {
        let chance = (self.environment.chance)();
        let now = self.wall_now();
        let Losses { repairable, lost } =
            self.shared
                .scheduler()
                .on_delivery(self.destination, answer.as_ref(), now, chance);
        let url = &self.url;
        if let Err(error) = &answer {
            debug!("cannot ask {url} which records it misses: {error}");
        }
        if repairable > 0 {
            warn!(
                "{url} has lost {repairable} records that it had acknowledged: sending them again"
            );
        }
        if lost > 0 {
            warn!(
                "{url} has lost {lost} records that it once had and that are not kept here any more: its data was reset or restored"
            );
        }
    }

    /// Sends a single record in the manner of the first lizmon, several as a batch. Returns how
    /// many of them were duplicates.
    async fn send(&self, batch: &StoredBatch) -> Result<u64, Error> {
        let now = self.now();
        self.client
            .tell_clock(self.shared.scheduler().correction_secs());
        let producer = batch.producer;
        trace!(%producer, records = %Numbers(batch), "sending to {}", self.url);
        let is_single = batch.dropped.is_empty() && !batch.repair;
        if let ([record], true) = (&batch.records[..], is_single) {
            let key = IdempotencyKey {
                producer,
                seq: record.seq,
            };
            self.client
                .publish(&self.host, record.epoch, &record.values, Some(key), now)
                .await?;
            return Ok(self.client.take_replayed().into());
        }
        let answer = self.client.publish_batch(&self.host, batch, now).await?;
        debug!(
            "{} accepted {} records, {} were duplicates",
            self.url, answer.accepted, answer.duplicate
        );
        Ok(answer.duplicate)
    }

    /// Loads new files if there are any. An error is logged once for as long as it stays the same.
    fn reload_if_due(&mut self) -> bool {
        let now = self.now();
        if now.abs_diff(self.files_checked_at) < RELOAD_SECS {
            return false;
        }
        self.files_checked_at = now;
        match self.client.reload(now) {
            Ok(false) => false,
            Ok(true) => {
                self.last_reload_error.clear();
                info!("loaded new certificate files for {}", self.url);
                self.shared.set_certificate(&self.client);
                true
            }
            Err(error) => {
                let reason = error.reason();
                if reason != self.last_reload_error {
                    let why = lizmon_pki::error_chain::in_one_line(&error);
                    error!("keeping the certificate files read before: {why}");
                    self.last_reload_error = reason;
                }
                false
            }
        }
    }

    fn log_repaired(&mut self, records: u64, left: u64) {
        self.repaired += records;
        if left > 0 {
            return;
        }
        let repaired = std::mem::take(&mut self.repaired);
        match repaired {
            0 => warn!(
                "{} had records that it reported as missing: it is asked less often",
                self.url
            ),
            _ => info!("{} has {repaired} records again that it had lost", self.url),
        }
    }

    fn log_dropped(&self, dropped: &[RefusedRecord], records: usize) {
        let (count, example) = (
            dropped.len(),
            dropped.first().map_or("", |first| &first.why),
        );
        warn!(
            "dropped {count} of {records} records that {} refused: {example}",
            self.url
        );
    }

    fn log_skew(&self, notice: Option<SkewNotice>) {
        match notice {
            Some(SkewNotice::Off(ahead)) => warn!(
                "this machine's clock is {:.0} s {} that of {}: set one of them",
                ahead.abs(),
                if ahead > 0.0 { "ahead of" } else { "behind" },
                self.url
            ),
            Some(SkewNotice::InSync) => {
                info!("this machine's clock agrees with that of {}", self.url)
            }
            None => (),
        }
    }

    fn log_correction(&self, notice: Option<CorrectionNotice>) {
        match notice {
            Some(CorrectionNotice::Started(ahead)) => warn!(
                "stamping samples with the receivers' time from now on: this machine's clock is {:.0} s {} it, correct it",
                ahead.abs(),
                if ahead > 0.0 { "ahead of" } else { "behind" },
            ),
            Some(CorrectionNotice::Ended) => {
                info!(
                    "stamping samples with this machine's clock again: it is close to the receivers' time"
                );
            }
            Some(CorrectionNotice::Disagree) => warn!(
                "stamping samples with this machine's clock, though it is far from the receivers' time: they do not agree on it"
            ),
            None => (),
        }
    }

    /// This may happen with each record, once a second: it is logged when it begins, and rarely
    /// after.
    fn log_deferred(&mut self, records: usize, error: &Error) {
        let now = self.now();
        let is_logged_lately = self
            .deferred_logged_at
            .is_some_and(|at| now.abs_diff(at) < REMIND_SECS);
        if is_logged_lately {
            debug!("deferred {records} records, because the clocks differ: {error}");
            return;
        }
        self.deferred_logged_at = Some(now);
        let ahead = self.shared.scheduler().ahead_of_secs(self.destination);
        let why = match ahead.unwrap_or_default() {
            // The clocks agree by now.
            ahead if ahead.abs() < WARN_SECS => {
                "a clock was wrong when they were measured".to_owned()
            }
            ahead => format!(
                "this machine's clock is {:.0} s {} the receiver's",
                ahead.abs(),
                if ahead >= 0.0 { "ahead of" } else { "behind" },
            ),
        };
        warn!(
            "deferred {records} records that {} refused for now, they are kept and sent again: {why}: {error}",
            self.url
        );
    }

    fn log_delivered(&mut self, records: usize) {
        let pending = self.shared.scheduler().spool().pending(self.destination);
        let now = self.now();
        let url = &self.url;
        match self.health.delivered(records as u64, pending, now) {
            SuccessNotice::First => info!("Publish was successful to {url}"),
            SuccessNotice::Steady | SuccessNotice::CatchingUp => {
                debug!("Publish was successful to {url}")
            }
            SuccessNotice::Recovered { away_secs, records } => info!(
                "Publish was successful to {url} again after {away_secs} s: all {records} records that waited are delivered"
            ),
        }
    }

    fn log_failed(&mut self, error: &Error, wait: Duration) {
        let text = match advice(error) {
            Some(advice) => format!("{error}: {advice}"),
            None => error.to_string(),
        };
        let pending = self.shared.scheduler().spool().pending(self.destination);
        match self.health.failed(&error.reason(), self.now()) {
            // An error where only an operator can help; a warning where it may pass by itself.
            OutageNotice::Started if error.is_identity_refused() || advice(error).is_some() => {
                error!(
                    "Publish to {} failed, its records are kept: {text}",
                    self.url
                );
            }
            OutageNotice::Started => {
                warn!(
                    "Publish to {} failed, its records are kept: {text}",
                    self.url
                );
            }
            OutageNotice::Ongoing { away_secs } => warn!(
                "Publish to {} has failed for {away_secs} s, {pending} records are kept: {text}",
                self.url
            ),
            OutageNotice::Suppressed => debug!(
                "Publish to {} failed, again in {:.1} s: {text}",
                self.url,
                wait.as_secs_f64()
            ),
        }
    }

    fn wall_now(&self) -> Duration {
        (self.environment.clock)()
    }

    fn now(&self) -> u64 {
        self.wall_now().as_secs()
    }
}

/// `SEQ:EPOCH` of each record.
struct Numbers<'a>(&'a StoredBatch);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, record) in self.0.records.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{}:{}", record.seq.get(), record.epoch.secs())?;
        }
        Ok(())
    }
}
