//! What is remembered of a producer's numbers: gaps, dropped numbers, and the limits.

use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::harness::{Answer, Holder, World, answer};

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
    // Every second number, so as many ranges.
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
async fn dropped_numbers_are_distinguished_from_missing_ones() {
    let mut stage = Stage::set().await;
    stage.taken(0, [1, 2, 9, 20], "with gaps").await;
    for (dropped, told_dropped, missing) in [
        (json!([]), json!([]), json!([[3, 8], [10, 19]])),
        (
            json!([[3, 5, "the spool was full"]]),
            json!([[3, 5, "the spool was full"]]),
            json!([[6, 8], [10, 19]]),
        ),
        // Repeating it changes nothing.
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

/// Records that are sent again because they were lost count as repaired where they are new.
#[tokio::test(flavor = "multi_thread")]
async fn repaired_numbers_are_told_apart() {
    let mut stage = Stage::set().await;
    stage.taken(0, [1, 2, 9], "with a gap").await;
    let epoch = stage.world.clock.now();
    let records = (2..=5).map(|seq| json!({"seq": seq, "epoch": epoch, "values": {"cpu": 1}}));
    let records: Vec<_> = records.collect();
    let repair = json!({"producer": producer(0), "records": records, "repair": true}).to_string();
    for (accepted, duplicate) in [(3, 1), (0, 5)] {
        let token = stage.world.token(&stage.node).await;
        let sent = stage
            .world
            .post(&stage.node, &token, "/api/perf/a", repair.clone());
        let answer = sent.await.json("a repair");
        assert_eq!(
            answer,
            json!({"accepted": accepted, "duplicate": 4 - accepted})
        );
        for when in ["at once", "after a restart"] {
            let told = stage.told_of_first().await;
            let counts = ["received", "repaired", "highest"].map(|key| &told[key]);
            assert_eq!(counts, [&json!(6), &json!(3), &json!(9)], "{when}");
            assert_eq!(told["missing"], json!([[6, 8]]), "{when}");
            assert_eq!(told["duplicate"], json!(duplicate), "{when}");
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

/// Regression: permanently missing numbers were reported as lost forever.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_acknowledges_missing_numbers() {
    let mut stage = Stage::set().await;
    stage.taken(0, [1, 5, 9], "with gaps").await;
    stage.taken(1, [3], "another producer").await;
    let operator = stage.world.holder(Role::Operator, "op");
    let reader = stage.world.reader();
    let path = "/api/delivery/a/acknowledged";
    let acknowledge = async |stage: &Stage, who: &Holder, path: &str, body: &str| {
        let token = stage.world.token(who).await;
        stage.world.post(who, &token, path, body.to_owned()).await
    };
    let good = r#"{"why":"the disk broke"}"#;
    for (who, body, code) in [
        (&reader, good, "insufficient_scope"),
        (&stage.node, good, "insufficient_scope"),
        (&operator, "", "malformed_json"),
        (&operator, "{}", "malformed_json"),
        (&operator, r#"{"why":"a\nb"}"#, "invalid_values"),
        (&operator, r#"{"why":" "}"#, "invalid_values"),
    ] {
        acknowledge(&stage, who, path, body)
            .await
            .refused(code, body);
    }
    let long = format!(r#"{{"why":"{}"}}"#, "x".repeat(115));
    let refused = acknowledge(&stage, &operator, path, &long).await;
    refused.refused("invalid_values", "too long");
    let unknown = acknowledge(&stage, &operator, "/api/delivery/b/acknowledged", good).await;
    unknown.refused("unknown_host", "nobody");
    for count in [8, 0] {
        let got = acknowledge(&stage, &operator, path, good)
            .await
            .json("acknowledged");
        assert_eq!(got, json!({"acknowledged": count}));
    }
    for story in ["at once", "after a restart"] {
        let told = stage.told_of_first().await;
        assert_eq!(told["missing"], json!([]), "{story}");
        let why = "acknowledged: the disk broke";
        assert_eq!(
            told["dropped"],
            json!([[2, 4, why], [6, 8, why]]),
            "{story}"
        );
        assert_eq!(told["received"], json!(3), "{story}");
        stage.world.restart().await;
    }
    // A number that arrives after all counts.
    stage.taken(0, [7], "late").await;
    assert_eq!(stage.told_of_first().await["received"], json!(4));
}

/// Regression: receiver and node share a clock that is ahead for one sample; a day of data was
/// pushed out, and audit reported nothing lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ahead_for_one_sample_costs_nothing() {
    let mut stage = Stage::set().await;
    let now = stage.world.clock.now();
    let minutes: Vec<u64> = (0..1_400).collect();
    let records = minutes.iter().map(
        |minute| json!({"seq": minute + 1, "epoch": now - minute * 60, "values": {"cpu": 10}}),
    );
    let records: Vec<_> = records.collect();
    let batch = json!({"producer": producer(0), "records": records}).to_string();
    let send = async |stage: &Stage, body: &str| {
        let token = stage.world.token(&stage.node).await;
        let body = body.to_owned();
        stage
            .world
            .post(&stage.node, &token, "/api/perf/a", body)
            .await
    };
    let history = async |stage: &Stage| {
        let token = stage.world.token(&stage.node).await;
        let got = stage
            .world
            .get(&stage.node, &token, "/api/perf/a/cpu")
            .await;
        let got = got.json("history");
        let count = |name: &str| got[name]["average-count"].as_u64().unwrap_or(0);
        (count("summary:by-minute:cpu"), count("summary:by-hour:cpu"))
    };
    send(&stage, &batch).await.json("a day");
    let before = history(&stage).await;
    assert!(before.0 >= 59 && before.1 >= 23, "{before:?}");
    for ahead in [3 * 3_600, 12 * 3_600] {
        stage.world.clock.set(now + ahead);
        stage.world.restart().await;
        let refused = stage.send(1, [1], json!([])).await;
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        refused.refused("clock_unsteady", "one sample");
        // Readers are informed, with the receiver's time.
        let reader = stage.world.reader();
        let health = stage.world.url("/healthz");
        let health = answer(reader.http.get(health)).await.json("health");
        let warnings = health["warnings"].as_array().unwrap();
        let says = format!("it says {}, ", lizmon_pki::date::rfc3339(now + ahead));
        let mut of_clock = warnings.iter().filter_map(Value::as_str);
        let is_told = of_clock.any(|told| told.contains(&says) && told.contains("clock_unsteady"));
        assert!(is_told, "{warnings:?}");
        let metrics = answer(reader.http.get(stage.world.url("/metrics"))).await;
        let metrics = metrics.text();
        let warnings = format!("lizmon_health_warnings{{}} {}", warnings.len());
        for line in ["lizmon_clock_steady 0", &warnings] {
            assert!(
                metrics.lines().any(|found| found == line),
                "{line}: {metrics}"
            );
        }
        stage.world.clock.set(now);
        stage.world.restart().await;
        assert_eq!(history(&stage).await, before, "{ahead}");
        let known = send(&stage, &batch).await.json("the day again");
        assert_eq!(known, json!({"accepted": 0, "duplicate": 1_400}));
    }
    stage.taken(1, [1], "and on it goes").await;
}
