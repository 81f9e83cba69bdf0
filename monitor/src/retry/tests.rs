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
    Error::Connect(ConnectError::Unreachable {
        url: url(),
        failure: ConnectFailure::Connect,
        cause: "refused".into(),
    })
}

/// With chance 1 each wait is its longest, so that the table shows it.
fn check(error: Error, records: usize, expected: Decision) {
    let got = Backoff::default().failed(&error, records, 1.0);
    assert_eq!(got, expected, "{error}, {records} records");
}

fn retry(secs: u64) -> Decision {
    Decision::Retry(Duration::from_secs(secs))
}

#[test]
fn retry_waits() {
    use lizmon_client::ConnectError::{CertificateRefused, ServerNotTrusted};
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
        check(coded(Code::InvalidForwarding), records, retry(60));
        check(coded(Code::NotFound), records, retry(60));
        check(coded(Code::UnsupportedEncoding), records, retry(60));
        check(coded(Code::CertificateRevoked), records, retry(60));
        check(coded(Code::CertificateExpired), records, retry(60));
        check(no_token(401), records, retry(60));
        check(no_token(400), records, retry(60));
        check(no_token(503), records, retry(1));
        check(coded(Code::CertificateUntrusted), records, retry(60));
        let refused = CertificateRefused {
            url: url(),
            alert: rustls_alert(),
            own: Box::default(),
        };
        check(refused.into(), records, retry(1));
        let error = lizmon_transport::error::CertificateError::UnknownIssuer;
        let distrusted = ServerNotTrusted { url: url(), error };
        check(distrusted.into(), records, retry(1));
        let source = "no JSON".into();
        check(Error::Malformed { url: url(), source }, records, retry(1));
    }
}

fn rustls_alert() -> lizmon_transport::error::AlertDescription {
    lizmon_transport::error::AlertDescription::CertificateRevoked
}

#[test]
fn retry_after_is_honoured() {
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
    let least = Backoff::default().failed(&overloaded(10), 1, 0.0);
    assert_eq!(least, retry(10));
}

#[test]
fn the_token_is_renewed_once_in_a_row() {
    for code in [
        Code::TokenInvalid,
        Code::TokenExpired,
        Code::TokenMissing,
        Code::CertificateMismatch,
    ] {
        let mut pace = Backoff::default();
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
                .map(|(at, why)| RefusedRecord {
                    index: *at,
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
fn producer_limits_are_waited_out() {
    for records in [1, 8] {
        let mut problem = Problem::new(Code::InvalidValues);
        problem.errors = vec![bad(None, None)];
        check(refused(problem, None), records, retry(60));
    }
}

#[test]
fn slow_lines_get_smaller_batches() {
    let slow = || {
        Error::Connect(ConnectError::Unreachable {
            url: url(),
            failure: ConnectFailure::Timeout,
            cause: "slow".into(),
        })
    };
    let mut pace = Backoff::default();
    for expected in [500, 250, 125, 62, 50, 50] {
        let records = pace.batch_records_max();
        let decision = pace.failed(&slow(), records, 1.0);
        assert!(matches!(decision, Decision::Retry(_)));
        assert_eq!(pace.batch_records_max(), expected);
    }
    pace.failed(&away(), 50, 1.0);
    assert_eq!(pace.batch_records_max(), 50);
}

#[test]
fn batches_shrink_by_halves_and_grow_again() {
    let mut pace = Backoff::default();
    for expected in [500, 250, 125] {
        let records = pace.batch_records_max();
        assert_eq!(
            pace.failed(&coded(Code::BodyTooLarge), records, 0.0),
            Decision::Split
        );
        assert_eq!(pace.batch_records_max(), expected);
    }
    for expected in [250, 500, 1000, 1000] {
        pace.delivered();
        assert_eq!(pace.batch_records_max(), expected);
    }
    assert_eq!(
        pace.failed(&coded(Code::BodyTooLarge), 3, 0.0),
        Decision::Split
    );
    assert_eq!(pace.batch_records_max(), 1);
}

#[test]
fn backoff_doubles_up_to_its_cap_and_starts_again() {
    let mut pace = Backoff::default();
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
        let wait = retry_after_wait(Duration::from_secs(after), chance);
        prop_assert!(wait <= RETRY_AFTER_MAX.mul_f64(1.5));
    }

    /// After any error the batch is kept for later, made smaller, or partly dropped: it is never
    /// retried at once for ever.
    #[test]
    fn what_is_done_at_once_makes_progress(at in 0..Code::ALL.len(), records in 1..2000usize, named: Option<usize>) {
        let mut problem = Problem::new(Code::ALL[at]);
        problem.errors = vec![bad(named, None)];
        let mut pace = Backoff::default();
        match pace.failed(&refused(problem.clone(), None), records, 0.5) {
            Decision::RenewToken => {
                let again = pace.failed(&refused(problem, None), records, 0.5);
                prop_assert!(matches!(again, Decision::Retry(_)));
            }
            Decision::Retry(wait) => prop_assert!(wait >= BACKOFF_MIN),
            Decision::Split => prop_assert!(pace.batch_records_max() < records),
            Decision::Drop(dropped) => {
                prop_assert!(!dropped.is_empty() && dropped.iter().all(|dropped| dropped.index < records));
            }
        }
    }
}
