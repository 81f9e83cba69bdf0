//! Carries lots to one destination, and says how that goes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lizmon_client::{Client, Error};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::sample::{Batch, IdempotencyKey};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, error, info, trace, warn};

use super::Shared;
use crate::Edges;
use crate::config::PublishUrl;
use crate::dispatch::{Done, Next};
use crate::publish::{Dropped, advice};
use crate::report::{Bad, Good, Health, REMIND_SECS};
use crate::skew::{CorrectionNews, News, WARN_SECS};
use crate::spool::Lot;

/// How often the files of certificate, key and CA are looked at.
const RELOAD_SECS: u64 = 10;
const LOOK_EVERY: Duration = Duration::from_secs(RELOAD_SECS);

/// Carries records to one destination.
pub(super) struct Courier {
    pub(super) destination: usize,
    pub(super) url: PublishUrl,
    pub(super) client: Client,
    pub(super) host: NodeName,
    pub(super) edges: Edges,
    pub(super) shared: Arc<Shared>,
    pub(super) news: watch::Receiver<()>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) file_look: watch::Receiver<()>,
    pub(super) health: Health,
    pub(super) looked_at_files: u64,
    pub(super) reload_complaint: String,
    pub(super) put_off_said_at: Option<u64>,
}

impl Courier {
    pub(super) async fn run(mut self) {
        loop {
            if self.reload_if_due() {
                self.shared.dispatch().end_rest(self.destination);
            }
            self.news.mark_unchanged();
            let next = self
                .shared
                .dispatch()
                .next(self.destination, self.edges_now());
            let wait = match next {
                Next::Send(lot) => {
                    self.carry(lot).await;
                    continue;
                }
                Next::Wait(_) | Next::Idle if *self.stop.borrow() => return,
                Next::Wait(wait) => wait.min(LOOK_EVERY),
                Next::Idle => LOOK_EVERY,
            };
            // Neither sender goes before the last courier: both are shared with us.
            tokio::select! {
                _ = self.news.changed() => (),
                _ = self.stop.wait_for(|stop| *stop) => (),
                Ok(()) = self.file_look.changed() => self.looked_at_files = 0,
                () = sleep(wait) => (),
            }
        }
    }

    async fn carry(&mut self, lot: Lot) {
        let sent = self.edges_now();
        let result = self.send(&lot).await;
        let answered = self.edges_now();
        if let Some(theirs) = self.client.take_server_clock() {
            let (news, correction, corrected) = {
                let mut dispatch = self.shared.dispatch();
                let heard = dispatch.heard_clock(self.destination, theirs, sent, answered);
                (heard.0, heard.1, dispatch.corrected_secs())
            };
            self.shared.stamp.correct(corrected);
            self.say_clock(news);
            self.say_correction(correction);
        }
        if let Ok(known @ 1..) = result {
            let mut dispatch = self.shared.dispatch();
            dispatch.heard_known(self.destination, &lot, known, answered);
        }
        let chance = (self.edges.chance)();
        let done = self.shared.dispatch().done(
            self.destination,
            &lot,
            result.as_ref().map(|_| ()),
            answered,
            chance,
        );
        match (done, result) {
            (Done::Delivered(records), _) => {
                self.say_delivered(records);
                self.ask_what_is_missing().await;
            }
            (Done::GivenUp(dropped), _) => self.say_given_up(&dropped, lot.records.len()),
            (Done::PutOff(records), Err(error)) => self.say_put_off(records, &error),
            (Done::PutOff(_), Ok(_)) => (),
            (Done::NotTold, _) => warn!("{} does not want to know what was given up", self.url),
            (Done::Again(wait), Err(error)) if !wait.is_zero() => self.say_failed(&error, wait),
            (Done::Again(_), Err(error)) => debug!("{error}: again at once"),
            (Done::Again(_), Ok(_)) => (),
        }
    }

    /// A receiver that has started anew may have lost its data, or got back older ones: what it misses of what it once had is
    /// no loss of ours, and it is told so.
    async fn ask_what_is_missing(&mut self) {
        if !self.shared.dispatch().take_may_have_lost(self.destination) {
            return;
        }
        match self.client.delivery(&self.host, self.now()).await {
            Ok(delivery) => {
                let missed = self.shared.dispatch().missed(self.destination, &delivery);
                if missed > 0 {
                    warn!(
                        "{} has lost {missed} records that it once had: its data began anew, or is older than it was",
                        self.url
                    );
                }
            }
            Err(error) => {
                debug!("{} does not say what it misses: {error}", self.url);
                self.shared.dispatch().still_may_have_lost(self.destination);
            }
        }
    }

    /// One record by itself goes as the first lizmon's did, several as a batch; their numbers say if they came before.
    /// How many numbers the receiver knew.
    async fn send(&self, lot: &Lot) -> Result<u64, Error> {
        let now = self.now();
        self.client
            .tell_clock(self.shared.dispatch().corrected_secs());
        let producer = lot.producer;
        trace!(%producer, records = %Numbers(lot), "sending to {}", self.url);
        if let ([record], true) = (&lot.records[..], lot.dropped.is_empty()) {
            let key = IdempotencyKey {
                producer,
                seq: record.seq,
            };
            self.client
                .publish(&self.host, record.epoch, &record.values, Some(key), now)
                .await?;
            return Ok(self.client.take_replayed().into());
        }
        let batch = Batch {
            producer,
            records: lot.records.clone(),
            dropped: lot.dropped.clone(),
        };
        let answer = self.client.publish_batch(&self.host, &batch, now).await?;
        debug!(
            "{} took {} records and knew {}",
            self.url, answer.accepted, answer.duplicate
        );
        Ok(answer.duplicate)
    }

    /// Takes new files if there are any. A complaint is made once for as long as it stays the same.
    fn reload_if_due(&mut self) -> bool {
        let now = self.now();
        if now.abs_diff(self.looked_at_files) < RELOAD_SECS {
            return false;
        }
        self.looked_at_files = now;
        match self.client.reload(now) {
            Ok(false) => false,
            Ok(true) => {
                self.reload_complaint.clear();
                info!("took up new certificate files for {}", self.url);
                self.shared.note_certificate(&self.client);
                true
            }
            Err(error) => {
                let reason = error.reason();
                if reason != self.reload_complaint {
                    let why = lizmon_client::error::in_one_line(&error);
                    error!("keeping the certificate files read before: {why}");
                    self.reload_complaint = reason;
                }
                false
            }
        }
    }

    fn say_given_up(&self, dropped: &[Dropped], records: usize) {
        let example = dropped.first().map_or("", |dropped| &dropped.why);
        warn!(
            "{} will not take {} of {records} records, and they are given up: {example}",
            self.url,
            dropped.len()
        );
    }

    fn say_clock(&self, news: Option<News>) {
        match news {
            Some(News::Off(ahead)) => warn!(
                "this machine's clock is {:.0} s {} that of {}: set one of them",
                ahead.abs(),
                if ahead > 0.0 { "ahead of" } else { "behind" },
                self.url
            ),
            Some(News::Right) => info!("this machine's clock agrees with that of {}", self.url),
            None => (),
        }
    }

    fn say_correction(&self, news: Option<CorrectionNews>) {
        match news {
            Some(CorrectionNews::Begins(ahead)) => warn!(
                "samples are stamped by the receivers' time from now on: this machine's clock is {:.0} s {} it, set it right",
                ahead.abs(),
                if ahead > 0.0 { "ahead of" } else { "behind" },
            ),
            Some(CorrectionNews::Ends) => {
                info!("samples are stamped by this machine's clock again: it is right enough");
            }
            Some(CorrectionNews::Disagree) => warn!(
                "samples are stamped by this machine's clock, though receivers' are far from it: they do not agree on the time"
            ),
            None => (),
        }
    }

    /// It may be so of each record, once a second: said when it begins, and rarely after.
    fn say_put_off(&mut self, records: usize, error: &Error) {
        let now = self.now();
        let is_quiet = self
            .put_off_said_at
            .is_some_and(|said| now.abs_diff(said) < REMIND_SECS);
        if is_quiet {
            debug!("{records} records wait, because it is another time there: {error}");
            return;
        }
        self.put_off_said_at = Some(now);
        let ahead = self.shared.dispatch().ahead_of_secs(self.destination);
        let why = match ahead.unwrap_or_default() {
            // They agree by now.
            ahead if ahead.abs() < WARN_SECS => {
                "a clock was wrong when they were measured".to_owned()
            }
            ahead => format!(
                "the clocks disagree, this machine's is {:.0} s {} that one",
                ahead.abs(),
                if ahead >= 0.0 { "ahead of" } else { "behind" },
            ),
        };
        warn!(
            "{} does not take {records} records for now, they are kept and sent again: {why}: {error}",
            self.url
        );
    }

    fn say_delivered(&mut self, records: usize) {
        let pending = self.shared.dispatch().spool().pending(self.destination);
        let now = self.now();
        let url = &self.url;
        match self.health.delivered(records as u64, pending, now) {
            Good::First => info!("Publish was successful to {url}"),
            Good::Steady | Good::CatchingUp => debug!("Publish was successful to {url}"),
            Good::Recovered { away_secs, records } => info!(
                "Publish was successful to {url} again after {away_secs} s: all {records} records that waited are delivered"
            ),
        }
    }

    fn say_failed(&mut self, error: &Error, wait: Duration) {
        let text = match advice(error) {
            Some(advice) => format!("{error}: {advice}"),
            None => error.to_string(),
        };
        let kept = self.shared.dispatch().spool().pending(self.destination);
        match self.health.failed(&error.reason(), self.now()) {
            // Where only a person can help, it is an error; what may pass by itself is a warning.
            Bad::Begins if error.is_refusal_of_us() || advice(error).is_some() => {
                error!(
                    "Publish to {} failed, its records are kept: {text}",
                    self.url
                );
            }
            Bad::Begins => {
                warn!(
                    "Publish to {} failed, its records are kept: {text}",
                    self.url
                );
            }
            Bad::Lasts { away_secs } => warn!(
                "Publish to {} has failed for {away_secs} s, {kept} records are kept: {text}",
                self.url
            ),
            Bad::Known => debug!(
                "Publish to {} failed, again in {:.1} s: {text}",
                self.url,
                wait.as_secs_f64()
            ),
        }
    }

    fn edges_now(&self) -> Duration {
        (self.edges.clock)()
    }

    fn now(&self) -> u64 {
        self.edges_now().as_secs()
    }
}

/// `SEQ:EPOCH` of each record.
struct Numbers<'a>(&'a Lot);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, record) in self.0.records.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{}:{}", record.seq.get(), record.epoch.secs())?;
        }
        Ok(())
    }
}
