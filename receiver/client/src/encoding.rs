//! How paths and bodies of requests are encoded.

use lizmon_protocol::history::HistoryRange;
use lizmon_protocol::name::{Label, NodeName, TagFilter};
use lizmon_protocol::route;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Smaller batches are not compressed.
const COMPRESS_BYTES_MIN: usize = 4096;
/// zstd's default. Higher levels cost the monitored machine more CPU than they save.
const COMPRESS_LEVEL: i32 = 3;

/// The compressed body, if it is smaller.
pub(crate) fn compress(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    zstd::bulk::compress(body, COMPRESS_LEVEL)
        .ok()
        .filter(|small| small.len() < body.len())
}

/// Encodes any text as one path segment, including `/`, `%`, `?` and `#`.
pub(crate) fn encode_segment(text: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The path and query of a series' history. URL parsers treat `.` and `..` as path segments with a
/// meaning, even if encoded, so these labels are in the query.
pub(crate) fn history_path(host: &NodeName, label: &Label<'_>, range: &HistoryRange) -> String {
    let (query, label) = (range.to_query(), label.as_str());
    match label {
        "." | ".." => format!("{}/{host}?{query}&label={label}", route::HISTORY),
        _ => format!(
            "{}/{host}/{}?{query}",
            route::HISTORY,
            encode_segment(label)
        ),
    }
}

/// A path about the hosts with these tags.
pub(crate) fn with_tags(path: &str, wanted: &TagFilter) -> String {
    match wanted.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", wanted.to_query()),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::*;

    #[test]
    fn a_filter_stays_one_segment() {
        let cases = [
            ("cpu", "cpu"),
            ("disk:/", "disk%3A%2F"),
            ("a/../b", "a%2F..%2Fb"),
            ("100% ?#", "100%25%20%3F%23"),
            ("außen", "au%C3%9Fen"),
        ];
        for (filter, expected) in cases {
            assert_eq!(encode_segment(filter), expected);
            let url = Url::parse(&format!("https://h/api/perf/web1/{expected}")).unwrap();
            assert_eq!(url.path(), format!("/api/perf/web1/{expected}"));
        }
    }

    #[test]
    fn any_label_has_a_history() {
        let host: NodeName = "web1".parse().unwrap();
        for label in [
            "cpu",
            "disk:/",
            ".",
            "..",
            "a/../b",
            "100% ?#&label=x",
            "außen",
        ] {
            let label = Label::new(label).unwrap();
            let path = history_path(&host, &label, &HistoryRange::default());
            let url = Url::parse(&format!("https://h{path}")).unwrap();
            let in_path = url.path().strip_prefix("/api/history/web1").unwrap();
            let in_path = in_path.strip_prefix('/').map(|encoded| {
                percent_encoding::percent_decode_str(encoded)
                    .decode_utf8_lossy()
                    .into_owned()
            });
            let of_query = |wanted: &str| {
                let mut pairs = url.query_pairs();
                pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
            };
            assert_eq!(
                in_path.or(of_query("label")).as_deref(),
                Some(label.as_str())
            );
            assert_eq!(of_query("tier").as_deref(), Some("by-hour"));
        }
    }

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        let long = vec![b'a'; COMPRESS_BYTES_MIN];
        let small = compress(&long).unwrap();
        assert!(small.len() < 100);
        assert_eq!(zstd::bulk::decompress(&small, long.len()).unwrap(), long);
        assert!(compress(&long[1..]).is_none());
    }
}
