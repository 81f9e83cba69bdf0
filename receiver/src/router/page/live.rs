//! Changes as they come, as server-sent events: of a page for its script, of hosts for programs.
//!
//! A stream makes its next event when the connection takes it: a reader that does not read holds
//! one event at most, and misses those in between. Its right to read is judged again several times a
//! second, so it ends when that does. It also ends when its connection is too old or the server
//! stops; browsers connect again.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, request};
use lizmon_mtls::client_quota::ClientQuota;
use lizmon_mtls::identity::Identity;
use lizmon_mtls::service::ConnectionEnd;
use lizmon_page::piece::{Piece, PieceRow};
use lizmon_protocol::live::SUMMARIES;
use lizmon_protocol::name::{NodeName, TagFilter};
use lizmon_protocol::problem::Code;
use lizmon_protocol::route::parse_epoch;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::answer::wanted_tags;
use super::super::authenticated::{Authenticated, check_crls, connection_of, peer_of};
use super::super::problem::Rejection;
use super::super::state::{ReceiverState, SharedState};
use super::query::PageQuery;
use super::viewer;
use crate::authorize::{self, AuthorizeError, ListHosts, Permit, ViewPage};
use crate::view::{self, LiveCursor};

/// How often the right to read is judged: a stream ends within this after it.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// An event comes with one look of so many, at most.
const LOOKS_PER_EVENT: u64 = 4;
/// A comment is sent if there was no event for so many looks: connections are not idle then, here and
/// in between.
const LOOKS_PER_COMMENT: u64 = 60;
const COMMENT: &[u8] = b":\n\n";
/// After how long a browser connects again, in milliseconds. Up to a second is added, a different one
/// for each stream: not all come back at once to a receiver that was restarted.
const CONNECT_AGAIN_MILLIS: u32 = 1_500;
/// After how long somebody with too many streams may try again.
const TOO_MANY_WAIT: Duration = Duration::from_secs(10);

/// `/live`: of the page with the same query.
pub(in super::super) async fn live(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    check_crls(&app, now)?;
    let peer = peer_of(&app, connection_of(&head)?, now)?.ok_or_else(viewer::no_certificate)?;
    let query = PageQuery::of(&head);
    may_view(&app, peer.identity, query.host.as_ref())?;
    let turns = take_turns(&app, peer.quota)?;
    let told = HashMap::new();
    let events = query.events;
    Ok(EventStream::new(app, head, Feed::Page { query, told }, events, turns).into_response())
}

/// `/api/live`: of a host, or of all.
pub(in super::super) async fn api_live(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let query = PageQuery::of(&head);
    let sender = Authenticated::check(&app, &head, now)?;
    let only = match (query.host, query.names_host) {
        // A name that no host can have.
        (None, true) => {
            sender.caller()?.read_host(None, |_| BTreeSet::new())?;
            return Err(Code::UnknownHost.into());
        }
        (only, _) => only,
    };
    let wanted = wanted_tags(&head, &["host", "events"])?;
    may_read(&app, &sender, (only.as_ref(), &wanted))?;
    let events = events_asked_for(&head)?;
    let turns = take_turns(&app, sender.quota()?)?;
    let cursor = Box::default();
    let feed = Feed::Summaries {
        only,
        wanted,
        cursor,
    };
    Ok(EventStream::new(app, head, feed, events, turns).into_response())
}

/// After how many events a program wants the stream to end. What is no number is an error: the
/// stream would not end.
fn events_asked_for(head: &request::Parts) -> Result<Option<u64>, Rejection> {
    let query = head.uri.query().unwrap_or_default();
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "events");
    let malformed = |_| {
        let detail = "events is a number of events, in decimal digits";
        Rejection::from(Code::MalformedQuery).with_detail(detail)
    };
    let Some((_, events)) = given.next() else {
        return Ok(None);
    };
    // Any whole number in digits, as an epoch is.
    let events = parse_epoch(&events).map_err(malformed)?;
    Ok(Some(events.secs()))
}

/// What a reader of a stream may see, as judged last.
enum MaySee {
    Page(Permit<ViewPage>),
    Host,
    Hosts(Permit<ListHosts>),
}

fn may_view(
    app: &ReceiverState,
    holder: &Identity,
    host: Option<&NodeName>,
) -> Result<Permit<ViewPage>, AuthorizeError> {
    let permit = authorize::view_page(holder)?;
    let is_shown = |host: &NodeName| permit.shows(host.as_str(), &app.table.tags(host));
    match host.is_none_or(is_shown) {
        true => Ok(permit),
        false => Err(AuthorizeError::OutsideHostScope),
    }
}

fn may_read(
    app: &ReceiverState,
    sender: &Authenticated<'_>,
    (only, wanted): (Option<&NodeName>, &TagFilter),
) -> Result<MaySee, Rejection> {
    let caller = sender.caller()?;
    if only.is_some() {
        caller.read_host(only, |host| app.table.tags(host))?;
        return Ok(MaySee::Host);
    }
    Ok(MaySee::Hosts(caller.list_hosts()?.only(wanted.clone())))
}

type Turns = [OwnedSemaphorePermit; 2];

fn take_turns(app: &ReceiverState, quota: &ClientQuota) -> Result<Turns, Rejection> {
    let take = |of: &Arc<Semaphore>| of.clone().try_acquire_owned();
    let too_many = || {
        Rejection::rate_limited(TOO_MANY_WAIT)
            .with_detail("the certificate's holder has too many event streams")
    };
    let own = take(quota.event_streams()).map_err(|_| too_many())?;
    let of_all = take(&app.event_streams).map_err(|_| Code::Overloaded)?;
    Ok([own, of_all])
}

/// What a stream tells.
enum Feed {
    /// What has changed of a page.
    Page {
        query: PageQuery,
        /// Hashes of what was told, by id.
        told: HashMap<String, u64>,
    },
    /// Hosts of which something came.
    Summaries {
        only: Option<NodeName>,
        wanted: TagFilter,
        cursor: Box<LiveCursor>,
    },
}

struct EventStream {
    app: Arc<ReceiverState>,
    head: request::Parts,
    end: Option<ConnectionEnd>,
    feed: Feed,
    looks: Interval,
    /// How many looks there were, and at which one something was sent.
    looked: u64,
    sent_at: u64,
    /// How many events there may still be, if there is an end.
    events_left: Option<u64>,
    _turns: Turns,
}

impl EventStream {
    #[expect(clippy::disallowed_methods, reason = "paces looks at what has changed")]
    fn new(
        app: Arc<ReceiverState>,
        head: request::Parts,
        feed: Feed,
        events_left: Option<u64>,
        turns: Turns,
    ) -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            app,
            end: head.extensions.get::<ConnectionEnd>().cloned(),
            head,
            feed,
            looks,
            looked: 0,
            sent_at: 0,
            events_left,
            _turns: turns,
        }
    }

    fn into_response(self) -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            // Who compresses keeps events until it has a block of them.
            (
                CACHE_CONTROL,
                HeaderValue::from_static("no-store, no-transform"),
            ),
            // nginx would keep events until it has some KiB of them.
            (
                HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ),
        ];
        let events = stream::unfold(self, async |mut stream| {
            let bytes = stream.next().await?;
            Some((Ok::<_, Infallible>(bytes), stream))
        });
        (headers, Body::from_stream(events)).into_response()
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.events_left == Some(0) {
                return None;
            }
            self.looks.tick().await;
            let is_first = self.looked == 0;
            let is_due = self.end.as_ref().is_some_and(ConnectionEnd::is_due);
            // A browser that connects again on the same connection gets one event.
            if is_due && !is_first {
                return None;
            }
            let seen = self.judge().ok()?;
            if self.looked.is_multiple_of(LOOKS_PER_EVENT) {
                let event = self.event(seen).await;
                if is_first || event.is_some() {
                    self.looked += 1;
                    self.sent_at = self.looked;
                    return self.reserve(is_first, event.unwrap_or_default());
                }
            }
            self.looked += 1;
            if self.looked - self.sent_at >= LOOKS_PER_COMMENT {
                self.sent_at = self.looked;
                return Some(Bytes::from_static(COMMENT));
            }
        }
    }

    /// Whether the reader may still read.
    fn judge(&self) -> Result<MaySee, Rejection> {
        let now = (self.app.clock)();
        match &self.feed {
            Feed::Page { query, .. } => {
                check_crls(&self.app, now)?;
                let trust = self.app.trust.current();
                let peer = connection_of(&self.head)?.peer(&trust, now);
                let peer = peer.ok_or_else(viewer::no_certificate)??;
                let permit = may_view(&self.app, peer.identity, query.host.as_ref())?;
                Ok(MaySee::Page(permit))
            }
            Feed::Summaries { only, wanted, .. } => {
                let sender = Authenticated::check_again(&self.app, &self.head, now)?;
                may_read(&self.app, &sender, (only.as_ref(), wanted))
            }
        }
    }

    /// What has changed, as the data of an event.
    async fn event(&mut self, seen: MaySee) -> Option<String> {
        let now = (self.app.sample_clock)();
        let table = &self.app.table;
        let event = match (&mut self.feed, seen) {
            (Feed::Page { query, told }, MaySee::Page(permit)) => {
                let shown = shown(self.app.clone(), permit, query.clone()).await?;
                return shown.changes(told);
            }
            (Feed::Summaries { only, cursor, .. }, MaySee::Host) => {
                cursor.next_of_one(table, only.as_ref()?, now)
            }
            (Feed::Summaries { cursor, .. }, MaySee::Hosts(permit)) => {
                cursor.next_of_all(&permit, table, now)
            }
            _ => None,
        };
        serde_json::to_string(&event?).ok()
    }

    /// The event's bytes, in the reader's part of the memory for answers. Without room for them they
    /// are left out, and everything is told with a later one.
    fn reserve(&mut self, is_first: bool, data: String) -> Option<Bytes> {
        let mut bytes = String::new();
        if is_first {
            let apart_millis = (self.app.fine_clock)().subsec_millis();
            let retry_millis = CONNECT_AGAIN_MILLIS + apart_millis;
            bytes.push_str(&format!("retry: {retry_millis}\n\n"));
        }
        if !data.is_empty() {
            self.events_left = self.events_left.map(|left| left.saturating_sub(1));
            // JSON has no line break.
            bytes.push_str(&format!("event: {SUMMARIES}\ndata: {data}\n\n"));
        }
        let now = (self.app.clock)();
        let trust = self.app.trust.current();
        let peer = connection_of(&self.head).ok()?.peer(&trust, now)?.ok()?;
        let budget = peer.quota.body_memory();
        let reserved = self.app.bodies.answer(bytes.into_bytes(), budget);
        Some(reserved.unwrap_or_else(|_| {
            match &mut self.feed {
                Feed::Page { told, .. } => told.clear(),
                Feed::Summaries { cursor, .. } => **cursor = LiveCursor::default(),
            }
            Bytes::from_static(COMMENT)
        }))
    }
}

/// What is shown on a page now.
struct Shown {
    pieces: Vec<Piece>,
    rows: Vec<PieceRow>,
    shape: String,
}

/// Made on a thread of its own, as the page itself is.
async fn shown(
    app: Arc<ReceiverState>,
    permit: Permit<ViewPage>,
    query: PageQuery,
) -> Option<Shown> {
    let make = move || {
        let trust = app.trust.current();
        let sources = viewer::sources(&app, &trust, (app.clock)());
        let Some(name) = query.host.clone() else {
            let page = view::overview(&permit, sources, &app.fleet, query.overview());
            return Some(Shown {
                pieces: page.pieces(),
                rows: Vec::new(),
                shape: page.shape(),
            });
        };
        let page = view::host(&permit, sources, &name, query.host()).ok()?;
        Some(Shown {
            pieces: page.pieces(),
            rows: page.rows(),
            shape: page.shape(),
        })
    };
    tokio::task::spawn_blocking(make).await.ok()?
}

impl Shown {
    /// What is not as it was told, for the page's script; none if nothing is.
    fn changes(self, told: &mut HashMap<String, u64>) -> Option<String> {
        let mut is_news = |id: String, hash: u64| told.insert(id, hash) != Some(hash);
        let mut set = Vec::new();
        for Piece { id, kind, value } in self.pieces {
            let what = kind.as_str();
            if is_news(format!("{id} {what}"), hash_of(&value)) {
                set.push(json!([id, what, value]));
            }
        }
        let mut rows = Vec::new();
        for (at, row) in self.rows.into_iter().enumerate() {
            if is_news(format!("row {at}"), hash_of(&(row.end, &row.cells))) {
                rows.push(json!([row.table, row.end, row.rows_max, row.cells]));
            }
        }
        let is_shape_news = is_news("shape".to_owned(), hash_of(&self.shape));
        let is_empty = set.is_empty() && rows.is_empty() && !is_shape_news;
        let event: Value = json!({"set": set, "rows": rows, "shape": self.shape});
        (!is_empty).then(|| event.to_string())
    }
}

fn hash_of(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
