//! JSON responses and parsing of paths.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, request};
use lizmon_protocol::name::{NodeName, Tag, TagFilter};
use lizmon_protocol::problem::Code;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::problem::Rejection;
use crate::body::CodedAnswer;

/// A segment of a path as a host's name; none if no host can have it.
pub(super) fn parse_host(segment: &str) -> Option<NodeName> {
    decode(segment).parse().ok()
}

/// Undoes percent-encoding. What is not UTF-8 then matches no name: U+FFFD is in none.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// The tags that a request asks for: `tag=env=prod`, any number of times. A name that is neither this
/// nor one of `others` is an error: what it was to leave out would be there.
pub(super) fn wanted_tags(head: &request::Parts, others: &[&str]) -> Result<TagFilter, Rejection> {
    let malformed = |detail| Rejection::from(Code::MalformedQuery).with_detail(detail);
    let query = head.uri.query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes());
    let pairs = pairs.filter(|(name, _)| !others.contains(&&**name));
    let tags = pairs.map(|(name, value)| match &*name {
        "tag" => value
            .parse::<Tag>()
            .map_err(|error| malformed(error.to_string())),
        _ => Err(malformed(format!("{name:?} is not asked for: tag"))),
    });
    tags.collect()
}

pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json_bytes(body.into()),
        Err(_) => Rejection::from(Code::InternalError).into_response(),
    }
}

pub(super) fn json_bytes(body: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

/// The same of an answer that is coded as its request asks.
pub(super) fn coded_json(answer: CodedAnswer<Bytes>) -> Response {
    let mut response = json_bytes(answer.body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    if let Some(coding) = answer.coding {
        headers.insert(CONTENT_ENCODING, coding.name());
    }
    response
}
