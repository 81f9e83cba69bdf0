//! The description of the API: whether it is of all routes, valid, and true.
//!
//! schemathesis sends every operation what the description allows and what it does not, and
//! compares the answers with it. `tests/run` installs it, and openapi-spec-validator.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use lizmon_protocol::name::{NodeName, Role};
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use lizmon_protocol::sample::Epoch;
use serde_json::{Value, json};

use crate::documents::root;
use crate::harness::process::{PATIENCE, Running, run};
use crate::harness::{Holder, World, answer};
use crate::oauth_clients::{python, tool};

/// The time of the document's examples.
const TIME_OF_EXAMPLES: u64 = 1_465_001_814;

fn document() -> Value {
    serde_json::from_slice(&lizmon_receiver::router::openapi_json()).unwrap()
}

/// Whether a request may be answered with this problem, as the document says. Other paths, and
/// other methods, may be refused as they like.
pub(crate) fn may_answer(method: &str, path: &str, status: u16, code: &str) -> bool {
    static OPERATIONS: LazyLock<Vec<(String, String, Value)>> =
        LazyLock::new(|| operations(&document()));
    // Of HEAD the document has the statuses, of GET the codes too.
    let method = if method == "HEAD" { "GET" } else { method };
    let is_this = |(form, of, _): &&(String, String, Value)| of == method && is_of(path, form);
    let Some((_, _, operation)) = OPERATIONS.iter().find(is_this) else {
        return true;
    };
    codes(&operation["responses"][status.to_string()]).contains(code)
}

/// Its operations: path, method, description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let operations = item.as_object().unwrap().clone().into_iter();
        let operations =
            operations.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation));
        operations.collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

/// Whether the path has this form: `{name}` is any segment, the last one also all that is left.
fn is_of(path: &str, form: &str) -> bool {
    let (mut segments, mut forms) = (path.split('/'), form.split('/').peekable());
    while let Some(form) = forms.next() {
        let Some(segment) = segments.next() else {
            return false;
        };
        let is_name = form.starts_with('{') && !segment.is_empty();
        if is_name && forms.peek().is_none() && form == "{label-or-epoch}" {
            return true;
        }
        if !is_name && form != segment {
            return false;
        }
    }
    segments.next().is_none()
}

/// Each path and method that is described is served, and the other way round.
#[test]
fn every_route_is_described_and_no_other() {
    let described: BTreeSet<(String, String)> = operations(&document())
        .into_iter()
        .map(|(path, method, _)| (path, method))
        .collect();
    let mut served = BTreeSet::new();
    for route in lizmon_receiver::router::routes() {
        let is_this = |path: &str| match route.path.split_once("{*") {
            // What can be there is told apart.
            Some((beginning, _)) => path.starts_with(&format!("{beginning}{{")),
            None => path == route.path,
        };
        for method in route.allow.split(", ") {
            let of = described.iter();
            let of: Vec<_> = of
                .filter(|(path, of)| of == method && is_this(path))
                .collect();
            assert!(!of.is_empty(), "not described: {method} {}", route.path);
            served.extend(of.into_iter().cloned());
        }
    }
    let unserved: Vec<_> = described.difference(&served).collect();
    assert!(unserved.is_empty(), "not served: {unserved:?}");
}

/// The codes of an answer, or none if it is not a problem.
fn codes(response: &Value) -> BTreeSet<String> {
    let schema = &response["content"]["application/problem+json"]["schema"];
    let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array();
    let codes = codes.into_iter().flatten();
    codes
        .map(|code| code.as_str().unwrap().to_owned())
        .collect()
}

/// Some answer has each code, with its status.
#[test]
fn every_code_is_described() {
    let document = document();
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let operations = operations(&document);
    let of_operations = operations
        .iter()
        .map(|(_, _, operation)| &operation["responses"]);
    let mut tell = |status: &str, response: &Value| {
        for code in codes(response) {
            told.entry(code).or_default().insert(status.to_owned());
        }
    };
    for responses in of_operations {
        for (status, response) in responses.as_object().unwrap() {
            tell(status, response);
        }
    }
    let shared = &document["components"]["responses"];
    tell("404", &shared["NotFound"]);
    tell("405", &shared["MethodNotAllowed"]);
    let expected = Code::ALL.iter().map(|code| {
        let statuses = BTreeSet::from([code.status().to_string()]);
        (code.as_str().to_owned(), statuses)
    });
    assert_eq!(told, expected.collect());
}

/// What lizctl, the monitor and the page's script ask for is described.
#[test]
fn our_own_clients_use_what_is_described() {
    let operations = operations(&document());
    let is_described = |method: &str, path: &str| {
        operations
            .iter()
            .any(|(form, of, _)| of == method && is_of(path, form))
    };
    let host: NodeName = "web1".parse().unwrap();
    for (method, path) in [
        ("POST", route::host(&host)),
        ("GET", route::host(&host)),
        ("GET", format!("{}/disk-used:/var", route::host(&host))),
        ("POST", route::sample(&host, Epoch::new(1).unwrap())),
        ("GET", route::delivery(&host)),
        ("POST", route::acknowledged(&host)),
        ("PUT", route::facts(&host)),
        ("POST", route::silence(&host)),
        ("POST", route::test_channel("mail")),
    ] {
        assert!(is_described(method, &path), "{method} {path}");
    }
    // The constants of the routes, and what else in the sources looks like one.
    let constants = fs::read_to_string(root().join("receiver/protocol/src/route.rs")).unwrap();
    let constants = constants
        .lines()
        .filter(|line| line.starts_with("pub const "));
    let constants = constants.filter_map(|line| line.split('"').nth(1));
    let mut named: BTreeSet<String> = constants
        .filter(|text| text.starts_with('/'))
        .map(str::to_owned)
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for folder in [
        "receiver/client/src",
        "receiver/page/src",
        "monitor/src",
        "lizctl/src",
    ] {
        collect_paths(&root().join(folder), &mut named);
    }
    for path in &named {
        let is_begun = |form: &str| form.starts_with(&format!("{path}/"));
        let is_known = operations
            .iter()
            .any(|(form, _, _)| is_begun(form) || is_of(path, form));
        assert!(is_known, "{path}");
    }
}

/// The texts in a source, or in all below a folder, that begin like a path of the API.
fn collect_paths(place: &Path, found: &mut BTreeSet<String>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            collect_paths(&entry.unwrap().path(), found);
        }
        return;
    }
    let text = fs::read_to_string(place).unwrap_or_default();
    // What only tests ask for may be wrong.
    let text = text.split("#[cfg(test)]").next().unwrap();
    for quoted in text.split('"').skip(1) {
        let end = quoted.find(['?', '{', '\\', ' ']).unwrap_or(quoted.len());
        let path = quoted[..end].trim_end_matches('/');
        if ["/api/", "/oauth2/"]
            .iter()
            .any(|begin| path.starts_with(begin))
        {
            found.insert(path.to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anyone_gets_it() {
    let world = World::start().await;
    let anyone = world.client(None, &["http/1.1"]);
    let url = world.url("/openapi.json");
    let got = answer(anyone.get(&url)).await;
    assert_eq!(got.json("anyone")["openapi"], "3.1.0");
    assert_eq!(got.header("cache-control"), "no-cache");
    let tag = got.header("etag");
    let head = answer(anyone.head(&url)).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let length = got.body.len().to_string();
    assert_eq!(
        (head.header("etag"), head.header("content-length")),
        (tag, &*length)
    );
    let again = answer(anyone.get(&url).header("if-none-match", tag)).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

/// A receiver that has what the examples are about.
struct Stage {
    world: World,
    node: Holder,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let node = world.node("web1");
        let token = world.token(&node).await;
        let now = world.clock.now();
        let batch = json!({
            "producer": "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b",
            "records": [{"seq": 7, "epoch": now, "values": {"cpu": 4.98}}],
        });
        let sent = world.post(&node, &token, "/api/perf/web1", batch.to_string());
        assert_eq!(sent.await.json("a batch")["accepted"], 1);
        Self { world, node }
    }

    /// The document, with the present time in its examples.
    async fn document(&self) -> std::path::PathBuf {
        let anyone = self.world.client(None, &["http/1.1"]);
        let got = answer(anyone.get(self.world.url("/openapi.json"))).await;
        let now = self.world.clock.now().to_string();
        let text = got.text().replace(&TIME_OF_EXAMPLES.to_string(), &now);
        let file = self.world.folder().join("openapi.json");
        fs::write(&file, text).unwrap();
        file
    }

    /// Runs schemathesis as this client, with these operations.
    async fn judge(&self, client: &Holder, selection: &[&str]) {
        let document = self.document().await;
        let token = self.world.token(client).await;
        let clients = root().join("tests/e2e/clients");
        let mut judge = tool("schemathesis");
        judge
            .current_dir(self.world.folder())
            .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
            .env("PYTHONPATH", &clients)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("--config-file")
            .arg(clients.join("schemathesis.toml"))
            .args(["run", "--no-color", "--url", &self.world.issuer()])
            .args(selection)
            .arg("--tls-verify")
            .arg(self.world.root())
            .arg("--request-cert")
            .arg(&client.cert)
            .arg("--request-cert-key")
            .arg(&client.key)
            .arg("--header")
            .arg(format!("Authorization: Bearer {token}"))
            .arg(document);
        let judged = move || Running::start(&mut judge).wait_within(4 * PATIENCE);
        let finished = tokio::task::spawn_blocking(judged).await.unwrap();
        assert!(
            finished.status.success(),
            "{}\n{}",
            finished.stdout,
            finished.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_valid_and_its_examples_too() {
    let stage = Stage::set().await;
    let mut validator = python("openapi_document.py");
    validator.arg(stage.document().await);
    let examples = run(&mut validator).success();
    let examples: u32 = examples.trim().parse().unwrap();
    assert!(examples > 80, "{examples}");
}

/// Readers are answered, or refused, everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_as_a_reader() {
    let stage = Stage::set().await;
    stage.judge(&stage.world.reader(), &[]).await;
}

/// What a node may send and read of itself.
#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_as_a_node() {
    let stage = Stage::set().await;
    let selection = [
        "--include-tag",
        "samples",
        "--include-tag",
        "reading",
        "--include-tag",
        "prometheus",
        "--exclude-method",
        "HEAD",
    ];
    stage.judge(&stage.node, &selection).await;
}

/// What operators alone may do.
#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_as_an_operator() {
    let stage = Stage::set().await;
    let operator = stage.world.holder(Role::Operator, "alice");
    let selection = ["--include-tag", "operators", "--exclude-method", "HEAD"];
    stage.judge(&operator, &selection).await;
}
