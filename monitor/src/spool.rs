//! Records that are not delivered yet: numbered, bounded, and read by each destination at its own
//! pace.
//!
//! ```text
//! push -> ProducerLog: 1 2 3 … next    one producer's numbers; new records go to the active log
//!           │ destination A: done 1-7, 9
//!           │ destination B: done 1-2
//!           ├ Selection: what goes into the next batch
//!           ├ Retention: what is dropped
//!           └ SpoolBackend: checkpoint, commit, read    stores it: on disk, in memory, or a test's
//! ```
//!
//! What holds:
//!
//! - A record is encoded before it comes here. The same bytes go to the disk and to each
//!   destination.
//! - A number is never assigned twice, whatever the disk does: a record is sent only once its
//!   number cannot be assigned again.
//! - A record is removed when every destination is done with it: it was delivered, or dropped and
//!   counted. If acknowledged records are kept, it stays for a while after that, and is sent again
//!   to a destination that has acknowledged it and reports it missing.
//! - What is dropped is reported to the destination that misses it, with the reason, until the
//!   destination acknowledges that.
//! - The oldest records are dropped when the spool is full, and when they are so old that no
//!   receiver accepts them.
//! - While the disk fails, records are kept in memory, sent from there, and written to the disk as
//!   soon as it works. Their numbers are checkpointed, which needs no free space, so that they are
//!   reported after a crash. Only if not even that can be written, a crash loses them unreported.

mod ack;
pub mod backend;
mod clock;
pub mod disk;
pub mod drop_reason;
mod duplicates;
mod event;
mod keeping;
mod kept;
mod limits;
mod load;
pub mod memory;
mod origin;
mod producer_log;
mod prune;
mod queue;
mod ranges;
mod resend;
mod retention;
mod rotation;
mod selection;
#[cfg(test)]
mod tests;

pub use backend::{BackendError, SpoolBackend, StoredRecord};
pub(crate) use clock::ClockSteadiness;
pub use event::Event;
pub use limits::{
    AGE_SECS_MAX, DISK_BYTES_MAX, FAILED_RETRY_SECS, FULL_RETRY_SECS, GAPS_MAX, KEEP_SECS,
    KEPT_PART, MEMORY_BYTES_MAX, PRODUCER_LOGS_MAX, SpoolLimits, UNSAVED_BYTES_MAX,
};
pub use origin::{Machine, Origin};
pub use queue::{Spool, StoredBatch};
pub use ranges::Ranges;
