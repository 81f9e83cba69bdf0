//! The description of one method of one path: who may use it, what it takes and what it answers.

use std::collections::BTreeMap;

use lizmon_protocol::problem::{self, Code};
use lizmon_protocol::token::Scope;
use serde_json::Value;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::{
    AllOfBuilder, Content, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
    Responses, Schema, SecurityRequirement,
};

use super::schema::{examples_of, named, one_of};

/// The security schemes of the document.
pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const TOKEN: &str = "token";

pub(super) const JSON: &str = "application/json";
/// The headers of answers that the document describes once.
pub(super) mod header {
    pub(in super::super) const TIME: &str = "Lizmon-Time";
    pub(in super::super) const RETRY_AFTER: &str = "Retry-After";
    pub(in super::super) const CHALLENGE: &str = "WWW-Authenticate";
    pub(in super::super) const ALLOW: &str = "Allow";
    pub(in super::super) const ACCEPTED_CODINGS: &str = "Accept-Encoding";
    pub(in super::super) const CODING: &str = "Content-Encoding";
    pub(in super::super) const VARY: &str = "Vary";
    pub(in super::super) const REPLAYED: &str = "Idempotent-Replayed";
    pub(in super::super) const ENTITY_TAG: &str = "ETag";
    pub(in super::super) const AS_OF: &str = "Lizmon-As-Of";
}

/// Any request may be refused so.
const CODES: [Code; 5] = [
    Code::InvalidHost,
    Code::UntrustedProxy,
    Code::InvalidForwarding,
    Code::InternalError,
    Code::Overloaded,
];
const CODES_OF_CERTIFICATES: [Code; 6] = [
    Code::CertificateMismatch,
    Code::CertificateRevoked,
    Code::CertificateExpired,
    Code::CertificateUntrusted,
    Code::RateLimited,
    Code::CrlExpired,
];
const CODES_OF_TOKENS: [Code; 4] = [
    Code::TokenMissing,
    Code::TokenInvalid,
    Code::TokenExpired,
    Code::InsufficientScope,
];
const CODES_OF_BODIES: [Code; 4] = [
    Code::MalformedJson,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedEncoding,
];
const CODES_OF_THE_JOURNAL: [Code; 3] = [
    Code::InvalidValues,
    Code::ClockUnsteady,
    Code::StoreUnavailable,
];

/// One method of one path.
pub struct Described {
    /// The path, with a parameter for each name in it.
    pub path: String,
    method: HttpMethod,
    operation: OperationBuilder,
    parameters: Vec<Parameter>,
    body: Option<RequestBody>,
    answers: BTreeMap<u16, Answer>,
    codes: Vec<Code>,
    /// Whether problems are also told as pages.
    is_page: bool,
}

/// What is answered with one status.
#[derive(Default)]
struct Answer {
    says: Vec<String>,
    contents: Vec<(&'static str, Content)>,
    headers: Vec<&'static str>,
}

impl Described {
    pub(super) fn get(path: impl Into<String>, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Get, path, id, summary)
    }

    pub(super) fn post(path: impl Into<String>, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Post, path, id, summary)
    }

    pub(super) fn put(path: impl Into<String>, id: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Put, path, id, summary)
    }

    fn new(method: HttpMethod, path: impl Into<String>, id: &str, summary: &str) -> Self {
        Self {
            path: path.into(),
            method,
            operation: OperationBuilder::new()
                .operation_id(Some(id))
                .summary(Some(summary)),
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            codes: CODES.to_vec(),
            is_page: false,
        }
    }

    pub(super) fn says(mut self, description: impl Into<String>) -> Self {
        self.operation = self.operation.description(Some(description));
        self
    }

    pub(super) fn tag(mut self, tag: &str) -> Self {
        self.operation = self.operation.tag(tag);
        self
    }

    /// For who shows a certificate, whatever it may do.
    pub(super) fn with_certificate(mut self) -> Self {
        let none: [&str; 0] = [];
        let needed = SecurityRequirement::new(CERTIFICATE, none);
        self.operation = self.operation.security(needed);
        self.may_be(&CODES_OF_CERTIFICATES)
    }

    /// For who shows a reader's or operator's certificate, without a token.
    pub(super) fn for_viewers(self) -> Self {
        self.with_certificate().may_be(&[Code::InsufficientScope])
    }

    /// For who has a token with one of these scopes, and its certificate.
    pub(super) fn with_token(mut self, scopes: &[Scope]) -> Self {
        let none: [&str; 0] = [];
        for scope in scopes {
            let needed = SecurityRequirement::new(CERTIFICATE, none).add(TOKEN, [scope.as_str()]);
            self.operation = self.operation.security(needed);
        }
        self.may_be(&CODES_OF_CERTIFICATES).may_be(&CODES_OF_TOKENS)
    }

    pub(super) fn may_be(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// It does not say these codes.
    pub(super) fn instead_of(mut self, codes: &[Code]) -> Self {
        self.codes.retain(|code| !codes.contains(code));
        self
    }

    /// A part of the path.
    pub(super) fn segment(
        self,
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        of: (&str, impl Into<Value>),
    ) -> Self {
        self.parameter((ParameterIn::Path, Required::True), name, schema, of)
    }

    /// The host in the path.
    pub(super) fn host(self) -> Self {
        let of = ("The host's node name", super::schema::HOST);
        self.segment("host", named("NodeName"), of)
    }

    /// Something optional of the query.
    pub(super) fn query(
        self,
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        of: (&str, impl Into<Value>),
    ) -> Self {
        self.parameter((ParameterIn::Query, Required::False), name, schema, of)
    }

    /// Something that the query must have.
    pub(super) fn needs_query(
        self,
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        of: (&str, impl Into<Value>),
    ) -> Self {
        self.parameter((ParameterIn::Query, Required::True), name, schema, of)
    }

    /// An optional header.
    pub(super) fn header(
        self,
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        of: (&str, impl Into<Value>),
    ) -> Self {
        self.parameter((ParameterIn::Header, Required::False), name, schema, of)
    }

    fn parameter(
        mut self,
        (place, required): (ParameterIn, Required),
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        (description, example): (&str, impl Into<Value>),
    ) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .description(Some(description))
            .schema(Some(schema))
            .example(Some(example.into()));
        self.parameters.push(parameter.build());
        self
    }

    /// Its body, of the schema with this name.
    pub(super) fn reads(self, media_type: &str, name: &str, bytes_max: usize) -> Self {
        let contents = [(media_type, content_of(name))];
        self.reads_any(contents, &["gzip", "zstd"], bytes_max)
    }

    /// Its body, in one of these forms.
    pub(super) fn reads_any<'a>(
        mut self,
        contents: impl IntoIterator<Item = (&'a str, Content)>,
        codings: &[&'static str],
        bytes_max: usize,
    ) -> Self {
        let description = format!("At most {bytes_max} bytes on the wire");
        let mut body = RequestBodyBuilder::new()
            .required(Some(Required::True))
            .description(Some(description));
        for (media_type, content) in contents {
            body = body.content(media_type, content);
        }
        self.body = Some(body.build());
        let (coding, first) = (one_of(codings.iter().copied()), codings.first().copied());
        self.header(header::CODING, coding, ("How the body is packed", first))
            .may_be(&CODES_OF_BODIES)
    }

    /// It is appended to the journal.
    pub(super) fn becomes_durable(self) -> Self {
        self.may_be(&CODES_OF_THE_JOURNAL)
    }

    /// It answers JSON of the schema with this name, with status 200.
    pub(super) fn answers_json(self, name: &str, says: &str) -> Self {
        self.answers(200, says, Some((JSON, content_of(name))))
    }

    /// The same, and compresses it where it is asked to.
    pub(super) fn answers_coded_json(self, name: &str, says: &str) -> Self {
        self.answers_json(name, says)
            .sends(200, &[header::CODING, header::VARY])
    }

    pub(super) fn answers(
        mut self,
        status: u16,
        says: &str,
        content: Option<(&'static str, Content)>,
    ) -> Self {
        let answer = self.answers.entry(status).or_default();
        answer.says.push(says.to_owned());
        answer.contents.extend(content);
        self
    }

    /// Headers of the answers with this status.
    pub(super) fn sends(mut self, status: u16, headers: &[&'static str]) -> Self {
        let answer = self.answers.entry(status).or_default();
        answer.headers.extend(headers);
        self
    }

    /// A page, for people.
    pub(super) fn answers_page(mut self) -> Self {
        self.is_page = true;
        self.answers(200, "The page", Some((HTML, html())))
    }

    /// The operation, and that of HEAD where there is one.
    pub(super) fn finish(mut self) -> Vec<(String, HttpMethod, Operation)> {
        for code in Code::ALL.iter().filter(|code| self.codes.contains(code)) {
            let answer = self.answers.entry(code.status()).or_default();
            answer.says.push(says_code(*code));
        }
        let mut of_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in Code::ALL.iter().filter(|code| self.codes.contains(code)) {
            of_status.entry(code.status()).or_default().push(*code);
        }
        for (status, codes) in of_status {
            let answer = self.answers.entry(status).or_default();
            answer
                .contents
                .push((problem::MEDIA_TYPE, problem_of(&codes)));
            if self.is_page {
                answer.contents.push((HTML, html()));
            }
            answer.headers.extend(headers_of_problems(status));
        }
        let own = self.operation.parameters(Some(self.parameters)).build();
        let with = |answer: fn(&Answer) -> Response| {
            let answers = self.answers.iter();
            let answers = answers.map(|(status, of)| (status.to_string(), answer(of)));
            OperationBuilder::from(own.clone()).responses(Responses::from_iter(answers))
        };
        let mut all = Vec::new();
        if self.method == HttpMethod::Get {
            let mut head = with(Answer::without_content).build();
            head.operation_id = head.operation_id.map(|id| format!("{id}Head"));
            head.summary = head
                .summary
                .map(|summary| format!("{summary}: headers alone"));
            all.push((self.path.clone(), HttpMethod::Head, head));
        }
        let own = with(Answer::response).request_body(self.body).build();
        all.push((self.path, self.method, own));
        all
    }
}

impl Answer {
    fn response(&self) -> Response {
        let mut response = self.without_content();
        for (media_type, content) in &self.contents {
            let content = content.clone().into();
            response.content.insert((*media_type).to_owned(), content);
        }
        response
    }

    /// As HEAD answers.
    fn without_content(&self) -> Response {
        let mut response = ResponseBuilder::new().description(self.says.join("\n\n"));
        for name in self.headers.iter().chain([&header::TIME]) {
            response = response.header_ref(*name, reference_to_header(name));
        }
        response.build()
    }
}

const HTML: &str = "text/html; charset=utf-8";

fn html() -> Content {
    ContentBuilder::new()
        .schema(Some(super::schema::text()))
        .build()
}

fn reference_to_header(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// Content of the schema with this name, with its examples.
pub(super) fn content_of(name: &str) -> Content {
    let examples = examples_of(name).iter().map(|(word, value)| {
        let example = ExampleBuilder::new().value(Some(value.clone()));
        (*word, RefOr::T(example.build()))
    });
    ContentBuilder::new()
        .schema(Some(named(name)))
        .examples_from_iter(examples)
        .build()
}

/// A problem document with one of these codes.
fn problem_of(codes: &[Code]) -> Content {
    let codes = one_of(codes.iter().map(|code| code.as_str()));
    let schema = AllOfBuilder::new()
        .item(named("Problem"))
        .item(ObjectBuilder::new().property("code", codes));
    ContentBuilder::new().schema(Some(schema)).build()
}

fn says_code(code: Code) -> String {
    format!("`{}`: {}", code.as_str(), code.title())
}

fn headers_of_problems(status: u16) -> &'static [&'static str] {
    match status {
        401 => &[header::CHALLENGE],
        405 => &[header::ALLOW],
        415 => &[header::ACCEPTED_CODINGS],
        429 | 503 => &[header::RETRY_AFTER],
        _ => &[],
    }
}

/// The answer of a route that has no such method, or of no route.
pub(super) fn response_of(code: Code) -> Response {
    let answer = Answer {
        says: vec![says_code(code)],
        contents: vec![(problem::MEDIA_TYPE, problem_of(&[code]))],
        headers: headers_of_problems(code.status()).to_vec(),
    };
    answer.response()
}
