//! What to do after a failed attempt, decided without I/O.
//!
//! A record is kept until the receiver has it, or names it as one that it will never accept. For
//! everything else it is only decided when to try again.

use std::time::Duration;

use lizmon_client::{ConnectError, ConnectFailure, Error};
use lizmon_protocol::problem::{Code, Problem, ValueError};

/// Most records in one batch: some 100 kB, a tenth of what a receiver accepts.
pub const PUBLISH_RECORDS_MAX: usize = 1000;
/// A batch is not made smaller than this because the line is slow: some 5 kB.
pub const SLOW_LINE_RECORDS: usize = 50;
/// The longest wait for a receiver that is away. Within this time after its return, live data is
/// back.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The shortest wait, whatever the random number.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait after the first failure; it doubles with each failure.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait where only an operator can help.
pub const OPERATOR_WAIT: Duration = Duration::from_secs(60);
/// A longer Retry-After of a receiver is cut to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask for a new token, and send the same again at once.
    RenewToken,
    /// Send the same again after this long.
    Retry(Duration),
    /// Send fewer records, at once.
    Split,
    /// These records of the batch will never be accepted: drop them, and send the rest.
    Drop(Vec<RefusedRecord>),
}

/// A record of the batch that the receiver refused by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its index in the batch.
    pub index: usize,
    /// The receiver's problem code; the record is dropped with it as the reason.
    pub code: Code,
    /// The receiver's reason.
    pub why: String,
}

/// How many records to send to one destination, and how long to wait after a failure.
#[derive(Debug)]
pub struct Backoff {
    batch_records_max: usize,
    failures: u32,
    token_renewed: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            batch_records_max: PUBLISH_RECORDS_MAX,
            failures: 0,
            token_renewed: false,
        }
    }
}

impl Backoff {
    /// Most records in the next batch.
    pub fn batch_records_max(&self) -> usize {
        self.batch_records_max
    }

    /// A batch was delivered.
    pub fn delivered(&mut self) {
        *self = Self {
            batch_records_max: (self.batch_records_max * 2).min(PUBLISH_RECORDS_MAX),
            ..Self::default()
        };
    }

    /// A batch of so many records was not delivered. `chance` is a random number from 0 to 1.
    pub fn failed(&mut self, error: &Error, records: usize, chance: f64) -> Decision {
        let decision = self.decide(error, records, chance);
        match &decision {
            Decision::RenewToken => self.token_renewed = true,
            Decision::Split => self.batch_records_max = (records / 2).max(1),
            Decision::Retry(_) => {
                self.failures = self.failures.saturating_add(1);
                if is_timeout(error) {
                    let half = (records / 2).max(SLOW_LINE_RECORDS);
                    self.batch_records_max = half.min(self.batch_records_max);
                }
            }
            Decision::Drop(_) => (),
        }
        decision
    }

    fn decide(&self, error: &Error, records: usize, chance: f64) -> Decision {
        let wait_for_operator = Decision::Retry(OPERATOR_WAIT.mul_f64(0.5 + chance / 2.0));
        let backoff = Decision::Retry(backoff(self.failures, chance));
        let after_header = |after: &Option<Duration>| match after {
            Some(after) => Decision::Retry(retry_after_wait(*after, chance)),
            None => backoff.clone(),
        };
        match error {
            Error::Refused {
                status,
                problem,
                retry_after,
                ..
            } => match (status, problem) {
                (401, Some(problem)) if self.may_renew_token(problem.code) => Decision::RenewToken,
                (422, Some(problem)) if is_producer_limit(problem) => wait_for_operator,
                (400 | 413 | 422, Some(problem)) => find_refused(*status, problem, records),
                (429 | 500..600, _) => after_header(retry_after),
                (408, _) => backoff,
                _ => wait_for_operator,
            },
            Error::NoToken {
                status: 429 | 500..600,
                retry_after,
                ..
            } => after_header(retry_after),
            Error::NoToken { .. } | Error::IsCa { .. } | Error::OtherPath { .. } => {
                wait_for_operator
            }
            Error::Connect(_) | Error::Malformed { .. } | Error::Credentials(_) => backoff,
        }
    }

    /// Only once: a second 401 in a row is not about the token's age. A certificate that has ended
    /// gets no token either.
    fn may_renew_token(&self, code: Code) -> bool {
        let about_the_token = matches!(
            code,
            Code::TokenInvalid
                | Code::TokenExpired
                | Code::TokenMissing
                | Code::CertificateMismatch
        );
        about_the_token && !self.token_renewed
    }
}

/// A timeout. On a slow line, a smaller batch may arrive in time.
fn is_timeout(error: &Error) -> bool {
    let timeout = ConnectFailure::Timeout;
    matches!(error, Error::Connect(ConnectError::Unreachable { failure, .. }) if *failure == timeout)
}

/// The receiver keeps no more producers of this host, or no more ranges of this producer's numbers.
/// No record and no label is at fault: records that close a gap are still accepted, and the others
/// later.
fn is_producer_limit(problem: &Problem) -> bool {
    let unnamed = |error: &ValueError| error.record.is_none() && error.label.is_none();
    problem.code == Code::InvalidValues
        && !problem.errors.is_empty()
        && problem.errors.iter().all(unnamed)
}

/// Whether the body is at fault, rather than who sends it, or when.
pub fn is_body_error(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused {
            status: 400 | 413 | 422,
            problem: Some(_),
            ..
        }
    )
}

/// Whether the records may have been counted all the same, because only the answer was lost.
/// Nothing of a refused request is stored.
pub fn may_be_delivered(error: &Error) -> bool {
    match error {
        Error::Connect(ConnectError::Unreachable { failure, .. }) => {
            matches!(failure, ConnectFailure::Timeout | ConnectFailure::Broken)
        }
        Error::Malformed { .. } => true,
        Error::Refused { status, .. } => *status == 408 || *status >= 500,
        _ => false,
    }
}

/// Whether the receiver names the records that are at fault.
pub fn names_records(error: &Error) -> bool {
    let Error::Refused {
        problem: Some(problem),
        ..
    } = error
    else {
        return false;
    };
    problem.errors.iter().any(|error| error.record.is_some())
}

/// The time of the receiver's clock when it refused records.
pub(crate) fn server_now(error: &Error) -> Option<u64> {
    match error {
        Error::Refused { problem, .. } => problem.as_ref()?.now,
        _ => None,
    }
}

/// Finds the records that the receiver will not accept. If it names none, they are found by halving
/// the batch.
fn find_refused(status: u16, problem: &Problem, records: usize) -> Decision {
    let reason = |why: &str| format!("{}: {why}", problem.code.as_str());
    let mut refused: Vec<RefusedRecord> = Vec::new();
    for error in problem.errors.iter().filter(|_| status == 422) {
        let named = match error.record {
            Some(index) => Some(index),
            None => (records == 1).then_some(0),
        };
        let Some(index) = named.filter(|index| *index < records) else {
            continue;
        };
        if refused.iter().all(|known| known.index != index) {
            let why = match &error.label {
                Some(label) => reason(&format!("{}: {}", label.escape_debug(), error.reason)),
                None => reason(&error.reason),
            };
            let code = problem.code;
            refused.push(RefusedRecord { index, code, why });
        }
    }
    if !refused.is_empty() {
        return Decision::Drop(refused);
    }
    if records > 1 {
        return Decision::Split;
    }
    let why = reason(problem.detail.as_deref().unwrap_or(&problem.title));
    let code = problem.code;
    Decision::Drop(vec![RefusedRecord {
        index: 0,
        code,
        why,
    }])
}

/// Full jitter: a random time up to a limit that doubles with each failure, so that a fleet does
/// not come back at one moment.
fn backoff(failures: u32, chance: f64) -> Duration {
    let ceiling = BACKOFF_FIRST
        .saturating_mul(2u32.saturating_pow(failures))
        .min(BACKOFF_MAX);
    ceiling.mul_f64(chance).max(BACKOFF_MIN)
}

/// Not before the time that the receiver gave, and not all monitors at that very moment.
fn retry_after_wait(after: Duration, chance: f64) -> Duration {
    let after = after.min(RETRY_AFTER_MAX);
    after + after.max(BACKOFF_FIRST).mul_f64(chance / 2.0)
}

/// What an operator can do, beyond what the error says itself.
pub fn advice(error: &Error) -> Option<&'static str> {
    let Error::Refused { status, .. } = error else {
        return match error {
            Error::NoToken {
                status: 400..=403, ..
            } => Some(
                "have a node certificate issued for this machine, and give it by --cert and --key",
            ),
            Error::Connect(ConnectError::CertificateRefused { .. }) => {
                Some("put a new certificate in its place: it is loaded without a restart")
            }
            _ => None,
        };
    };
    match (status, error.code()) {
        (
            401,
            Some(Code::CertificateRevoked | Code::CertificateExpired | Code::CertificateUntrusted),
        ) => Some("put a new certificate in its place: it is loaded without a restart"),
        (401, Some(Code::CertificateMismatch)) => {
            Some("a proxy before the receiver terminates TLS: it must pass TLS through")
        }
        (403, _) => {
            Some("have a node certificate issued for this machine, and give it by --cert and --key")
        }
        (404 | 405, _) => {
            Some("check --publish: it should name a receiver, https://HOST:8443/api/perf")
        }
        (503, Some(Code::CrlExpired)) => {
            Some("an operator must renew the receiver's CRL: any lizctl command on the CA does")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
