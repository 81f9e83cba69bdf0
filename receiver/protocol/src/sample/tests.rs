use super::*;

fn check_set(body: &str, expected: Result<&[(&str, f64)], &str>) {
    match (parse_sample_set(body.as_bytes()), expected) {
        (Ok(set), Ok(expected)) => {
            let got: Vec<_> = set
                .iter()
                .map(|(label, value)| (label.as_str(), value.get()))
                .collect();
            assert_eq!(got, expected, "{body}");
        }
        (Err(BodyError::Malformed(_)), Err("malformed")) => (),
        (Err(BodyError::Values(errors)), Err(reason)) => {
            assert!(
                errors.iter().any(|error| error.reason.contains(reason)),
                "{body}: {errors:?}"
            );
        }
        (got, expected) => panic!("{body}: got {got:?}, expected {expected:?}"),
    }
}

#[test]
fn sample_sets() {
    check_set(
        r#"{"cpu":4.98,"mem":61.2}"#,
        Ok(&[("cpu", 4.98), ("mem", 61.2)]),
    );
    check_set(
        r#" { "a" : -0.0 , "b" : 1e290 , "c" : -1E+290 , "d" : 5e-324 } "#,
        Ok(&[("a", -0.0), ("b", 1e290), ("c", -1e290), ("d", 5e-324)]),
    );
    check_set(
        r#"{"a":"4.5","b":"5","c":"-1e3"}"#,
        Ok(&[("a", 4.5), ("b", 5.0), ("c", -1000.0)]),
    );
    check_set(r#"{"\u0061":1}"#, Ok(&[("a", 1.0)]));
    check_set("{}", Ok(&[]));
    for malformed in [
        "",
        "{",
        "[]",
        "[1]",
        "3",
        "\"x\"",
        "null",
        "true",
        r#"{"a":1}x"#,
        r#"{"a":1,}"#,
        r#"{"a":01}"#,
        r#"{"a":+1}"#,
        r#"{"a":.5}"#,
        r#"{"a":1.}"#,
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{a:1}"#,
        r#"{"a" 1}"#,
        r#"{'a':1}"#,
        "{\"a\":1}\0",
        "\u{feff}{}",
        r#"{"\ud800":1}"#,
    ] {
        check_set(malformed, Err("malformed"));
    }
    for not_a_number in ["true", "false", "null", "[]", "[1]", "{}", r#"{"b":1}"#] {
        check_set(&format!(r#"{{"a":{not_a_number}}}"#), Err("not a number"));
    }
    for not_in_grammar in [
        "", " 1", "1 ", "+1", "01", ".5", "1.", "0x10", "NaN", "inf", "1_000", "1,5", "١", "true",
        "null", "[1]", "1e", "--1",
    ] {
        check_set(
            &format!(r#"{{"a":"{not_in_grammar}"}}"#),
            Err("JSON's grammar"),
        );
    }
    for beyond in [
        "1.000000000000001e290",
        "1e291",
        "-1e291",
        "1e400",
        "\"1e400\"",
        "\"-1e300\"",
    ] {
        check_set(&format!(r#"{{"a":{beyond}}}"#), Err("beyond"));
    }
    check_set(r#"{"a":1,"a":2}"#, Err("twice"));
    check_set(r#"{"a":1,"\u0061":2}"#, Err("twice"));
    check_set(r#"{"":1}"#, Err("has none"));
    check_set(r#"{"summary:x":1}"#, Err("does not start"));
    check_set(r#"{"a\u0000b":1}"#, Err("printable"));
}

#[test]
fn numbers_are_rounded_to_the_nearest_f64() {
    for text in [
        "0.1",
        "2.675",
        "1.005",
        "9007199254740993",
        "8.41984744e-3",
        "123456789.123456789e-5",
    ] {
        let body = format!(r#"{{"a":{text}}}"#);
        let set = parse_sample_set(body.as_bytes()).unwrap();
        assert_eq!(
            set.0[0].1.get().to_bits(),
            text.parse::<f64>().unwrap().to_bits(),
            "{text}"
        );
    }
}

/// PowerShell and Notepad write these encodings. The error must name the encoding, not only
/// "expected value at line 1".
#[test]
fn a_foreign_encoding_is_named() {
    let utf_16 = |endian: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "{\"cpu\":1}".encode_utf16().flat_map(endian).collect()
    };
    let with_mark = |mark: &[u8], text: Vec<u8>| [mark, &text].concat();
    let utf_32: Vec<u8> = "{}"
        .chars()
        .flat_map(|c| (c as u32).to_le_bytes())
        .collect();
    let cases = [
        (
            with_mark(&[0xEF, 0xBB, 0xBF], b"{\"cpu\":1}".to_vec()),
            "byte order mark",
        ),
        (vec![0xEF, 0xBB, 0xBF], "byte order mark"),
        (with_mark(&[0xFF, 0xFE], utf_16(u16::to_le_bytes)), "UTF-16"),
        (with_mark(&[0xFE, 0xFF], utf_16(u16::to_be_bytes)), "UTF-16"),
        (utf_16(u16::to_le_bytes), "UTF-16"),
        (utf_16(u16::to_be_bytes), "UTF-16"),
        (utf_32, "UTF-32"),
        (b"{\"cpu\":1\xff}".to_vec(), "not UTF-8"),
    ];
    for (body, named) in cases {
        for error in [parse_sample_set(&body).err(), parse_batch(&body).err()] {
            let Some(BodyError::Malformed(detail)) = error else {
                panic!("{body:?}: {error:?}")
            };
            assert!(detail.contains(named), "{body:?}: {detail}");
        }
    }
}

#[test]
fn every_bad_value_is_named() {
    let body = r#"{"cpu":1,"mem":null,"disk":"x","":2}"#;
    let Err(BodyError::Values(errors)) = parse_sample_set(body.as_bytes()) else {
        panic!()
    };
    let labels: Vec<_> = errors.iter().map(|error| error.label.as_deref()).collect();
    assert_eq!(labels, [Some("mem"), Some("disk"), Some("")]);
}

fn labels_body(count: usize) -> String {
    let pairs: Vec<_> = (0..count).map(|at| format!("\"l{at}\":1")).collect();
    format!("{{{}}}", pairs.join(","))
}

#[test]
fn labels_at_under_and_over_the_limit() {
    for (count, good) in [
        (RECORD_LABELS_MAX - 1, true),
        (RECORD_LABELS_MAX, true),
        (RECORD_LABELS_MAX + 1, false),
    ] {
        assert_eq!(
            parse_sample_set(labels_body(count).as_bytes()).is_ok(),
            good,
            "{count}"
        );
    }
    let twice = labels_body(20).replace("\"l19\"", "\"l3\"");
    check_set(&twice, Err("twice"));
}

#[test]
fn depth_costs_no_stack() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    check_set(&deep, Err("not a number"));
}

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

fn batch_body(records: usize) -> String {
    let records: Vec<_> = (1..=records)
        .map(|seq| format!(r#"{{"seq":{seq},"epoch":1465001814,"values":{{"cpu":1}}}}"#))
        .collect();
    format!(
        r#"{{"producer":"{PRODUCER}","records":[{}]}}"#,
        records.join(",")
    )
}

#[test]
fn batches() {
    let body = batch_body(2);
    let batch = parse_batch(body.as_bytes()).unwrap();
    assert_eq!(
        serde_json::to_string(&batch).unwrap(),
        body.replace(":1}}", ":1.0}}")
    );
    assert!(
        parse_batch(batch_body(0).as_bytes())
            .unwrap()
            .records
            .is_empty()
    );
}

/// A batch that is no repair has the same JSON as before there were repairs.
#[test]
fn a_repair_is_marked() {
    let record = r#""records":[{"seq":7,"epoch":1465001814,"values":{"cpu":4.98}}]"#;
    let body = |mark: &str| format!(r#"{{"producer":"{PRODUCER}",{record}{mark}}}"#);
    for (mark, is_repair, written) in [
        ("", false, ""),
        (r#","repair":false"#, false, ""),
        (r#","repair":true"#, true, r#","repair":true"#),
    ] {
        let text = body(mark);
        let batch = parse_batch(text.as_bytes()).unwrap();
        assert_eq!(batch.repair, is_repair, "{mark}");
        assert_eq!(serde_json::to_string(&batch).unwrap(), body(written));
    }
    for bad in [r#","repair":1"#, r#","repair":"true""#, r#","repair":null"#] {
        let parsed = parse_batch(body(bad).as_bytes()).err();
        assert!(matches!(parsed, Some(BodyError::Malformed(_))), "{bad}");
    }
}

#[test]
fn records_at_and_over_the_limit() {
    assert!(parse_batch(batch_body(BATCH_RECORDS_MAX).as_bytes()).is_ok());
    assert_eq!(
        parse_batch(batch_body(BATCH_RECORDS_MAX + 1).as_bytes()),
        Err(BodyError::TooManyRecords)
    );
}

#[test]
fn bad_batches_name_the_record() {
    let record = |text: &str| {
        format!(
            r#"{{"producer":"{PRODUCER}","records":[{{"seq":1,"epoch":1,"values":{{}}}},{text}]}}"#
        )
    };
    let cases = [
        (record(r#"{"seq":0,"epoch":1,"values":{}}"#), "seq"),
        (record(r#"{"seq":-1,"epoch":1,"values":{}}"#), "seq"),
        (record(r#"{"seq":1.5,"epoch":1,"values":{}}"#), "seq"),
        (record(r#"{"seq":"7","epoch":1,"values":{}}"#), "seq"),
        (
            record(r#"{"seq":9007199254740992,"epoch":1,"values":{}}"#),
            "seq",
        ),
        (record(r#"{"seq":7,"epoch":-1,"values":{}}"#), "epoch"),
        (record(r#"{"seq":7,"epoch":null,"values":{}}"#), "epoch"),
        (
            record(r#"{"seq":7,"epoch":1,"values":{"cpu":null}}"#),
            "not a number",
        ),
    ];
    for (body, reason) in cases {
        let Err(BodyError::Values(errors)) = parse_batch(body.as_bytes()) else {
            panic!("{body}")
        };
        assert_eq!(errors[0].record, Some(1), "{body}");
        assert!(errors[0].reason.contains(reason), "{body}: {errors:?}");
    }
    for producer in [
        "",
        "x",
        "1B4E28BA-2FA1-4D3B-A3F5-EF19B5A7633B",
        "1b4e28ba2fa14d3ba3f5ef19b5a7633b",
        "{1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b}",
        "urn:uuid:1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b",
    ] {
        let body = format!(r#"{{"producer":"{producer}","records":[]}}"#);
        assert!(
            matches!(parse_batch(body.as_bytes()), Err(BodyError::Values(_))),
            "{producer}"
        );
    }
    for body in [
        "{}",
        r#"{"producer":1,"records":[]}"#,
        r#"{"records":[]}"#,
        "[]",
        r#"{"producer":"x"}"#,
        &record("7"),
        &record(r#"{"seq":7,"epoch":1}"#),
        &record(r#"{"seq":7,"epoch":1,"values":[]}"#),
    ] {
        assert!(
            matches!(parse_batch(body.as_bytes()), Err(BodyError::Malformed(_))),
            "{body}"
        );
    }
}

#[test]
fn dropped_ranges() {
    let body = |dropped: &str| {
        format!(r#"{{"producer":"{PRODUCER}","records":[],"dropped":[{dropped}]}}"#)
    };
    let good = body(r#"[1,1,"too old"],[7,9007199254740991,"the disk was full"]"#);
    let batch = parse_batch(good.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&batch).unwrap(), good);
    for bad in [
        r#"[0,1,"x"]"#,
        r#"[2,1,"x"]"#,
        r#"[1,9007199254740992,"x"]"#,
        r#"[-1,1,"x"]"#,
        r#"[1.5,2,"x"]"#,
        r#"["1",2,"x"]"#,
        r#"[1,2,""]"#,
        r#"[1,2,"\u0007"]"#,
    ] {
        let parsed = parse_batch(body(bad).as_bytes()).unwrap_err();
        assert!(matches!(parsed, BodyError::Values(_)), "{bad}: {parsed:?}");
    }
    for bad in ["[1,2]", "[1,2,3]", r#"[1,2,"x",4]"#, "7", "{}"] {
        let parsed = parse_batch(body(bad).as_bytes()).unwrap_err();
        assert!(
            matches!(parsed, BodyError::Malformed(_)),
            "{bad}: {parsed:?}"
        );
    }
    for (count, good) in [(BATCH_DROPPED_MAX, true), (BATCH_DROPPED_MAX + 1, false)] {
        let many: Vec<_> = (0..count)
            .map(|at| format!(r#"[{0},{0},"x"]"#, 2 * at + 1))
            .collect();
        assert_eq!(
            parse_batch(body(&many.join(",")).as_bytes()).is_ok(),
            good,
            "{count}"
        );
    }
}

#[test]
fn idempotency_keys() {
    let cases = [
        (format!("{PRODUCER}/1"), true),
        (format!("{PRODUCER}/9007199254740991"), true),
        (format!("{PRODUCER}/9007199254740992"), false),
        (format!("{PRODUCER}/0"), false),
        (format!("{PRODUCER}/01"), false),
        (format!("{PRODUCER}/-1"), false),
        (format!("{PRODUCER}/+1"), false),
        (format!("{PRODUCER}/"), false),
        (format!("{PRODUCER}/1/"), false),
        (format!("{}/1", PRODUCER.to_uppercase()), false),
        (PRODUCER.to_owned(), false),
        (String::new(), false),
    ];
    for (text, good) in cases {
        assert_eq!(text.parse::<IdempotencyKey>().is_ok(), good, "{text}");
    }
}
