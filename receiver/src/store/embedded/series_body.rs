//! How a series is stored in its row.
//!
//! ```text
//! body  series, as lizmon-summary encodes it | CRC-32 u32, little-endian, over host, label and the series
//! ```

use lizmon_summary::Series;

use super::checksum::checksum;

const SUM_BYTES: usize = 4;

fn sum(host: &str, label: &str, series: &[u8]) -> [u8; SUM_BYTES] {
    checksum(&[b"series", host.as_bytes(), label.as_bytes(), series]).to_le_bytes()
}

/// The body of this series.
pub(super) fn encode(host: &str, label: &str, series: &Series) -> Vec<u8> {
    let mut body = series.encode();
    let sum = sum(host, label, &body);
    body.extend_from_slice(&sum);
    body
}

/// The series; `None` if the body is not what was written for it, or if no samples can have made
/// it.
pub(super) fn decode(host: &str, label: &str, body: &[u8]) -> Option<Series> {
    let (series, stored_sum) = body.split_last_chunk()?;
    match *stored_sum == sum(host, label, series) {
        true => Series::decode(series).ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_for_its_series_and_for_no_other() {
        const NOW: u64 = 1_465_001_814;
        let mut series = Series::new();
        for epoch in NOW - 90_000..NOW {
            series.apply(epoch, (epoch % 977) as f64 / 7.0);
        }
        series.clear_dirty();
        let body = encode("web1", "cpu", &series);
        assert_eq!(decode("web1", "cpu", &body), Some(series));
        for (host, label) in [("web2", "cpu"), ("web1", "cpv"), ("web1c", "pu")] {
            assert_eq!(decode(host, label, &body), None, "{host} {label}");
        }
        for at in 0..body.len() {
            assert_eq!(decode("web1", "cpu", &body[..at]), None, "cut at {at}");
            let mut flipped = body.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(decode("web1", "cpu", &flipped), None, "a bit of {at}");
        }
        // The checksum is right, but the bytes are of no series.
        let bytes = [5; 9];
        let body = [&bytes[..], &sum("web1", "cpu", &bytes)].concat();
        assert_eq!(decode("web1", "cpu", &body), None);
    }
}
