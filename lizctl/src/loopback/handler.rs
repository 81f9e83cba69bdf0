//! What becomes of one request.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use lizmon_protocol::problem::{MEDIA_TYPE, Problem};

use super::session::KEY_PATH;
use super::upstream::Upstream;
use super::{Machines, Session, admission, answers, machines, paths};

/// The largest problem document that is read.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// Everything that a request needs.
pub(crate) struct Loopback {
    /// Who may use it; `None` on a Unix socket, whose mode is the guard.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) upstream: Arc<Upstream>,
    /// The path of the page that a key opens.
    pub(crate) first_page: String,
    /// Adds and revokes machines, where the CA is on this machine.
    pub(crate) machines: Option<Arc<Machines>>,
}

impl Loopback {
    /// Answers one request. Only the forms of [`Machines`] have a body that is read.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let (parts, body) = request.into_parts();
        Ok(self.answer_parts(&parts, body).await)
    }

    async fn answer_parts(&self, parts: &Parts, body: Incoming) -> Response {
        let headers = &parts.headers;
        // At a Unix socket programs read, and nobody has a cookie.
        let machines = self.machines.as_ref().filter(|_| self.session.is_some());
        let machines = machines.filter(|_| machines::concerns(parts.uri.path()));
        if let Err(refusal) = admission::check_target(parts, machines.is_some()) {
            return answers::refused(refusal, headers);
        }
        if let Some(session) = &self.session {
            if let Err(refusal) = admission::check_origin(headers, session) {
                return answers::refused(refusal, headers);
            }
            if let Some(key) = parts.uri.path().strip_prefix(KEY_PATH) {
                return self.open(key, parts, session);
            }
            if !session.holds(headers) {
                return answers::not_opened(headers);
            }
        }
        if let Some(machines) = machines {
            return machines.answer(parts, body, &self.upstream.client()).await;
        }
        let Some(place) = paths::place(parts.uri.path()) else {
            return answers::not_found(headers);
        };
        match self.upstream.ask(parts, place).await {
            Ok(answer) => answers::with_default_headers(readable(answer, headers).await),
            Err(error) => answers::no_answer(&error, headers),
        }
    }

    /// Trades the key for the cookie. A browser that has the cookie needs no key.
    fn open(&self, key: &str, parts: &Parts, session: &Session) -> Response {
        let headers = &parts.headers;
        if admission::is_ahead_of_the_user(headers) {
            return answers::not_yet(headers);
        }
        let is_get = parts.method == Method::GET;
        if is_get && (session.holds(headers) || session.redeem(key, self.upstream.now())) {
            let mut cookies = session.take_away_old_cookies(headers);
            cookies.push(session.set_cookie());
            return answers::opened(&self.first_page, &cookies);
        }
        answers::not_opened(headers)
    }
}

/// A browser that asked for a page gets no JSON that says why there is none.
async fn readable(answer: Response<Body>, asked: &HeaderMap) -> Response<Body> {
    let status = answer.status();
    let is_problem = answer
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|found| found.as_bytes().starts_with(MEDIA_TYPE.as_bytes()));
    let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if !is_problem || !is_refusal || !admission::accepts(asked, "text/html") {
        return answer;
    }
    let body = to_bytes(answer.into_body(), PROBLEM_BYTES_MAX).await;
    let problem = body
        .ok()
        .and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
    let why = problem.map_or_else(
        || status.to_string(),
        |problem| format!("{} ({})", problem.title, problem.code.as_str()),
    );
    answers::page_refused(status, &why, asked)
}
