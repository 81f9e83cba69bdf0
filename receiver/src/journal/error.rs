//! Why a submission was not taken.

use lizmon_protocol::problem::ValueError;

/// What is wrong with values or epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueFault {
    /// A value, a producer or a range that is not accepted.
    Invalid,
    /// An epoch before every window.
    EpochTooOld,
    /// An epoch too far ahead of the receiver's clock.
    EpochInFuture,
    /// More labels than a host may have.
    TooManyLabels,
}

/// Why a submission is refused for what it says.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// It was not what a submission is.
    #[error("the submission cannot be read")]
    Unreadable,
    /// Values or epochs are not accepted.
    #[error("{fault:?}: {} values are not accepted", errors.len())]
    Values {
        /// What is wrong with the first one.
        fault: ValueFault,
        /// What is wrong with each.
        errors: Vec<ValueError>,
        /// The time they were judged by: epoch seconds.
        now: u64,
    },
    /// By a clock that is not known to be right this would evict samples, or would never be found.
    #[error("the clock is not known to be right: {why}")]
    ClockUnsteady {
        /// After so long it is known.
        wait_secs: u64,
        /// What would happen.
        why: &'static str,
    },
}

/// Why a submission was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It is refused for what it says.
    #[error(transparent)]
    Refused(#[from] AdmissionError),
    /// Too many requests wait for the journal.
    #[error("too many requests wait for the journal")]
    Overloaded,
    /// The store has too little memory left for more.
    #[error("the store is nearly full: summarizers are behind")]
    StoreFull,
    /// It cannot be made durable.
    #[error("the submission cannot be made durable")]
    Unavailable,
}
