//! The web page: for who shows a reader's or operator's certificate, without a token.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, request};
use lizmon_page::assets::{self, PageAsset};
use lizmon_page::frame::{self, PageFrame, PageSection};
use lizmon_page::machine::{AddPage, RevokePage};
use lizmon_page::overview;
use lizmon_page::refusal::RefusalPage;
use lizmon_protocol::problem::Code;
use maud::Markup;

use self::query::PageQuery;
use super::answer::{entity_tag, for_everybody, parse_host};
use super::authenticated::{check_crls, connection_of, peer_of};
use super::probes::health_warnings;
use super::problem::Rejection;
use super::state::{ReceiverState, SharedState};
use crate::authorize::{self, AuthorizeError, Permit, ViewPage};
use crate::body::AskedCoding;
use crate::view::{self, NoHostPage, PageSources};

mod live;
mod query;
mod viewer;

pub(super) use self::live::{api_live, live};

/// Memory that a page takes while it is made and sent, about.
const PAGE_BYTES_ABOUT: usize = 512 << 10;

/// The headers of pages and their files.
const SECURITY_HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", frame::CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A request for a page, by somebody who may see it.
struct PageRequest<'a> {
    sources: PageSources<'a>,
    permit: &'a Permit<ViewPage>,
    app: &'a ReceiverState,
    frame: PageFrame,
}

impl PageRequest<'_> {
    fn page(&self, main: &Markup) -> Markup {
        frame::page(&self.frame, main)
    }
}

/// `/`
pub(super) async fn hosts(State(app): SharedState, head: request::Parts) -> Response {
    let query = PageQuery::of(&head).overview();
    answer(app, head, PageSection::Hosts, "", |mut request| {
        request.frame.title = overview::title(&query);
        let cache = &request.app.fleet;
        let page = view::overview(request.permit, request.sources, cache, query);
        request.frame.live = Some(page.query.own());
        Ok(request.page(&page.markup()))
    })
    .await
}

/// `/hosts/{host}`
pub(super) async fn host(State(app): SharedState, head: request::Parts) -> Response {
    let name = head.uri.path().rsplit('/').next().and_then(parse_host);
    let query = PageQuery::of(&head).host();
    if let Some(name) = &name {
        app.table
            .read_now(name.as_str(), (app.sample_clock)())
            .await;
    }
    answer(app, head, PageSection::Hosts, "../", |mut request| {
        let nobody = || match request.permit.is_limited() {
            true => AuthorizeError::OutsideHostScope.into(),
            false => Rejection::from(Code::UnknownHost),
        };
        let name = name.ok_or_else(nobody)?;
        let page = view::host(request.permit, request.sources, &name, query);
        let page = page.map_err(|none| match none {
            NoHostPage::OutsideHostScope => AuthorizeError::OutsideHostScope.into(),
            NoHostPage::Unread => Code::StoreUnavailable.into(),
            NoHostPage::Unknown => Rejection::from(Code::UnknownHost),
        })?;
        request.frame.title = page.title();
        request.frame.live = Some(page.query.live(name.as_str()));
        Ok(request.page(&page.markup()))
    })
    .await
}

/// `/trust`
pub(super) async fn trust(State(app): SharedState, head: request::Parts) -> Response {
    let query = PageQuery::of(&head);
    answer(app, head, PageSection::Trust, "", move |request| {
        let (search, page) = (query.search, query.page);
        let page = view::trust(request.permit, request.sources, search, page);
        Ok(request.page(&page.markup()))
    })
    .await
}

/// `/delivery`
pub(super) async fn delivery(State(app): SharedState, head: request::Parts) -> Response {
    let query = PageQuery::of(&head);
    answer(app, head, PageSection::Delivery, "", move |request| {
        let (search, page) = (query.search, query.page);
        let page = view::delivery(request.permit, request.sources, search, page);
        Ok(request.page(&page.markup()))
    })
    .await
}

/// `/alarms`
pub(super) async fn alarms(State(app): SharedState, head: request::Parts) -> Response {
    let query = PageQuery::of(&head);
    answer(app, head, PageSection::Alarms, "", move |request| {
        let page = view::alarms(request.permit, request.sources, query.search, query.page);
        Ok(request.page(&page.markup()))
    })
    .await
}

/// `/add`
pub(super) async fn add(State(app): SharedState, head: request::Parts) -> Response {
    answer(app, head, PageSection::Add, "", move |request| {
        let receiver = request.app.tokens.issuer().to_owned();
        Ok(request.page(&AddPage { receiver }.markup()))
    })
    .await
}

/// `/revoke/{host}`. Any name may be typed, whether the host has reported or not.
pub(super) async fn revoke(State(app): SharedState, head: request::Parts) -> Response {
    let name = head.uri.path().rsplit('/').next().and_then(parse_host);
    answer(app, head, PageSection::Trust, "../", move |mut request| {
        let name = name.ok_or(Code::UnknownHost)?;
        let tags = request.sources.table.tags(&name);
        if !request.permit.shows(name.as_str(), &tags) {
            return Err(AuthorizeError::OutsideHostScope.into());
        }
        let page = RevokePage {
            name: name.to_string(),
            receiver: request.app.tokens.issuer().to_owned(),
        };
        request.frame.title = page.title();
        Ok(request.page(&page.markup()))
    })
    .await
}

/// `/assets/{name}`: the same for everybody, and nobody's secret.
pub(super) async fn asset(head: request::Parts) -> Response {
    let name = head.uri.path().rsplit('/').next().unwrap_or_default();
    let Some(PageAsset {
        media_type, text, ..
    }) = assets::find(name)
    else {
        return Rejection::from(Code::NotFound).into_response();
    };
    let tag = entity_tag(text.as_bytes());
    let mut response = for_everybody(&head.headers, &tag, media_type, text);
    add_security_headers(response.headers_mut());
    response
}

/// Makes the page if the client may see it, on a thread of its own; otherwise says why not.
async fn answer(
    app: Arc<ReceiverState>,
    head: request::Parts,
    section: PageSection,
    root: &'static str,
    make: impl FnOnce(PageRequest<'_>) -> Result<Markup, Rejection> + Send + 'static,
) -> Response {
    let made = made(app, &head, section, root, make).await;
    let mut response = made.unwrap_or_else(|rejection| refused(&rejection, &head.headers, root));
    let headers = response.headers_mut();
    add_security_headers(headers);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

async fn made(
    app: Arc<ReceiverState>,
    head: &request::Parts,
    section: PageSection,
    root: &'static str,
    make: impl FnOnce(PageRequest<'_>) -> Result<Markup, Rejection> + Send + 'static,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    check_crls(&app, now)?;
    let connection = connection_of(head)?;
    let peer = peer_of(&app, connection, now)?.ok_or_else(viewer::no_certificate)?;
    let permit = authorize::view_page(peer.identity)?;
    let reader = peer.identity.spiffe_id.name.to_string();
    let mut warnings = health_warnings(&app);
    warnings.extend(viewer::own_end(peer.identity, now));
    let work = app.clone();
    let make = move || {
        let app = &*work;
        let trust = app.trust.current();
        let sources = viewer::sources(app, &trust, now);
        let frame = PageFrame {
            root,
            section,
            title: section.name().to_owned(),
            reader,
            now: sources.sample_now,
            warnings,
            live: None,
        };
        let page = make(PageRequest {
            sources,
            permit: &permit,
            app,
            frame,
        })?;
        Ok::<_, Rejection>(page.into_string().into_bytes())
    };
    let budget = peer.quota.body_memory();
    // Not compressed: a page repeats what was searched for beside the names of hosts. Another site
    // could have a browser search, and guess names by the sizes of the answers (BREACH).
    let answer = app
        .bodies
        .large_answer(PAGE_BYTES_ABOUT, AskedCoding::default(), budget, make)
        .await??;
    Ok(([(CONTENT_TYPE, HTML)], answer.body).into_response())
}

/// The refusal, for people if they ask for HTML.
fn refused(rejection: &Rejection, headers: &HeaderMap, root: &'static str) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_for_people = accept.is_some_and(|accept| accept.contains("text/html"));
    let page = RefusalPage {
        root,
        status: rejection.code().status(),
        title: rejection.code().title().to_owned(),
        detail: rejection.detail().map(str::to_owned),
        code: rejection.code().as_str(),
    };
    let (mut head, body) = rejection.to_response().into_parts();
    if !is_for_people {
        return Response::from_parts(head, body);
    }
    head.headers.insert(CONTENT_TYPE, HTML);
    Response::from_parts(head, page.markup().into_string().into())
}

fn add_security_headers(headers: &mut HeaderMap) {
    for (name, value) in SECURITY_HEADERS {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
}
