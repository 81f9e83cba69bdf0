//! What Prometheus asks for: `/api/v1/read`, and names at `/api/v1/series`, `labels` and `label`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, request};
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::answer::decode;
use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::{ReceiverState, SharedState};
use crate::body::{AskedCoding, SNAPPY};
use crate::prometheus::find::TooMany;
use crate::prometheus::listing::{self, Listed};
use crate::prometheus::message::READ_REQUEST;
use crate::prometheus::naming;
use crate::prometheus::read::{Answerable, ReadError, ReadQueries};
use crate::protobuf::MEDIA_TYPE;
use crate::query;

const AS_OF: HeaderName = HeaderName::from_static(route::AS_OF_HEADER);
/// Largest request: matchers alone.
pub(super) const REQUEST_BYTES_MAX: usize = 256 << 10;
/// Most selectors of one listing.
const SELECTORS_MAX: usize = 64;
/// Size of a series in a list of them: about.
const LIST_BYTES_PER_SERIES: usize = 128;

/// `POST /api/v1/read`
pub(super) async fn read(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    answer_routed(&app, request, read_series).await
}

async fn read_series(mut request: BodyRequest<'_>) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let sender = Authenticated::check(app, head, (app.clock)())?;
    let permit = sender.caller()?.read_series()?;
    let body = request
        .read_message(REQUEST_BYTES_MAX, READ_REQUEST, &sender)
        .await?;
    // Large expressions take a while.
    let parse = move || ReadQueries::parse(body.bytes());
    let asked = tokio::task::spawn_blocking(parse).await;
    let asked = asked.map_err(|_| Code::InternalError)??;
    let host = asked.only_host().map(str::to_owned);
    if let Some(host) = &host {
        app.table.read_now(host, (app.sample_clock)()).await;
    }
    sender.check_trust()?;
    let now = (app.sample_clock)();
    let (table, histories) = (app.table.clone(), app.history.clone());
    let find = move || {
        let found = asked.find(&permit, &table, &histories, now)?;
        Ok::<_, ReadError>((permit, found))
    };
    let found = tokio::task::spawn_blocking(find).await;
    let (permit, found): (_, Answerable) = found.map_err(|_| Code::InternalError)??;
    let turn = match found.needs_store() {
        true => Some(app.history.turn().await.ok_or(Code::Overloaded)?),
        false => None,
    };
    let (table, histories) = (app.table.clone(), app.history.clone());
    let bytes_about = found.bytes_about();
    let make = move || {
        let _until_read = turn;
        found.answer(&permit, &table, &histories, now)
    };
    let (uncoded, budget) = (AskedCoding::default(), sender.memory_budget()?);
    let made = app
        .bodies
        .large_answer(bytes_about, uncoded, budget, make)
        .await??;
    let mut response = Response::new(Body::from(made.body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(SNAPPY));
    add_as_of(app, host.as_deref(), now, &mut response);
    Ok(response)
}

/// Says that summaries lag, where the format has no place for it.
fn add_as_of(app: &ReceiverState, host: Option<&str>, now: u64, response: &mut Response) {
    let as_of = match host {
        Some(host) => app.table.as_of(app.table.shard_of(host), now),
        None => app.table.oldest_as_of(now),
    };
    if let Some(as_of) = as_of {
        response
            .headers_mut()
            .insert(AS_OF, HeaderValue::from(as_of));
    }
}

/// `GET` and `POST /api/v1/series` and `/api/v1/labels`
pub(super) async fn list(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    let what = match request.uri().path() {
        route::SERIES => Wanted::Series,
        _ => Wanted::LabelNames,
    };
    answer_routed(&app, request, async |mut request: BodyRequest<'_>| {
        let (app, head) = (request.app, request.head);
        let sender = Authenticated::check(app, head, (app.clock)())?;
        let mut asked = Parameters::default();
        asked.add(head.uri.query().unwrap_or_default().as_bytes())?;
        if head.method == Method::POST {
            let body = request.read(REQUEST_BYTES_MAX, &sender).await?;
            asked.add(body.bytes())?;
        }
        answer_list(app, &sender, asked, what).await
    })
    .await
}

/// `GET /api/v1/label/{name}/values`
pub(super) async fn values(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let sender = Authenticated::check(&app, &head, (app.clock)())?;
    let name = head.uri.path().strip_prefix(route::LABEL_VALUES);
    let name = name.and_then(|rest| rest.strip_prefix('/')?.strip_suffix("/values"));
    let name = decode(name.unwrap_or_default()).into_owned();
    let mut asked = Parameters::default();
    asked.add(head.uri.query().unwrap_or_default().as_bytes())?;
    if !naming::is_label_name(&name) {
        return Err(malformed(format!("{name:?} is not a label's name")));
    }
    answer_list(&app, &sender, asked, Wanted::Values(name)).await
}

/// What is listed.
#[derive(Debug)]
enum Wanted {
    Series,
    LabelNames,
    Values(String),
}

async fn answer_list(
    app: &Arc<ReceiverState>,
    sender: &Authenticated<'_>,
    asked: Parameters,
    wanted: Wanted,
) -> Result<Response, Rejection> {
    let permit = sender.caller()?.read_series()?;
    if matches!(wanted, Wanted::Series) && asked.selectors.is_empty() {
        return Err(malformed("match[] must be there at least once".to_owned()));
    }
    let now = (app.sample_clock)();
    let as_of = app.table.oldest_as_of(now);
    let table = app.table.clone();
    let make = move || {
        let texts = asked.selectors.iter().map(String::as_str);
        let selectors = listing::selectors(texts).map_err(|error| Rejection::from(&error))?;
        let listed = Listed {
            permit: &permit,
            table: &table,
            selectors,
            now,
        };
        listed.json(&wanted, asked.limit, as_of)
    };
    let labels = query::fleet_size(&app.table).labels;
    let bytes_about = labels.saturating_mul(LIST_BYTES_PER_SERIES);
    sender.large_answer(bytes_about, make).await
}

impl Listed<'_> {
    fn json(
        &self,
        wanted: &Wanted,
        limit: usize,
        as_of: Option<u64>,
    ) -> Result<Vec<u8>, Rejection> {
        match wanted {
            Wanted::Series => listed(
                self.series()?.iter().map(|labels| LabelSet(labels)),
                limit,
                as_of,
            ),
            Wanted::LabelNames => listed(self.label_names()?.iter(), limit, as_of),
            Wanted::Values(name) => listed(self.values(name)?.iter(), limit, as_of),
        }
    }
}

/// A success as the HTTP API of Prometheus has it.
#[derive(Serialize)]
struct Success<T> {
    status: &'static str,
    data: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

fn listed<T: Serialize>(
    mut all: impl Iterator<Item = T>,
    limit: usize,
    as_of: Option<u64>,
) -> Result<Vec<u8>, Rejection> {
    let data: Vec<_> = all.by_ref().take(limit).collect();
    let mut warnings = Vec::new();
    if all.next().is_some() {
        warnings.push("results truncated due to limit".to_owned());
    }
    if let Some(as_of) = as_of {
        warnings.push(format!(
            "what was acknowledged after {as_of} may be missing"
        ));
    }
    let success = Success {
        status: "success",
        data,
        warnings,
    };
    serde_json::to_vec(&success).map_err(|_| Code::InternalError.into())
}

/// The labels of a series, as an object.
struct LabelSet<'a>(&'a [(String, String)]);

impl Serialize for LabelSet<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// What a listing is asked for.
#[derive(Debug, PartialEq)]
struct Parameters {
    selectors: BTreeSet<String>,
    limit: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            selectors: BTreeSet::new(),
            limit: usize::MAX,
        }
    }
}

impl Parameters {
    /// Adds those of a URL's query or a form. Times are taken and left aside: what is listed are
    /// series of the last day.
    fn add(&mut self, form: &[u8]) -> Result<(), Rejection> {
        for (name, value) in form_urlencoded::parse(form) {
            match &*name {
                "match[]" => {
                    self.selectors.insert(value.into_owned());
                }
                "limit" => {
                    let limit = value.parse::<usize>();
                    self.limit =
                        match limit.map_err(|_| malformed("limit is a number".to_owned()))? {
                            0 => usize::MAX,
                            limit => limit,
                        };
                }
                "start" | "end" => (),
                _ => {
                    let known = "match[], start, end, limit";
                    return Err(malformed(format!("{name:?} is not asked for: {known}")));
                }
            }
        }
        match self.selectors.len() > SELECTORS_MAX {
            true => Err(TooMany.into()),
            false => Ok(()),
        }
    }
}

fn malformed(detail: String) -> Rejection {
    Rejection::from(Code::MalformedQuery).with_detail(detail)
}
