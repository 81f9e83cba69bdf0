//! Requests that must be refused: a table for every route, and after each row the receiver runs and
//! its data is unchanged.

mod bodies;
mod bytes;
mod packed;
mod requests;
mod tokens;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Holder, World, answer};

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

/// A node with a token, and a reader to see the stored data.
struct Stage {
    world: World,
    node: Holder,
    token: String,
    reader: Holder,
    stored: Value,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let (node, reader) = (world.node("a"), world.reader());
        let token = world.token(&node).await;
        let path = format!("/api/perf/a/{}", world.clock.now());
        world
            .post(&node, &token, &path, r#"{"cpu":1}"#)
            .await
            .no_content("the first");
        let stored = world.stored(&reader).await;
        Self {
            world,
            node,
            token,
            reader,
            stored,
        }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method: Method = method.parse().expect("a method");
        self.node
            .http
            .request(method, self.world.url(path))
            .bearer_auth(&self.token)
    }

    fn single(&self) -> reqwest::RequestBuilder {
        self.request("POST", &format!("/api/perf/a/{}", self.world.clock.now()))
    }

    fn batch(&self) -> reqwest::RequestBuilder {
        self.request("POST", "/api/perf/a")
    }

    /// Checks that nothing new is stored and the receiver runs.
    async fn unchanged(&self, story: &str) {
        self.world.healthy().await;
        assert_eq!(
            self.world.stored(&self.reader).await,
            self.stored,
            "{story}"
        );
    }

    async fn refused(&self, request: reqwest::RequestBuilder, code: &str, story: &str) -> Value {
        let problem = answer(request).await.refused(code, story);
        self.unchanged(story).await;
        problem
    }

    /// The request is accepted; later rows must not change what is stored now.
    async fn taken(&mut self, request: reqwest::RequestBuilder, story: &str) -> Answer {
        let answer = answer(request).await;
        assert!(
            matches!(answer.status, 200 | 204),
            "{story}: {} {}",
            answer.status,
            answer.text()
        );
        self.stored = self.world.stored(&self.reader).await;
        answer
    }
}

fn record(seq: u64, epoch: u64, values: Value) -> Value {
    json!({"seq": seq, "epoch": epoch, "values": values})
}

fn batch_of(records: &[Value]) -> String {
    json!({"producer": PRODUCER, "records": records}).to_string()
}
