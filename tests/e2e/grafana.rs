//! docs/grafana.md: its Prometheus is started, and asked what Grafana asks. Grafana itself is not in
//! Debian, and is not run: its files are compared with the keys that it knows.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::documents::root;
use crate::harness::World;
use crate::oauth_clients::python;
use crate::prometheus::server::{Prometheus, folder, for_world, replaced, yaml_below};
use crate::prometheus::until;

const PAGE: &str = "docs/grafana.md";
const DASHBOARD: &str = "deploy/grafana/lizmon.json";

fn dashboard() -> Value {
    let text = fs::read_to_string(root().join(DASHBOARD)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A YAML of the page.
fn yaml(heading: &str) -> Value {
    let mut command = python("yaml_to_json.py");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("tests/run installs Python's part");
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(yaml_below(PAGE, heading).as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{heading}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_keys(value: &Value, known: &[&str]) {
    let keys: BTreeSet<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(|key| &**key)
        .collect();
    let unknown: Vec<_> = keys.iter().filter(|key| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?} in {value}");
}

/// <https://grafana.com/docs/grafana/latest/administration/provisioning/>
#[test]
fn provisioned_files_have_what_grafana_reads() {
    let sources = yaml("## Data source");
    assert_keys(&sources, &["apiVersion", "datasources"]);
    let [source] = &sources["datasources"].as_array().unwrap()[..] else {
        panic!("{sources}");
    };
    assert_keys(
        source,
        &["name", "uid", "type", "access", "url", "jsonData"],
    );
    let of_prometheus = [
        "httpMethod",
        "timeInterval",
        "prometheusType",
        "prometheusVersion",
    ];
    assert_keys(&source["jsonData"], &of_prometheus);
    assert_eq!(source["type"], "prometheus");
    assert_eq!(source["access"], "proxy");

    let dashboards = yaml("## Dashboard");
    assert_keys(&dashboards, &["apiVersion", "providers"]);
    let [provider] = &dashboards["providers"].as_array().unwrap()[..] else {
        panic!("{dashboards}");
    };
    assert_keys(provider, &["name", "folder", "type", "options"]);
    assert_keys(&provider["options"], &["path"]);
    assert_eq!(provider["type"], "file");
    assert_eq!([&sources["apiVersion"], &dashboards["apiVersion"]], [1, 1]);
    // What is to be installed exists, and goes where Grafana looks for it.
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let path = provider["options"]["path"].as_str().unwrap();
    let install = format!("install -D -m 0644 {DASHBOARD} {path}/lizmon.json\n");
    assert!(page.contains(&install), "{install}");
    // The dashboard takes any Prometheus: the one above is among them.
    let variables = &dashboard()["templating"]["list"];
    assert_eq!(variables[0]["type"], "datasource");
    assert_eq!(variables[0]["query"], source["type"]);
}

/// What stands in the dashboard for what somebody chooses, with something chosen.
fn chosen(query: &str) -> String {
    let chosen = [
        ("$job", "lizmon"),
        ("$instance", ".*"),
        ("$host", ".*"),
        ("$label", ".*"),
        ("$__rate_interval", "4m"),
    ];
    let query = chosen
        .iter()
        .fold(query.to_owned(), |query, (name, value)| {
            query.replace(name, value)
        });
    assert!(!query.contains('$'), "{query}");
    query
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_answers_what_grafana_asks() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.holder(Role::Reader, "prom1"));
    let token = world.token(&node).await;
    let now = world.clock.now();
    let path = format!("/api/perf/web1/{}", now - 120);
    let sent = world.post(&node, &token, &path, r#"{"cpu":4.98}"#).await;
    sent.no_content("a sample");
    let rules = "lizmon.rules.yml";
    fs::create_dir(folder(&world)).unwrap();
    let from = root().join("deploy/prometheus").join(rules);
    fs::copy(from, folder(&world).join(rules)).unwrap();
    let config = for_world(&world, &yaml_below(PAGE, "## Prometheus"));
    let target = format!("localhost:{}", world.port());
    let config = replaced(&config, "rx1.example:8443", &target);
    let config = replaced(&config, "scrape_interval: 30s", "scrape_interval: 1s");
    let prometheus = Prometheus::start(&world, &reader, &config);

    // Its health check, and what the page has for panels of one's own.
    assert_eq!(prometheus.values("1+1").await, [2.0]);
    assert_eq!(prometheus.value("cpu{host=\"web1\"}", now).await, 4.98);
    assert_eq!(prometheus.values("count by (host) (cpu)").await, [1.0]);
    for panel in [
        "avg_over_time(cpu{host=\"web1\"}[1h])",
        "max_over_time(cpu{host=\"web1\",stat=\"max\"}[1h])",
    ] {
        assert_eq!(prometheus.values(panel).await, [4.98], "{panel}");
    }
    // What the page says is not proposed: Prometheus asks nobody for names.
    let names = prometheus.list("/label/__name__/values").await;
    let has = |name: &str| names.as_array().unwrap().contains(&json!(name));
    assert!(!has("cpu"), "{names}");
    let series = prometheus.list("/series?match[]=cpu").await;
    assert_eq!(series, json!([{"__name__": "cpu", "host": "web1"}]));

    // Each panel and each variable of the dashboard.
    until("the receiver is scraped", async || {
        prometheus.values("lizmon_store_ready").await == [1.0]
    })
    .await;
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut shown = 0;
    for target in targets {
        let query = chosen(target["expr"].as_str().unwrap());
        shown += usize::from(!prometheus.values(&query).await.is_empty());
    }
    // Not those of refusals, of which there are none, and of rates, for which it was scraped once.
    assert!(shown > 8, "{shown} panels show something");
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    for variable in variables.filter(|variable| variable["type"] == "query") {
        let query = chosen(variable["query"]["query"].as_str().unwrap());
        let arguments = query.strip_prefix("label_values(").unwrap();
        let (selector, name) = arguments
            .strip_suffix(')')
            .unwrap()
            .rsplit_once(", ")
            .unwrap();
        let selector = selector
            .replace('"', "%22")
            .replace('{', "%7B")
            .replace('}', "%7D");
        let path = format!("/label/{name}/values?match[]={selector}");
        let values = prometheus.list(&path).await;
        assert_ne!(values, json!([]), "{query}");
    }
}
