//! Every error the API answers: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};

/// RFC 9457 section 3.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $status:literal $code:literal $title:literal,)*) => {
        /// What went wrong. The word is stable: programs decide by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Code {
            /// Every code, in the order they are documented.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The same sentence for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not the JSON this route takes.
    MalformedJson = 400 "malformed_json" "the body is not the JSON this route takes",
    /// The path's epoch is not one.
    MalformedEpoch = 400 "malformed_epoch" "the epoch is not whole seconds since 1970 UTC",
    /// The idempotency key is not one of ours.
    MalformedIdempotencyKey = 400 "malformed_idempotency_key" "the Idempotency-Key is not \"PRODUCER/SEQ\"",
    /// The request does not say, or says twice, whom it is for.
    InvalidHost = 400 "invalid_host" "the request must have one Host, a name or address with or without a port",
    /// No token was sent.
    TokenMissing = 401 "token_missing" "this route takes a token: get one at /oauth2/token",
    /// The token is not one of ours.
    TokenInvalid = 401 "token_invalid" "the token is not valid here",
    /// The token has ended.
    TokenExpired = 401 "token_expired" "the token has expired: get a new one",
    /// The connection's certificate is not the one the token is bound to.
    CertificateMismatch = 401 "certificate_mismatch" "the token is bound to another certificate than this connection's",
    /// The connection's certificate has been revoked.
    CertificateRevoked = 401 "certificate_revoked" "the certificate has been revoked",
    /// The connection's certificate has ended, or has not begun.
    CertificateExpired = 401 "certificate_expired" "the certificate is not valid at this time",
    /// The connection's certificate is not taken any more for another reason, such as a root that is gone.
    CertificateUntrusted = 401 "certificate_untrusted" "the certificate is not trusted here",
    /// The path names another host than the token.
    WrongHost = 403 "wrong_host" "the token speaks for another host than the path names",
    /// The token does not allow this.
    InsufficientScope = 403 "insufficient_scope" "the token does not allow this",
    /// Nothing is known of this host.
    UnknownHost = 404 "unknown_host" "no samples of this host in the last day",
    /// There is no such route.
    NotFound = 404 "not_found" "there is nothing here",
    /// The route has other methods.
    MethodNotAllowed = 405 "method_not_allowed" "this route has no such method",
    /// The request took too long to arrive.
    RequestTimeout = 408 "request_timeout" "the request took too long to arrive",
    /// The body is too large.
    BodyTooLarge = 413 "body_too_large" "the body is too large: send fewer records at once",
    /// The batch has too many records.
    TooManyRecords = 413 "too_many_records" "the batch has too many records: send fewer at once",
    /// The body is encoded in a way nobody here reads.
    UnsupportedEncoding = 415 "unsupported_encoding" "the body's Content-Encoding is not gzip or zstd",
    /// The body is no revocation list.
    MalformedCrl = 400 "malformed_crl" "the body is not a certificate revocation list",
    /// The revocation list is not one of an authority we trust, or not in force now.
    InvalidCrl = 422 "invalid_crl" "the revocation list cannot be taken",
    /// The revocation list is older than the one in force.
    CrlNotNewer = 409 "crl_not_newer" "a revocation list with this number or a higher one is in force",
    /// Some values cannot be taken.
    InvalidValues = 422 "invalid_values" "some values cannot be taken",
    /// Some epochs are before the by-hour window.
    EpochTooOld = 422 "epoch_too_old" "the sample is older than the last day",
    /// Some epochs are ahead of the receiver's clock.
    EpochInFuture = 422 "epoch_in_future" "the sample is ahead of the receiver's clock",
    /// A record has too many labels, or the host would have.
    TooManyLabels = 422 "too_many_labels" "there are too many labels in a record, or of the host",
    /// This certificate sends too many requests.
    RateLimited = 429 "rate_limited" "too many requests with this certificate",
    /// Something broke that should not.
    InternalError = 500 "internal_error" "something broke inside: the receiver's log says what",
    /// Nothing can be stored at present.
    StoreUnavailable = 503 "store_unavailable" "nothing can be stored at present: send it again",
    /// It is not known yet whether the receiver's clock is right.
    ClockUnsteady = 503 "clock_unsteady" "the receiver's clock is not known to be right yet: send it again",
    /// There is more to do than fits.
    Overloaded = 503 "overloaded" "there is more to do than fits: send it again",
    /// The revocation list is past its end.
    CrlExpired = 503 "crl_expired" "the certificate revocation list has expired: an operator must renew it",
}

/// One bad value of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueError {
    /// Which record of the batch, from 0; absent where the whole request is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<usize>,
    /// Which label of the record; absent where the whole record is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

/// An error as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:lizmon:problem:CODE`
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status again.
    pub status: u16,
    /// The stable word.
    pub code: Code,
    /// The same sentence for every occurrence.
    pub title: String,
    /// What happened this time, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The bad values, for status 422.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ValueError>,
    /// The receiver's clock, for status 422: epoch seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<u64>,
}

impl Problem {
    /// A problem that says no more than its code.
    pub fn new(code: Code) -> Self {
        Self {
            kind: format!("urn:lizmon:problem:{}", code.as_str()),
            status: code.status(),
            code,
            title: code.title().to_owned(),
            detail: None,
            errors: Vec::new(),
            now: None,
        }
    }

    /// Says what happened this time.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mut problem = Problem::new(Code::EpochTooOld).with_detail("older than 1464912000");
        problem.errors = vec![ValueError {
            record: Some(3),
            label: Some("cpu".into()),
            reason: "no".into(),
        }];
        problem.now = Some(1_465_001_814);
        let golden = concat!(
            r#"{"type":"urn:lizmon:problem:epoch_too_old","status":422,"code":"epoch_too_old","#,
            r#""title":"the sample is older than the last day","detail":"older than 1464912000","#,
            r#""errors":[{"record":3,"label":"cpu","reason":"no"}],"now":1465001814}"#
        );
        assert_eq!(serde_json::to_string(&problem).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Problem>(golden).unwrap(), problem);
    }

    #[test]
    fn a_code_is_written_as_its_word() {
        for code in Code::ALL {
            assert_eq!(
                serde_json::to_string(code).unwrap(),
                format!("\"{}\"", code.as_str())
            );
        }
    }
}
