//! `deploy/prometheus` and `deploy/grafana`: Prometheus' own tool reads the rules, and every metric
//! that they and the dashboard name is one that a receiver has.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::crash::started;
use crate::documents::root;
use crate::harness::process::run;
use crate::harness::{World, answer};
use crate::oauth_clients::python;

const RULES: &str = "deploy/prometheus/lizmon.rules.yml";
const DASHBOARD: &str = "deploy/grafana/lizmon.json";
/// The rules of this group are about metrics that there are with a shared store alone.
const GROUP_OF_SHARED_STORES: &str = "  - name: lizmon-shared-store\n";

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The metrics that a text names.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_of_name(c));
    words.filter(|word| word.starts_with("lizmon_")).collect()
}

/// The metrics of the rules: of any receiver, and of those with a shared store.
fn metrics_of_rules(rules: &str) -> [BTreeSet<&str>; 2] {
    let (any, shared) = rules.split_once(GROUP_OF_SHARED_STORES).unwrap();
    [metrics_in(any), metrics_in(shared)]
}

#[track_caller]
fn assert_names(shown: &str, named: &BTreeSet<&str>) {
    let lines = shown.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<&str> = lines
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let missing: Vec<_> = named.difference(&known).collect();
    assert!(
        missing.is_empty(),
        "no such metrics: {missing:?} in\n{shown}"
    );
}

/// Checks what a receiver with a shared store shows.
#[track_caller]
pub(crate) fn has_what_rules_name(shown: &str) {
    let rules = read(RULES);
    let [_, shared] = metrics_of_rules(&rules);
    assert!(shared.len() > 3, "{shared:?}");
    assert_names(shown, &shared);
}

#[test]
fn promtool_reads_the_rules() {
    let mut promtool = Command::new("promtool");
    let finished = run(promtool.args(["check", "rules"]).arg(root().join(RULES)));
    finished.success();
    // With the rules it names.
    let mut promtool = Command::new("promtool");
    let config = root().join("deploy/prometheus/prometheus.yml");
    let finished = run(promtool
        .args(["check", "config", "--syntax-only"])
        .arg(config));
    finished.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_rules_name_metrics_that_exist() {
    let mut world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let rules = world.folder().join("rules.toml");
    let channel = "[channels.log.webhook]\nurl = \"https://127.0.0.1:9/\"\n";
    fs::write(&rules, channel).unwrap();
    let mut command = crate::crash::receiver_command(&world);
    command.arg("--rules").arg(&rules);
    let _running = started(&mut world, &mut command);
    let token = world.token(&node).await;
    let path = format!("/api/perf/web1/{}", world.clock.now());
    let sent = world.post(&node, &token, &path, r#"{"cpu":4.98}"#).await;
    sent.no_content("a sample");
    // So that there is a refusal of each kind.
    let other = world.get(&node, &token, "/api/perf/web2").await;
    other.refused("wrong_host", "another's");
    let wrong = world
        .ask_token(&node.http, &[("grant_type", "password")])
        .await;
    wrong.token_error(400, "unsupported_grant_type", "another grant");
    let shown = answer(reader.http.get(world.url("/metrics"))).await.text();

    let (rules, dashboard) = (read(RULES), read(DASHBOARD));
    serde_json::from_str::<Value>(&dashboard).unwrap();
    let [any, _] = metrics_of_rules(&rules);
    let named: BTreeSet<&str> = any.union(&metrics_in(&dashboard)).copied().collect();
    assert!(named.len() > 25, "{named:?}");
    assert_names(&shown, &named);

    // promtool judges names, types and help.
    let file = world.folder().join("metrics.txt");
    fs::write(&file, shown).unwrap();
    let mut convert = python("openmetrics_to_text.py");
    let text = run(convert.arg(&file)).success();
    fs::write(&file, text).unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    promtool.stdin(fs::File::open(&file).unwrap());
    let finished = run(&mut promtool);
    assert!(finished.status.success(), "{}", finished.stderr);
}
