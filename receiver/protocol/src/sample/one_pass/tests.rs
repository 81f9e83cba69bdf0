use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::{Batch, Record, SampleSet, parse_batch, read_batch};
use super::*;

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

/// Keeps the records, as [`parse_batch`] does.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    records: Vec<Record<SampleSet<'static>>>,
    values: Vec<(Label<'static>, Value)>,
}

impl RecordSink for Kept {
    fn push_value(&mut self, label: &str, value: Value) {
        let label = Label::new(label.to_owned()).unwrap();
        self.values.push((label, value));
    }

    fn end_record(&mut self, seq: Seq, epoch: Epoch) {
        let values = SampleSet::new(std::mem::take(&mut self.values));
        self.records.push(Record { seq, epoch, values });
    }
}

fn batch_of(kept: SunkBatch<Kept>) -> Batch<SampleSet<'static>> {
    Batch {
        producer: kept.producer,
        records: kept.records.records,
        dropped: kept.dropped,
        repair: kept.repair,
    }
}

/// To the bit: -0.0 is not 0.0.
fn bits(batch: &Batch<SampleSet<'_>>) -> Vec<u64> {
    let records = batch.records.iter();
    let values = records.flat_map(|record| record.values.iter());
    values.map(|(_, value)| value.get().to_bits()).collect()
}

/// Whether it is read in one pass; and the two ways agree.
fn is_read(body: &str) -> bool {
    let (expected, found) = (parse_batch(body.as_bytes()), read(body, Kept::default()));
    if let Some(found) = &found {
        assert_eq!(found.records.values, [], "{body}");
    }
    let found = found.map(batch_of);
    let is_read = found.is_some();
    if let Some(found) = found {
        let expected = expected
            .as_ref()
            .unwrap_or_else(|error| panic!("{body}: {error}"));
        assert_eq!(&found, expected, "{body}");
        assert_eq!(bits(&found), bits(expected), "{body}");
    }
    let anyway = read_batch(body.as_bytes(), Kept::default).map(batch_of);
    assert_eq!(anyway, expected, "{body}");
    is_read
}

fn of_records(records: &str) -> String {
    format!(r#"{{"producer":"{PRODUCER}","records":[{records}]}}"#)
}

fn of_value(value: &str) -> String {
    of_records(&format!(
        r#"{{"seq":1,"epoch":2,"values":{{"cpu":{value}}}}}"#
    ))
}

#[test]
fn usual_batches_are_read_in_one_pass() {
    let one = r#"{"seq":17,"epoch":1465001814,"values":{"cpu":4.98,"mem":61.2}}"#;
    for records in [
        "",
        one,
        &format!("{one},{one}"),
        r#" { "values" : { "a" : "4.5" } , "epoch" : 2 , "more" : [1,{}] , "seq" : 1 } "#,
        r#"{"seq":9007199254740991,"epoch":0,"values":{}}"#,
        // Other labels, fewer and more, and the first again.
        r#"{"seq":1,"epoch":2,"values":{"a":1,"b":2}},{"seq":2,"epoch":2,"values":{"a":1}},
           {"seq":3,"epoch":2,"values":{"a":1,"b":2,"c":3}},{"seq":4,"epoch":2,"values":{"b":2,"a":1}}"#,
        r#"{"seq":1,"epoch":2,"values":{"au\u00dfen":1}},{"seq":2,"epoch":2,"values":{"außen":2,"\u0062":3}}"#,
    ] {
        assert!(is_read(&of_records(records)), "{records}");
    }
    let dropped = r#""dropped":[[3,5,"too old"],[9,9,"the disk was full"]]"#;
    for body in [
        format!(r#"{{"producer":"{PRODUCER}","records":[{one}],{dropped},"repair":true}}"#),
        format!(r#"{{"repair":true,"x":{{"a":1}},"records":[{one}],"producer":"{PRODUCER}"}}"#),
        format!(r#" {{ "producer" : "{PRODUCER}" , "records" : [ {one} , {one} ] }} "#),
    ] {
        assert!(is_read(&body), "{body}");
    }
    for value in [
        "-0.0",
        "0",
        "-0",
        "1e290",
        "5e-324",
        "18446744073709551615",
        "\"-1e3\"",
    ] {
        assert!(is_read(&of_value(value)), "{value}");
    }
}

/// They are read again, so that the error says what is wrong, or because few write them so.
#[test]
fn what_is_wrong_is_read_again() {
    for value in [
        "1e291",
        "1e400",
        "01",
        "1.",
        "null",
        "[1]",
        "\"x\"",
        "\"01\"",
        "\"1e300\"",
    ] {
        assert!(!is_read(&of_value(value)), "{value}");
    }
    for records in [
        r#"{"seq":0,"epoch":2,"values":{}}"#,
        r#"{"seq":1.0,"epoch":2,"values":{}}"#,
        r#"{"seq":-1,"epoch":2,"values":{}}"#,
        r#"{"seq":"1","epoch":2,"values":{}}"#,
        r#"{"seq":1,"epoch":9007199254740992,"values":{}}"#,
        r#"{"seq":1,"seq":1,"epoch":2,"values":{}}"#,
        r#"{"seq":1,"epoch":2,"values":{},"values":{}}"#,
        r#"{"seq":1,"epoch":2}"#,
        r#"{"seq":1,"values":{}}"#,
        r#"{"epoch":1,"values":{}}"#,
        r#"{"seq":1,"epoch":2,"values":{"a":1,"a":2}}"#,
        // Whose labels were different so far.
        r#"{"seq":1,"epoch":2,"values":{"a":1,"b":2}},{"seq":2,"epoch":2,"values":{"a":1,"b":2,"a":2}}"#,
        r#"{"seq":1,"epoch":2,"values":{"a":1,"b":2}},{"seq":2,"epoch":2,"values":{"b":1,"b":2}}"#,
        r#"{"seq":1,"epoch":2,"values":{"a":1,"b":2}},{"seq":2,"epoch":2,"values":{"a":1,"\u0061":2}}"#,
        r#"{"seq":1,"epoch":2,"values":{"":1}}"#,
        r#"{"seq":1,"epoch":2,"values":{"summary:a":1}}"#,
        r#"{"seq":1,"epoch":2,"values":{"a":1},}"#,
        r#"{"seq":1,"epoch":2,"values":{}},"#,
        r#"{"seq":1,"epoch":2,"values":{}}{"seq":2,"epoch":2,"values":{}}"#,
        r#"{"seq":1,"epoch":2,"values":{}},{"seq":02,"epoch":2,"values":{}}"#,
        r#"{"seq":1,"epoch":2,"values":{"a":1}},{"seq":2,"epoch":2,"values":{"a":1.}}"#,
        r#"{"seq":1,"epoch":2,"values":{}},{"seq":0,"epoch":2,"values":{}}"#,
        ",",
        r#"[1,2,{}]"#,
        "null",
    ] {
        assert!(!is_read(&of_records(records)), "{records}");
    }
    let one = r#"{"seq":1,"epoch":2,"values":{}}"#;
    for body in [
        // Another bracket is the first.
        format!(r#"{{"dropped":[],"records":[{one}],"producer":"{PRODUCER}"}}"#),
        format!(r#"{{"x":"[","records":[{one}],"producer":"{PRODUCER}"}}"#),
        format!(r#"{{"x":"[]","records":[{one}],"producer":"{PRODUCER}"}}"#),
        format!(r#"{{"x":"[{one}]","records":[],"producer":"{PRODUCER}"}}"#),
        format!(r#"{{"x":{{"records":[{one}]}},"records":[],"producer":"{PRODUCER}"}}"#),
        format!(r#"{{"records":[{one}]}},"records":[],"producer":"{PRODUCER}"}}"#),
        format!(r#"{{"producer":"{PRODUCER}","records":[{one}"#),
        format!(r#"{{"producer":"{PRODUCER}","records":[{one}]"#),
        format!(r#"{{"producer":"{PRODUCER}"}}"#),
        r#"{"records":[]}"#.to_owned(),
        r#"{"producer":"x","records":[]}"#.to_owned(),
        format!(r#"{{"producer":"{PRODUCER}","records":[],"records":[]}}"#),
        format!(r#"{{"producer":"{PRODUCER}","records":[],"dropped":[[5,3,"why"]]}}"#),
        format!(r#"{{"producer":"{PRODUCER}","records":[],"repair":1}}"#),
        of_records("") + "x",
        format!(r#"["{PRODUCER}",[],[],false]"#),
    ] {
        assert!(!is_read(&body), "{body}");
    }
}

#[test]
fn limits_are_those_of_the_other_way() {
    let record = r#"{"seq":1,"epoch":2,"values":{}}"#;
    for (count, within) in [(BATCH_RECORDS_MAX, true), (BATCH_RECORDS_MAX + 1, false)] {
        let records = vec![record; count].join(",");
        assert_eq!(is_read(&of_records(&records)), within, "{count} records");
    }
    for (count, within) in [(RECORD_LABELS_MAX, true), (RECORD_LABELS_MAX + 1, false)] {
        let labels: Vec<_> = (0..count).map(|at| format!(r#""l{at}":1"#)).collect();
        let values = labels.join(",");
        let records = format!(r#"{{"seq":1,"epoch":2,"values":{{{values}}}}}"#);
        assert_eq!(is_read(&of_records(&records)), within, "{count} labels");
    }
}

/// Numbers as JSON writes them, some of them in strings.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,4})?",
        2 => "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,25})?([eE][-+]?[0-9]{1,3})?",
        1 => any::<f64>().prop_map(|number| number.to_string()),
        1 => "\"-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,4})?\"",
    ]
}

fn body() -> impl Strategy<Value = String> {
    let labels = vec!["cpu", "mem", "disk:/", "a\\u0062", "ß", "1\\\"2"];
    let set = prop::collection::vec(prop::sample::select(labels), 0..4);
    // Some follow each other that have the same labels.
    let sets = prop::collection::vec(set, 2);
    let values = (0..2_usize, prop::collection::vec(number(), 4));
    let records = prop::collection::vec((0..5_u64, 0..5_u64, values), 0..8);
    let space = prop::sample::select(vec!["", "", " ", "\n"]);
    (sets, records, space).prop_map(|(sets, records, space)| {
        let mut body = format!(r#"{{"producer":{space}"{PRODUCER}","records":{space}["#);
        for (at, (seq, epoch, (set, values))) in records.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let values = sets[*set].iter().zip(values);
            let values = values.map(|(label, value)| format!(r#""{label}":{space}{value}"#));
            let values = values.collect::<Vec<_>>().join(",");
            let (seq, epoch) = (seq + 1, epoch * 1_000_000);
            write!(
                body,
                r#"{comma}{space}{{"seq":{seq},"epoch":{space}{epoch},"values":{{{values}}}}}"#
            )
            .unwrap();
        }
        body + "]}"
    })
}

proptest! {
    #[test]
    fn any_number_is_read_to_the_bit(value in number()) {
        is_read(&of_value(&value));
    }

    /// Whole ones, and with a byte that is another or not there.
    #[test]
    fn any_batch_is_the_same_both_ways(
        body in body(),
        at in any::<prop::sample::Index>(),
        to in prop::sample::select(b"{}[]\",:-+.eE019\\u ".as_slice()),
    ) {
        is_read(&body);
        let mut changed = body.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = to;
        is_read(&String::from_utf8_lossy(&changed));
        changed.remove(at);
        is_read(&String::from_utf8_lossy(&changed));
    }
}
