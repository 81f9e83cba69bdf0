//! Who may do what: every combination of certificate, token, path and body.

mod handshake;

use lizmon_protocol::name::Role;
use serde_json::json;

use crate::harness::world::Holder;
use crate::harness::{World, answer};

/// What is promised for a certificate and a token on the same request: 204 or 200, or a code.
type Verdict = Option<&'static str>;

/// Whose certificate or token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    NodeA,
    NodeB,
    /// Another certificate of the same node.
    NodeASecond,
    /// A reader of the same name as node A.
    ReaderA,
    Operator,
    Receiver,
    Ca,
    Summarizer,
    /// Only as a token: text that is not a token.
    Garbage,
}

use Who::{
    Ca, Garbage, Nobody, NodeA, NodeASecond, NodeB, Operator, ReaderA, Receiver, Summarizer,
};

impl Who {
    fn is_node(self) -> bool {
        matches!(self, NodeA | NodeB | NodeASecond)
    }

    fn name(self) -> &'static str {
        match self {
            NodeB => "b",
            _ => "a",
        }
    }
}

/// Before any route: does the token match the certificate?
fn together(certificate: Who, token: Who) -> Verdict {
    match token {
        Nobody => Some("token_missing"),
        Garbage => Some("token_invalid"),
        _ if token != certificate => Some("certificate_mismatch"),
        _ => None,
    }
}

fn may_write(certificate: Who, token: Who, host: &str) -> Verdict {
    together(certificate, token).or_else(|| {
        if !token.is_node() {
            Some("insufficient_scope")
        } else if token.name() != host {
            Some("wrong_host")
        } else {
            None
        }
    })
}

fn may_read(certificate: Who, token: Who, host: &str) -> Verdict {
    together(certificate, token)
        .or_else(|| (token.is_node() && token.name() != host).then_some("wrong_host"))
}

fn may_list(certificate: Who, token: Who) -> Verdict {
    together(certificate, token).or_else(|| token.is_node().then_some("insufficient_scope"))
}

struct Clients {
    clients: Vec<(Who, reqwest::Client)>,
    tokens: Vec<(Who, Option<String>)>,
}

async fn clients_of_all_roles(world: &World) -> Clients {
    // The second certificate replaces the first on disk, so the first's client is built before.
    let people = [
        (NodeA, world.node("a")),
        (NodeASecond, world.node("a")),
        (NodeB, world.node("b")),
        (ReaderA, world.holder(Role::Reader, "a")),
        (Operator, world.holder(Role::Operator, "root")),
        (Receiver, world.holder(Role::Receiver, "other")),
        (Ca, world.holder(Role::Ca, "other")),
        (Summarizer, world.holder(Role::Summarizer, "other")),
    ];
    let mut tokens = vec![(Nobody, None), (Garbage, Some("x.y.z".to_owned()))];
    for (who, holder) in &people {
        if !matches!(who, Receiver | Ca | Summarizer) {
            tokens.push((*who, Some(world.token(holder).await)));
        }
    }
    let mut clients: Vec<_> = people
        .into_iter()
        .map(|(who, holder)| (who, holder.http))
        .collect();
    clients.push((Nobody, world.client(None, &["http/1.1"])));
    Clients { clients, tokens }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mixture_of_certificate_token_path_and_body() {
    let world = World::start().await;
    let reader = world.reader();
    let Clients { clients, tokens } = clients_of_all_roles(&world).await;
    let epoch = world.clock.now();
    let mut stored = json!({});
    let mut seq = 0;
    for (certificate, client) in &clients {
        for (token, text) in &tokens {
            for host in ["a", "b"] {
                let story =
                    format!("{certificate:?}'s certificate, {token:?}'s token, host {host}");
                let ask = |method: &str, path: String| {
                    let request = client.request(method.parse().unwrap(), world.url(&path));
                    match text {
                        Some(text) => request.bearer_auth(text),
                        None => request,
                    }
                };
                let mut written = false;
                // The body may name any host; it is ignored.
                for values in [
                    json!({"cpu": 1}),
                    json!({"a": 1, "b": 2, "host": 3, "sub": 4}),
                ] {
                    let single =
                        ask("POST", format!("/api/perf/{host}/{epoch}")).body(values.to_string());
                    let verdict = may_write(*certificate, *token, host);
                    check(single, verdict, 204, &story).await;
                    seq += 1;
                    let producer = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
                    let records = json!([{"seq": seq, "epoch": epoch, "values": values}]);
                    let batch =
                        json!({"producer": producer, "host": "b", "sub": "b", "records": records});
                    let batch = ask("POST", format!("/api/perf/{host}")).body(batch.to_string());
                    check(batch, verdict, 200, &story).await;
                    written |= verdict.is_none();
                }
                let verdict = may_read(*certificate, *token, host);
                let hosts_known = !stored[host].is_null() || written;
                let unknown = verdict.or((!hosts_known).then_some("unknown_host"));
                for path in ["perf/{}", "perf/{}/cpu", "delivery/{}"] {
                    let get = ask("GET", format!("/api/{}", path.replace("{}", host)));
                    check(get, unknown, 200, &format!("{story}, {path}")).await;
                }
                check(
                    ask("GET", "/api/perf".into()),
                    may_list(*certificate, *token),
                    200,
                    &story,
                )
                .await;
                let after = world.stored(&reader).await;
                assert_eq!(after != stored, written, "{story}: {after}");
                stored = after;
            }
        }
    }
}

async fn check(request: reqwest::RequestBuilder, verdict: Verdict, good: u16, story: &str) {
    let answer = answer(request).await;
    match verdict {
        Some(code) => {
            answer.refused(code, story);
        }
        None => assert_eq!(answer.status, good, "{story}: {}", answer.text()),
    }
}

/// Producers belong to a host: B's numbers do not affect A's.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_is_known_by_its_host_alone() {
    let world = World::start().await;
    let (a, b) = (world.node("a"), world.node("b"));
    let batch = json!({
        "producer": "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b",
        "records": [{"seq": 1, "epoch": world.clock.now(), "values": {"cpu": 1}}],
    });
    for (holder, duplicate) in [(&a, 0), (&b, 0), (&a, 1), (&b, 1)] {
        let token = world.token(holder).await;
        let path = format!("/api/perf/{}", holder.name);
        let answer = world
            .post(holder, &token, &path, batch.to_string())
            .await
            .json(&holder.name);
        assert_eq!(
            answer,
            json!({"accepted": 1 - duplicate, "duplicate": duplicate}),
            "{}",
            holder.name
        );
    }
}

/// Headers that a proxy might set, and paths that a parser might normalize, do not change the
/// caller's identity.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_certificate_names_the_caller() {
    let world = World::start().await;
    let (a, b, reader) = (world.node("a"), world.node("b"), world.reader());
    let token = world.token(&a).await;
    let b_token = world.token(&b).await;
    let epoch = world.clock.now();
    let b_certificate = std::fs::read_to_string(&b.cert).unwrap().replace('\n', "");
    let anonymous = world.client(None, &["http/1.1"]);
    for (name, value) in [
        ("x-client-cert", b_certificate.as_str()),
        ("x-ssl-client-cert", &b_certificate),
        (
            "x-forwarded-client-cert",
            "URI=spiffe://lizmon.internal/node/b",
        ),
        ("x-ssl-client-verify", "SUCCESS"),
        ("x-ssl-client-s-dn", "CN=b"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1;host=b"),
        ("x-original-url", "/api/perf/b"),
        ("x-http-method-override", "GET"),
        ("host", "b"),
    ] {
        let path = format!("/api/perf/b/{epoch}");
        let post = |client: &reqwest::Client, token: &str| {
            let request = client.post(world.url(&path)).bearer_auth(token);
            request.header(name, value).body(r#"{"cpu":1}"#)
        };
        answer(post(&a.http, &token))
            .await
            .refused("wrong_host", name);
        answer(post(&a.http, &b_token))
            .await
            .refused("certificate_mismatch", name);
        answer(post(&anonymous, &b_token))
            .await
            .refused("certificate_mismatch", name);
    }
    assert_eq!(world.stored(&reader).await, json!({}));
}

/// Certificates expire while a connection is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_stops_an_open_connection() {
    let world = World::start().await;
    let a = world.holder_for(Role::Node, "a", 7_200);
    let reader = world.reader();
    let token = world.token(&a).await;
    world.clock.advance(7_100);
    let fresh = world.token(&a).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    world
        .post(&a, &fresh, &path, r#"{"cpu":1}"#)
        .await
        .no_content("a second before the end");
    world
        .post(&a, &token, &path, r#"{"cpu":1}"#)
        .await
        .refused("token_expired", "a token lives five minutes");
    world.clock.advance(101);
    let stored = world.stored(&reader).await;
    for token in [&fresh, &token] {
        let answer = world.post(&a, token, &path, r#"{"cpu":1}"#).await;
        answer.refused("certificate_expired", "the certificate has ended");
        let answer = world.get(&a, token, "/api/perf/a").await;
        answer.refused("certificate_expired", "the certificate has ended");
    }
    let form = [("grant_type", "client_credentials")];
    let answer = world.ask_token(&a.http, &form).await;
    answer.token_error(401, "invalid_client", "no token for an ended certificate");
    assert_eq!(world.stored(&reader).await, stored);
}

/// A token never outlives its certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_its_certificate() {
    let world = World::start().await;
    let a: Holder = world.holder_for(Role::Node, "a", 7_200);
    world.clock.advance(7_190);
    let form = [("grant_type", "client_credentials")];
    let answer = world.ask_token(&a.http, &form).await.json("a token");
    let expires_in = answer["expires_in"].as_u64().unwrap();
    assert!(expires_in <= 11, "{expires_in}");
}
