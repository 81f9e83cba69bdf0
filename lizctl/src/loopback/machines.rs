//! Machines that are added and revoked from the page, where the CA's folder is on this machine.
//!
//! Only these forms change anything, and only for a browser with the cookie of this run whose
//! request says that it comes from a page of ours: `Origin` must be there and be this server's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::response::Response;
use http::header::ORIGIN;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use lizmon_ca::authority::{Authority, TOKEN_TTL};
use lizmon_ca::pki::Reason;
use lizmon_client::{BaseUrl, Client};
use lizmon_pki::error_chain::in_one_line;
use lizmon_protocol::name::{Attributes, NodeName, Role, Tag, TagFilter};
use lizmon_protocol::summary::{HolderState, Host};

use super::machine_pages::{KnownMachines, MachinePages, MadeToken, RevocationOutcome, WaitedFor};
use crate::crl_push;
use crate::flags::ca_keys::CaKeyFlags;
use crate::let_in;

const ADD: &str = "/add";
const REVOKE: &str = "/revoke/";
/// A name and its tags.
const FORM_BYTES_MAX: usize = 8 << 10;
/// How long a receiver is asked whether it refuses a revoked machine. It looks at its files each
/// second.
const BITE_WITHIN: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How many machines are listed beside the form.
const LET_IN_SHOWN_MAX: usize = 100;

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
    path == ADD || path.starts_with(REVOKE)
}

/// What was asked, once it is understood.
enum Asked {
    Form,
    Token(NodeName, Attributes),
    /// Whether something has come from it since then.
    Appeared(NodeName, u64),
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
        let pages = MachinePages {
            reader: receiver.identity().name.to_string(),
            now: (self.clock)(),
        };
        let asked = match understand(parts, body).await {
            Ok(asked) => asked,
            Err((status, why)) if parts.uri.path() == ADD => {
                return pages.add(status, ("", ""), Some(&why), &self.known().await);
            }
            Err((status, why)) => return pages.refused(status, &why),
        };
        match asked {
            Asked::Form => {
                let known = self.known().await;
                pages.add(StatusCode::OK, ("", ""), None, &known)
            }
            Asked::Token(name, attributes) => self.make_token(name, attributes, &pages).await,
            Asked::Appeared(name, since) => pages.waiting(&self.look(name, since, receiver).await),
            Asked::Confirm(name) => pages.confirm(&name),
            Asked::Revoke(name) => self.revoke(name, receiver, &pages).await,
        }
    }

    async fn make_token(
        self: &Arc<Self>,
        name: NodeName,
        attributes: Attributes,
        pages: &MachinePages,
    ) -> Response {
        let (machines, named) = (self.clone(), name.clone());
        let since = pages.now;
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
        let tags = texts.join(" ");
        match made.await {
            Ok((token, fingerprint)) => pages.added(&MadeToken {
                name,
                token: token.as_str().to_owned(),
                fingerprint: fingerprint.to_string(),
                tags,
                ca_url: self.ca_url.clone(),
                receiver: self.receiver.clone(),
            }),
            Err(error) => {
                let (status, why) = (StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}"));
                let known = self.known().await;
                pages.add(status, (name.as_str(), &tags), Some(&why), &known)
            }
        }
    }

    /// Who may come in, by the ledger, or why it is not known.
    async fn known(self: &Arc<Self>) -> Result<KnownMachines, String> {
        let machines = self.clone();
        let now = (self.clock)();
        let listed = blocking(move || {
            let authority = machines.authority()?;
            let mut let_in = let_in::nodes(&authority.entries()?, now);
            let more = let_in.len().saturating_sub(LET_IN_SHOWN_MAX);
            let_in.truncate(LET_IN_SHOWN_MAX);
            let tokens = authority.unused_join_tokens(now)?;
            Ok(KnownMachines {
                tokens,
                let_in,
                more,
            })
        });
        listed.await.map_err(|error| format!("{error:#}"))
    }

    /// Whether something came from the machine since the token was made.
    async fn look(&self, name: NodeName, since: u64, receiver: &Client) -> WaitedFor {
        let listed = receiver.hosts(&TagFilter::default(), (self.clock)()).await;
        let error = listed.as_ref().err().map(|error| in_one_line(error));
        let hosts = listed.map(|hosts| hosts.hosts).unwrap_or_default();
        let host = hosts.into_iter().find(|host| host.name == name.as_str());
        let came_at = host.and_then(|host| host.last_received);
        WaitedFor {
            name,
            since,
            came_at: came_at.filter(|at| *at >= since),
            error,
        }
    }

    async fn revoke(
        self: &Arc<Self>,
        name: NodeName,
        receiver: &Client,
        pages: &MachinePages,
    ) -> Response {
        let begin = (self.stopwatch)();
        let revoked = match self.revoke_and_wait(&name, receiver, begin).await {
            Ok(Some(took)) => RevocationOutcome::Refused(took),
            Ok(None) => RevocationOutcome::Unsaid(BITE_WITHIN),
            Err(error) => RevocationOutcome::Failed(format!("{error:#}")),
        };
        pages.revoked(&name, &revoked)
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
            // The receiver answers once they are in force.
            crl_push::push_to(&authority, receiver, self.clock).await?;
            return Ok(Some((self.stopwatch)().saturating_sub(begin)));
        }
        let is_revoked =
            |host: &Host| host.name == name.as_str() && host.state == Some(HolderState::Revoked);
        loop {
            let listed = receiver.hosts(&TagFilter::default(), (self.clock)()).await;
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

async fn understand(parts: &Parts, body: Incoming) -> Result<Asked, (StatusCode, String)> {
    let path = parts.uri.path();
    let is_post = parts.method == Method::POST;
    if is_post && !parts.headers.contains_key(ORIGIN) {
        let why = "the browser does not say which page sent this form".to_owned();
        return Err((StatusCode::FORBIDDEN, why));
    }
    if path == ADD {
        return match is_post {
            true => read_form(body).await,
            false => Ok(read_query(parts.uri.query().unwrap_or_default())),
        };
    }
    let name = path.strip_prefix(REVOKE).unwrap_or_default();
    let no_name = |error| (StatusCode::NOT_FOUND, in_one_line(&error));
    let name: NodeName = name.parse().map_err(no_name)?;
    Ok(match is_post {
        true => Asked::Revoke(name),
        false => Asked::Confirm(name),
    })
}

/// The machine that is waited for, or else the form.
fn read_query(query: &str) -> Asked {
    let (mut name, mut since) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "name" => name = value.parse().ok(),
            "since" => since = value.parse().ok(),
            _ => (),
        }
    }
    match (name, since) {
        (Some(name), Some(since)) => Asked::Appeared(name, since),
        _ => Asked::Form,
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
