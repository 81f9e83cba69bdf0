//! What the recorder and the publishers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lizmon_client::Client;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::stamp::SampleClock;
use crate::config::PublishUrl;
use crate::scheduler::DeliveryScheduler;
use crate::spool::{Event, SpoolBackend, drop_reason};

pub(super) type AnyBackend = Box<dyn SpoolBackend + Send>;

pub(super) struct Shared {
    /// What samples are stamped with.
    pub(super) sample_clock: Arc<SampleClock>,
    /// In the order of the spool's destinations.
    urls: Vec<PublishUrl>,
    scheduler: Mutex<DeliveryScheduler<AnyBackend>>,
    /// The last second of the certificate that was loaded last: epoch seconds.
    certificate_end: AtomicU64,
    /// Notifies the publishers of new records.
    pub(super) new_records: watch::Sender<()>,
    /// Tells the publishers to stop.
    pub(super) stop: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(
        sample_clock: Arc<SampleClock>,
        urls: Vec<PublishUrl>,
        scheduler: DeliveryScheduler<AnyBackend>,
    ) -> Self {
        Self {
            sample_clock,
            urls,
            scheduler: Mutex::new(scheduler),
            certificate_end: AtomicU64::new(0),
            new_records: watch::Sender::new(()),
            stop: watch::Sender::new(false),
        }
    }

    pub(super) fn scheduler(&self) -> MutexGuard<'_, DeliveryScheduler<AnyBackend>> {
        // A panic leaves it consistent: a record is appended or not, a number is done or not.
        let scheduler = self.scheduler.lock();
        scheduler.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_certificate(&self, client: &Client) {
        let end = client.certificate_end();
        self.certificate_end.store(end, Ordering::Relaxed);
    }

    /// Until the certificate ends; negative once it has ended.
    pub(super) fn certificate_days(&self, now: u64) -> f64 {
        const DAY_SECS: f64 = 86_400.0;
        let end = self.certificate_end.load(Ordering::Relaxed);
        (end as f64 - now as f64) / DAY_SECS
    }

    pub(super) fn log_events(&self) {
        let events = self.scheduler().spool_mut().take_events();
        events.iter().for_each(log_event);
    }

    pub(super) fn log_status(&self, now: u64) {
        let certificate_days = (self.certificate_days(now) * 100.0).round() / 100.0;
        let scheduler = self.scheduler();
        let to_millis = |secs: f64| (secs * 1_000.0).round() / 1_000.0;
        for (destination, url) in self.urls.iter().enumerate() {
            info!(
                delivered = scheduler.delivered_records(destination),
                pending = scheduler.spool().pending(destination),
                dropped = scheduler.spool().dropped_records(),
                kept = scheduler.spool().kept_records(),
                repaired = scheduler.repaired_records(destination),
                clock_ahead_secs = scheduler.clock_ahead_secs().map(to_millis),
                clock_corrected_secs = scheduler.correction_secs().map(to_millis),
                certificate_days,
                "publishing to {url}"
            );
        }
    }

    /// Saves everything, and logs what is not delivered.
    pub(super) fn close(&self) {
        let mut scheduler = self.scheduler();
        let saved = scheduler.close();
        if let Err(error) = &saved {
            error!("cannot save the spool before the stop: {error}");
        }
        let is_persistent = saved.is_ok() && scheduler.spool().backend().is_persistent();
        for (destination, url) in self.urls.iter().enumerate() {
            match (scheduler.spool().pending(destination), is_persistent) {
                (0, _) => (),
                (left, true) => info!("{left} records for {url} wait in the spool"),
                (left, false) => {
                    warn!("{left} records were not delivered to {url} before the stop");
                }
            }
        }
    }
}

fn log_event(event: &Event) {
    match event {
        Event::RecordsDropped { records, why } => warn!("dropped {records} records: {why}"),
        Event::BackendFailed(error) => error!(
            "cannot write to the spool, new records wait in memory: {error}; free space on the disk, or repair it"
        ),
        Event::Unreadable(error) => error!("cannot read the spool: {error}"),
        Event::BackendRecovered => {
            info!("the spool works again, and has the records that waited in memory");
        }
        Event::KeptForLess { secs } => warn!(
            "acknowledged records have reached a quarter of the spool: they are kept for {secs} s only, so that a receiver that loses more cannot get it back; a larger --spool-mib keeps them longer"
        ),
        Event::UnexpectedDuplicates {
            destination,
            records,
        } => error!(
            records,
            "{destination} has numbers that were never sent to it: this spool is a copy of another, or was rolled back. The records are sent again, and new ones have a new producer; stop any other monitor that publishes as this host"
        ),
        Event::SetAside {
            why,
            host,
            records,
            place,
        } => {
            let origin = match *why {
                drop_reason::OTHER_HOST => format!("of the host {host}"),
                _ => format!(
                    "of another machine named {host}, or this machine's machine-id changes with each boot: give it one that lasts"
                ),
            };
            error!(
                reason = why,
                records,
                "the spool is {origin}: its records are not delivered from here. It was moved to {place}, and new records have a new producer"
            );
        }
        Event::NewProducer(producer) => warn!(
            "the spool was damaged: its records are delivered, and new ones have the new producer {producer}"
        ),
    }
}
