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
use crate::report::{Bad, Good, Health};
use crate::skew::News;
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
            let news = self
                .shared
                .dispatch()
                .heard_clock(self.destination, theirs, sent, answered);
            self.say_clock(news);
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
            (Done::Delivered(records), _) => self.say_delivered(records),
            (Done::GivenUp(dropped), _) => self.say_given_up(&dropped, lot.records.len()),
            (Done::NotTold, _) => warn!("{} does not want to know what was given up", self.url),
            (Done::Again(wait), Err(error)) if !wait.is_zero() => self.say_failed(&error, wait),
            (Done::Again(_), Err(error)) => debug!("{error}: again at once"),
            (Done::Again(_), Ok(_)) => (),
        }
    }

    /// One record by itself goes as the first lizmon's did, several as a batch; their numbers say if they came before.
    /// How many numbers the receiver knew.
    async fn send(&self, lot: &Lot) -> Result<u64, Error> {
        let now = self.now();
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
                let complaint = error.to_string();
                if complaint != self.reload_complaint {
                    error!("keeping the certificate files read before: {complaint}");
                    self.reload_complaint = complaint;
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
                "this machine's clock is {:.0} s {} that of {}: set one of them, or samples get lost",
                ahead.abs(),
                if ahead > 0.0 { "ahead of" } else { "behind" },
                self.url
            ),
            Some(News::Right) => info!("this machine's clock agrees with that of {}", self.url),
            None => (),
        }
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
        match self.health.failed(&text, self.now()) {
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
            Bad::Known => debug!("Publish to {} failed, again in {wait:?}: {text}", self.url),
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
