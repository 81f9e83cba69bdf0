//! All errors of the API: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};

/// RFC 9457 section 3.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $status:literal $code:literal $title:literal,)*) => {
        /// The error code. Codes are stable, so that programs can match on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status of the response.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The title, which is the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not the JSON of this route.
    MalformedJson = 400 "malformed_json" "the body is not the JSON this route takes",
    /// The body is not the protobuf message of this route.
    MalformedProtobuf = 400 "malformed_protobuf" "the body is not the protobuf message this route takes",
    /// The epoch in the path is invalid.
    MalformedEpoch = 400 "malformed_epoch" "the epoch is not whole seconds since 1970 UTC",
    /// The query of the URL is invalid.
    MalformedQuery = 400 "malformed_query" "the query is not what this route takes",
    /// The answer would be too large.
    AnswerTooLarge = 400 "answer_too_large" "the answer would be larger than one may be: ask for less",
    /// The idempotency key is invalid.
    MalformedIdempotencyKey = 400 "malformed_idempotency_key" "the Idempotency-Key is not \"PRODUCER/SEQ\"",
    /// The request has no valid Host, or more than one.
    InvalidHost = 400 "invalid_host" "the request must have one Host header: a name or address, with or without a port",
    /// A proxy's header that names the client is malformed. Not 400: the sender's body is not at
    /// fault, and a monitor keeps it.
    InvalidForwarding = 403 "invalid_forwarding" "the proxy's header that names the client is not valid",
    /// The request has no token.
    TokenMissing = 401 "token_missing" "this route takes a token: get one at /oauth2/token",
    /// The token is invalid.
    TokenInvalid = 401 "token_invalid" "the token is not valid here",
    /// The token has expired.
    TokenExpired = 401 "token_expired" "the token has expired: get a new one",
    /// The token is not bound to the connection's certificate.
    CertificateMismatch = 401 "certificate_mismatch" "the token is bound to another certificate than this connection's",
    /// The connection's certificate is revoked.
    CertificateRevoked = 401 "certificate_revoked" "the certificate has been revoked",
    /// The connection's certificate has expired, or is not valid yet.
    CertificateExpired = 401 "certificate_expired" "the certificate is not valid at this time",
    /// The connection's certificate is no longer trusted for another reason, such as a removed
    /// root.
    CertificateUntrusted = 401 "certificate_untrusted" "the certificate is not trusted here",
    /// The path names another host than the token.
    WrongHost = 403 "wrong_host" "the token is for another host than the path",
    /// The token does not allow this request.
    InsufficientScope = 403 "insufficient_scope" "the token does not allow this",
    /// The request came through a proxy that is not trusted here, or claims to have.
    UntrustedProxy = 403 "untrusted_proxy" "this receiver does not take requests from this proxy",
    /// The host is unknown.
    UnknownHost = 404 "unknown_host" "no samples of this host in the last day",
    /// The route does not exist.
    NotFound = 404 "not_found" "there is nothing here",
    /// The route does not support this method.
    MethodNotAllowed = 405 "method_not_allowed" "this route has no such method",
    /// The request timed out before it was complete.
    RequestTimeout = 408 "request_timeout" "the request took too long to arrive",
    /// The body is too large.
    BodyTooLarge = 413 "body_too_large" "the body is too large: send fewer records at once",
    /// The batch has too many records.
    TooManyRecords = 413 "too_many_records" "the batch has too many records: send fewer at once",
    /// The content encoding of the body is not supported.
    UnsupportedEncoding = 415 "unsupported_encoding" "the body's Content-Encoding is not one that this route takes",
    /// The media type of the body is not supported.
    UnsupportedMediaType = 415 "unsupported_media_type" "the body's Content-Type is not one that this route takes",
    /// The body is not a CRL.
    MalformedCrl = 400 "malformed_crl" "the body is not a certificate revocation list",
    /// The CRL is not of a trusted authority, or is not valid at this time.
    InvalidCrl = 422 "invalid_crl" "the CRL is not accepted",
    /// The CRL is older than the current one.
    CrlNotNewer = 409 "crl_not_newer" "a CRL with this number or a higher one is in force",
    /// Some values are invalid.
    InvalidValues = 422 "invalid_values" "some values are not accepted",
    /// Some epochs are before the by-hour window.
    EpochTooOld = 422 "epoch_too_old" "the sample is older than the last day",
    /// Some epochs are in the future by the receiver's clock.
    EpochInFuture = 422 "epoch_in_future" "the sample is ahead of the receiver's clock",
    /// A record, or the host as a whole, would have too many labels.
    TooManyLabels = 422 "too_many_labels" "there are too many labels in a record, or of the host",
    /// The certificate has exceeded its rate of requests.
    RateLimited = 429 "rate_limited" "too many requests from this client",
    /// An internal error.
    InternalError = 500 "internal_error" "an internal error: the receiver's log has the cause",
    /// The store cannot be written at present.
    StoreUnavailable = 503 "store_unavailable" "the store is unavailable at present: send it again",
    /// The receiver does not know yet whether its clock is right.
    ClockUnsteady = 503 "clock_unsteady" "the receiver's clock is not known to be right yet: send it again",
    /// The token is bound to an earlier certificate of the same holder. Only where clients give up
    /// what is answered with 401.
    CertificateRenewed = 503 "certificate_renewed" "the token is bound to an earlier certificate of its holder: send it again with a new one",
    /// The receiver is overloaded.
    Overloaded = 503 "overloaded" "the receiver is overloaded: send it again",
    /// The CRL has expired.
    CrlExpired = 503 "crl_expired" "the certificate revocation list has expired: an operator must renew it",
}

/// One invalid value of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueError {
    /// The index of the record in the batch, from 0; absent if the error is about the whole
    /// request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<usize>,
    /// The label in the record; absent if the error is about the whole record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The reason.
    pub reason: String,
}

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:lizmon:problem:CODE`
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status, repeated in the body.
    pub status: u16,
    /// The code.
    pub code: Code,
    /// The title, which is the same for every occurrence.
    pub title: String,
    /// What happened in this case, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The invalid values, for status 422.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ValueError>,
    /// The receiver's time, for status 422: epoch seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<u64>,
}

impl Problem {
    /// A problem with no more detail than its code.
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

    /// Adds the detail of this occurrence.
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
