//! OpenTelemetry sends metrics: its SDK, and requests as they come over the wire.

mod requests;
mod sdk;

use serde_json::Value;

use crate::harness::{Holder, World};

/// By series: number of samples of the last day and their sum, about.
async fn stored(world: &World, reader: &Holder, host: &str) -> Vec<(String, u64, f64)> {
    let token = world.token(reader).await;
    let path = format!("/api/perf/{host}");
    let got = world.get(reader, &token, &path).await;
    if got.status == 404 {
        return Vec::new();
    }
    let summaries = got.json(host);
    let by_hour = summaries.as_object().unwrap().iter();
    let by_hour = by_hour.filter_map(|(name, summary)| {
        let label = name.strip_prefix("summary:by-hour:")?;
        let averages = summary["averages"].as_array().unwrap();
        let count = |average: &Value| average["num-samples"].as_u64().unwrap();
        let sum = |average: &Value| average["avg"].as_f64().unwrap() * count(average) as f64;
        let counted = averages.iter().map(count).sum();
        Some((label.to_owned(), counted, averages.iter().map(sum).sum()))
    });
    by_hour.collect()
}
