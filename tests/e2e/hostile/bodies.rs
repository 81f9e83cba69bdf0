//! Bodies that are not the expected JSON, have invalid content, or exceed limits.

use serde_json::{Value, json};

use super::{PRODUCER, Stage, batch_of, record};
use crate::harness::answer;

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_our_json() {
    let stage = Stage::set().await;
    let deep = "[".repeat(200_000);
    let deep_object = format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000));
    let bodies: &[&[u8]] = &[
        b"",
        b" ",
        b"{",
        b"}",
        b"{}}",
        b"{} x",
        b"[]",
        b"null",
        b"7",
        b"\"cpu\"",
        b"cpu=1",
        b"{cpu:1}",
        b"{'cpu':1}",
        b"{\"cpu\":1,}",
        b"{\"cpu\":}",
        b"{\"cpu\":01}",
        b"{\"cpu\":+1}",
        b"{\"cpu\":.5}",
        b"{\"cpu\":1.}",
        b"{\"cpu\":0x10}",
        b"{\"cpu\":NaN}",
        b"{\"cpu\":Infinity}",
        b"{\"cpu\":1}{\"cpu\":1}",
        b"{\"cpu\":1}\0",
        b"{\"c\0pu\":1}",
        b"{\"\\ud800\":1}",
        b"{\"\\x41\":1}",
        b"// a comment\n{\"cpu\":1}",
        b"\xef\xbb\xbf{\"cpu\":1}",
        b"\xff\xfe{\0",
        b"{\"\xff\":1}",
        b"{\"\xc0\xaf\":1}",
        b"{\"\xed\xa0\x80\":1}",
        deep.as_bytes(),
        deep_object.as_bytes(),
    ];
    for body in bodies {
        let story = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        // A deep object is valid JSON with an invalid value: either error is fine.
        let is_deep_object = *body == deep_object.as_bytes();
        for (request, route) in [(stage.single(), "single"), (stage.batch(), "batch")] {
            let story = format!("{route}: {story}");
            let got = answer(request.body(body.to_vec())).await;
            if is_deep_object {
                assert!(matches!(got.status, 400 | 422), "{story}: {}", got.text());
            } else {
                got.refused("malformed_json", &story);
            }
            stage.unchanged(&story).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_another_shape() {
    let stage = Stage::set().await;
    let now = stage.world.clock.now();
    let good = record(1, now, json!({"cpu": 1}));
    for (body, code) in [
        (json!({}), "malformed_json"),
        (json!({"records": [good]}), "malformed_json"),
        (json!({"producer": PRODUCER}), "malformed_json"),
        (
            json!({"producer": PRODUCER, "records": {}}),
            "malformed_json",
        ),
        (
            json!({"producer": PRODUCER, "records": null}),
            "malformed_json",
        ),
        (json!({"producer": 7, "records": [good]}), "malformed_json"),
        (
            json!({"producer": null, "records": [good]}),
            "malformed_json",
        ),
        (
            json!({"producer": PRODUCER, "records": [7]}),
            "malformed_json",
        ),
        (
            json!({"producer": PRODUCER, "records": [good, {"seq": 2, "epoch": now}]}),
            "malformed_json",
        ),
        (
            json!({"producer": PRODUCER, "records": [good, {"seq": 2, "values": {}}]}),
            "malformed_json",
        ),
        (
            json!({"producer": PRODUCER, "records": [good, {"epoch": now, "values": {}}]}),
            "malformed_json",
        ),
        (
            json!({"producer": PRODUCER.to_uppercase(), "records": [good]}),
            "invalid_values",
        ),
        (json!({"producer": "", "records": [good]}), "invalid_values"),
        (
            json!({"producer": format!("{PRODUCER} "), "records": [good]}),
            "invalid_values",
        ),
    ] {
        let story = body.to_string();
        stage
            .refused(stage.batch().body(body.to_string()), code, &story)
            .await;
    }
    // One invalid record refuses the whole batch, and is named.
    let cases = [
        (json!(0), json!(now), json!({"cpu": 1}), "invalid_values"),
        (json!(-1), json!(now), json!({"cpu": 1}), "invalid_values"),
        (json!(1.5), json!(now), json!({"cpu": 1}), "invalid_values"),
        (json!("2"), json!(now), json!({"cpu": 1}), "invalid_values"),
        (json!(null), json!(now), json!({"cpu": 1}), "invalid_values"),
        (
            json!(9_007_199_254_740_992_u64),
            json!(now),
            json!({"cpu": 1}),
            "invalid_values",
        ),
        (json!(2), json!(-1), json!({"cpu": 1}), "invalid_values"),
        (json!(2), json!(1.5), json!({"cpu": 1}), "invalid_values"),
        (json!(2), json!("1"), json!({"cpu": 1}), "invalid_values"),
        (json!(2), json!(now), json!({"cpu": null}), "invalid_values"),
        (
            json!(2),
            json!(now),
            json!({"summary:cpu": 1}),
            "invalid_values",
        ),
        (
            json!(2),
            json!(now - 100_000),
            json!({"cpu": 1}),
            "epoch_too_old",
        ),
        (
            json!(2),
            json!(now + 121),
            json!({"cpu": 1}),
            "epoch_in_future",
        ),
    ];
    for (seq, epoch, values, code) in cases {
        let bad = json!({"seq": seq, "epoch": epoch, "values": values});
        let body = batch_of(&[good.clone(), bad.clone(), good.clone()]);
        let problem = stage
            .refused(stage.batch().body(body), code, &bad.to_string())
            .await;
        assert_eq!(problem["errors"][0]["record"], 1, "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_labels() {
    let mut stage = Stage::set().await;
    let long_label = "é".repeat(64);
    let too_long = format!("{long_label}x");
    let bad_values = [
        "null",
        "true",
        "[]",
        "[1]",
        "{}",
        r#"{"a":1}"#,
        r#""""#,
        r#"" 1""#,
        r#""1 ""#,
        r#""+1""#,
        r#"".5""#,
        r#""1.""#,
        r#""01""#,
        r#""0x10""#,
        r#""1_000""#,
        r#""1,5""#,
        r#""NaN""#,
        r#""nan""#,
        r#""inf""#,
        r#""Infinity""#,
        r#""١""#,
        r#""1\n""#,
        r#""1\u0000""#,
        "1e291",
        "-1e291",
        "1e400",
        r#""1e291""#,
        r#""1e400""#,
        "1.0000001e290",
    ];
    for value in bad_values {
        let body = format!(r#"{{"mem":1,"cpu":{value}}}"#);
        let problem = stage
            .refused(stage.single().body(body), "invalid_values", value)
            .await;
        assert_eq!(problem["errors"][0]["label"], "cpu", "{problem}");
        assert!(
            !problem["errors"][0]["reason"].as_str().unwrap().is_empty(),
            "{problem}"
        );
    }
    for label in [
        "",
        r"\u0000",
        r"\n",
        r"\u001b[31m",
        r"\u007f",
        r"\u0085",
        r"\u202e",
        "summary:by-minute:cpu",
        "summary:",
        &too_long,
    ] {
        let body = format!(r#"{{"{label}":1,"cpu":1}}"#);
        stage
            .refused(stage.single().body(body), "invalid_values", label)
            .await;
    }
    stage
        .refused(
            stage.single().body(r#"{"cpu":1,"cpu":2}"#),
            "invalid_values",
            "a label twice",
        )
        .await;
    stage
        .refused(
            stage.single().body(r#"{"cpu":1,"\u0063pu":2}"#),
            "invalid_values",
            "twice, once escaped",
        )
        .await;
    for (at, value) in [
        "1e290",
        "-1e290",
        r#""1e290""#,
        "-0",
        "0.1",
        r#""4.5""#,
        r#""-1E-2""#,
        "1E2",
        "1e-400",
    ]
    .iter()
    .enumerate()
    {
        let body = format!(r#"{{"good{at}":{value}}}"#);
        let request = stage.single().body(body);
        stage.taken(request, value).await;
    }
    let labels = [
        &long_label,
        " ",
        "Summary:x",
        "disk:/",
        "a\\\"b",
        "日本語",
        "👩\u{200d}💻",
    ];
    for label in labels {
        let request = stage.single().body(format!(r#"{{"{label}":1}}"#));
        stage.taken(request, label).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_records_at_and_over_each_limit() {
    let mut stage = Stage::set().await;
    let now = stage.world.clock.now();
    let labels = |from: usize, count: usize| {
        let labels = (from..from + count).map(|at| (format!("l{at}"), json!(1)));
        Value::Object(labels.collect())
    };
    let request = stage.single().body(labels(0, 257).to_string());
    stage
        .refused(request, "too_many_labels", "257 labels in a record")
        .await;
    let body = batch_of(&[record(1, now, labels(0, 257))]);
    stage
        .refused(
            stage.batch().body(body),
            "too_many_labels",
            "257 labels in a batch's record",
        )
        .await;

    let records = |count: u64| -> Vec<Value> {
        (1..=count)
            .map(|seq| record(seq, now, json!({"c": 1})))
            .collect()
    };
    let request = stage.batch().body(batch_of(&records(10_001)));
    stage
        .refused(request, "too_many_records", "10,001 records")
        .await;
    let request = stage.batch().body(batch_of(&records(10_000)));
    let got = stage
        .taken(request, "10,000 records")
        .await
        .json("10,000 records");
    assert_eq!(got, json!({"accepted": 10_000, "duplicate": 0}));
    let got = stage
        .taken(stage.batch().body(batch_of(&[])), "no record")
        .await
        .json("no record");
    assert_eq!(got, json!({"accepted": 0, "duplicate": 0}));

    // cpu and c are there: 998 more are the limit.
    for (from, count) in [(0, 256), (256, 256), (512, 256), (768, 229)] {
        let request = stage.single().body(labels(from, count).to_string());
        stage.taken(request, "below 1,000 labels").await;
    }
    let request = stage.single().body(labels(997, 2).to_string());
    stage
        .refused(request, "too_many_labels", "two where one is left")
        .await;
    let request = stage.single().body(labels(997, 1).to_string());
    stage.taken(request, "the thousandth").await;
    stage
        .refused(
            stage.single().body(r#"{"one more":1}"#),
            "too_many_labels",
            "the thousand and first",
        )
        .await;
    let body = batch_of(&[record(20_000, now, json!({"one more": 1}))]);
    stage
        .refused(stage.batch().body(body), "too_many_labels", "in a batch")
        .await;
    stage
        .taken(
            stage.single().body(r#"{"cpu":1,"l0":1}"#),
            "a known label goes on",
        )
        .await;
}
