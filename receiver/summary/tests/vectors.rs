//! The summaries of the first lizmon, to the digit: its input, and what it answered.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use lizmon_summary::{Series, TIERS, Window};
use serde_json::{Map, Value, json};

const VECTORS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/summaries.json"
);

#[test]
fn every_vector() {
    let text = std::fs::read_to_string(VECTORS).expect("the vectors are in tests/vectors");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("the vectors are JSON");
    assert_eq!(cases.len(), 56);
    for case in &cases {
        check(case);
    }
}

fn check(case: &Value) {
    let now = case["now"].as_u64().expect("now");
    assert!(case["filter"].is_null(), "no vector filters");
    let mut series = BTreeMap::<&str, Series>::new();
    for sample in case["samples"].as_array().expect("samples") {
        let label = sample["label"].as_str().expect("label");
        let epoch = sample["epoch"].as_u64().expect("epoch");
        let value = &sample["value"];
        let value = value
            .as_f64()
            .or_else(|| value.as_str()?.parse().ok())
            .expect("value");
        series.entry(label).or_default().apply(epoch, value);
    }
    let mut got = Map::new();
    for (label, series) in &series {
        for (index, tier) in TIERS.iter().enumerate() {
            if let Some(window) = series.window(index, now) {
                got.insert(format!("summary:{}:{label}", tier.name), as_told(&window));
            }
        }
    }
    // As text, for -0.0 equals 0.0 and yet is not it.
    assert_eq!(
        Value::Object(got).to_string(),
        case["expect"].to_string(),
        "{}",
        case["name"]
    );
}

/// The first lizmon told neither least nor greatest.
fn as_told(window: &Window) -> Value {
    let averages: Vec<_> = window
        .averages
        .iter()
        .map(|average| {
            json!({
                "start-sec": average.start,
                "end-sec": average.end,
                "interval-size-sec": window.width_secs,
                "num-samples": average.count,
                "avg": average.avg,
            })
        })
        .collect();
    json!({
        "start": window.start,
        "end": window.end,
        "timeslice-size-sec": window.width_secs,
        "average-count": averages.len(),
        "averages": averages,
    })
}
