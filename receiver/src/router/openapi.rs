//! `GET /openapi.json`: the description of all routes, as OpenAPI 3.1.
//!
//! Each route of the table brings the description of what it does, so there is none without. The
//! types of the protocol are described here, by hand: that crate has no dependency for it, and tests
//! compare the descriptions with the values that the types make.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use lizmon_protocol::token::Scope;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Paths;
use utoipa::openapi::security::{ClientCredentials, Flow, OAuth2, Scopes, SecurityScheme};
use utoipa::openapi::tag::Tag;
use utoipa::openapi::{
    Components, ComponentsBuilder, Header, Info, InfoBuilder, LicenseBuilder, OpenApi,
    OpenApiBuilder,
};

use self::operation::{CERTIFICATE, JSON, TOKEN, header, response_of};
use self::schema::{count, one_of, text};
use super::answer::{entity_tag, for_everybody};

mod operation;
mod operations;
mod otlp;
mod pages;
mod prometheus;
mod schema;

pub use self::operation::Described;
pub(super) use self::operations::*;
pub(super) use self::otlp::*;
pub(super) use self::pages::*;
pub(super) use self::prometheus::*;

/// The document, and the tag by which clients know that they have it.
pub(super) struct Document {
    body: Bytes,
    entity_tag: HeaderValue,
}

impl Document {
    /// That of all routes.
    pub(super) fn of(routes: impl Iterator<Item = Described>) -> Self {
        let body = serde_json::to_vec(&document(routes)).unwrap_or_default();
        Self {
            entity_tag: entity_tag(&body),
            body: body.into(),
        }
    }

    /// As it is served.
    pub(super) fn json(&self) -> Bytes {
        self.body.clone()
    }

    /// The same for everybody.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        for_everybody(headers, &self.entity_tag, JSON, self.json())
    }
}

/// The document of all routes.
fn document(routes: impl Iterator<Item = Described>) -> OpenApi {
    let mut paths = Paths::new();
    for described in routes {
        for (path, method, operation) in described.finish() {
            paths.add_path_operation(path, vec![method], operation);
        }
    }
    OpenApiBuilder::new()
        .info(info())
        .paths(paths)
        .components(Some(components()))
        .tags(Some(tags()))
        .build()
}

fn info() -> Info {
    let license = env!("CARGO_PKG_LICENSE");
    let license = LicenseBuilder::new()
        .name(license)
        .identifier(Some(license));
    InfoBuilder::new()
        .title("lizmon receiver")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license.build()))
        .build()
}

const ABOUT: &str = "Samples in, summaries out, over TLS with client certificates.

A path that is not listed is `not_found`, a method that a path does not have `method_not_allowed`: \
see the responses of these names. A client that is not HTTP, or too slow with its head, gets no answer. \
Enrolment and renewal of certificates are another server's, `liz-ca`: RFC 7030.";

fn tags() -> Vec<Tag> {
    [
        ("samples", "What machines send"),
        ("reading", "What readers get"),
        ("operators", "What operators do"),
        ("tokens", "OAuth 2.0"),
        ("prometheus", "What Prometheus asks for"),
        ("opentelemetry", "What OpenTelemetry sends"),
        ("page", "The web page, for people and their browsers"),
    ]
    .map(|(name, description)| {
        let mut tag = Tag::new(name);
        tag.description = Some(description.to_owned());
        tag
    })
    .into()
}

fn components() -> Components {
    let mut components = ComponentsBuilder::new()
        .response("NotFound", response_of(Code::NotFound))
        .response("MethodNotAllowed", response_of(Code::MethodNotAllowed))
        .security_scheme(CERTIFICATE, certificate_scheme())
        .security_scheme(TOKEN, token_scheme());
    for schema in schema::all() {
        components = components.schema(schema.name, schema.schema.clone());
    }
    for (name, header) in headers() {
        components = components.header(name, header);
    }
    components.build()
}

fn certificate_scheme() -> SecurityScheme {
    let description = "A certificate of the deployment's CA. It is asked for in the handshake; one that is \
        expired, foreign or revoked ends the handshake with an alert";
    SecurityScheme::MutualTls {
        description: Some(description.to_owned()),
        deprecated: None,
        extensions: None,
    }
}

fn token_scheme() -> SecurityScheme {
    let scopes = Scope::ALL.map(|scope| {
        let says = match scope {
            Scope::MetricsWrite => "samples: a node's of itself, a gateway's of the hosts it names",
            Scope::MetricsRead => "a reader or an operator: what all hosts report",
            Scope::Admin => "an operator: what the receiver trusts, losses, silences",
        };
        (scope.as_str(), says)
    });
    let flow = ClientCredentials::new(route::TOKEN, Scopes::from_iter(scopes));
    let description = "A bearer token that is bound to the certificate it was issued to (RFC 8705 section 3): \
        it works over connections with that certificate alone. The certificate authenticates the client at \
        the token endpoint too";
    SecurityScheme::OAuth2(OAuth2::with_description(
        [Flow::ClientCredentials(flow)],
        description,
    ))
}

/// The headers of answers.
fn headers() -> Vec<(&'static str, Header)> {
    let seconds = || count().minimum(Some(1_usize));
    let all = [
        (header::TIME, text().pattern(Some(TIME_PATTERN)), TIME_SAYS),
        (
            header::RETRY_AFTER,
            seconds(),
            "Seconds after which to send it again",
        ),
        (header::CHALLENGE, text(), "RFC 6750 section 3"),
        (header::ALLOW, text(), "The methods of the path"),
        (
            header::ACCEPTED_CODINGS,
            text(),
            "The codings of bodies that are understood: RFC 9110 section 12.5.3",
        ),
        (
            header::CODING,
            one_of(["gzip", "zstd"]),
            "How the answer is packed, if it is",
        ),
        (header::VARY, text(), "`Accept-Encoding`"),
        (
            header::REPLAYED,
            one_of(["true"]),
            "The number had arrived before",
        ),
        (header::ENTITY_TAG, text(), "For `If-None-Match`"),
        (
            header::AS_OF,
            count(),
            "Until when summaries were read, if that is more than a moment ago: epoch seconds",
        ),
    ];
    all.map(|(name, schema, description)| {
        let header = HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(description));
        (name, header.build())
    })
    .into()
}

const TIME_PATTERN: &str = r"^[0-9]+\.[0-9]{3};steady(=\?0)?;run=[0-9]+$";
const TIME_SAYS: &str = "The receiver's time in seconds since 1970, whether its clock is known to be steady, \
    and this run's number: an RFC 9651 item";
