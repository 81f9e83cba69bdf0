//! Problem documents (RFC 9457): every error of the receiver becomes one here, and nowhere else.

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use lizmon_mtls::forwarding::ForwardingError;
use lizmon_mtls::revocation::CrlRefused;
use lizmon_mtls::trust::PeerRefusal;
use lizmon_protocol::problem::{Code, MEDIA_TYPE, Problem, ValueError};
use lizmon_protocol::sample::BodyError;
use lizmon_protocol::token::Scope;

use crate::authorize::AuthorizeError;
use crate::body::{BodyReadError, CONTENT_CODINGS, SNAPPY};
use crate::journal::{AdmissionError, SubmitError, ValueFault};
use crate::metrics::{RefusedRequest, TooManyScrapes};
use crate::prometheus::find::TooMany;
use crate::prometheus::read::ReadError;
use crate::prometheus::selector::SelectorError;

/// Default of Retry-After, in seconds.
const RETRY_AFTER_SECS: u64 = 1;
/// The same while summarizers have to catch up: they commit every ten seconds.
const RETRY_AFTER_FULL_SECS: u64 = 5;
/// The same if an operator has to act first.
const RETRY_AFTER_OPERATOR_SECS: u64 = 60;

/// A response that says what is wrong.
#[derive(Debug)]
pub struct Rejection(Box<Parts>);

#[derive(Debug)]
struct Parts {
    problem: Problem,
    headers: HeaderMap,
}

impl Rejection {
    /// Adds the detail of this case.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.problem.detail = Some(detail.into());
        self
    }

    /// Adds the invalid values and the receiver's time, which clients can compare with their own.
    pub fn with_errors(mut self, errors: Vec<ValueError>, now: u64) -> Self {
        self.0.problem.errors = errors;
        self.0.problem.now = Some(now);
        self
    }

    /// A method a route does not have; `allow` lists those it has.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut rejection = Self::from(Code::MethodNotAllowed);
        rejection
            .0
            .headers
            .insert(ALLOW, HeaderValue::from_static(allow));
        rejection
    }

    /// A token without the scope that a route asks for: RFC 6750 section 3.1.
    fn insufficient_scope(scope: Scope) -> Self {
        let mut rejection = Self::from(Code::InsufficientScope);
        let scope = scope.as_str();
        rejection.challenge(&format!(
            r#"Bearer realm="lizmon", error="insufficient_scope", scope="{scope}""#
        ));
        rejection.with_detail(format!("this needs the scope {scope}"))
    }

    /// Too many requests; the next one may come after `wait`.
    pub fn rate_limited(wait: std::time::Duration) -> Self {
        let mut rejection = Self::from(Code::RateLimited);
        let secs = wait.as_secs_f64().ceil().max(1.0);
        rejection.retry_after(secs as u64);
        rejection
    }

    /// The clock is not known to be right; it will be after so many seconds.
    pub fn clock_unsteady(secs: u64, detail: &str) -> Self {
        let mut rejection = Self::from(Code::ClockUnsteady);
        rejection.retry_after(secs.max(RETRY_AFTER_SECS));
        rejection.with_detail(detail)
    }

    /// The same with another code, for clients that would take its own amiss.
    pub fn with_code(mut self, code: Code) -> Self {
        let mut other = Self::from(code);
        let problem = std::mem::replace(&mut self.0.problem, Problem::new(code));
        other.0.problem.detail = problem.detail.or(Some(problem.title));
        // How long to wait is known better than by default.
        other.0.headers.extend(self.0.headers.drain());
        other
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.0.problem.code
    }

    /// Its detail.
    pub fn detail(&self) -> Option<&str> {
        self.0.problem.detail.as_deref()
    }

    /// The response that says it.
    pub(super) fn to_response(&self) -> Response {
        let status = StatusCode::from_u16(self.0.problem.status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let refused = RefusedRequest {
            is_token: false,
            code: self.0.problem.code.as_str(),
            detail: self.0.problem.detail.clone(),
        };
        tracing::debug!(code = refused.code, detail = refused.detail, "refused");
        let body = serde_json::to_vec(&self.0.problem).unwrap_or_default();
        let mut response = (status, self.0.headers.clone(), body).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response.extensions_mut().insert(refused);
        response
    }

    fn challenge(&mut self, challenge: &str) {
        if let Ok(value) = HeaderValue::from_str(challenge) {
            self.0.headers.insert(WWW_AUTHENTICATE, value);
        }
    }

    fn retry_after(&mut self, secs: u64) {
        self.0.headers.insert(RETRY_AFTER, HeaderValue::from(secs));
    }
}

impl From<Code> for Rejection {
    fn from(code: Code) -> Self {
        let parts = Parts {
            problem: Problem::new(code),
            headers: HeaderMap::new(),
        };
        let mut rejection = Self(Box::new(parts));
        match code {
            Code::TokenMissing => rejection.challenge(r#"Bearer realm="lizmon""#),
            _ if code.status() == 401 => {
                let description = code.title();
                rejection.challenge(&format!(
                    r#"Bearer realm="lizmon", error="invalid_token", error_description="{description}""#
                ));
            }
            Code::CrlExpired => rejection.retry_after(RETRY_AFTER_OPERATOR_SECS),
            // RFC 9110 section 12.5.3.
            Code::UnsupportedEncoding => {
                let codings = HeaderValue::from_static(CONTENT_CODINGS);
                rejection.0.headers.insert(ACCEPT_ENCODING, codings);
            }
            _ if matches!(code.status(), 429 | 503) => rejection.retry_after(RETRY_AFTER_SECS),
            _ => (),
        }
        rejection
    }
}

impl From<PeerRefusal> for Rejection {
    fn from(refusal: PeerRefusal) -> Self {
        let code = match &refusal {
            refusal if refusal.is_revoked() => Code::CertificateRevoked,
            refusal if refusal.is_about_time() => Code::CertificateExpired,
            _ => Code::CertificateUntrusted,
        };
        Self::from(code).with_detail(refusal.to_string())
    }
}

impl From<ForwardingError> for Rejection {
    fn from(error: ForwardingError) -> Self {
        let code = match error.is_about_the_peer() {
            true => Code::UntrustedProxy,
            false => Code::InvalidForwarding,
        };
        Self::from(code).with_detail(error.to_string())
    }
}

impl From<AuthorizeError> for Rejection {
    fn from(error: AuthorizeError) -> Self {
        match error {
            AuthorizeError::CertificateMismatch => Code::CertificateMismatch.into(),
            AuthorizeError::InsufficientScope(scope) => Self::insufficient_scope(scope),
            AuthorizeError::OutsideHostScope => {
                Self::insufficient_scope(Scope::MetricsRead).with_detail(error.to_string())
            }
            AuthorizeError::WrongHost { .. } | AuthorizeError::OutsideGateway { .. } => {
                Self::from(Code::WrongHost).with_detail(error.to_string())
            }
            AuthorizeError::NoSuchHost => Code::UnknownHost.into(),
        }
    }
}

impl From<BodyReadError> for Rejection {
    fn from(error: BodyReadError) -> Self {
        match error {
            BodyReadError::TooLarge { .. } | BodyReadError::TooManyMembers { .. } => {
                Self::from(Code::BodyTooLarge).with_detail(error.to_string())
            }
            BodyReadError::BrokenOff | BodyReadError::Undecodable(_) => {
                Self::from(Code::MalformedJson).with_detail(error.to_string())
            }
            BodyReadError::TimedOut => Code::RequestTimeout.into(),
            BodyReadError::UnsupportedEncoding => Code::UnsupportedEncoding.into(),
            BodyReadError::NotSnappy => {
                let mut rejection = Self::from(Code::UnsupportedEncoding);
                let codings = HeaderValue::from_static(SNAPPY);
                rejection.0.headers.insert(ACCEPT_ENCODING, codings);
                rejection.with_detail(error.to_string())
            }
            BodyReadError::RateLimited(wait) => Self::rate_limited(wait),
            BodyReadError::OutOfMemory => Code::Overloaded.into(),
            BodyReadError::Panicked => Code::InternalError.into(),
        }
    }
}

impl From<TooManyScrapes> for Rejection {
    fn from(_: TooManyScrapes) -> Self {
        Code::Overloaded.into()
    }
}

impl From<SubmitError> for Rejection {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(AdmissionError::Values { fault, errors, now }) => {
                Self::from(code_of(fault)).with_errors(errors, now)
            }
            SubmitError::Refused(AdmissionError::ClockUnsteady { wait_secs, why }) => {
                Self::clock_unsteady(wait_secs, why)
            }
            SubmitError::Refused(AdmissionError::Unreadable) => Code::InternalError.into(),
            SubmitError::Overloaded => Code::Overloaded.into(),
            SubmitError::StoreFull => {
                let mut rejection = Self::from(Code::Overloaded).with_detail(error.to_string());
                rejection.retry_after(RETRY_AFTER_FULL_SECS);
                rejection
            }
            SubmitError::Unavailable => Code::StoreUnavailable.into(),
        }
    }
}

fn code_of(fault: ValueFault) -> Code {
    match fault {
        ValueFault::Invalid => Code::InvalidValues,
        ValueFault::EpochTooOld => Code::EpochTooOld,
        ValueFault::EpochInFuture => Code::EpochInFuture,
        ValueFault::TooManyLabels => Code::TooManyLabels,
    }
}

impl From<ReadError> for Rejection {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::Message(_) => Code::MalformedProtobuf,
            ReadError::Selector(error) => return error.into(),
            ReadError::TooManySeries(error) => return (*error).into(),
            ReadError::TooManyQueries => Code::MalformedQuery,
            ReadError::TooManyStoredSeries | ReadError::TooLarge => Code::AnswerTooLarge,
            ReadError::Store(error) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "the history cannot be read");
                return Code::StoreUnavailable.into();
            }
        };
        Self::from(code).with_detail(error.to_string())
    }
}

impl From<&SelectorError> for Rejection {
    fn from(error: &SelectorError) -> Self {
        Self::from(Code::MalformedQuery).with_detail(error.to_string())
    }
}

impl From<TooMany> for Rejection {
    fn from(error: TooMany) -> Self {
        Self::from(Code::AnswerTooLarge).with_detail(error.to_string())
    }
}

impl From<CrlRefused> for Rejection {
    fn from(refused: CrlRefused) -> Self {
        let code = match refused {
            CrlRefused::NotNewer { .. } => Code::CrlNotNewer,
            CrlRefused::NotSigned(_) | CrlRefused::NotNow(_) => Code::InvalidCrl,
        };
        Self::from(code).with_detail(refused.to_string())
    }
}

impl Rejection {
    /// A body that is to be a message in a block of snappy, and cannot be read.
    pub(super) fn of_message_body(error: BodyReadError) -> Self {
        match error {
            BodyReadError::BrokenOff | BodyReadError::Undecodable(_) => {
                Self::from(Code::MalformedProtobuf).with_detail(error.to_string())
            }
            error => error.into(),
        }
    }

    /// A body that is not accepted.
    pub fn of_body(error: BodyError, now: u64) -> Self {
        match error {
            BodyError::Malformed(detail) => Self::from(Code::MalformedJson).with_detail(detail),
            BodyError::TooManyRecords => {
                Self::from(Code::TooManyRecords).with_detail(error.to_string())
            }
            BodyError::TooManyLabels(errors) => {
                Self::from(Code::TooManyLabels).with_errors(errors, now)
            }
            BodyError::Values(errors) => Self::from(Code::InvalidValues).with_errors(errors, now),
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.to_response()
    }
}
