//! JSON responses and parsing of paths.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode, request};
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

/// The entity tag of contents.
#[expect(
    clippy::expect_used,
    reason = "quotes and hexadecimal digits are valid in a header"
)]
pub(super) fn entity_tag(contents: &[u8]) -> HeaderValue {
    let hash = hex::encode(&digest(&SHA256, contents).as_ref()[..16]);
    HeaderValue::try_from(format!("\"{hash}\"")).expect("it is a header's value")
}

/// What is the same for everybody; 304 for a client that has it.
pub(super) fn for_everybody(
    headers: &HeaderMap,
    tag: &HeaderValue,
    media_type: &'static str,
    contents: impl IntoResponse,
) -> Response {
    let is_known = headers.get(IF_NONE_MATCH) == Some(tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(CONTENT_TYPE, media_type)], contents).into_response(),
    };
    let headers = response.headers_mut();
    // Asked again each time, so that a newer receiver's page never has an older one's script.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, tag.clone());
    response
}

/// JSON of an answer that is coded as its request asks.
pub(super) fn coded_json(answer: CodedAnswer<Bytes>) -> Response {
    let mut response = json_bytes(answer.body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    if let Some(coding) = answer.coding {
        headers.insert(CONTENT_ENCODING, coding.name());
    }
    response
}
