//! What is remembered of a producer's numbers: gaps, numbers given up, and how much of it there may be.

use serde_json::{Value, json};

use crate::harness::{Answer, Holder, World};

const PRODUCERS_MAX: u64 = 64;
const RANGES_MAX: u64 = 1_024;

fn producer(at: u64) -> String {
    format!("1b4e28ba-2fa1-4d3b-a3f5-{at:012x}")
}

struct Stage {
    world: World,
    node: Holder,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let node = world.node("a");
        Self { world, node }
    }

    async fn send(&self, at: u64, seqs: impl IntoIterator<Item = u64>, dropped: Value) -> Answer {
        let epoch = self.world.clock.now();
        let record = |seq| json!({"seq": seq, "epoch": epoch, "values": {"cpu": 1}});
        let records: Vec<_> = seqs.into_iter().map(record).collect();
        let batch = json!({"producer": producer(at), "records": records, "dropped": dropped});
        let token = self.world.token(&self.node).await;
        self.world
            .post(&self.node, &token, "/api/perf/a", batch.to_string())
            .await
    }

    async fn taken(&self, at: u64, seqs: impl IntoIterator<Item = u64>, story: &str) {
        self.send(at, seqs, json!([])).await.json(story);
    }

    async fn told(&self) -> Vec<Value> {
        let token = self.world.token(&self.node).await;
        let got = self.world.get(&self.node, &token, "/api/delivery/a").await;
        got.json("delivery")["producers"]
            .as_array()
            .expect("a list")
            .clone()
    }

    async fn told_of_first(&self) -> Value {
        self.told()
            .await
            .into_iter()
            .find(|told| told["producer"] == producer(0))
            .expect("it is known")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_at_and_over_the_limit() {
    let mut stage = Stage::set().await;
    for at in 0..PRODUCERS_MAX {
        stage.taken(at, [1], "a new producer").await;
    }
    for story in ["at once", "after a restart"] {
        let before = stage.told().await;
        assert_eq!(before.len() as u64, PRODUCERS_MAX, "{story}");
        let refused = stage.send(PRODUCERS_MAX, [1], json!([])).await;
        refused.refused("invalid_values", story);
        assert_eq!(
            stage.told().await,
            before,
            "{story}: nothing of it is stored"
        );
        stage.world.restart().await;
    }
    stage
        .taken(PRODUCERS_MAX - 1, [2], "a known one goes on")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_at_and_over_the_limit() {
    let mut stage = Stage::set().await;
    // Every second number: as many ranges.
    stage
        .taken(0, (0..RANGES_MAX).map(|at| 2 * at + 1), "as many as may be")
        .await;
    let next = 2 * RANGES_MAX + 1;
    for story in ["at once", "after a restart"] {
        let before = stage.told_of_first().await;
        assert_eq!(
            before["missing"].as_array().unwrap().len() as u64,
            RANGES_MAX - 1,
            "{story}"
        );
        let refused = stage.send(0, [next], json!([])).await;
        refused.refused("invalid_values", story);
        assert_eq!(
            stage.told_of_first().await,
            before,
            "{story}: nothing of it is stored"
        );
        stage.world.restart().await;
    }
    stage.taken(0, [2], "a gap may be filled").await;
    stage
        .taken(0, [next], "and then there is room for one more")
        .await;
    stage.taken(0, 1..=next, "all of it").await;
    let told = stage.told_of_first().await;
    assert_eq!(
        (&told["missing"], &told["received"]),
        (&json!([]), &json!(next))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_given_up_are_told_from_missing_ones() {
    let mut stage = Stage::set().await;
    stage.taken(0, [1, 2, 9, 20], "with gaps").await;
    for (dropped, told_dropped, missing) in [
        (json!([]), json!([]), json!([[3, 8], [10, 19]])),
        (
            json!([[3, 5, "the spool was full"]]),
            json!([[3, 5, "the spool was full"]]),
            json!([[6, 8], [10, 19]]),
        ),
        // To say it again changes nothing.
        (
            json!([[3, 5, "the spool was full"]]),
            json!([[3, 5, "the spool was full"]]),
            json!([[6, 8], [10, 19]]),
        ),
        (
            json!([[10, 19, "refused: epoch_too_old"]]),
            json!([
                [3, 5, "the spool was full"],
                [10, 19, "refused: epoch_too_old"]
            ]),
            json!([[6, 8]]),
        ),
    ] {
        let story = dropped.to_string();
        let got = stage.send(0, [], dropped).await.json(&story);
        assert_eq!(got, json!({"accepted": 0, "duplicate": 0}), "{story}");
        for when in ["at once", "after a restart"] {
            let told = stage.told_of_first().await;
            assert_eq!(
                (&told["dropped"], &told["missing"]),
                (&told_dropped, &missing),
                "{story} {when}"
            );
            assert_eq!(told["received"], 4, "{story} {when}");
            stage.world.restart().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_cannot_be_given_up() {
    let stage = Stage::set().await;
    stage.taken(0, [1, 9], "with a gap").await;
    let before = stage.told().await;
    let many: Vec<_> = (1..=1_025_u64)
        .map(|at| json!([2 * at, 2 * at, "x"]))
        .collect();
    for (dropped, codes) in [
        (json!([[0, 5, "x"]]), &["invalid_values"][..]),
        (json!([[5, 3, "x"]]), &["invalid_values"]),
        (json!([[-1, 3, "x"]]), &["invalid_values"]),
        (json!([[2.5, 3, "x"]]), &["invalid_values"]),
        (
            json!([[2, 9_007_199_254_740_992_u64, "x"]]),
            &["invalid_values"],
        ),
        (json!([[2, 3, ""]]), &["invalid_values"]),
        (json!([[2, 3, "a\nb"]]), &["invalid_values"]),
        (json!([[2, 3, "x".repeat(129)]]), &["invalid_values"]),
        (json!(many), &["invalid_values"]),
        (json!([[2, 3]]), &["malformed_json", "invalid_values"]),
        (json!([[2, 3, 4]]), &["malformed_json", "invalid_values"]),
        (json!([2, 3, "x"]), &["malformed_json", "invalid_values"]),
        (json!({}), &["malformed_json", "invalid_values"]),
    ] {
        let story = dropped.to_string().chars().take(80).collect::<String>();
        let got = stage.send(0, [2], dropped).await;
        let code = codes.iter().find(|code| got.text().contains(**code));
        got.refused(code.copied().unwrap_or(codes[0]), &story);
        assert_eq!(
            stage.told().await,
            before,
            "{story}: the records beside it are refused too"
        );
    }
}
