//! Event streams: what they tell, and that they end with the right to read.

use std::fs;
use std::time::{Duration, Instant};

use lizmon_ca::pki::Reason;
use lizmon_protocol::name::Role;
use serde_json::Value;

use super::post;
use crate::harness::process::PATIENCE;
use crate::harness::{Holder, World, answer};

/// An open stream.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(world: &World, holder: &Holder, path: &str, token: Option<&str>) -> Self {
        let mut request = holder.http.get(world.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        let media_type = response.headers()["content-type"].to_str();
        assert_eq!(media_type.expect("text"), "text/event-stream");
        let text = String::new();
        Self { response, text }
    }

    /// The data of the next event; none at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.strip_prefix("event: summaries\ndata: ");
                let data = data.map(|data| serde_json::from_str(data).expect("JSON"));
                self.text = rest.to_owned();
                if data.is_some() {
                    return data;
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("something comes, or it ends");
            let chunk = chunk.expect("a stream ends whole")?;
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// The next event that this is true of.
    async fn until(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().await.expect("an event");
            if is_wanted(&event) {
                return event;
            }
        }
    }

    /// Reads to the end, and returns how long that took.
    #[expect(clippy::disallowed_methods, reason = "measured, not asserted")]
    async fn end(mut self) -> Duration {
        let begin = Instant::now();
        while self.next().await.is_some() {}
        begin.elapsed()
    }
}

/// Revokes the holder's certificate, and pushes the CRL.
pub(super) async fn revoke(world: &World, operator: &Holder, holder: &Holder) {
    let entries = world.ca.entries().expect("a ledger");
    let entry = entries.iter().rfind(|entry| entry.name == holder.name);
    let serial = entry.expect("it was issued").serial.parse().expect("hex");
    let now = world.clock.now();
    let revoked = world.ca.revoke(&serial, Reason::KeyCompromise, now);
    revoked.expect("it is revoked");
    let list = fs::read(world.certs().join("crl.pem")).expect("a CRL");
    let token = world.token(operator).await;
    let put = operator.http.put(world.url("/api/crl")).bearer_auth(token);
    answer(put.body(list)).await.no_content("the CRL");
}

const STREAMS: [&str; 3] = ["/live", "/live?host=web1", "/api/live"];

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_readers_certificate() {
    let world = World::start().await;
    let operator = world.holder(Role::Operator, "root");
    post(&world, &world.node("web1"), r#"{"cpu": 1}"#).await;
    for (at, path) in STREAMS.into_iter().enumerate() {
        let reader = world.holder(Role::Reader, &format!("gone{at}"));
        let token = world.token(&reader).await;
        let mut stream = Stream::open(&world, &reader, path, Some(&token)).await;
        assert!(stream.next().await.is_some(), "{path}");
        revoke(&world, &operator, &reader).await;
        eprintln!(
            "{path}: ended {:?} after the CRL was pushed",
            stream.end().await
        );
    }
    // Another reader's goes on until the certificate ends.
    let reader = world.reader();
    let mut stream = Stream::open(&world, &reader, "/live", None).await;
    assert!(stream.next().await.is_some());
    world.clock.advance(91 * 86_400);
    stream.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    post(&world, &node, r#"{"cpu": 1}"#).await;
    let token = world.token(&reader).await;
    let mut with_token = Stream::open(&world, &reader, "/api/live", Some(&token)).await;
    let mut without = Stream::open(&world, &reader, "/live?host=web1", None).await;
    assert!(with_token.next().await.is_some() && without.next().await.is_some());
    world.clock.advance(301);
    with_token.end().await;
    post(&world, &node, r#"{"cpu": 2}"#).await;
    assert!(
        without.next().await.is_some(),
        "a certificate has no token to end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_as_events() {
    let world = World::start().await;
    let (web1, web2, reader) = (world.node("web1"), world.node("web2"), world.reader());
    post(&world, &web1, r#"{"cpu": 1}"#).await;
    let token = world.token(&reader).await;
    let own = world.token(&web2).await;
    let mut all = Stream::open(&world, &reader, "/api/live", Some(&token)).await;
    let mut one = Stream::open(&world, &web2, "/api/live?host=web2", Some(&own)).await;
    let mut page = Stream::open(&world, &reader, "/live?host=web1", None).await;
    let first = all.next().await.expect("an event");
    assert_eq!(first["hosts"][0]["name"], "web1");
    assert_eq!(first["hosts"][0]["newest"]["cpu"]["avg"], 1.0);
    let first = page.next().await.expect("an event");
    assert!(
        first["set"]
            .to_string()
            .contains(r#"["l0v","text","1.00 %"]"#),
        "{first}"
    );

    world.clock.advance(1);
    post(&world, &web2, r#"{"<b>שלום": 7}"#).await;
    let second = all.next().await.expect("an event");
    let hosts = second["hosts"].as_array().expect("hosts");
    assert_eq!(hosts.len(), 1, "what has not changed is not told: {second}");
    assert_eq!(hosts[0]["newest"]["<b>שלום"]["num-samples"], 1);
    let of_one = one.next().await.expect("an event");
    assert_eq!(of_one["hosts"], second["hosts"]);

    post(&world, &web1, r#"{"cpu": 3}"#).await;
    let is_newer = |event: &Value| {
        event["set"]
            .to_string()
            .contains(r#"["l0v","text","2.00 %"]"#)
    };
    let newer = page.until(is_newer).await;
    assert_eq!(newer["rows"][0][3][1], "2 so far", "{newer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_has_a_maximum_of_streams() {
    const MAX: usize = 32;
    let world = World::start().await;
    let (reader, other) = (world.reader(), world.holder(Role::Reader, "other"));
    let mut streams = Vec::new();
    for _ in 0..MAX {
        let mut stream = Stream::open(&world, &reader, "/live", None).await;
        assert!(stream.next().await.is_some());
        streams.push(stream);
    }
    let over = answer(reader.http.get(world.url("/live"))).await;
    over.refused("rate_limited", "one more");
    let mut stream = Stream::open(&world, &other, "/live", None).await;
    assert!(stream.next().await.is_some(), "another holder");
    drop(streams.pop());
    // The receiver notices that a connection was closed when it looks at it next.
    let opened = async {
        while answer(reader.http.get(world.url("/live?events=1")))
            .await
            .status
            != 200
        {}
    };
    let in_time = tokio::time::timeout(PATIENCE, opened).await;
    in_time.expect("a stream that was left makes room");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_do_not_hold_up_a_stop() {
    let mut world = World::start().await;
    let reader = world.reader();
    let mut streams = Vec::new();
    for alpn in ["http/1.1", "h2"] {
        let mut reader = reader.clone();
        reader.http = world.client(Some(reader.shown()), &[alpn]);
        let mut stream = Stream::open(&world, &reader, "/live", None).await;
        assert!(stream.next().await.is_some());
        streams.push(stream);
    }
    let stopped = tokio::time::timeout(DRAIN, world.stop()).await;
    stopped.expect("it does not wait for its readers");
    for stream in streams {
        stream.end().await;
    }
}

/// Less than the time after which a stop closes what is still open.
const DRAIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_connection() {
    let world =
        World::start_with(|config| config.limits.connection_age = Duration::from_secs(2)).await;
    let reader = world.reader();
    for alpn in ["http/1.1", "h2"] {
        let mut reader = reader.clone();
        reader.http = world.client(Some(reader.shown()), &[alpn]);
        let mut stream = Stream::open(&world, &reader, "/live", None).await;
        assert!(stream.next().await.is_some());
        stream.end().await;
        // As a browser does.
        let mut stream = Stream::open(&world, &reader, "/live", None).await;
        assert!(stream.next().await.is_some(), "{alpn}");
    }
}
