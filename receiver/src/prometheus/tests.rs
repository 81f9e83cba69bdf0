use proptest::prelude::*;
use prost::Message as _;

use super::message::{
    LabelMatcher, LabelPair, MatcherType, MetricMetadata, MetricType, Query, READ_REQUEST,
    ReadHints, ReadRequest, ResponseType, STALE_NAN_BITS, SamplePair, TimeSeries, WRITE_REQUEST,
    WriteRequest,
};
use super::*;
use crate::protobuf::wire::{self, WireError};
use crate::protobuf::{MessageError, Skipped, decode};

/// A field with bytes, as the wire has it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 0x80);
    [&[number << 3 | 2, length], bytes].concat()
}

fn label(name: &str, value: &str) -> LabelPair {
    LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// What the numbers and types of `remote.proto` and `types.proto` come to.
#[test]
fn the_bytes_of_a_write() {
    let name = [field(1, b"__name__"), field(2, b"up")].concat();
    let sample = [&[0x09][..], &1.5_f64.to_le_bytes(), &[0x10, 0xe8, 0x07]].concat();
    let exemplar = field(1, &field(1, b"trace"));
    let series = [
        field(1, &name),
        field(2, &sample),
        field(3, &exemplar),
        field(4, &[0x08, 0x01]),
    ];
    let metadata = [
        &[0x08, 0x01][..],
        &field(2, b"up"),
        &field(4, b"help"),
        &field(5, b"s"),
    ];
    let bytes = [
        field(1, &series.concat()),
        // Reserved, and unknown.
        field(2, b"x"),
        field(3, &metadata.concat()),
    ]
    .concat();
    let expected = WriteRequest {
        timeseries: vec![TimeSeries {
            labels: vec![label("__name__", "up")],
            samples: vec![SamplePair {
                value: 1.5,
                timestamp: 1_000,
            }],
            exemplars: vec![Skipped {}],
            histograms: vec![Skipped {}],
        }],
        metadata: vec![MetricMetadata {
            r#type: MetricType::Counter.into(),
            metric_family_name: "up".to_owned(),
            help: "help".to_owned(),
            unit: "s".to_owned(),
        }],
    };
    assert_eq!(decode::<WriteRequest>(&bytes, 100).unwrap(), expected);
}

#[test]
fn the_bytes_of_a_read() {
    let matcher = [&[0x08, 0x02][..], &field(2, b"a"), &field(3, b"b")].concat();
    let hints = [&[0x08, 0x05][..], &field(2, b"rate"), &[0x18, 1, 0x20, 2]].concat();
    let more_hints = [&field(5, b"host")[..], &[0x30, 1, 0x38, 7]].concat();
    let query = [
        // -1 has ten bytes.
        &[
            0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0x10, 2,
        ][..],
        &field(3, &matcher),
        &field(4, &[hints, more_hints].concat()),
    ];
    let bytes = [&field(1, &query.concat())[..], &[0x12, 2, 1, 0]].concat();
    let expected = ReadRequest {
        queries: vec![Query {
            start_timestamp_ms: -1,
            end_timestamp_ms: 2,
            matchers: vec![LabelMatcher {
                r#type: MatcherType::Matches.into(),
                name: "a".to_owned(),
                value: "b".to_owned(),
            }],
            hints: Some(ReadHints {
                step_ms: 5,
                func: "rate".to_owned(),
                start_ms: 1,
                end_ms: 2,
                grouping: vec!["host".to_owned()],
                by: true,
                range_ms: 7,
            }),
        }],
        accepted_response_types: vec![
            ResponseType::StreamedXorChunks.into(),
            ResponseType::Samples.into(),
        ],
    };
    assert_eq!(decode::<ReadRequest>(&bytes, 100).unwrap(), expected);
}

/// A NaN keeps its bits.
#[test]
fn the_end_of_a_series() {
    let sample = SamplePair {
        value: f64::from_bits(STALE_NAN_BITS),
        timestamp: 1,
    };
    let request = WriteRequest {
        timeseries: vec![TimeSeries {
            samples: vec![sample],
            ..TimeSeries::default()
        }],
        ..WriteRequest::default()
    };
    let read: WriteRequest = decode(&request.encode_to_vec(), 100).unwrap();
    let value = read.timeseries[0].samples[0].value;
    assert_eq!(value.to_bits(), STALE_NAN_BITS);
}

/// Under a limit, at it and over it, on every level.
#[test]
fn fields_are_counted_on_all_levels() {
    let labels = [field(1, b""), field(1, &field(1, b"a"))].concat();
    let series = field(1, &labels);
    // The series, two labels, a name; metadata; a number.
    let bytes = [&series[..], &field(3, b""), &[0x08, 0x01]].concat();
    let counted = |fields_max| wire::check::<WriteRequest>(&bytes, fields_max);
    assert_eq!(counted(7), Ok(()));
    assert_eq!(counted(6), Ok(()));
    assert_eq!(counted(5), Err(WireError::TooManyFields { fields_max: 5 }));
    assert_eq!(counted(0), Err(WireError::TooManyFields { fields_max: 0 }));
    assert_eq!(wire::check::<WriteRequest>(b"", 0), Ok(()));
    // 4 million series in 8 MiB.
    let many = [0x0a, 0].repeat(4 << 20);
    let refused = decode::<WriteRequest>(&many, 1_000_000).unwrap_err();
    assert!(matches!(
        refused,
        MessageError::Wire(WireError::TooManyFields { .. })
    ));
}

#[test]
fn what_is_no_message() {
    let deep = (0..200).fold(vec![], |inner, _| {
        let length = prost::length_delimiter_len(inner.len());
        let mut outer = vec![0x0a];
        prost::encode_length_delimiter(inner.len(), &mut outer).unwrap();
        assert!(length <= 2);
        outer.extend(inner);
        outer
    });
    for bytes in [
        // Cut off, in a key, a length, a text, a number.
        &[0x8a][..],
        &[0x0a],
        &[0x0a, 0x80],
        &[0x0a, 2, 0x0a],
        &[0x0a, 4, 0x0a, 2, 0x0a, 1],
        &[0x09, 0, 0, 0],
        // Lengths past everything.
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x07],
        &[
            0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        ],
        &[
            0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ],
        // A length inside that is longer than the message it is in.
        &[0x0a, 2, 0x0a, 3, 0, 0, 0],
        // The number 0, a key past 32 bits, groups, types that there are not.
        &[0x02, 0],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0],
        &[0x0b, 0x0c],
        &[0x0c],
        &[0x0e],
        &[0x0f],
        // Another type of field than this one has.
        &[0x08, 0],
        &[0x0a, 2, 0x08, 0],
        // Not UTF-8.
        &[0x0a, 5, 0x0a, 3, 0x0a, 1, 0xff],
        // Messages in a text.
        &deep,
    ] {
        assert!(decode::<WriteRequest>(bytes, 1_000).is_err(), "{bytes:x?}");
    }
}

#[test]
fn media_types() {
    for (content_type, is_write, is_read) in [
        ("application/x-protobuf", true, true),
        ("Application/X-Protobuf ; charset=x", true, true),
        (
            "application/x-protobuf;proto=prometheus.WriteRequest",
            true,
            false,
        ),
        (
            "application/x-protobuf; proto=\"prometheus.WriteRequest\"",
            true,
            false,
        ),
        (
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            false,
            false,
        ),
        ("application/x-protobuf;proto=", false, false),
        ("application/json", false, false),
        ("", false, false),
    ] {
        let of = |message| is_media_type_of(content_type, message);
        assert_eq!(of(WRITE_REQUEST), is_write, "{content_type}");
        assert_eq!(of(READ_REQUEST), is_read, "{content_type}");
    }
}

prop_compose! {
    fn any_series()(
        labels in prop::collection::vec(("[a-z]{0,3}", "\\PC{0,3}"), 0..4),
        samples in prop::collection::vec((any::<f64>().prop_filter("==", |x| !x.is_nan()), any::<i64>()), 0..4),
    ) -> TimeSeries {
        TimeSeries {
            labels: labels.iter().map(|(name, value)| label(name, value)).collect(),
            samples: samples.into_iter().map(|(value, timestamp)| SamplePair { value, timestamp }).collect(),
            ..TimeSeries::default()
        }
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(timeseries in prop::collection::vec(any_series(), 0..4)) {
        let written = WriteRequest { timeseries, metadata: Vec::new() };
        let read: WriteRequest = decode(&written.encode_to_vec(), 1_000).unwrap();
        prop_assert_eq!(read, written);
    }

    /// What is counted is what prost reads: it finds fault with nothing else but types and texts.
    #[test]
    fn any_bytes(
        bytes in prop::collection::vec(prop_oneof![0u8..4, Just(0x0a), Just(0x12), any::<u8>()], 0..40),
    ) {
        let counted = wire::check::<WriteRequest>(&bytes, usize::MAX);
        let is_group = counted == Err(WireError::Malformed("groups are not taken"));
        if WriteRequest::decode(&bytes[..]).is_ok() && !is_group {
            prop_assert_eq!(counted, Ok(()));
        }
        let _ = decode::<ReadRequest>(&bytes, 10);
    }
}
