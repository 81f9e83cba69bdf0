//! What the pages of [`super::machines`] say. They look like the receiver's.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use lizmon_ca::authority::TOKEN_TTL;
use lizmon_ca::ledger::UnusedJoinToken;
use lizmon_client::BaseUrl;
use lizmon_page::frame::{self, PageFrame, PageSection};
use lizmon_page::text::isolated;
use lizmon_page::{date, link, machine};
use lizmon_protocol::name::NodeName;
use maud::{Markup, html};

use super::answers::with_default_headers;
use crate::let_in::LetIn;

/// Where machines join, where the profile does not say it.
const CA_UNKNOWN: &str = "https://CA-HOST:8444";

/// What is the same on each page.
pub(super) struct MachinePages {
    pub(super) reader: String,
    /// Epoch seconds.
    pub(super) now: u64,
}

/// What the ledger has of machines that may come in.
pub(super) struct KnownMachines {
    /// Tokens that still let somebody in.
    pub(super) tokens: Vec<UnusedJoinToken>,
    /// The newest first.
    pub(super) let_in: Vec<LetIn>,
    /// How many more there are.
    pub(super) more: usize,
}

/// A token that was made, and what goes with it.
pub(super) struct MadeToken {
    pub(super) name: NodeName,
    pub(super) token: String,
    pub(super) fingerprint: String,
    pub(super) tags: String,
    pub(super) ca_url: Option<BaseUrl>,
    pub(super) receiver: BaseUrl,
}

/// A machine that may appear.
pub(super) struct WaitedFor {
    pub(super) name: NodeName,
    /// When its token was made: epoch seconds.
    pub(super) since: u64,
    /// When something came from it: epoch seconds.
    pub(super) came_at: Option<u64>,
    /// Why the receiver cannot be asked.
    pub(super) error: Option<String>,
}

/// What became of a revocation.
pub(super) enum RevocationOutcome {
    /// The receiver knew it after so long.
    Refused(Duration),
    /// The receiver has not said within this that it knows.
    Unsaid(Duration),
    /// Nothing is revoked.
    Failed(String),
}

impl MachinePages {
    /// The form for a name and its tags, the tokens that nobody has used, and who was let in.
    pub(super) fn add(
        &self,
        status: StatusCode,
        (name, tags): (&str, &str),
        error: Option<&str>,
        known: &Result<KnownMachines, String>,
    ) -> Response {
        let contents = html! {
            h1 { "Add a machine" }
            p.lead { "A join token lets one machine of this name in, once, within " (TOKEN_TTL.as_secs() / 60) " minutes." }
            @if let Some(error) = error { p.alert role="alert" { (error) } }
            form.fields method="post" action="add" {
                p {
                    label for="name" { "Name of the machine" }
                    input #name name="name" value=(name) required maxlength="200" autocomplete="off" spellcheck="false" autofocus;
                }
                p {
                    label for="tags" { "Tags, such as env=prod team=shop" }
                    input #tags name="tags" value=(tags) autocomplete="off" spellcheck="false";
                }
                p { button { "Make a token" } }
            }
            p.note { "The same in a shell: " code { "lizctl join-token NAME --tag KEY=VALUE" } }
            @match known {
                Err(why) => p { "The CA's ledger cannot be read: " (why) },
                Ok(known) => { (unused(&known.tokens)) (let_in(known)) }
            }
        };
        self.answer(status, PageSection::Add, "", "Add a machine", &contents)
    }

    /// What to type on the machine.
    pub(super) fn added(&self, added: &MadeToken) -> Response {
        let MadeToken {
            name,
            token,
            fingerprint,
            receiver,
            ..
        } = added;
        let ca = added.ca_url.as_ref();
        let line = format!(
            "lizctl join {} --token {token} --ca-fingerprint {fingerprint} --receiver {receiver}",
            ca.map_or(CA_UNKNOWN, BaseUrl::as_str),
        );
        let waited_for = WaitedFor {
            name: name.clone(),
            since: self.now,
            came_at: None,
            error: None,
        };
        let title = format!("Add {name}");
        let contents = html! {
            h1 { (title) }
            p.lead { "Type this on " strong { (isolated(name.as_str())) } ", within " (TOKEN_TTL.as_secs() / 60) " minutes. It works once." }
            pre { code { (line) } }
            @if ca.is_none() {
                p { "Put the address of liz-ca in the place of " code { (CA_UNKNOWN) } "." }
            }
            p { "It prints the command that starts the monitor there." }
            (waited_for.markup())
            dl.facts {
                div { dt { "Token" } dd { code { (token) } } }
                div { dt { "Fingerprint of the CA" } dd { code { (fingerprint) } } }
                @if !added.tags.is_empty() { div { dt { "Tags" } dd { (added.tags) } } }
            }
        };
        self.answer(StatusCode::OK, PageSection::Add, "", &title, &contents)
    }

    /// Whether the machine has appeared.
    pub(super) fn waiting(&self, waited_for: &WaitedFor) -> Response {
        let title = format!("Add {}", waited_for.name);
        let contents = html! {
            h1 { (title) }
            (waited_for.markup())
        };
        self.answer(StatusCode::OK, PageSection::Add, "", &title, &contents)
    }

    /// Asks once more.
    pub(super) fn confirm(&self, name: &NodeName) -> Response {
        let contents = html! {
            h1 { "Revoke " (isolated(name.as_str())) }
            (machine::consequence(name.as_str()))
            form method="post" action=(name) { p { button { "Revoke " (name) } } }
            p.note { "The same in a shell: " code { "lizctl revoke " (name) } }
        };
        self.about_revoking(StatusCode::OK, name, &contents)
    }

    /// What became of it.
    pub(super) fn revoked(&self, name: &NodeName, revoked: &RevocationOutcome) -> Response {
        let status = match revoked {
            RevocationOutcome::Failed(_) => StatusCode::UNPROCESSABLE_ENTITY,
            RevocationOutcome::Refused(_) | RevocationOutcome::Unsaid(_) => StatusCode::OK,
        };
        let contents = html! {
            h1 { "Revoke " (isolated(name.as_str())) }
            @match revoked {
                RevocationOutcome::Refused(took) => {
                    p role="status" {
                        strong { (isolated(name.as_str())) } " is refused: the receiver knew it " (took.as_millis()) " ms after you asked."
                    }
                    p { "Its certificates and join tokens are revoked. To let it in again, " a href="../add" { "add it" } "." }
                }
                RevocationOutcome::Unsaid(within) => {
                    p role="status" { "Its certificates and join tokens are revoked, and the CRLs are signed." }
                    p {
                        "The receiver has not said within " (within.as_secs()) " s that it knows: it may not have \
                         heard from this machine since its start, or it does not have the new crl.pem. "
                        code { "lizctl revoke " (name) " --receiver URL" } " gives it to a receiver."
                    }
                }
                RevocationOutcome::Failed(why) => p.alert role="alert" { (why) },
            }
        };
        self.about_revoking(status, name, &contents)
    }

    /// Why there is no such page.
    pub(super) fn refused(&self, status: StatusCode, why: &str) -> Response {
        let contents = html! {
            h1 { "Revoke a machine" }
            p.alert role="alert" { (why) }
        };
        self.answer(
            status,
            PageSection::Trust,
            "../",
            "Revoke a machine",
            &contents,
        )
    }

    fn about_revoking(&self, status: StatusCode, name: &NodeName, contents: &Markup) -> Response {
        let title = format!("Revoke {name}");
        self.answer(status, PageSection::Trust, "../", &title, contents)
    }

    fn answer(
        &self,
        status: StatusCode,
        section: PageSection,
        root: &'static str,
        title: &str,
        contents: &Markup,
    ) -> Response {
        let frame = PageFrame {
            root,
            section,
            title: title.to_owned(),
            reader: self.reader.clone(),
            now: self.now,
            warnings: Vec::new(),
            live: None,
        };
        let mut response = Response::new(Body::from(frame::page(&frame, contents).0));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, frame::CONTENT_SECURITY_POLICY),
            // Under `no-referrer` a browser sends forms with `Origin: null`, which is nobody's.
            (REFERRER_POLICY, "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        with_default_headers(response)
    }
}

impl WaitedFor {
    /// The page's script asks again for this part alone, until the machine has appeared.
    fn markup(&self) -> Markup {
        let name = self.name.as_str();
        let since = self.since.to_string();
        let again = format!("add{}", link::query(&[("name", name), ("since", &since)]));
        let is_waited_for = self.came_at.is_none();
        html! {
            p #appeared role="status" data-again=[is_waited_for.then_some(&again)] {
                @match (self.came_at, &self.error) {
                    (Some(at), _) => {
                        strong { (isolated(name)) } " has appeared, " (date::span(at.saturating_sub(self.since)))
                        " after its token was made. " a href=(link::host("", name)) { "Show it" }
                    }
                    (None, Some(error)) => { "The receiver cannot be asked: " (error) ". " a href=(again) { "Look again" } }
                    (None, None) => { "Waiting for " (isolated(name)) " … " a href=(again) { "Look again" } }
                }
            }
        }
    }
}

fn unused(tokens: &[UnusedJoinToken]) -> Markup {
    let row = |token: &UnusedJoinToken| {
        html! {
            th scope="row" { (isolated(token.name.as_str())) }
            td { (token.role.as_str()) }
            td { (moment(token.expires)) }
            td { (isolated(&token.created_by)) }
        }
    };
    html! {
        h2 #unused { "Join tokens that nobody has used" }
        @if tokens.is_empty() {
            p.quiet { "There is none that still works." }
        } @else {
            (table("unused", "Join tokens that still work", &["Name", "Role", "Until", "Made by"], tokens.iter().map(row)))
            p.note { code { "lizctl revoke NAME" } " ends the token of a machine that was never added, too." }
        }
    }
}

/// Who let which machine in, as the ledger has it.
fn let_in(known: &KnownMachines) -> Markup {
    let row = |machine: &LetIn| {
        html! {
            th scope="row" { a href=(link::host("", &machine.name)) { (isolated(&machine.name)) } }
            td { (isolated(&machine.by)) }
            td { (moment(machine.not_after)) }
        }
    };
    html! {
        h2 #let-in { "Machines that were let in" }
        @if known.let_in.is_empty() {
            p.quiet { "No machine has a certificate that is valid." }
        } @else {
            (table(
                "let-in",
                "Machines with a valid certificate, the newest first",
                &["Name", "Let in by", "Certificate ends"],
                known.let_in.iter().map(row),
            ))
            @if known.more > 0 { p { "And " (known.more) " more." } }
            p.note { "All certificates, of every role: " code { "lizctl list" } ". What was done: " code { "lizctl audit-log" } }
        }
    }
}

fn moment(epoch: u64) -> Markup {
    html! { time datetime=(date::machine(epoch)) { (date::day(epoch)) " " (date::clock(epoch)) } }
}

/// A table below the heading with this id.
fn table(id: &str, caption: &str, heads: &[&str], rows: impl Iterator<Item = Markup>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-labelledby=(id) {
            table.plain {
                caption.hidden { (caption) }
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}
