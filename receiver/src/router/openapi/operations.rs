//! What each route of the table does, in its order.

use lizmon_mtls::client_quota::EVENT_STREAMS_PER_HOLDER_MAX;
use lizmon_protocol::facts::FACTS_BYTES_MAX;
use lizmon_protocol::history::{HistoryTier, INTERVALS_MAX};
use lizmon_protocol::live::SUMMARIES;
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use lizmon_protocol::sample::BATCH_RECORDS_MAX;
use lizmon_protocol::token::Scope;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::{ArrayBuilder, Content, ObjectBuilder};

use super::operation::{Described, JSON, content_of, header};
use super::schema::{HOST, NOW, PRODUCER, count, epoch, named, one_of, text};
use crate::body::{BODY_BYTES_MAX, CRL_BYTES_MAX, UNPACKED_BYTES_MAX};
use crate::metrics;

/// Who reads: readers and operators; a node reads of itself.
pub(super) const OF_ITSELF_TOO: [Scope; 2] = [Scope::MetricsRead, Scope::MetricsWrite];

pub(in super::super) fn metadata() -> Vec<Described> {
    let operation = Described::get(route::METADATA, "authorizationServer", "RFC 8414 metadata")
        .tag("tokens")
        .answers_json("AuthorizationServer", "Where tokens come from")
        .may_be(&[Code::CrlExpired]);
    vec![operation]
}

pub(in super::super) fn key_set() -> Vec<Described> {
    let operation = Described::get(route::JWKS, "keySet", "The public keys of tokens")
        .tag("tokens")
        .answers_json("KeySet", "The keys, of every receiver of the same store")
        .may_be(&[Code::CrlExpired]);
    vec![operation]
}

/// RFC 6749 section 5.2; what it has no code for is a problem document.
pub(in super::super) fn token() -> Vec<Described> {
    let mut operation = Described::post(route::TOKEN, "token", "A token for the certificate's holder")
        .tag("tokens")
        .says("RFC 6749 section 4.4, by certificate: RFC 8705 section 2.1. It takes no Authorization header")
        .with_certificate()
        .reads("application/x-www-form-urlencoded", "TokenRequest", BODY_BYTES_MAX)
        .instead_of(&TOLD_BY_OAUTH)
        .answers_json("TokenResponse", "The token");
    for (status, says) in [
        (
            400,
            "The request, or what it asks for, is not for this client",
        ),
        (401, "There is no valid certificate"),
        (408, "The body took too long"),
        (413, "The body is too large"),
        (415, "The body's Content-Encoding is not gzip or zstd"),
    ] {
        operation = operation.answers(status, says, Some((JSON, content_of("TokenError"))));
    }
    vec![operation.sends(401, &[header::CHALLENGE])]
}

/// What the token endpoint says in other words.
const TOLD_BY_OAUTH: [Code; 10] = [
    Code::UntrustedProxy,
    Code::InvalidForwarding,
    Code::MalformedJson,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedEncoding,
    Code::CertificateMismatch,
    Code::CertificateRevoked,
    Code::CertificateExpired,
    Code::CertificateUntrusted,
];

pub(in super::super) fn list_hosts() -> Vec<Described> {
    let operation = Described::get(route::PERF, "hosts", "The hosts that the caller may read")
        .tag("reading")
        .with_token(&[Scope::MetricsRead])
        .wanted_tags()
        .answers_coded_json("Hosts", "Every host with samples in a window");
    vec![operation]
}

/// What is below `/api/perf`: summaries, and where samples are sent to.
pub(in super::super) fn perf() -> Vec<Described> {
    let host = format!("{}/{{host}}", route::PERF);
    // OpenAPI has one path for both, and so one name.
    let below = format!("{host}/{{label-or-epoch}}");
    vec![
        Described::get(host.clone(), "summaries", "All summaries of a host").reads_summaries(),
        Described::get(
            below.clone(),
            "summariesOfLabel",
            "Some summaries of a host",
        )
        .segment(
            "label-or-epoch",
            text().min_length(Some(1)),
            (
                "What the summary's name contains, ignoring ASCII case. It may hold `/`",
                "cpu",
            ),
        )
        .reads_summaries(),
        Described::post(host, "sendBatch", "Sends numbered samples")
            .says(format!(
                "At most {BATCH_RECORDS_MAX} records, {UNPACKED_BYTES_MAX} bytes once unpacked"
            ))
            .sends_samples("Batch")
            .may_be(&[Code::TooManyRecords])
            .answers_json("BatchAnswer", "All of it is durable"),
        Described::post(below, "sendSample", "Sends one sample")
            .segment("label-or-epoch", epoch(), ("The sample's time", NOW))
            .header(
                "Idempotency-Key",
                idempotency_key(),
                (KEY_SAYS, format!("\"{PRODUCER}/17\"")),
            )
            .sends_samples("SampleSet")
            .may_be(&[Code::MalformedEpoch, Code::MalformedIdempotencyKey])
            .answers(204, "It is durable", None)
            .sends(204, &[header::REPLAYED]),
    ]
}

const KEY_SAYS: &str =
    "`\"PRODUCER/SEQ\"`, an RFC 8941 string: a number that has arrived before changes nothing";

fn idempotency_key() -> ObjectBuilder {
    let pattern =
        r#"^"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/[1-9][0-9]{0,15}"$"#;
    text().pattern(Some(pattern))
}

pub(in super::super) fn delivery() -> Vec<Described> {
    let path = format!("{}/{{host}}", route::DELIVERY);
    let operation = Described::get(
        path,
        "delivery",
        "Which numbers of each producer have arrived",
    )
    .tag("reading")
    .of_host()
    .answers_coded_json("Delivery", "By producer");
    vec![operation]
}

pub(in super::super) fn acknowledge() -> Vec<Described> {
    let path = format!("{}/{{host}}/acknowledged", route::DELIVERY);
    let operation = Described::post(
        path,
        "acknowledge",
        "Acknowledges what is missing of a host",
    )
    .tag("operators")
    .host()
    .with_token(&[Scope::Admin])
    .reads(JSON, "Acknowledge", super::super::delivery::BYTES_MAX)
    .becomes_durable()
    .may_be(&[Code::UnknownHost])
    .answers_json("Acknowledged", "How many numbers that were");
    vec![operation]
}

pub(in super::super) fn alarms() -> Vec<Described> {
    let operation = Described::get(
        route::ALARMS,
        "alarms",
        "What is pending, firing, or has just ended",
    )
    .tag("reading")
    .with_token(&[Scope::MetricsRead])
    .wanted_tags()
    .answers_coded_json("Alarms", "Of the hosts that the caller may read");
    vec![operation]
}

pub(in super::super) fn silence() -> Vec<Described> {
    let path = format!("{}/{{host}}", route::SILENCES);
    let operation = Described::post(
        path,
        "silence",
        "Silences the alarms of a host, or ends that",
    )
    .tag("operators")
    .host()
    .with_token(&[Scope::Admin])
    .reads(JSON, "SilenceRequest", super::super::alarms::BYTES_MAX)
    .becomes_durable()
    .may_be(&[Code::UnknownHost])
    .answers_json("Silenced", "It is durable");
    vec![operation]
}

pub(in super::super) fn test_channel() -> Vec<Described> {
    let path = format!("{}/test/{{channel}}", route::ALARMS);
    let operation = Described::post(
        path,
        "testChannel",
        "Sends a test message by a channel, once",
    )
    .tag("operators")
    .segment(
        "channel",
        text().min_length(Some(1)),
        ("Its name in the rules", "mail"),
    )
    .with_token(&[Scope::Admin])
    .answers_json("ChannelTested", "What became of it");
    vec![operation]
}

pub(in super::super) fn history() -> Vec<Described> {
    let host = format!("{}/{{host}}", route::HISTORY);
    let operation = |path, id, summary| {
        let tier = one_of(HistoryTier::ALL.map(HistoryTier::as_str));
        Described::get(path, id, summary)
            .tag("reading")
            .says(format!(
                "At most {INTERVALS_MAX} intervals: `next` begins the next page"
            ))
            .of_host()
            .query(
                "tier",
                tier,
                (
                    "The width of the intervals, by-hour if it is not said",
                    "by-hour",
                ),
            )
            .query(
                "from",
                epoch(),
                ("The intervals that hold an epoch after this", 1_464_912_000),
            )
            .query(
                "to",
                epoch(),
                ("The intervals that hold an epoch up to this", NOW),
            )
            .may_be(&[Code::MalformedQuery, Code::StoreUnavailable])
            .answers_coded_json("History", "Oldest first")
    };
    let label = || text().min_length(Some(1));
    let exact = "A label, exactly. It may hold `/`";
    vec![
        operation(
            format!("{host}/{{label}}"),
            "history",
            "A series further back",
        )
        .segment("label", label(), (exact, "cpu")),
        operation(
            host,
            "historyOfDots",
            "The same of labels that no path can have, `.` and `..`",
        )
        .needs_query("label", label(), ("A label, exactly", ".."))
        .may_be(&[Code::NotFound]),
    ]
}

pub(in super::super) fn certificates() -> Vec<Described> {
    let operation = Described::get(
        route::CERTIFICATES,
        "certificates",
        "Certificates that were accepted here",
    )
    .tag("operators")
    .with_token(&[Scope::Admin])
    .answers_coded_json("Certificates", "Those that have not ended");
    vec![operation]
}

pub(in super::super) fn put_crl() -> Vec<Described> {
    let content = || ContentBuilder::new().schema(Some(text())).build();
    let binary = Content::default();
    let contents = [
        ("application/x-pem-file", content()),
        ("application/pkix-crl", binary),
    ];
    let operation = Described::put(
        route::CRL,
        "putCrl",
        "Puts signed revocation lists in force",
    )
    .tag("operators")
    .says(
        "PEM, with the lists and perhaps the certificates of their authorities; or one list in DER",
    )
    .with_token(&[Scope::Admin])
    .instead_of(&[Code::CrlExpired])
    .reads_any(contents, &["gzip", "zstd"], CRL_BYTES_MAX)
    .may_be(&[
        Code::MalformedCrl,
        Code::InvalidCrl,
        Code::CrlNotNewer,
        Code::StoreUnavailable,
    ])
    .answers(204, "They are verified, stored and in force", None);
    vec![operation]
}

pub(in super::super) fn put_facts() -> Vec<Described> {
    let path = format!("{}/{{host}}", route::FACTS);
    let operation = Described::put(path, "putFacts", "Replaces what is known of a machine")
        .tag("samples")
        .host()
        .with_token(&[Scope::MetricsWrite])
        .reads(JSON, "Facts", FACTS_BYTES_MAX)
        .becomes_durable()
        .may_be(&[Code::WrongHost])
        .answers(204, "It is durable", None);
    vec![operation]
}

pub(in super::super) fn health() -> Vec<Described> {
    let operation = Described::get(route::HEALTHZ, "health", "Whether the process lives")
        .tag("operators")
        .answers_json("Health", "It does");
    vec![operation]
}

pub(in super::super) fn ready() -> Vec<Described> {
    let operation = Described::get(route::READYZ, "ready", "Whether it takes samples")
        .tag("operators")
        .answers_json("Health", "It does")
        .may_be(&[Code::StoreUnavailable, Code::CrlExpired]);
    vec![operation]
}

pub(in super::super) fn openapi() -> Vec<Described> {
    let content = ContentBuilder::new()
        .schema(Some(ObjectBuilder::new()))
        .build();
    let operation = Described::get(route::OPENAPI, "openapi", "This document")
        .tag("operators")
        .answers(200, "OpenAPI 3.1", Some((JSON, content)))
        .answers(
            304,
            "It is the one that the client has: `If-None-Match`",
            None,
        )
        .sends(200, &[header::ENTITY_TAG])
        .sends(304, &[header::ENTITY_TAG]);
    vec![operation]
}

pub(in super::super) fn metrics() -> Vec<Described> {
    let content = ContentBuilder::new().schema(Some(text())).build();
    let operation = Described::get(
        route::METRICS,
        "metrics",
        "The receiver's own metrics, and each series' newest minute",
    )
    .tag("reading")
    .for_viewers()
    .wanted_tags()
    .answers(200, "OpenMetrics 1.0", Some((metrics::MEDIA_TYPE, content)));
    vec![operation]
}

pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// One of the events, as the HTML standard's parser has it.
fn event() -> ObjectBuilder {
    let data = text()
        .content_media_type(JSON)
        .content_schema(Some(named("LiveSummaries")));
    ObjectBuilder::new()
        .property("event", one_of([SUMMARIES]))
        .property("data", data)
}

pub(in super::super) fn live() -> Vec<Described> {
    let content = ContentBuilder::new().schema(Some(event())).build();
    let operation = Described::get(route::LIVE, "live", "Changes as they come")
        .tag("reading")
        .says(format!(
            "At most {EVENT_STREAMS_PER_HOLDER_MAX} streams a holder"
        ))
        .with_token(&OF_ITSELF_TOO)
        .query("host", named("NodeName"), ("This host alone", HOST))
        .query("events", count(), ("After how many events it ends", 1))
        .wanted_tags()
        .may_be(&[Code::WrongHost, Code::UnknownHost])
        .answers(200, "Server-sent events", Some((EVENT_STREAM, content)));
    vec![operation]
}

impl Described {
    /// Hosts with these tags alone.
    fn wanted_tags(self) -> Self {
        let tags = ArrayBuilder::new().items(named("Tag"));
        let says = "Hosts with these tags alone: one of several values of a key, and every key";
        self.query("tag", tags, (says, vec!["env=prod"]))
            .may_be(&[Code::MalformedQuery])
    }

    /// It reads the host in the path.
    fn of_host(self) -> Self {
        self.host()
            .with_token(&OF_ITSELF_TOO)
            .may_be(&[Code::WrongHost, Code::UnknownHost])
    }

    fn reads_summaries(self) -> Self {
        self.tag("reading")
            .of_host()
            .answers_coded_json("Summaries", "By name; none if no name is meant")
    }

    fn sends_samples(self, name: &str) -> Self {
        let ahead = "By how many seconds the sender's own clock is ahead of the time it stamps samples with. What is no whole number is ignored";
        self.tag("samples")
            .host()
            .with_token(&[Scope::MetricsWrite])
            .header("Lizmon-Clock-Ahead", text(), (ahead, "0"))
            .reads(JSON, name, BODY_BYTES_MAX)
            .becomes_durable()
            .may_be(&[
                Code::WrongHost,
                Code::EpochTooOld,
                Code::EpochInFuture,
                Code::TooManyLabels,
            ])
    }
}
