//! What to do after a failed attempt, decided without I/O: the agent only obeys.
//!
//! A record is kept until the receiver has it or says by name that it will never take it. Everything else is a matter
//! of when to try again.

use std::time::Duration;

use lizmon_client::{Error, Obstacle};
use lizmon_protocol::problem::{Code, Problem, ValueError};

/// Most records in one batch: some 100 kB, a tenth of what a receiver takes.
pub const LOT_RECORDS_MAX: usize = 1000;
/// However slow the line, so many are sent at once: some 5 kB.
pub const SLOW_LOT_RECORDS: usize = 50;
/// The longest wait for a receiver that is away: live data is back within this after it is.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// No wait is shorter, whatever chance says.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Waits are drawn from twice as much after each failure, starting here.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The wait where only a person can help.
pub const HELPLESS_WAIT: Duration = Duration::from_secs(60);
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
    Drop(Vec<Dropped>),
}

/// A record of the lot that the receiver refused by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its place in the lot, from 0.
    pub at: usize,
    /// The receiver's word for it, by which it is counted.
    pub code: Code,
    /// The receiver's reason.
    pub why: String,
}

/// How it went lately with one destination, and so how much to send and how long to wait.
#[derive(Debug)]
pub struct Pace {
    lot_records_max: usize,
    failures: u32,
    token_renewed: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lot_records_max: LOT_RECORDS_MAX,
            failures: 0,
            token_renewed: false,
        }
    }
}

impl Pace {
    /// How many records to send at once.
    pub fn lot_records_max(&self) -> usize {
        self.lot_records_max
    }

    /// A lot was delivered.
    pub fn delivered(&mut self) {
        *self = Self {
            lot_records_max: (self.lot_records_max * 2).min(LOT_RECORDS_MAX),
            ..Self::default()
        };
    }

    /// A lot of so many records was not delivered. `chance` is from 0 to 1.
    pub fn failed(&mut self, error: &Error, records: usize, chance: f64) -> Decision {
        let decision = self.decide(error, records, chance);
        match &decision {
            Decision::RenewToken => self.token_renewed = true,
            Decision::Split => self.lot_records_max = (records / 2).max(1),
            Decision::Retry(_) => {
                self.failures = self.failures.saturating_add(1);
                if is_timeout(error) {
                    let half = (records / 2).max(SLOW_LOT_RECORDS);
                    self.lot_records_max = half.min(self.lot_records_max);
                }
            }
            Decision::Drop(_) => (),
        }
        decision
    }

    fn decide(&self, error: &Error, records: usize, chance: f64) -> Decision {
        let slowly = Decision::Retry(HELPLESS_WAIT.mul_f64(0.5 + chance / 2.0));
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
                (401, Some(problem)) if self.renewing_may_help(problem.code) => {
                    Decision::RenewToken
                }
                (422, Some(problem)) if is_about_the_producer(problem) => slowly,
                (400 | 413 | 422, Some(problem)) => sift(*status, problem, records),
                (429 | 500..600, _) => when_told(retry_after),
                (408, _) => backoff,
                _ => slowly,
            },
            Error::NoToken {
                status: 429 | 500..600,
                retry_after,
                ..
            } => when_told(retry_after),
            Error::NoToken { .. } => slowly,
            Error::CertificateRefused { .. }
            | Error::ServerNotTrusted { .. }
            | Error::Unreachable { .. }
            | Error::Malformed { .. }
            | Error::Credentials(_) => backoff,
        }
    }

    /// Once: a second 401 in a row is not about the token's age. A certificate that has ended gets no token either.
    fn renewing_may_help(&self, code: Code) -> bool {
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
    let timeout = Obstacle::Timeout;
    matches!(error, Error::Unreachable { obstacle, .. } if *obstacle == timeout)
}

/// No record and no label is at fault where the receiver keeps no more producers of this host, or no more ranges of this one's
/// numbers: what closes a gap is taken still, and the rest later.
fn is_about_the_producer(problem: &Problem) -> bool {
    let unnamed = |error: &ValueError| error.record.is_none() && error.label.is_none();
    problem.code == Code::InvalidValues
        && !problem.errors.is_empty()
        && problem.errors.iter().all(unnamed)
}

/// Whether the body is at fault, and not who sends it, or when.
pub fn is_about_the_body(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused {
            status: 400 | 413 | 422,
            problem: Some(_),
            ..
        }
    )
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
fn sift(status: u16, problem: &Problem, records: usize) -> Decision {
    let reason = |why: &str| format!("{}: {why}", problem.code.as_str());
    let mut dropped: Vec<Dropped> = Vec::new();
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
            dropped.push(Dropped { at, code, why });
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
    Decision::Drop(vec![Dropped { at: 0, code, why }])
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
            Error::CertificateRefused { .. } => {
                Some("have a new certificate issued in place of this one: it is taken up by itself")
            }
            _ => None,
        };
    };
    match (status, error.code()) {
        (401, Some(Code::CertificateRevoked | Code::CertificateExpired)) => {
            Some("have a new certificate issued in place of this one: it is taken up by itself")
        }
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
mod tests {
    use lizmon_client::BaseUrl;
    use lizmon_protocol::token::TokenError;
    use proptest::prelude::*;

    use super::*;

    fn url() -> BaseUrl {
        "https://localhost:8443".parse().unwrap()
    }

    fn refused(problem: Problem, retry_after: Option<u64>) -> Error {
        Error::Refused {
            url: url(),
            status: problem.status,
            problem: Some(Box::new(problem)),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    fn coded(code: Code) -> Error {
        refused(Problem::new(code), None)
    }

    fn strange(status: u16) -> Error {
        Error::Refused {
            url: url(),
            status,
            problem: None,
            retry_after: None,
        }
    }

    fn no_token(status: u16) -> Error {
        let error = TokenError {
            error: "invalid_client".into(),
            error_description: None,
        };
        Error::NoToken {
            url: url(),
            status,
            error: Box::new(error),
            retry_after: None,
        }
    }

    fn away() -> Error {
        Error::Unreachable {
            url: url(),
            obstacle: Obstacle::Connect,
            cause: "refused".into(),
        }
    }

    /// With chance 1 every wait is its longest, so that the table shows it.
    fn check(error: Error, records: usize, expected: Decision) {
        let got = Pace::default().failed(&error, records, 1.0);
        assert_eq!(got, expected, "{error}, {records} records");
    }

    fn retry(secs: u64) -> Decision {
        Decision::Retry(Duration::from_secs(secs))
    }

    #[test]
    fn waits() {
        use lizmon_client::Error::{CertificateRefused, Malformed, ServerNotTrusted};
        for records in [1, 7] {
            check(away(), records, retry(1));
            check(coded(Code::RequestTimeout), records, retry(1));
            check(coded(Code::InternalError), records, retry(1));
            check(coded(Code::StoreUnavailable), records, retry(1));
            check(strange(502), records, retry(1));
            check(strange(404), records, retry(60));
            check(strange(302), records, retry(60));
            check(strange(400), records, retry(60));
            check(strange(422), records, retry(60));
            check(strange(401), records, retry(60));
            check(coded(Code::WrongHost), records, retry(60));
            check(coded(Code::InsufficientScope), records, retry(60));
            check(coded(Code::NotFound), records, retry(60));
            check(coded(Code::UnsupportedEncoding), records, retry(60));
            check(coded(Code::CertificateRevoked), records, retry(60));
            check(coded(Code::CertificateExpired), records, retry(60));
            check(no_token(401), records, retry(60));
            check(no_token(400), records, retry(60));
            check(no_token(503), records, retry(1));
            let alert = rustls_alert();
            check(CertificateRefused { url: url(), alert }, records, retry(1));
            let error = lizmon_client::error::CertificateError::UnknownIssuer;
            check(ServerNotTrusted { url: url(), error }, records, retry(1));
            let source = "no JSON".into();
            check(Malformed { url: url(), source }, records, retry(1));
        }
    }

    fn rustls_alert() -> lizmon_client::error::AlertDescription {
        lizmon_client::error::AlertDescription::CertificateRevoked
    }

    #[test]
    fn the_receivers_own_wait_is_honoured() {
        let overloaded = |secs| refused(Problem::new(Code::Overloaded), Some(secs));
        check(overloaded(10), 1, retry(15));
        check(
            overloaded(0),
            1,
            Decision::Retry(Duration::from_millis(500)),
        );
        check(overloaded(1_000_000), 1, retry(450));
        check(
            refused(Problem::new(Code::RateLimited), Some(2)),
            1,
            retry(3),
        );
        let least = Pace::default().failed(&overloaded(10), 1, 0.0);
        assert_eq!(least, retry(10));
    }

    #[test]
    fn a_new_token_is_tried_once_in_a_row() {
        for code in [
            Code::TokenInvalid,
            Code::TokenExpired,
            Code::TokenMissing,
            Code::CertificateMismatch,
        ] {
            let mut pace = Pace::default();
            assert_eq!(pace.failed(&coded(code), 1, 1.0), Decision::RenewToken);
            assert_eq!(pace.failed(&coded(code), 1, 1.0), retry(60));
            assert_eq!(pace.failed(&coded(code), 1, 1.0), retry(60));
            pace.delivered();
            assert_eq!(pace.failed(&coded(code), 1, 1.0), Decision::RenewToken);
        }
    }

    fn bad(record: Option<usize>, label: Option<&str>) -> ValueError {
        ValueError {
            record,
            label: label.map(str::to_owned),
            reason: "no".into(),
        }
    }

    fn check_sift(
        code: Code,
        errors: Vec<ValueError>,
        records: usize,
        expected: Option<&[(usize, &str)]>,
    ) {
        let mut problem = Problem::new(code).with_detail("detail");
        problem.errors = errors;
        let expected = match expected {
            None => Decision::Split,
            Some(dropped) => Decision::Drop(
                dropped
                    .iter()
                    .map(|(at, why)| Dropped {
                        at: *at,
                        code,
                        why: (*why).to_owned(),
                    })
                    .collect(),
            ),
        };
        check(refused(problem, None), records, expected);
    }

    #[test]
    fn only_named_records_are_dropped() {
        use Code::*;
        let named = vec![
            bad(Some(2), Some("cpu")),
            bad(Some(2), Some("mem")),
            bad(Some(0), None),
        ];
        let expected: &[_] = &[(2, "invalid_values: cpu: no"), (0, "invalid_values: no")];
        check_sift(InvalidValues, named, 3, Some(expected));
        check_sift(
            EpochTooOld,
            vec![bad(Some(0), None)],
            1,
            Some(&[(0, "epoch_too_old: no")]),
        );
        check_sift(
            EpochTooOld,
            vec![bad(None, None)],
            1,
            Some(&[(0, "epoch_too_old: no")]),
        );
        check_sift(
            EpochInFuture,
            vec![],
            1,
            Some(&[(0, "epoch_in_future: detail")]),
        );
        check_sift(TooManyLabels, vec![], 8, None);
        check_sift(InvalidValues, vec![bad(None, Some("cpu"))], 8, None);
        check_sift(InvalidValues, vec![bad(Some(8), None)], 8, None);
        check_sift(MalformedJson, vec![bad(Some(0), None)], 8, None);
        check_sift(
            MalformedJson,
            vec![],
            1,
            Some(&[(0, "malformed_json: detail")]),
        );
        check_sift(BodyTooLarge, vec![], 8, None);
        check_sift(
            BodyTooLarge,
            vec![],
            1,
            Some(&[(0, "body_too_large: detail")]),
        );
        check_sift(TooManyRecords, vec![], 2, None);
    }

    #[test]
    fn limits_of_the_producer_are_waited_for() {
        for records in [1, 8] {
            let mut problem = Problem::new(Code::InvalidValues);
            problem.errors = vec![bad(None, None)];
            check(refused(problem, None), records, retry(60));
        }
    }

    #[test]
    fn slow_lines_get_less_at_once() {
        let slow = || Error::Unreachable {
            url: url(),
            obstacle: Obstacle::Timeout,
            cause: "slow".into(),
        };
        let mut pace = Pace::default();
        for expected in [500, 250, 125, 62, 50, 50] {
            let records = pace.lot_records_max();
            let decision = pace.failed(&slow(), records, 1.0);
            assert!(matches!(decision, Decision::Retry(_)));
            assert_eq!(pace.lot_records_max(), expected);
        }
        pace.failed(&away(), 50, 1.0);
        assert_eq!(pace.lot_records_max(), 50);
    }

    #[test]
    fn lots_shrink_by_halves_and_grow_again() {
        let mut pace = Pace::default();
        for expected in [500, 250, 125] {
            let records = pace.lot_records_max();
            assert_eq!(
                pace.failed(&coded(Code::BodyTooLarge), records, 0.0),
                Decision::Split
            );
            assert_eq!(pace.lot_records_max(), expected);
        }
        for expected in [250, 500, 1000, 1000] {
            pace.delivered();
            assert_eq!(pace.lot_records_max(), expected);
        }
        assert_eq!(
            pace.failed(&coded(Code::BodyTooLarge), 3, 0.0),
            Decision::Split
        );
        assert_eq!(pace.lot_records_max(), 1);
    }

    #[test]
    fn backoff_doubles_up_to_its_cap_and_starts_again() {
        let mut pace = Pace::default();
        for secs in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(pace.failed(&away(), 1, 1.0), retry(secs));
        }
        pace.delivered();
        assert_eq!(pace.failed(&away(), 1, 1.0), retry(1));
    }

    proptest! {
        #[test]
        fn waits_stay_in_bounds(failures: u32, chance in 0.0..=1.0f64, after: u64) {
            let wait = backoff(failures, chance);
            prop_assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&wait));
            let wait = told(Duration::from_secs(after), chance);
            prop_assert!(wait <= RETRY_AFTER_MAX.mul_f64(1.5));
        }

        /// Whatever comes, a lot is kept, or made smaller, or some of it is dropped: never stuck at once and for ever.
        #[test]
        fn what_is_done_at_once_makes_progress(at in 0..Code::ALL.len(), records in 1..2000usize, named: Option<usize>) {
            let mut problem = Problem::new(Code::ALL[at]);
            problem.errors = vec![bad(named, None)];
            let mut pace = Pace::default();
            match pace.failed(&refused(problem.clone(), None), records, 0.5) {
                Decision::RenewToken => {
                    let again = pace.failed(&refused(problem, None), records, 0.5);
                    prop_assert!(matches!(again, Decision::Retry(_)));
                }
                Decision::Retry(wait) => prop_assert!(wait >= BACKOFF_MIN),
                Decision::Split => prop_assert!(pace.lot_records_max() < records),
                Decision::Drop(dropped) => {
                    prop_assert!(!dropped.is_empty() && dropped.iter().all(|dropped| dropped.at < records));
                }
            }
        }
    }
}
