//! What happened to a spool, to be logged.

use lizmon_protocol::sample::ProducerId;

/// Something that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Records were dropped, for at least one destination.
    RecordsDropped {
        /// How many.
        records: u64,
        /// One of [`super::drop_reason`].
        why: &'static str,
    },
    /// The backend stores nothing from now on.
    BackendFailed(String),
    /// What is stored cannot be read at present.
    Unreadable(String),
    /// The backend works again.
    BackendRecovered,
    /// Acknowledged records have reached their part of the spool's limit: they are kept for this
    /// long only.
    KeptForLess {
        /// Since the oldest of them was acknowledged.
        secs: u64,
    },
    /// Logs were found whose next number is not certain: new records have a new producer.
    NewProducer(ProducerId),
    /// A destination has numbers that were never sent to it: another process has them too. New
    /// records have a new producer.
    UnexpectedDuplicates {
        /// Its URL.
        destination: String,
        /// How many records are sent to it again, under new numbers.
        records: u64,
    },
    /// What was found is of another host or another machine. It is not delivered, and new records
    /// have a new producer.
    SetAside {
        /// [`super::drop_reason::OTHER_HOST`] or [`super::drop_reason::OTHER_MACHINE`].
        why: &'static str,
        /// The host that it is of.
        host: String,
        /// How many records waited there.
        records: u64,
        /// Where they are now.
        place: String,
    },
}
