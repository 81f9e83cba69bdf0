//! What a series was days ago: hours and days, through restarts, and hostile questions about them.

use serde_json::{Value, json};

use crate::harness::process::{program, run};
use crate::harness::{Holder, World};

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
const SLASH: &str = "disk-used:/";

/// A sample at the middle of each of so many hours, the clock moving along; when the first is.
async fn sampled(world: &World, node: &Holder, hours: u64) -> u64 {
    // From 22:00, so that two midnights are in 30 hours.
    let first = world.clock.now() / DAY * DAY + DAY - 2 * HOUR;
    for hour in 0..hours {
        let epoch = first + hour * HOUR + HOUR / 2;
        world.clock.set(epoch);
        let token = world.token(node).await;
        let path = format!("/api/perf/{}/{epoch}", node.name);
        let values = json!({"cpu": hour, SLASH: 0.5}).to_string();
        let sent = world.post(node, &token, &path, values).await;
        sent.no_content("a sample");
    }
    first
}

async fn intervals(world: &World, holder: &Holder, path: &str) -> Vec<Value> {
    let token = world.token(holder).await;
    let got = world.get(holder, &token, path).await.json(path);
    got["intervals"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_and_days_outlive_the_summaries() {
    let mut world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    let hours = 60;
    let first = sampled(&world, &node, hours).await;
    let of_hour = |hour: u64| {
        let start = first + hour * HOUR;
        json!({"start-sec": start, "end-sec": start + HOUR, "interval-size-sec": HOUR,
            "num-samples": 1, "avg": hour as f64, "min": hour as f64, "max": hour as f64})
    };
    let all: Vec<_> = (0..hours).map(of_hour).collect();
    let midnight = first + 2 * HOUR;
    let of_day = |from: u64, to: u64, start: u64| {
        let avg = (from + to) as f64 / 2.0;
        json!({"start-sec": start, "end-sec": start + DAY, "interval-size-sec": DAY,
            "num-samples": to - from + 1, "avg": avg, "min": from as f64, "max": to as f64})
    };
    let days = [
        of_day(0, 1, midnight - DAY),
        of_day(2, 25, midnight),
        of_day(26, 49, midnight + DAY),
        of_day(50, 59, midnight + 2 * DAY),
    ];
    for story in ["at once", "after a restart", "after another"] {
        let path = "/api/history/web1/cpu?tier=by-hour";
        assert_eq!(intervals(&world, &reader, path).await, all, "{story}");
        let path = "/api/history/web1/cpu?tier=by-day";
        assert_eq!(intervals(&world, &node, path).await, days, "{story}");
        let (from, to) = (first + 5 * HOUR, first + 7 * HOUR);
        let path = format!("/api/history/web1/cpu?from={from}&to={to}");
        assert_eq!(
            intervals(&world, &reader, &path).await,
            all[5..7],
            "{story}"
        );
        for encoded in [SLASH, "disk-used%3A%2F", "disk-used:%2f"] {
            let path = format!("/api/history/web1/{encoded}");
            let found = intervals(&world, &reader, &path).await;
            assert_eq!(found.len() as u64, hours, "{story}: {encoded}");
        }
        world.restart().await;
    }
    // Nothing of it is in a summary any more, and the host has ended in all of them.
    world.clock.advance(3 * DAY);
    let token = world.token(&reader).await;
    let gone = world.get(&reader, &token, "/api/perf/web1").await;
    gone.refused("unknown_host", "no summary is left");
    let path = "/api/history/web1/cpu?tier=by-day";
    assert_eq!(intervals(&world, &reader, path).await, days, "days later");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_are_refused() {
    let world = World::start().await;
    let (node, other, reader) = (world.node("a"), world.node("b"), world.reader());
    let token = world.token(&node).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let sent = world.post(&node, &token, &path, r#"{"cpu":1}"#).await;
    sent.no_content("a sample");
    let before = world.stored(&reader).await;
    let token = world.token(&reader).await;
    for (rest, code) in [
        ("a/cpu?from=9&to=8", "malformed_query"),
        ("a/cpu?from=-1", "malformed_query"),
        ("a/cpu?from=1e9", "malformed_query"),
        ("a/cpu?to=99999999999999999999999", "malformed_query"),
        ("a/cpu?from=1&from=1", "malformed_query"),
        ("a/cpu?tier=by-minute", "malformed_query"),
        ("a/cpu?tier=by-hour%00", "malformed_query"),
        ("a/cpu?since=7d", "malformed_query"),
        ("a", "not_found"),
        ("a/", "not_found"),
        ("nobody/cpu", "unknown_host"),
        ("A/cpu", "unknown_host"),
        ("a%2Fcpu/x", "unknown_host"),
        ("..%2f..%2fa/cpu", "unknown_host"),
        ("%FF/cpu", "unknown_host"),
    ] {
        let path = format!("/api/history/{rest}");
        let got = world.get(&reader, &token, &path).await;
        got.refused(code, rest);
    }
    for (rest, count) in [
        ("a/cpu?from=0&to=9007199254740991&tier=by-hour", 1),
        ("a/cpu?from=&to=", 1),
        ("a/cpu/?", 0),
        ("a/CPU", 0),
        ("a/cp", 0),
        ("a/cpu%00", 0),
        ("a/%F0%9F%92%A9", 0),
        ("a/%FF%FE", 0),
        ("a?label=cpu", 1),
        ("a?label=..", 0),
        ("a/cpu?from=9007199254740991&to=9007199254740991", 0),
    ] {
        let found = intervals(&world, &reader, &format!("/api/history/{rest}")).await;
        assert_eq!(found.len(), count, "{rest}");
    }
    let token = world.token(&other).await;
    for path in ["/api/history/a/cpu", "/api/history/nobody/cpu?from=x"] {
        let got = world.get(&other, &token, path).await;
        got.refused("wrong_host", path);
    }
    let own = world.get(&other, &token, "/api/history/b/cpu").await;
    own.refused("unknown_host", "a node that has sent nothing");
    assert_eq!(world.stored(&reader).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn lizctl_shows_it() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    sampled(&world, &node, 30).await;
    let query = |line: &[&str]| {
        let mut command = program("lizctl");
        command.args(["query", "web1"]).args(line);
        command.arg("--receiver").arg(world.issuer());
        command
            .arg("--cert")
            .arg(&reader.cert)
            .arg("--key")
            .arg(&reader.key);
        command.arg("--ca").arg(world.root());
        run(&mut command)
    };
    let json = query(&[SLASH, "--since", "7d", "--output", "json"]).success();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["intervals"].as_array().unwrap().len(), 30);
    let table = query(&["cpu", "--since", "7d"]).success();
    assert_eq!(table.lines().count(), 1 + 30, "{table}");
    let days = query(&["cpu", "--since", "400d"]).success();
    assert!(days.contains("by-day"), "{days}");
    assert_eq!(days.lines().count(), 1 + 3, "{days}");
    let chart = query(&["cpu", "--since", "7d", "--output", "chart"]).success();
    assert!(chart.contains("cpu by-hour"), "{chart}");
    let nothing = query(&["cp", "--since", "7d"]);
    assert!(
        nothing.stderr.contains("exactly this label"),
        "{}",
        nothing.stderr
    );
    assert_eq!(nothing.success(), "");
    query(&["--since", "7d"]).failure(2);
    query(&["cpu", "--tier", "by-day"]).failure(2);
    query(&["cpu", "--since", "soon"]).failure(2);
}
