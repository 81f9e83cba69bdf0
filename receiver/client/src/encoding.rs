//! How paths and bodies of requests are encoded.

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
    fn only_what_gets_smaller_is_compressed() {
        let long = vec![b'a'; COMPRESS_BYTES_MIN];
        let small = compress(&long).unwrap();
        assert!(small.len() < 100);
        assert_eq!(zstd::bulk::decompress(&small, long.len()).unwrap(), long);
        assert!(compress(&long[1..]).is_none());
    }
}
