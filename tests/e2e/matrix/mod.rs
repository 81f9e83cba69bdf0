//! Every endpoint times every wrong credential, at both servers.
//!
//! ```text
//! rows (what the router serves) × certificates × tokens --expected()--> what the documents promise
//!                                                       --a request--> what the server says
//! ```
//!
//! The rows are compared with the routers' tables: a route without a row fails. `expected` is a
//! pure function in each server's module; all differences are listed at once.

mod authority;
mod credentials;
mod receiver;
mod requester;

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use rustls::AlertDescription;
use serde_json::Value;

use self::credentials::Certificate;
use self::requester::{Ask, Requester};
use crate::harness::Answer;

/// A label of the first sample. No error may reveal it.
const CONFIDENTIAL: &str = "confidential";
/// A path that no server has.
const NOWHERE: &str = "/nowhere";
/// Methods that a client may try.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
/// A method that no route accepts.
const WRONG_METHOD: &str = "DELETE";

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The handshake fails.
    Alert(AlertDescription),
    Answer {
        status: u16,
        /// The error code in the body; empty if there is none.
        code: String,
        /// The scheme of `WWW-Authenticate`, and its `error=` if it has one.
        challenge: String,
    },
    /// None of these.
    Broken(String),
}

impl Outcome {
    fn good(status: u16) -> Self {
        Self::refused(status, "", "")
    }

    fn refused(status: u16, code: &str, challenge: &str) -> Self {
        Self::Answer {
            status,
            code: code.to_owned(),
            challenge: challenge.to_owned(),
        }
    }

    fn is_good(&self) -> bool {
        matches!(self, Self::Answer { status, .. } if *status < 400)
    }

    /// The outcome for HEAD.
    fn without_body(mut self) -> Self {
        if let Self::Answer { code, .. } = &mut self {
            code.clear();
        }
        self
    }

    fn of(answer: &Answer) -> Self {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let member = match answer.header("content-type") {
            "application/problem+json" => "code",
            "application/json" => "error",
            _ => "",
        };
        let challenge = answer.header("www-authenticate");
        let scheme = challenge.split(' ').next().unwrap_or_default();
        let error = challenge.split("error=\"").nth(1);
        let error = error.and_then(|rest| rest.split('"').next());
        let outcome = Self::Answer {
            status: answer.status,
            code: body[member].as_str().unwrap_or_default().to_owned(),
            challenge: error.map_or(scheme.to_owned(), |error| format!("{scheme} {error}")),
        };
        if !outcome.is_good() && answer.text().contains(CONFIDENTIAL) {
            return Self::Broken(format!("{outcome} tells what it refuses"));
        }
        outcome
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "alert {alert:?}"),
            Self::Answer {
                status,
                code,
                challenge,
            } => {
                let parts = [&status.to_string(), code, challenge];
                let parts: Vec<&str> = parts
                    .into_iter()
                    .map(String::as_str)
                    .filter(|part| !part.is_empty())
                    .collect();
                f.write_str(&parts.join(", "))
            }
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// One endpoint: a method on a path, and who may use it.
#[derive(Debug, Clone, Copy)]
struct Row<A> {
    method: &'static str,
    /// The path as in the router.
    route: &'static str,
    /// A path that it matches.
    path: &'static str,
    access: A,
    /// The status of success; 0 if there is none.
    good: u16,
}

impl<A> Row<A> {
    fn story(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// All rows of a server: those written down, HEAD for each GET, and on each path a method that it
/// does not have. `served` lists each path of the server's router with its methods.
#[track_caller]
fn all_rows<A: Copy>(
    told: &[Row<A>],
    served: &[(String, &'static str)],
    wrong_method: A,
) -> Vec<Row<A>> {
    let with_method = |method| move |row: &Row<A>| Row { method, ..*row };
    let gets = told.iter().filter(|row| row.method == "GET");
    let mut rows = told.to_vec();
    rows.extend(gets.map(with_method("HEAD")));
    let told_of = |route: &str, method: &str| {
        rows.iter()
            .any(|row| row.route == route && row.method == method)
    };
    for (route, allow) in served {
        for method in allow.split(", ") {
            assert!(told_of(route, method), "no row for {method} {route}");
        }
    }
    let known: BTreeSet<&str> = served.iter().map(|(route, _)| route.as_str()).collect();
    for row in &rows {
        let is_served = known.contains(row.route);
        assert_eq!(is_served, row.path != NOWHERE, "{} is served", row.story());
    }
    let mut seen = BTreeSet::new();
    let first_of_each = told.iter().filter(|row| seen.insert(row.route));
    let wrong = first_of_each.filter(|row| row.path != NOWHERE);
    rows.extend(wrong.map(|row| Row {
        access: wrong_method,
        good: 0,
        ..with_method(WRONG_METHOD)(row)
    }));
    rows
}

/// One request and its expected outcome.
struct Cell {
    story: String,
    ask: Ask,
    expected: Outcome,
}

/// The requests with each certificate.
type Cells = HashMap<Certificate, Vec<Cell>>;

/// The whole product, each with a description. Each endpoint that anybody may use must be granted
/// to somebody: a test of refusals alone proves nothing.
fn product<A, T: Copy + fmt::Debug>(
    rows: &[Row<A>],
    tokens: &[T],
    mut cell: impl FnMut(&str, &Row<A>, Certificate, T) -> (Ask, Outcome),
) -> Cells {
    let mut cells = Cells::new();
    for row in rows {
        let mut has_good = false;
        for certificate in Certificate::all() {
            for token in tokens {
                let story = format!("{} × {certificate:?} × {token:?}", row.story());
                let (ask, expected) = cell(&story, row, certificate, *token);
                has_good |= expected.is_good();
                let cell = Cell {
                    story,
                    ask,
                    expected,
                };
                cells.entry(certificate).or_default().push(cell);
            }
        }
        assert_eq!(has_good, row.good != 0, "{}", row.story());
    }
    cells
}

/// Sends all requests of all requesters, and lists the differences.
async fn run(requesters: Vec<(Certificate, Requester)>, mut cells: Cells) {
    let count: usize = cells.values().map(Vec::len).sum();
    let tasks = requesters.into_iter().map(|(certificate, requester)| {
        let cells = cells.remove(&certificate).unwrap_or_default();
        tokio::spawn(otherwise(requester, cells))
    });
    let tasks: Vec<_> = tasks.collect();
    assert!(cells.is_empty(), "everybody has a requester");
    let mut failures = Vec::new();
    for task in futures_util::future::join_all(tasks).await {
        failures.extend(task.expect("no requester panics"));
    }
    assert!(
        failures.is_empty(),
        "{} of {count} cells:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The differences from the expected outcomes.
async fn otherwise(requester: Requester, cells: Vec<Cell>) -> Vec<String> {
    let asks = cells.iter().map(|cell| cell.ask.clone()).collect();
    let got = requester.ask_all(asks).await;
    let pairs = cells.into_iter().zip(got);
    let wrong = pairs.filter(|(cell, got)| cell.expected != *got);
    wrong
        .map(|(cell, got)| format!("{}: expected {}; got {got}", cell.story, cell.expected))
        .collect()
}

/// A method that is not in the router's table is refused, and the error names those that are.
async fn methods_are_those_of_the_table(
    mut requester: Requester,
    served: &[(String, &'static str)],
    path_of: impl Fn(&str) -> String,
) {
    for (route, allow) in served {
        let allowed: Vec<&str> = allow.split(", ").collect();
        for method in METHODS {
            let ask = Ask::new(method, path_of(route));
            let got = requester.answer(ask).await.expect("an answer");
            let is_taken = got.status != 405;
            let story = format!("{method} {route}: {}", got.status);
            assert_eq!(is_taken, allowed.contains(&method), "{story}");
            assert!(is_taken || got.header("allow") == *allow, "{story}");
        }
    }
}
