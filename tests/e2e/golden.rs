//! Everything that a monitor sends and a reader queries, with curl alone.

use serde_json::json;

use crate::harness::curl::curl;
use crate::harness::{Answer, Holder, World};

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

fn token(world: &World, holder: &Holder) -> String {
    let form = ["--data", "grant_type=client_credentials"];
    let answer = curl(world, Some(holder), &form, "/oauth2/token").json("a token");
    assert_eq!(answer["token_type"], "Bearer");
    format!(
        "Authorization: Bearer {}",
        answer["access_token"].as_str().unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_alone_does_all_a_monitor_does() {
    let world = World::start().await;
    let (web1, reader) = (world.node("web1"), world.reader());
    let now = world.clock.now();
    let minute = (now - 1) / 60 * 60;
    let bearer = token(&world, &web1);

    // One sample set. The body is JSON despite curl's default Content-Type.
    let path = format!("/api/perf/web1/{now}");
    let post = ["-H", &bearer, "--data", r#"{"cpu":4.98,"mem":61.2}"#];
    curl(&world, Some(&web1), &post, &path).no_content("a single sample set");

    // The same record again, with the same key: counted once.
    let key = format!(r#"Idempotency-Key: "{PRODUCER}/17""#);
    let again = ["-H", &bearer, "-H", &key, "--data", r#"{"cpu":5.02}"#];
    curl(&world, Some(&web1), &again, &path).no_content("the first time");
    curl(&world, Some(&web1), &again, &path).no_content("the second time");

    // A batch with one known record.
    let record = |seq: u64, cpu: f64| json!({"seq": seq, "epoch": now, "values": {"cpu": cpu}});
    let batch = json!({"producer": PRODUCER, "records": [record(17, 5.02), record(18, 5.0), record(20, 5.0)]});
    let post = ["-H", &bearer, "--json", &batch.to_string()];
    let answer = curl(&world, Some(&web1), &post, "/api/perf/web1").json("a batch");
    assert_eq!(answer, json!({"accepted": 2, "duplicate": 1}));

    // What a reader sees, at once: a GET that starts after a 204 includes the sample.
    let bearer = token(&world, &reader);
    let get = |path: &str| -> Answer { curl(&world, Some(&reader), &["-H", &bearer], path) };
    let expected = json!({"summary:by-minute:cpu": {
        "start": now / 60 * 60 - 3_600, "end": now, "timeslice-size-sec": 60, "average-count": 1,
        "averages": [{"start-sec": minute, "end-sec": minute + 60, "interval-size-sec": 60, "num-samples": 4,
                      "avg": 5.0, "min": 4.98, "max": 5.02}],
    }});
    let found = get("/api/perf/web1/by-minute:cpu").json("one summary");
    assert_eq!(found, expected);
    let all = get("/api/perf/web1").json("all summaries");
    let names: Vec<_> = all.as_object().unwrap().keys().cloned().collect();
    let expected_names = [
        "by-hour:cpu",
        "by-hour:mem",
        "by-minute:cpu",
        "by-minute:mem",
    ];
    assert_eq!(names, expected_names.map(|name| format!("summary:{name}")));
    assert_eq!(
        all["summary:by-minute:cpu"],
        expected["summary:by-minute:cpu"]
    );
    let hosts = get("/api/perf").json("hosts");
    let host = &hosts["hosts"][0];
    assert_eq!(
        (&host["name"], &host["last-epoch"]),
        (&json!("web1"), &json!(now))
    );
    assert_eq!(host["labels"], json!(["cpu", "mem"]));
    assert!(host["certificate-end"].as_u64().unwrap() > now);
    let delivery = get("/api/delivery/web1").json("delivery");
    assert_eq!(
        delivery,
        json!({"producers": [{
            "producer": PRODUCER, "received": 3, "duplicate": 2, "missing": [[1, 16], [19, 19]], "dropped": [],
            "repaired": 0, "highest": 20,
        }]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn anyone_may_ask_what_is_public() {
    let world = World::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(curl(&world, None, &[], path).status, 200, "{path}");
    }
    let metadata =
        curl(&world, None, &[], "/.well-known/oauth-authorization-server").json("metadata");
    assert_eq!(metadata["issuer"], world.issuer());
    let keys = curl(&world, None, &[], "/.well-known/jwks.json").json("keys");
    assert_eq!(keys["keys"][0]["kty"], "OKP");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_found_by_what_their_summary_contains() {
    let world = World::start().await;
    let web1 = world.node("web1");
    let bearer = token(&world, &web1);
    let path = format!("/api/perf/web1/{}", world.clock.now());
    let body = r#"{"cpu":1,"Load1":2,"disk:/":3,"disk:/var/log":4,"ÄÖ":5,"100%":6,"a b+c?d#e":7}"#;
    curl(&world, Some(&web1), &["-H", &bearer, "--data", body], &path).no_content("samples");
    for (asked, found) in [
        ("cpu", vec!["cpu"]),
        ("CPU", vec!["cpu"]),
        ("load", vec!["Load1"]),
        ("by-minute:load1", vec!["Load1"]),
        ("SUMMARY:BY-MINUTE:disk", vec!["disk:/", "disk:/var/log"]),
        ("disk:/", vec!["disk:/", "disk:/var/log"]),
        ("disk:/var/log", vec!["disk:/var/log"]),
        ("/var/log", vec!["disk:/var/log"]),
        ("disk%3A%2Fvar", vec!["disk:/var/log"]),
        ("%C3%84", vec!["ÄÖ"]),
        // Only ASCII is folded.
        ("%C3%A4", vec![]),
        ("100%25", vec!["100%"]),
        ("a%20b%2Bc%3Fd%23e", vec!["a b+c?d#e"]),
        ("a+b", vec![]),
        ("no-such-label", vec![]),
        ("by-day", vec![]),
    ] {
        let answer = curl(
            &world,
            Some(&web1),
            &["-H", &bearer, "--path-as-is"],
            &format!("/api/perf/web1/{asked}"),
        );
        let answer = answer.json(asked);
        let labels: Vec<_> = answer
            .as_object()
            .unwrap()
            .keys()
            .filter_map(|name| name.strip_prefix("summary:by-minute:"))
            .collect();
        assert_eq!(labels, found, "{asked}");
    }
}
