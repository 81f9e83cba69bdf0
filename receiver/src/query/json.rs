//! Summaries as JSON, byte for byte as `serde_json` writes [`Summaries`], for less time: a host with
//! ten labels has 850 intervals, and most of their numbers have two decimals.
//!
//! [`Summaries`]: lizmon_protocol::summary::Summaries

use lizmon_summary::{IntervalAverage, Window};

/// About the size of one interval.
const INTERVAL_BYTES: usize = 128;

/// An object that grows by one window at a time.
pub(super) struct SummariesJson(Vec<u8>);

impl SummariesJson {
    /// An empty one, with room for so many intervals.
    pub(super) fn with_room(intervals: usize) -> Self {
        let mut bytes = Vec::with_capacity(intervals * INTERVAL_BYTES);
        bytes.push(b'{');
        Self(bytes)
    }

    /// Adds a window. Names come in ascending order.
    pub(super) fn push(
        &mut self,
        name: &str,
        window: &Window,
        as_of: Option<u64>,
    ) -> serde_json::Result<()> {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        // A label may have characters that must be escaped.
        serde_json::to_writer(&mut self.0, name)?;
        self.number(b":{\"start\":", window.start);
        self.number(b",\"end\":", window.end);
        self.number(b",\"timeslice-size-sec\":", window.width_secs);
        self.number(b",\"average-count\":", window.averages.len() as u64);
        self.0.extend_from_slice(b",\"averages\":[");
        let mut before: &[u8] = b"{\"start-sec\":";
        for average in &window.averages {
            self.average(before, average, window.width_secs)?;
            before = b",{\"start-sec\":";
        }
        self.0.push(b']');
        if let Some(as_of) = as_of {
            self.number(b",\"as-of\":", as_of);
        }
        self.0.push(b'}');
        Ok(())
    }

    /// The whole object. What has far fewer intervals than there was room for gives the room back:
    /// an answer that waits to be read takes the memory that it is counted for.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        if self.0.capacity() > 2 * self.0.len() {
            self.0.shrink_to_fit();
        }
        self.0
    }

    fn average(
        &mut self,
        before: &[u8],
        average: &IntervalAverage,
        width_secs: u64,
    ) -> serde_json::Result<()> {
        self.number(before, average.start);
        self.number(b",\"end-sec\":", average.end);
        self.number(b",\"interval-size-sec\":", width_secs);
        self.number(b",\"num-samples\":", average.count);
        self.float(b",\"avg\":", average.avg)?;
        self.float(b",\"min\":", average.min)?;
        self.float(b",\"max\":", average.max)?;
        self.0.push(b'}');
        Ok(())
    }

    fn number(&mut self, before: &[u8], number: u64) {
        let mut digits = itoa::Buffer::new();
        self.0.extend_from_slice(before);
        self.0.extend_from_slice(digits.format(number).as_bytes());
    }

    /// The shortest decimal that is read as this number.
    fn float(&mut self, before: &[u8], number: f64) -> serde_json::Result<()> {
        self.0.extend_from_slice(before);
        let Some(hundredths) = hundredths_of(number) else {
            return serde_json::to_writer(&mut self.0, &number);
        };
        if hundredths < 0 {
            self.0.push(b'-');
        }
        let hundredths = hundredths.unsigned_abs();
        self.number(b"", hundredths / 100);
        let (tenths, rest) = ((hundredths % 100 / 10) as u8, (hundredths % 10) as u8);
        match rest {
            0 => self.0.extend_from_slice(&[b'.', b'0' + tenths]),
            _ => (self.0).extend_from_slice(&[b'.', b'0' + tenths, b'0' + rest]),
        }
        Ok(())
    }
}

/// A number with at most two decimals, in hundredths. Decimals of so few digits are all different
/// numbers, so there is no shorter one for the same.
fn hundredths_of(number: f64) -> Option<i64> {
    const BELOW: f64 = 1e14;
    let product = number * 100.0;
    // Rounds what is near to a whole number, which is all that counts. `round` would be a call.
    let hundredths = (product + 0.5_f64.copysign(product)) as i64;
    // The quotient is the number that is nearest to the decimal. -0.0 has a sign of its own.
    let is_same = (hundredths as f64 / 100.0).to_bits() == number.to_bits();
    (is_same && product.abs() < BELOW).then_some(hundredths)
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::summary::{Average, Summaries, Summary};
    use lizmon_summary::Series;
    use proptest::prelude::*;

    use super::*;

    fn float(number: f64) -> String {
        let mut json = SummariesJson(Vec::new());
        json.float(b"", number).unwrap();
        String::from_utf8(json.0).unwrap()
    }

    fn summary(window: &Window, as_of: Option<u64>) -> Summary {
        let averages = window.averages.iter().map(|average| Average {
            start_sec: average.start,
            end_sec: average.end,
            interval_size_sec: window.width_secs,
            num_samples: average.count,
            avg: average.avg,
            min: average.min,
            max: average.max,
        });
        Summary {
            start: window.start,
            end: window.end,
            timeslice_size_sec: window.width_secs,
            average_count: window.averages.len(),
            averages: averages.collect(),
            as_of,
        }
    }

    #[test]
    fn windows_are_written_as_serde_json_writes_them() {
        let mut series = Series::new();
        for epoch in [1_465_001_700, 1_465_001_701, 1_465_001_814] {
            series.apply(epoch, 4.98);
        }
        let window = series.window(0, 1_465_001_814).unwrap();
        let (mut all, mut json) = (Summaries::new(), SummariesJson::with_room(0));
        let empty = SummariesJson::with_room(9).finish();
        assert_eq!(empty, b"{}");
        // Or it would take more memory than it is counted for.
        assert!(empty.capacity() <= 2 * empty.len());
        for (name, as_of) in [("a", None), ("b", Some(7)), ("disk:\"\\\n", None)] {
            json.push(name, &window, as_of).unwrap();
            all.insert(name.to_owned(), summary(&window, as_of));
            let written = SummariesJson(json.0.clone()).finish();
            let written = String::from_utf8(written).unwrap();
            assert_eq!(written, serde_json::to_string(&all).unwrap());
        }
    }

    #[test]
    fn numbers_are_written_as_serde_json_writes_them() {
        for number in [
            0.0,
            -0.0,
            0.01,
            -0.01,
            0.1,
            1.0,
            -1.5,
            4.98,
            100.0,
            1e12,
            999_999_999_999.99,
            1e14,
            1e15,
            1e16,
            1e-7,
            5e-324,
            f64::MAX,
            1.0 / 3.0,
            0.1 + 0.2,
        ] {
            assert_eq!(float(number), serde_json::to_string(&number).unwrap());
        }
    }

    proptest! {
        #[test]
        fn any_number_is_too(
            number in prop_oneof![
                prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
                -1e13..1e13,
                (-20_000_000_000_000_000_i64..20_000_000_000_000_000).prop_map(|n| n as f64 / 100.0),
                (-1_000_000_i64..1_000_000).prop_map(|n| n as f64 / 100.0),
                (-1_000_000_i64..1_000_000).prop_map(|n| n as f64 / 1_000.0),
            ],
        ) {
            prop_assert_eq!(float(number), serde_json::to_string(&number).unwrap());
        }
    }
}
