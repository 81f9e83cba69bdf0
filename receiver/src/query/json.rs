//! Summaries as JSON, byte for byte as `serde_json` writes [`Summaries`], for less time: a host with
//! ten labels has 850 intervals, and most of their numbers have two decimals.
//!
//! [`Summaries`]: lizmon_protocol::summary::Summaries

use std::ops::Range;

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
        let mut head = IntervalHead::new("", "", window.width_secs);
        // The first one has no comma before it.
        let mut skipped = 1;
        for average in &window.averages {
            self.0.extend_from_slice(&head.of(average)[skipped..]);
            self.average(average)?;
            skipped = 0;
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

    /// The numbers of an interval, after its head.
    fn average(&mut self, average: &IntervalAverage) -> serde_json::Result<()> {
        let IntervalAverage { avg, min, max, .. } = *average;
        let quick = [avg, min, max].map(hundredths_of);
        if let [Some(avg), Some(min), Some(max)] = quick {
            let mut text = Text::default();
            text.integer(average.count);
            text.decimal(b",\"avg\":", avg);
            text.decimal(b",\"min\":", min);
            text.decimal(b",\"max\":", max);
            text.put(b"}");
            self.0.extend_from_slice(text.written());
            return Ok(());
        }
        self.number(b"", average.count);
        self.float(b",\"avg\":", avg)?;
        self.float(b",\"min\":", min)?;
        self.float(b",\"max\":", max)?;
        self.0.push(b'}');
        Ok(())
    }

    fn number(&mut self, before: &[u8], number: u64) {
        let mut digits = itoa::Buffer::new();
        self.0.extend_from_slice(before);
        self.0.extend_from_slice(digits.format(number).as_bytes());
    }

    /// The shortest decimal that is read as this number.
    fn float(&mut self, before: &[u8; 7], number: f64) -> serde_json::Result<()> {
        let Some(hundredths) = hundredths_of(number) else {
            self.0.extend_from_slice(before);
            return serde_json::to_writer(&mut self.0, &number);
        };
        let mut text = Text::default();
        text.decimal(before, hundredths);
        self.0.extend_from_slice(text.written());
        Ok(())
    }
}

/// An interval up to its numbers. From one to the next only digits of its times change, so it is
/// copied whole.
struct IntervalHead {
    text: Vec<u8>,
    start: Range<usize>,
    end: Range<usize>,
    width_secs: u64,
}

impl IntervalHead {
    fn new(start: &str, end: &str, width_secs: u64) -> Self {
        let mut text = String::from(",{\"start-sec\":");
        let start = append(&mut text, start);
        text.push_str(",\"end-sec\":");
        let end = append(&mut text, end);
        text.push_str(",\"interval-size-sec\":");
        append(&mut text, itoa::Buffer::new().format(width_secs));
        text.push_str(",\"num-samples\":");
        Self {
            text: text.into_bytes(),
            start,
            end,
            width_secs,
        }
    }

    fn of(&mut self, average: &IntervalAverage) -> &[u8] {
        let (mut start, mut end) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (start, end) = (start.format(average.start), end.format(average.end));
        if (start.len(), end.len()) != (self.start.len(), self.end.len()) {
            *self = Self::new(start, end, self.width_secs);
        }
        self.text[self.start.clone()].copy_from_slice(start.as_bytes());
        self.text[self.end.clone()].copy_from_slice(end.as_bytes());
        &self.text
    }
}

/// Appends, and says where.
fn append(text: &mut String, part: &str) -> Range<usize> {
    let start = text.len();
    text.push_str(part);
    start..text.len()
}

/// Numbers of one interval, at most: a count of 20 digits, and three of 16 bytes with their names.
const TEXT_BYTES: usize = 96;

/// Text that is written piece by piece and then copied at once.
struct Text {
    bytes: [u8; TEXT_BYTES],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            bytes: [0; TEXT_BYTES],
            len: 0,
        }
    }
}

impl Text {
    /// Of a length that is known when it is compiled, or it would be a call.
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(bytes);
        self.len += N;
    }

    fn integer(&mut self, number: u64) {
        let mut digits = itoa::Buffer::new();
        let bytes = digits.format(number).as_bytes();
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// One decimal at least: `5.0`.
    fn decimal(&mut self, before: &[u8; 7], hundredths: i64) {
        self.put(before);
        if hundredths < 0 {
            self.put(b"-");
        }
        let (whole, rest) = (
            hundredths.unsigned_abs() / 100,
            hundredths.unsigned_abs() % 100,
        );
        match whole {
            0..10 => self.put(&[digit(whole)]),
            10..100 => self.put(&[digit(whole / 10), digit(whole % 10)]),
            _ => self.integer(whole),
        }
        self.put(&[b'.', digit(rest / 10), digit(rest % 10)]);
        if rest % 10 == 0 {
            self.len -= 1;
        }
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn digit(below_ten: u64) -> u8 {
    b'0' + below_ten as u8
}

/// A number with at most two decimals, in hundredths. Decimals of so few digits are all different
/// numbers, so there is no shorter one for the same.
fn hundredths_of(number: f64) -> Option<i64> {
    const BELOW: f64 = 1e14;
    let product = number * 100.0;
    // Rounds what is near to a whole number, which is all that counts, without a call.
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
        json.float(b",\"avg\":", number).unwrap();
        let text = String::from_utf8(json.0).unwrap();
        text.strip_prefix(",\"avg\":").unwrap().to_owned()
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

    /// Times of more and fewer digits, numbers with many decimals, the largest counts.
    #[test]
    fn any_interval_is_written_as_serde_json_writes_it() {
        let interval = |start, count, avg: f64| IntervalAverage {
            start,
            end: start + 60,
            count,
            avg,
            min: -avg,
            max: avg * 1e3,
        };
        // The longest text of each number that is written the quick way.
        const LONGEST: f64 = -999_999_999_999.98;
        let longest = IntervalAverage {
            min: LONGEST,
            max: LONGEST,
            ..interval(120, u64::MAX, LONGEST)
        };
        assert!(hundredths_of(LONGEST).is_some());
        let window = Window {
            start: 0,
            end: u64::MAX,
            width_secs: 60,
            averages: vec![
                interval(0, 1, 0.0),
                interval(40, u64::MAX, 999_999_999_999.99),
                longest,
                interval(9_999_999_940, 7, -1.0 / 3.0),
                interval(9_999_999_999, 7, 10.05),
                interval(1_465_001_760, 0, f64::MIN_POSITIVE),
                interval(u64::MAX - 60, u64::MAX, -99.9),
            ],
        };
        let mut json = SummariesJson::with_room(0);
        json.push("a", &window, None).unwrap();
        let expected = Summaries::from([("a".to_owned(), summary(&window, None))]);
        let expected = serde_json::to_string(&expected).unwrap();
        assert_eq!(String::from_utf8(json.finish()).unwrap(), expected);
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
