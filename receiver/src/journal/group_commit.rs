//! What the journal's thread needs of a committer.

use std::sync::Arc;

use lizmon_protocol::sample::BatchAnswer;

use super::error::SubmitError;
use crate::clock::{ClockReading, ClockStatus};
use crate::store::StoreError;
use crate::store::record::Submission;
use crate::store::status::StoreStatus;

/// Makes groups of requests durable, one after another. Readings of the clocks are arguments.
pub trait GroupCommit {
    /// The state of the store.
    fn status(&self) -> Arc<StoreStatus>;

    /// The state of the clock at the last reading.
    fn clock_status(&self) -> Arc<ClockStatus>;

    /// Takes the requests of one group, each with the moment it is judged by: admits or refuses
    /// each as a whole, makes what was admitted durable with one append, and gives the answers in
    /// the requests' order.
    fn take<'a>(
        &mut self,
        requests: impl Iterator<Item = (&'a Submission, u64)>,
        at: ClockReading,
    ) -> Vec<Result<BatchAnswer, SubmitError>>;

    /// Does what is due beside requests, a little at a time. To be called every second or so, and soon
    /// again if this says that more is due.
    fn maintain(&mut self, at: ClockReading) -> bool;

    /// Ends, with everything committed.
    fn finish(&mut self) -> Result<(), StoreError>;
}
