//! The SDK from PyPI, with the settings of the documentation: all of its instruments, over both
//! encodings, as they add up and as they change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::stored;
use crate::documents::root;
use crate::harness::process::run;
use crate::harness::{Holder, World, answer};
use crate::oauth_clients::python;

/// The block of the documentation in this language, with names of this world.
fn block(world: &World, holder: &Holder, language: &str) -> String {
    let page = fs::read_to_string(root().join("docs/opentelemetry.md")).unwrap();
    let (_, block) = page.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let mut block = block.replace("https://rx1.example:8443", &world.issuer());
    for (file, path) in [
        ("root.crt", &world.root()),
        ("web1.crt", &holder.cert),
        ("web1.key", &holder.key),
    ] {
        block = block.replace(&format!("/etc/lizmon/{file}"), &path.display().to_string());
    }
    block
}

/// The variables that the documentation exports.
fn variables(block: &str) -> Vec<(String, String)> {
    let lines = block
        .lines()
        .filter_map(|line| line.strip_prefix("export "));
    let pairs = lines.map(|line| line.split_once('=').unwrap());
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
    pairs.collect()
}

/// What a run of the SDK has sent.
struct Sent(Vec<Value>);

/// Runs the SDK with the holder's certificate.
async fn send(
    (world, holder, folder): (&World, &Holder, &Path),
    [encoding, temporality, host, service]: [&str; 4],
) -> Sent {
    let mut command = python("otlp_sdk.py");
    command.arg(folder);
    command.args([encoding, temporality, host, service]);
    command.envs(variables(&block(world, holder, "sh")));
    let finished = tokio::task::spawn_blocking(move || run(&mut command)).await;
    let said = finished.unwrap().success();
    Sent(serde_json::from_str(said.trim()).unwrap())
}

/// A folder with the module of the documentation.
fn module(world: &World, holder: &Holder) -> PathBuf {
    let folder = world.folder().join("sdk");
    fs::create_dir(&folder).unwrap();
    let module = block(world, holder, "python");
    fs::write(folder.join("lizmon_metrics.py"), module).unwrap();
    folder
}

/// A counter's value and its time, and when it was at zero, in milliseconds.
type Point = (f64, u64, u64);

/// What its points come to.
#[derive(Debug, Default)]
struct Expected {
    count: u64,
    sum: f64,
    last: Option<Point>,
}

impl Expected {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    fn add_counter(&mut self, (value, time, start): Point) {
        let last = self.last.map(|(value, time, _)| (value, time));
        let (before, since) = last.unwrap_or((0.0, start));
        self.add((value - before) * 1_000.0 / (time - since) as f64);
        self.last = Some((value, time, start));
    }
}

impl Sent {
    fn results(&self) -> Vec<&str> {
        let results = self.0.iter().map(|export| &export["result"]);
        results.map(|result| result.as_str().unwrap()).collect()
    }

    /// What is to be stored, by series.
    fn expected(&self, service: &str) -> BTreeMap<String, Expected> {
        let mut expected = BTreeMap::new();
        for export in &self.0 {
            let scopes = &export["metrics"]["resource_metrics"][0]["scope_metrics"];
            for metric in scopes[0]["metrics"].as_array().unwrap() {
                add_metric(&mut expected, metric, service);
            }
        }
        expected
    }
}

fn add_metric(expected: &mut BTreeMap<String, Expected>, metric: &Value, service: &str) {
    let name = metric["name"].as_str().unwrap().replace('.', "_");
    let data = &metric["data"];
    for point in data["data_points"].as_array().unwrap() {
        let labels = labels(&point["attributes"], service);
        let nanos = |name: &str| point[name].as_u64().unwrap_or(0);
        let (start, time) = (nanos("start_time_unix_nano"), nanos("time_unix_nano"));
        let mut add = |end: &str, value: &Value, temporality: &Value, is_counter: bool| {
            let of = expected
                .entry(format!("{name}{end}{{{labels}}}"))
                .or_default();
            let value = value.as_f64().unwrap();
            match temporality.as_u64() {
                // Delta.
                Some(1) => of.add(value * 1e9 / (time - start) as f64),
                Some(2) if is_counter => {
                    of.add_counter((value, time / 1_000_000, start / 1_000_000))
                }
                _ => of.add(value),
            }
        };
        let temporality = &data["aggregation_temporality"];
        match point.get("count") {
            Some(count) => {
                add("_count", count, temporality, true);
                add("_sum", &point["sum"], temporality, true);
                add("_min", &point["min"], &Value::Null, false);
                add("_max", &point["max"], &Value::Null, false);
            }
            None => {
                let is_monotonic = data["is_monotonic"].as_bool().unwrap_or(false);
                add("", &point["value"], temporality, is_monotonic);
            }
        }
    }
}

fn labels(attributes: &Value, service: &str) -> String {
    let attributes = attributes.as_object().unwrap().iter();
    let attributes = attributes.map(|(key, value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (key.replace('.', "_"), value)
    });
    let own = [("job", service), ("otel_scope_name", "shop.lib")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all: BTreeMap<_, _> = attributes.chain(own).collect();
    let pairs: Vec<_> = all
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    pairs.join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instrument_over_both_encodings() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let folder = module(&world, &web);
    let runs = ["protobuf", "json"].map(|encoding| {
        let of = ["CUMULATIVE", "DELTA"];
        of.map(|temporality| (encoding, temporality, format!("{encoding}-{temporality}")))
    });
    let mut expected = BTreeMap::new();
    for (encoding, temporality, service) in runs.as_flattened() {
        let with = [encoding, temporality, "web1", service];
        let sent = send((&world, &web, &folder), with).await;
        assert_eq!(sent.results(), ["SUCCESS", "SUCCESS"], "{service}");
        expected.extend(sent.expected(service));
    }
    // Two counters, a sum, a gauge, and four of each of the two histograms.
    assert_eq!(expected.len(), 4 * (2 + 1 + 1 + 2 * 4));
    let found = stored(&world, &reader, "web1").await;
    let series: Vec<_> = found.iter().map(|(label, ..)| label).collect();
    assert_eq!(series, expected.keys().collect::<Vec<_>>());
    for ((label, count, sum), (_, expected)) in found.iter().zip(&expected) {
        assert_eq!(*count, expected.count, "{label}");
        // An average has two decimals.
        let about = 0.005 * *count as f64 + 1e-6 * expected.sum.abs();
        assert!(
            (sum - expected.sum).abs() <= about,
            "{label}: {sum} {expected:?}"
        );
    }
    let temperature = r#"shop_temperature{job="json-DELTA",otel_scope_name="shop.lib"}"#;
    let found = found.iter().find(|(label, ..)| label == temperature);
    assert_eq!(found.map(|(_, count, sum)| (*count, *sum)), Some((2, 44.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_another_host_nothing_is_stored() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let folder = module(&world, &web);
    for encoding in ["protobuf", "json"] {
        let with = [encoding, "CUMULATIVE", "db1", "shop"];
        let sent = send((&world, &web, &folder), with).await;
        assert_eq!(sent.results(), ["FAILURE", "FAILURE"], "{encoding}");
    }
    assert_eq!(stored(&world, &reader, "db1").await, []);
    assert_eq!(stored(&world, &reader, "web1").await, []);
    let metrics = answer(reader.http.get(world.url("/metrics"))).await.text();
    let line = metrics.lines().find(|line| line.contains("\"wrong_host\""));
    assert!(line.is_some_and(|line| line.ends_with(" 4")), "{line:?}");
}
