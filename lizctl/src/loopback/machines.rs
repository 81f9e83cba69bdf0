//! Machines that are added and revoked from the page, where the CA's folder is on this machine.
//!
//! Only these forms change anything, and only for a browser with the cookie of this run whose
//! request says that it comes from a page of ours: `Origin` must be there and be this server's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use lizmon_ca::authority::{Authority, TOKEN_TTL};
use lizmon_ca::pki::Reason;
use lizmon_client::{BaseUrl, Client};
use lizmon_pki::error_chain::in_one_line;
use lizmon_protocol::name::{Attributes, NodeName, Role, Tag};
use lizmon_protocol::summary::{HolderState, Host};
use maud::{DOCTYPE, Markup, html};

use super::answers::with_default_headers;
use crate::crl_push;
use crate::flags::ca_keys::CaKeyFlags;

const ADD: &str = "/add";
const REVOKE: &str = "/revoke/";
/// A name and its tags.
const FORM_BYTES_MAX: usize = 8 << 10;
/// How often the page looks whether the machine has appeared.
const LOOK_EVERY_SECS: u32 = 2;
/// How long a receiver is asked whether it refuses a revoked machine. It looks at its files each
/// second.
const BITE_WITHIN: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Nothing from elsewhere, and no script. A page shows its own status in a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-src 'self'; \
                      base-uri 'none'; frame-ancestors 'self'";

/// The CA of this machine, and where machines reach it and the receiver.
pub(crate) struct Machines {
    pub(crate) certs: PathBuf,
    pub(crate) keys: CaKeyFlags,
    pub(crate) ca_url: Option<BaseUrl>,
    pub(crate) receiver: BaseUrl,
    pub(crate) clock: fn() -> u64,
    pub(crate) stopwatch: fn() -> Duration,
}

/// Whether a path is one of these pages.
pub(super) fn concerns(path: &str) -> bool {
    path == ADD || path.starts_with("/add/") || path.starts_with(REVOKE)
}

/// What was asked, once it is understood.
enum Asked {
    Form,
    Token(NodeName, Attributes),
    Status(NodeName),
    Confirm(NodeName),
    Revoke(NodeName),
}

impl Machines {
    /// Answers a request of a browser that has the cookie.
    pub(super) async fn answer(
        self: &Arc<Self>,
        parts: &Parts,
        body: Incoming,
        receiver: &Client,
    ) -> Response {
        let asked = match self.understand(parts, body).await {
            Ok(asked) => asked,
            Err((status, why)) => return self.refuse(parts, status, &why),
        };
        match asked {
            Asked::Form => page(StatusCode::OK, "Add a machine", &form("", "", None)),
            Asked::Token(name, attributes) => self.make_token(name, attributes).await,
            Asked::Status(name) => self.status(&name, parts, receiver).await,
            Asked::Confirm(name) => {
                let title = format!("Revoke {name}");
                page(StatusCode::OK, &title, &confirm(&name))
            }
            Asked::Revoke(name) => self.revoke(name, receiver).await,
        }
    }

    async fn understand(
        &self,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Asked, (StatusCode, String)> {
        let path = parts.uri.path();
        let is_post = parts.method == Method::POST;
        if is_post && !parts.headers.contains_key(ORIGIN) {
            let why = "the browser does not say which page sent this form".to_owned();
            return Err((StatusCode::FORBIDDEN, why));
        }
        let named = |name: &str| {
            let no_name = |error| (StatusCode::NOT_FOUND, in_one_line(&error));
            name.parse::<NodeName>().map_err(no_name)
        };
        if path == ADD {
            return match is_post {
                true => read_form(body).await,
                false => Ok(Asked::Form),
            };
        }
        match (path.strip_prefix("/add/"), path.strip_prefix(REVOKE)) {
            (Some(name), _) if !is_post => named(name).map(Asked::Status),
            (_, Some(name)) if is_post => named(name).map(Asked::Revoke),
            (_, Some(name)) => named(name).map(Asked::Confirm),
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "this is only shown".into())),
        }
    }

    fn refuse(&self, parts: &Parts, status: StatusCode, why: &str) -> Response {
        let contents = match parts.uri.path() {
            ADD => form("", "", Some(why)),
            _ => html! { p role="alert" { (why) } },
        };
        page(status, "Add a machine", &contents)
    }

    async fn make_token(self: &Arc<Self>, name: NodeName, attributes: Attributes) -> Response {
        let (machines, named) = (self.clone(), name.clone());
        let since = (self.clock)();
        let texts: Vec<_> = attributes.texts().map(str::to_owned).collect();
        let made = blocking(move || {
            let authority = machines.authority()?;
            let token = authority.make_join_token(
                Role::Node,
                &named,
                &[],
                &attributes,
                TOKEN_TTL,
                since,
            )?;
            Ok((token, authority.root_fingerprint()))
        });
        let (token, fingerprint) = match made.await {
            Ok(made) => made,
            Err(error) => {
                let contents = form(name.as_str(), &texts.join(" "), Some(&format!("{error:#}")));
                return page(StatusCode::UNPROCESSABLE_ENTITY, "Add a machine", &contents);
            }
        };
        let ca = self.ca_url.as_ref();
        let ca = ca.map_or("https://CA-HOST:8444", BaseUrl::as_str);
        let line = format!(
            "lizctl join {ca} --token {} --ca-fingerprint {fingerprint} --receiver {}",
            token.as_str(),
            self.receiver,
        );
        let contents = html! {
            p { "Type this on " b { bdi { (name) } } ", within " (TOKEN_TTL.as_secs() / 60) " minutes. It works once." }
            pre { code { (line) } }
            dl {
                dt { "Token" } dd { code { (token.as_str()) } }
                dt { "Fingerprint of the CA" } dd { code { (fingerprint) } }
                @if !texts.is_empty() { dt { "Tags" } dd { (texts.join(" ")) } }
            }
            @if ca.contains("CA-HOST") {
                p { "Put the address of liz-ca in the place of https://CA-HOST:8444." }
            }
            p { "It prints the command that starts the monitor there." }
            iframe src={ "add/" (name) "?since=" (since) } title="Whether the machine has appeared" {}
        };
        page(StatusCode::OK, &format!("Add {name}"), &contents)
    }

    /// Whether something came from the machine since the token was made.
    async fn status(&self, name: &NodeName, parts: &Parts, receiver: &Client) -> Response {
        let query = parts.uri.query().unwrap_or_default();
        let since = query.strip_prefix("since=").and_then(|at| at.parse().ok());
        let since: u64 = since.unwrap_or(0);
        let listed = receiver.hosts((self.clock)()).await;
        let error = listed.as_ref().err().map(|error| in_one_line(error));
        let host = listed.ok().and_then(|hosts| {
            hosts
                .hosts
                .into_iter()
                .find(|host| host.name == name.as_str())
        });
        let came_at = host.as_ref().and_then(|host| host.last_received);
        let came_at = came_at.filter(|at| *at >= since);
        let contents = html! {
            p role="status" {
                @match (came_at, &error) {
                    (Some(at), _) => {
                        b { bdi { (name) } } " has appeared, " (at.saturating_sub(since)) " s after its token was made. "
                        a href={ "../hosts/" (name) } target="_parent" { "Show it" }
                    }
                    (None, Some(error)) => { "The receiver cannot be asked: " (error) }
                    (None, None) => { "Waiting for " bdi { (name) } " …" }
                }
            }
        };
        let refresh = came_at.is_none().then_some(LOOK_EVERY_SECS);
        answer(
            StatusCode::OK,
            &document("../", "Status", refresh, &contents),
        )
    }

    async fn revoke(self: &Arc<Self>, name: NodeName, receiver: &Client) -> Response {
        let title = format!("Revoke {name}");
        let begin = (self.stopwatch)();
        match self.revoke_and_wait(&name, receiver, begin).await {
            Ok(Some(took)) => {
                let contents = html! {
                    p role="status" {
                        b { bdi { (name) } } " is refused: the receiver knew it " (took.as_millis()) " ms after you asked."
                    }
                    p { "Its certificates and join tokens are revoked. To let it in again, " a href="../add" { "add it" } "." }
                };
                page(StatusCode::OK, &title, &contents)
            }
            Ok(None) => {
                let contents = html! {
                    p role="status" { "Its certificates and join tokens are revoked, and the CRLs are signed." }
                    p {
                        "The receiver has not said within " (BITE_WITHIN.as_secs()) " s that it knows: it may not have \
                         heard from this machine since its start, or it does not have the new crl.pem. "
                        code { "lizctl revoke " (name) " --receiver URL" } " gives it to a receiver."
                    }
                };
                page(StatusCode::OK, &title, &contents)
            }
            Err(error) => {
                let contents = html! { p role="alert" { (format!("{error:#}")) } };
                page(StatusCode::UNPROCESSABLE_ENTITY, &title, &contents)
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "paces questions")]
    async fn revoke_and_wait(
        self: &Arc<Self>,
        name: &NodeName,
        receiver: &Client,
        begin: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let (machines, named) = (self.clone(), name.clone());
        let authority = blocking(move || {
            let authority = machines.authority()?;
            let now = (machines.clock)();
            authority.revoke_holder(Role::Node, &named, Reason::Unspecified, now)?;
            Ok(authority)
        });
        let authority = authority.await?;
        if receiver.identity().role == Role::Operator {
            crl_push::push_to(&authority, receiver, self.clock).await?;
        }
        let is_revoked =
            |host: &Host| host.name == name.as_str() && host.state == Some(HolderState::Revoked);
        loop {
            let listed = receiver.hosts((self.clock)()).await;
            let took = (self.stopwatch)().saturating_sub(begin);
            match listed {
                Ok(hosts) if hosts.hosts.iter().any(is_revoked) => return Ok(Some(took)),
                _ if took > BITE_WITHIN => return Ok(None),
                _ => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    fn authority(&self) -> anyhow::Result<Authority> {
        let keys = self.keys.unlock_without_prompt();
        Authority::open_with(&self.certs, keys, (self.clock)())
            .with_context(|| format!("cannot open the CA in {}", self.certs.display()))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the work panicked")?
}

async fn read_form(body: Incoming) -> Result<Asked, (StatusCode, String)> {
    let read = Limited::new(body, FORM_BYTES_MAX).collect().await;
    let bytes = read.map_err(|_| {
        let why = format!("the form is longer than {FORM_BYTES_MAX} bytes, or was cut off");
        (StatusCode::PAYLOAD_TOO_LARGE, why)
    })?;
    let (mut name, mut tags) = (String::new(), String::new());
    for (key, value) in form_urlencoded::parse(&bytes.to_bytes()) {
        match &*key {
            "name" => name = value.trim().to_owned(),
            "tags" => tags = value.into_owned(),
            _ => (),
        }
    }
    let wrong = |why: String| (StatusCode::UNPROCESSABLE_ENTITY, why);
    let name: NodeName = name.parse().map_err(|error| wrong(in_one_line(&error)))?;
    let tags = tags.split([' ', ',']).filter(|tag| !tag.is_empty());
    let tags: Result<_, _> = tags.map(str::parse::<Tag>).collect();
    let attributes = Attributes {
        tags: tags.map_err(|error| wrong(in_one_line(&error)))?,
        ..Attributes::default()
    };
    let checked = attributes.check(Role::Node);
    checked.map_err(|error| wrong(in_one_line(&error)))?;
    Ok(Asked::Token(name, attributes))
}

fn form(name: &str, tags: &str, error: Option<&str>) -> Markup {
    html! {
        @if let Some(error) = error { p role="alert" { (error) } }
        form method="post" action="add" {
            p {
                label for="name" { "Name of the machine" } br;
                input #name name="name" value=(name) required maxlength="200" autocomplete="off" autofocus;
            }
            p {
                label for="tags" { "Tags, such as env=prod team=shop" } br;
                input #tags name="tags" value=(tags) autocomplete="off";
            }
            p { button { "Make a token" } }
        }
        p { "The same in a shell: " code { "lizctl join-token NAME --tag KEY=VALUE" } }
    }
}

fn confirm(name: &NodeName) -> Markup {
    html! {
        p { "All certificates and join tokens of " b { bdi { (name) } } " end at once. What it has sent stays." }
        form method="post" action=(name) { p { button { "Revoke " (name) } } }
        p { "The same in a shell: " code { "lizctl revoke " (name) } }
    }
}

/// A page with a link back, and the receiver's style sheet.
fn page(status: StatusCode, title: &str, contents: &Markup) -> Response {
    let root = if title.starts_with("Revoke") {
        "../"
    } else {
        ""
    };
    let main = html! {
        main #main {
            h1 { (title) }
            (contents)
            p { a href={ (root) "./" } { "All hosts" } }
        }
    };
    answer(status, &document(root, title, None, &main))
}

fn document(root: &str, title: &str, refresh: Option<u32>, contents: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(secs) = refresh { meta http-equiv="refresh" content=(secs); }
                title { (title) " · lizmon" }
                link rel="stylesheet" href={ (root) "assets/page.css" };
            }
            body.bare { (contents) }
        }
    }
}

fn answer(status: StatusCode, page: &Markup) -> Response {
    let mut response = Response::new(Body::from(page.0.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(CONTENT_TYPE, html);
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("x-frame-options", HeaderValue::from_static("SAMEORIGIN"));
    with_default_headers(response)
}
