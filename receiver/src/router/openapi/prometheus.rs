//! What Prometheus sends and asks for.

use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use lizmon_protocol::token::Scope;
use utoipa::openapi::{ArrayBuilder, Content};

use super::super::prometheus::REQUEST_BYTES_MAX;
use super::operation::{Described, content_of, header};
use super::operations::OF_ITSELF_TOO;
use super::schema::{any_count, text};
use crate::body::{BODY_BYTES_MAX, SNAPPY};
use crate::protobuf::MEDIA_TYPE;

pub(in super::super) fn remote_write() -> Vec<Described> {
    let operation = Described::post(route::REMOTE_WRITE, "remoteWrite", "Prometheus' remote write 1.0")
        .tag("prometheus")
        .says("A message WriteRequest in one block of snappy, as Prometheus sends it. Series are of the host that their label `host` names, else `instance` without its port")
        .with_token(&[Scope::MetricsWrite])
        .reads_any([(MEDIA_TYPE, Content::default())], &[SNAPPY], BODY_BYTES_MAX)
        .instead_of(&[Code::MalformedJson, Code::RateLimited, Code::RequestTimeout])
        .may_be(&[
            Code::MalformedProtobuf,
            Code::WrongHost,
            Code::UnsupportedMediaType,
            Code::InvalidValues,
            Code::EpochTooOld,
            Code::EpochInFuture,
            Code::TooManyLabels,
            Code::TooManyRecords,
            Code::CertificateRenewed,
            Code::ClockUnsteady,
            Code::StoreUnavailable,
        ])
        .answers(204, "All of it is durable", None);
    vec![operation]
}

pub(in super::super) fn remote_read() -> Vec<Described> {
    let operation = Described::post(route::REMOTE_READ, "remoteRead", "Prometheus' remote read")
        .tag("prometheus")
        .says("A message ReadRequest in one block of snappy, as Prometheus sends it; so is the answer")
        .with_token(&OF_ITSELF_TOO)
        .reads_any([(MEDIA_TYPE, Content::default())], &[SNAPPY], REQUEST_BYTES_MAX)
        .instead_of(&[Code::MalformedJson])
        .may_be(&[
            Code::MalformedProtobuf,
            Code::MalformedQuery,
            Code::AnswerTooLarge,
            Code::UnsupportedMediaType,
            Code::StoreUnavailable,
        ])
        .answers(200, "A message ReadResponse", Some((MEDIA_TYPE, Content::default())))
        .sends(200, &[header::AS_OF]);
    vec![operation]
}

pub(in super::super) fn series() -> Vec<Described> {
    let selectors = selectors().min_items(Some(1));
    let asked = listing(Described::get(
        route::SERIES,
        "series",
        "The labels of series",
    ))
    .needs_query("match[]", selectors, (SELECTORS, vec!["cpu"]));
    let posted = Described::post(route::SERIES, "postSeries", "The same, by a form");
    [asked, of_form(posted)]
        .map(|operation| operation.answers_coded_json("SeriesList", "As Prometheus answers"))
        .into()
}

pub(in super::super) fn labels() -> Vec<Described> {
    let asked = listing(Described::get(
        route::LABELS,
        "labels",
        "The names of labels",
    ))
    .query("match[]", selectors(), (SELECTORS, vec!["cpu"]));
    let posted = Described::post(route::LABELS, "postLabels", "The same, by a form");
    [asked, of_form(posted)]
        .map(|operation| operation.answers_coded_json("NameList", "As Prometheus answers"))
        .into()
}

pub(in super::super) fn label_values() -> Vec<Described> {
    let path = format!("{}/{{name}}/values", route::LABEL_VALUES);
    let name = text().pattern(Some("^[a-zA-Z_][a-zA-Z0-9_]*$"));
    let operation = listing(Described::get(path, "labelValues", "The values of a label"))
        .segment("name", name, ("The label's name", "host"))
        .query("match[]", selectors(), (SELECTORS, vec!["cpu"]))
        .answers_coded_json("NameList", "As Prometheus answers");
    vec![operation]
}

const SELECTORS: &str = "Series that one of these selects, as PromQL has them";

fn selectors() -> ArrayBuilder {
    ArrayBuilder::new().items(text())
}

fn listing(operation: Described) -> Described {
    of_names(operation)
        .query("limit", any_count(), ("At most so many; 0 is no limit", 0))
        .query("start", text(), ("Changes nothing", "0"))
        .query("end", text(), ("Changes nothing", "0"))
}

fn of_form(operation: Described) -> Described {
    of_names(operation).reads_any(
        [("application/x-www-form-urlencoded", content_of("Listing"))],
        &["gzip", "zstd"],
        REQUEST_BYTES_MAX,
    )
}

/// Names of series with samples within the last day.
fn of_names(operation: Described) -> Described {
    operation
        .tag("prometheus")
        .with_token(&OF_ITSELF_TOO)
        .may_be(&[Code::MalformedQuery, Code::AnswerTooLarge])
}
