//! What Prometheus computes is what the API says.

use lizmon_protocol::name::Role;
use lizmon_summary::round_to_cents;
use serde_json::{Value, json};

use super::server::{Prometheus, documented};
use crate::harness::{Holder, World};

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
const DISK: &str = "disk-used:/home";
const REQUESTS: &str = r#"requests{code="200"}"#;
const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

/// Samples of one hour: of `cpu` more in some minutes than in others.
fn records(hour: u64, from: u64) -> Vec<Value> {
    let all = (1..=HOUR / 20).map(|step| {
        let epoch = hour + step * 20;
        // The same in each run, whatever the time: what is rounded is never rounded otherwise.
        let seq = (epoch - from) / 20;
        let number = seq % 997;
        let mut values = json!({"mem": number as f64 / 7.0, DISK: 0.5, REQUESTS: 2});
        if !seq.is_multiple_of(7) {
            values["cpu"] = json!((number * number % 101) as f64 / 3.0);
        }
        json!({"seq": seq, "epoch": epoch, "values": values})
    });
    all.collect()
}

/// So many hours of samples, the clock moving along; half a minute after the last of them.
async fn sampled(world: &World, node: &Holder, hours: u64) -> u64 {
    let first = world.clock.now() / HOUR * HOUR;
    for hour in 0..hours {
        let start = first + hour * HOUR;
        world.clock.set(start + HOUR);
        let token = world.token(node).await;
        let batch = json!({"producer": PRODUCER, "records": records(start, first)});
        let path = format!("/api/perf/{}", node.name);
        world
            .post(node, &token, &path, batch.to_string())
            .await
            .json("a batch");
    }
    world.clock.advance(30);
    first + hours * HOUR
}

/// The ends and averages of intervals, as the API gives them.
fn averages(intervals: &Value, until: u64) -> Vec<(u64, f64)> {
    let all = intervals.as_array().unwrap().iter();
    let point = |of: &Value| (of["end-sec"].as_u64().unwrap(), of["avg"].as_f64().unwrap());
    all.map(point).filter(|(end, _)| *end <= until).collect()
}

fn to_cents(points: Vec<(u64, f64)>) -> Vec<(u64, f64)> {
    let points = points.into_iter();
    points
        .map(|(end, value)| (end, round_to_cents(value)))
        .collect()
}

fn by_hour(summaries: &Value, label: &str, end: u64, what: &str) -> f64 {
    let hours = summaries[format!("summary:by-hour:{label}")]["averages"]
        .as_array()
        .unwrap();
    let hour = hours.iter().find(|hour| hour["end-sec"] == end);
    hour.unwrap_or_else(|| panic!("no hour ends at {end}"))[what]
        .as_f64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_computes_what_the_api_says() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.holder(Role::Reader, "prom1"));
    let end = sampled(&world, &node, 52).await;
    let token = world.token(&reader).await;
    let get = async |path: &str| world.get(&reader, &token, path).await.json(path);
    let summaries = get("/api/perf/web1").await;
    // It has labels of its own.
    let config = format!(
        "global: {{external_labels: {{site: lan}}}}\n{}",
        documented(&world, "## Reading: remote_read")
    );
    let prometheus = Prometheus::start(&world, &reader, &config);

    // Each minute of the last hour, each hour before, and each day.
    let minutes = averages(&summaries["summary:by-minute:cpu"]["averages"], end);
    assert_eq!(minutes.len(), 60);
    let of_hour = (end - HOUR + MINUTE, end);
    let cpu = "cpu{host=\"web1\"}";
    let found = prometheus.range(cpu, of_hour, MINUTE).await;
    assert_eq!(to_cents(found), minutes);
    let disk = "disk_used{label=\"disk-used:/home\"}";
    let found = prometheus.range(disk, of_hour, MINUTE).await;
    assert!(found.len() == 60 && found.iter().all(|(_, value)| *value == 0.5));
    let hours = averages(&get("/api/history/web1/cpu").await["intervals"], end);
    assert_eq!(hours.len(), 52);
    let all_hours = (end - 52 * HOUR, end);
    let of_range = "avg_over_time(cpu[3601s])";
    let found = prometheus
        .range("last_over_time(cpu[3601s])", all_hours, HOUR)
        .await;
    assert_eq!(to_cents(found), hours);
    let days = averages(
        &get("/api/history/web1/cpu?tier=by-day").await["intervals"],
        end,
    );
    let midnight = days.last().unwrap().0;
    let found = prometheus
        .range("last_over_time(cpu[32d])", (midnight, midnight), DAY)
        .await;
    assert_eq!(to_cents(found), days[days.len() - 1..]);

    // What is computed over a whole hour of minutes is that hour. Of mem every minute has as many
    // samples.
    let value = async |query: &str| prometheus.value(query, end).await;
    let of_api = |label, what| by_hour(&summaries, label, end, what);
    assert_eq!(
        round_to_cents(value("avg_over_time(mem[59m59s])").await),
        of_api("mem", "avg")
    );
    let quotient = "sum_over_time(cpu{stat=\"sum\"}[59m59s]) / ignoring(stat) sum_over_time(cpu{stat=\"count\"}[59m59s])";
    assert_eq!(round_to_cents(value(quotient).await), of_api("cpu", "avg"));
    for (stat, what) in [("min", "min"), ("max", "max")] {
        let query = format!("{stat}_over_time(cpu{{stat=\"{stat}\"}}[59m59s])");
        assert_eq!(value(&query).await, of_api("cpu", what), "{query}");
    }
    let count = value("sum_over_time(cpu{stat=\"count\"}[59m59s])").await;
    assert_eq!(count, of_api("cpu", "num-samples"));
    // The mean of the minutes as they are, which the rounded ones are near.
    let mean = minutes.iter().map(|(_, avg)| avg).sum::<f64>() / 60.0;
    let found = value("avg_over_time(cpu[59m59s])").await;
    assert!((found - mean).abs() <= 0.005, "{found} {mean}");
    // Two hours are hours, and weigh the same.
    let found = prometheus.value(of_range, end).await;
    let two = (hours[50].1 + hours[51].1) / 2.0;
    assert!((found - two).abs() <= 0.005, "{found} {two}");

    // Everything of the host, and the selectors that leave some of it out.
    for (query, count) in [
        ("count({host=\"web1\"})", 4.0),
        ("count({host=\"web1\",stat=~\".*\"})", 24.0),
        ("count({host=~\"web.\",__name__=~\"cpu|mem\"})", 2.0),
        (
            "count({host=~\"web\"} or {host!=\"\",__name__!~\"c.*|d.*\"})",
            2.0,
        ),
        ("count(requests{code=\"200\"})", 1.0),
        ("sum(requests{code!=\"500\"})", 2.0),
    ] {
        assert_eq!(value(query).await, count, "{query}");
    }
}
