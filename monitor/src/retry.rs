//! What to do after a failed attempt, decided without I/O: the agent only obeys.
//!
//! A record is kept until the receiver has it or says by name that it will never take it. Everything else is a matter
//! of when to try again.

use std::time::Duration;

use lizmon_client::{ConnectError, ConnectFailure, Error};
use lizmon_protocol::problem::{Code, Problem, ValueError};

/// Most records in one batch: some 100 kB, a tenth of what a receiver takes.
pub const PUBLISH_RECORDS_MAX: usize = 1000;
/// However slow the line, so many are sent at once: some 5 kB.
pub const SLOW_LINE_RECORDS: usize = 50;
/// The longest wait for a receiver that is away: live data is back within this after it is.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// No wait is shorter, whatever chance says.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Waits are drawn from twice as much after each failure, starting here.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The wait where only a person can help.
pub const OPERATOR_WAIT: Duration = Duration::from_secs(60);
/// The longest that a receiver's own Retry-After is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask for a new token and send the same again, at once.
    RenewToken,
    /// Send the same again after this long.
    Retry(Duration),
    /// Send less at once, at once.
    Split,
    /// These records of the lot will never be taken: give them up, send the rest.
    Drop(Vec<RefusedRecord>),
}

/// A record of the lot that the receiver refused by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its place in the lot, from 0.
    pub at: usize,
    /// The receiver's word for it, by which it is counted.
    pub code: Code,
    /// The receiver's reason.
    pub why: String,
}

/// How it went lately with one destination, and so how much to send and how long to wait.
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
    /// How many records to send at once.
    pub fn batch_records_max(&self) -> usize {
        self.batch_records_max
    }

    /// A lot was delivered.
    pub fn delivered(&mut self) {
        *self = Self {
            batch_records_max: (self.batch_records_max * 2).min(PUBLISH_RECORDS_MAX),
            ..Self::default()
        };
    }

    /// A lot of so many records was not delivered. `chance` is from 0 to 1.
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
        let slowly = Decision::Retry(OPERATOR_WAIT.mul_f64(0.5 + chance / 2.0));
        let backoff = Decision::Retry(backoff(self.failures, chance));
        let when_told = |after: &Option<Duration>| match after {
            Some(after) => Decision::Retry(told(*after, chance)),
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
                (422, Some(problem)) if is_producer_limit(problem) => slowly,
                (400 | 413 | 422, Some(problem)) => find_refused(*status, problem, records),
                (429 | 500..600, _) => when_told(retry_after),
                (408, _) => backoff,
                _ => slowly,
            },
            Error::NoToken {
                status: 429 | 500..600,
                retry_after,
                ..
            } => when_told(retry_after),
            Error::NoToken { .. } | Error::IsCa { .. } => slowly,
            Error::Connect(_) | Error::Malformed { .. } | Error::Credentials(_) => backoff,
        }
    }

    /// Once: a second 401 in a row is not about the token's age. A certificate that has ended gets no token either.
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

/// On a slow line, less may get through in time.
fn is_timeout(error: &Error) -> bool {
    let timeout = ConnectFailure::Timeout;
    matches!(error, Error::Connect(ConnectError::Unreachable { failure, .. }) if *failure == timeout)
}

/// No record and no label is at fault where the receiver keeps no more producers of this host, or no more ranges of this one's
/// numbers: what closes a gap is taken still, and the rest later.
fn is_producer_limit(problem: &Problem) -> bool {
    let unnamed = |error: &ValueError| error.record.is_none() && error.label.is_none();
    problem.code == Code::InvalidValues
        && !problem.errors.is_empty()
        && problem.errors.iter().all(unnamed)
}

/// Whether the body is at fault, and not who sends it, or when.
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

/// Whether the records may be counted all the same, as where only the answer was lost. Nothing of a refused request is stored.
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

/// Whether the receiver says which records are at fault.
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

/// Finds the records that the receiver will not take. Where it names none, halving the lot finds them.
fn find_refused(status: u16, problem: &Problem, records: usize) -> Decision {
    let reason = |why: &str| format!("{}: {why}", problem.code.as_str());
    let mut dropped: Vec<RefusedRecord> = Vec::new();
    for error in problem.errors.iter().filter(|_| status == 422) {
        let named = match error.record {
            Some(at) => Some(at),
            None => (records == 1).then_some(0),
        };
        let Some(at) = named.filter(|at| *at < records) else {
            continue;
        };
        if dropped.iter().all(|known| known.at != at) {
            let why = match &error.label {
                Some(label) => reason(&format!("{}: {}", label.escape_debug(), error.reason)),
                None => reason(&error.reason),
            };
            let code = problem.code;
            dropped.push(RefusedRecord { at, code, why });
        }
    }
    if !dropped.is_empty() {
        return Decision::Drop(dropped);
    }
    if records > 1 {
        return Decision::Split;
    }
    let why = reason(problem.detail.as_deref().unwrap_or(&problem.title));
    let code = problem.code;
    Decision::Drop(vec![RefusedRecord { at: 0, code, why }])
}

/// Full jitter: anything up to twice as long after each failure, so that a fleet does not come back in one instant.
fn backoff(failures: u32, chance: f64) -> Duration {
    let ceiling = BACKOFF_FIRST
        .saturating_mul(2u32.saturating_pow(failures))
        .min(BACKOFF_MAX);
    ceiling.mul_f64(chance).max(BACKOFF_MIN)
}

/// Not before the receiver said, and not all at the very moment it said.
fn told(after: Duration, chance: f64) -> Duration {
    let after = after.min(RETRY_AFTER_MAX);
    after + after.max(BACKOFF_FIRST).mul_f64(chance / 2.0)
}

/// What a person can do about it, beyond what the error says itself.
pub fn advice(error: &Error) -> Option<&'static str> {
    let Error::Refused { status, .. } = error else {
        return match error {
            Error::NoToken {
                status: 400..=403, ..
            } => Some(
                "have a node certificate issued for this machine, and give it by --cert and --key",
            ),
            Error::Connect(ConnectError::CertificateRefused { .. }) => {
                Some("a new certificate in place of this one is taken up by itself")
            }
            _ => None,
        };
    };
    match (status, error.code()) {
        (
            401,
            Some(Code::CertificateRevoked | Code::CertificateExpired | Code::CertificateUntrusted),
        ) => Some("a new certificate in place of this one is taken up by itself"),
        (401, Some(Code::CertificateMismatch)) => {
            Some("something between us and the receiver ends TLS: it must pass it through")
        }
        (403, _) => {
            Some("have a node certificate issued for this machine, and give it by --cert and --key")
        }
        (404 | 405, _) => {
            Some("check --publish: it should name a receiver, https://HOST:8443/api/perf")
        }
        (503, Some(Code::CrlExpired)) => Some(
            "an operator must renew the receiver's revocation list: any lizctl command on the CA does",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
