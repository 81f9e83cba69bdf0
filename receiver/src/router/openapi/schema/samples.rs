//! What machines send: samples and facts.

use lizmon_protocol::delivery::{ACKNOWLEDGED, Acknowledge};
use lizmon_protocol::facts::{FACT_KEY_BYTES_MAX, FACT_TEXT_BYTES_MAX, FACTS_MAX, Facts};
use lizmon_protocol::name::{LABEL_BYTES_MAX, NODE_NAME_BYTES_MAX, TAG_PART_BYTES_MAX};
use lizmon_protocol::sample::{
    BATCH_DROPPED_MAX, BATCH_RECORDS_MAX, Batch, BatchAnswer, Dropped, Epoch, RECORD_LABELS_MAX,
    Record, SampleSet, Seq, VALUE_MAX, Value,
};
use utoipa::openapi::schema::ArrayItems;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema};

use super::parts::{
    Keys as _, NamedSchema, boolean, count, epoch, list, map, named, number, object, parsed, text,
};

/// The host of every example.
pub(in super::super) const HOST: &str = "web1";
/// The newest sample of every example.
pub(in super::super) const NOW: u64 = 1_465_001_814;
pub(in super::super) const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
/// The reason is kept as a label, after this word and a colon.
const ACKNOWLEDGED_WHY_BYTES_MAX: usize = LABEL_BYTES_MAX - ACKNOWLEDGED.len() - ": ".len();
/// A number of RFC 8259 section 6.
const NUMBER_PATTERN: &str = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$";
const PRODUCER_PATTERN: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

pub(super) fn all() -> Vec<NamedSchema> {
    vec![
        node_name().example("host", &HOST),
        NamedSchema::new("Label", label()).example("label", &"disk-used:/"),
        NamedSchema::new("Value", value())
            .example("number", &4.98)
            .example("text", &"61.2"),
        tag().example("tag", &"env=prod"),
        producer().example("uuid", &PRODUCER),
        sample_set(),
        NamedSchema::new("Record", record()).example("record", &records()[0]),
        batch(),
        batch_answer(),
        facts(),
        acknowledge(),
    ]
}

fn node_name() -> NamedSchema {
    let schema = text()
        .says("The name of a machine, compared exactly")
        .pattern(Some("^[A-Za-z0-9][A-Za-z0-9._-]*$"))
        .min_length(Some(1))
        .max_length(Some(NODE_NAME_BYTES_MAX));
    NamedSchema::new("NodeName", schema)
}

/// The limit is one of bytes, which a schema cannot say.
fn label() -> ObjectBuilder {
    text()
        .description(Some(format!(
            "The name of a series: 1 to {LABEL_BYTES_MAX} bytes of printable UTF-8, not beginning with `summary:`"
        )))
        .pattern(Some(r"^(?!summary:)[^\u0000-\u001f\u007f-\u009f]+$"))
        .min_length(Some(1))
        .max_length(Some(LABEL_BYTES_MAX))
}

fn value() -> OneOfBuilder {
    let finite = number().minimum(Some(-VALUE_MAX)).maximum(Some(VALUE_MAX));
    OneOfBuilder::new()
        .description(Some(format!(
            "A number, or one in a string, at most {VALUE_MAX:e} either way"
        )))
        .item(finite)
        .item(text().pattern(Some(NUMBER_PATTERN)))
}

fn tag() -> NamedSchema {
    let last = TAG_PART_BYTES_MAX - 1;
    let pattern =
        format!("^[a-z0-9][a-z0-9._-]{{0,{last}}}=[A-Za-z0-9][A-Za-z0-9._-]{{0,{last}}}$");
    let schema = text().says("`KEY=VALUE`").pattern(Some(pattern));
    NamedSchema::new("Tag", schema)
}

fn producer() -> NamedSchema {
    let schema = text()
        .says("A spool that numbers its records: a UUID in lower case")
        .pattern(Some(PRODUCER_PATTERN));
    NamedSchema::new("Producer", schema)
}

fn seq() -> ObjectBuilder {
    count().minimum(Some(1_usize))
}

fn sample_set() -> NamedSchema {
    let label: Schema = label().into();
    let schema = map(named("Value"))
        .says("Values by label, each label at most once")
        .property_names(Some(label))
        .max_properties(Some(RECORD_LABELS_MAX));
    NamedSchema::new("SampleSet", schema).example("sample", &set())
}

fn record() -> ObjectBuilder {
    object()
        .says("A sample with its number")
        .has("seq", seq())
        .has("epoch", epoch())
        .has("values", named("SampleSet"))
}

fn batch() -> NamedSchema {
    let dropped = ArrayBuilder::new()
        .prefix_items([seq(), seq(), label()])
        .items(ArrayItems::False)
        .min_items(Some(3))
        .max_items(Some(3))
        .description(Some(
            "The first number, the last one, and why they never come",
        ));
    let schema = object()
        .says("The records of one producer. It is accepted or refused as a whole")
        .has("producer", named("Producer"))
        .has(
            "records",
            list(named("Record")).max_items(Some(BATCH_RECORDS_MAX)),
        )
        .may_have("dropped", list(dropped).max_items(Some(BATCH_DROPPED_MAX)))
        .may_have(
            "repair",
            boolean().says(
                "Whether the receiver had acknowledged these records and reports them missing",
            ),
        );
    let of = |dropped, repair| Batch {
        producer: parsed(PRODUCER),
        records: records(),
        dropped,
        repair,
    };
    NamedSchema::new("Batch", schema)
        .example("records", &of(Vec::new(), false))
        .example("repair", &of(dropped_ranges(), true))
}

fn batch_answer() -> NamedSchema {
    let schema = object()
        .has("accepted", count().says("Records that are new"))
        .has(
            "duplicate",
            count().says("Records that had arrived before, and changed nothing"),
        );
    NamedSchema::new("BatchAnswer", schema).example(
        "one",
        &BatchAnswer {
            accepted: 1,
            duplicate: 0,
        },
    )
}

fn facts() -> NamedSchema {
    let fact = OneOfBuilder::new()
        .item(number())
        .item(text().max_length(Some(FACT_TEXT_BYTES_MAX)));
    let key = text()
        .pattern(Some("^[a-z][a-z0-9-]*$"))
        .max_length(Some(FACT_KEY_BYTES_MAX));
    let schema = map(Schema::from(fact))
        .says("What the machine is. Texts are printable")
        .property_names(Some(key))
        .max_properties(Some(FACTS_MAX));
    NamedSchema::new("Facts", schema).example("machine", &machine())
}

fn acknowledge() -> NamedSchema {
    let why = text()
        .says("One line of text")
        .min_length(Some(1))
        .max_length(Some(ACKNOWLEDGED_WHY_BYTES_MAX));
    let schema = object().has("why", why);
    NamedSchema::new("Acknowledge", schema).example(
        "disk",
        &Acknowledge {
            why: "the disk broke".to_owned(),
        },
    )
}

/// What a machine says of itself.
pub(super) fn machine() -> Facts {
    let mut facts = Facts::default();
    facts.add_text("architecture", "x86_64");
    facts.add_number("cores", 8);
    facts.add_text("os", "Debian GNU/Linux 13 (trixie)");
    facts
}

fn set() -> SampleSet<'static> {
    let values = [("cpu", 4.98), ("mem", 61.2)];
    let values = values.map(|(label, value)| Some((parsed(label), Value::new(value)?)));
    SampleSet::new(values.into_iter().flatten().collect())
}

fn records() -> Vec<Record<SampleSet<'static>>> {
    let record = |seq, epoch| {
        Some(Record {
            seq: Seq::new(seq)?,
            epoch: Epoch::new(epoch)?,
            values: set(),
        })
    };
    record(17, NOW).into_iter().collect()
}

fn dropped_ranges() -> Vec<Dropped> {
    let range = |from, to, why| {
        Some(Dropped {
            from: Seq::new(from)?,
            to: Seq::new(to)?,
            why: parsed(why),
        })
    };
    range(15, 16, "the disk was full").into_iter().collect()
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::sample::{parse_batch, parse_sample_set};

    use super::super::examples_of;
    use super::*;

    /// The parsers take every example, and what it says is all there.
    #[test]
    fn examples_are_accepted() {
        for (word, example) in examples_of("SampleSet") {
            let body = serde_json::to_vec(example).unwrap();
            let set = parse_sample_set(&body).unwrap();
            assert_eq!(serde_json::to_value(&set).unwrap(), *example, "{word}");
        }
        for (word, example) in examples_of("Batch") {
            let body = serde_json::to_vec(example).unwrap();
            let batch = parse_batch(&body).unwrap();
            assert_eq!(batch.records.len(), 1, "{word}");
            assert_eq!(serde_json::to_value(&batch).unwrap(), *example, "{word}");
        }
        for (word, example) in examples_of("Facts") {
            let body = serde_json::to_vec(example).unwrap();
            assert_eq!(Facts::parse(&body), Ok(machine()), "{word}");
        }
    }
}
