//! What records that follow each other have in common.
//!
//! A producer writes each record like the one before, but for the numbers. So the text between them
//! is compared as a whole, and is not read again.
//!
//! ```text
//! {"seq":17,"epoch":1465001814,"values":{"cpu":4.98,"mem":61.2}}
//! pieces:   {"seq":   ,"epoch":   ,"values":{"cpu":   ,"mem":   }}
//! ```

use super::super::{Epoch, Seq, Value};

/// A whole number of so many digits is exact as an f64, and so is the power of ten.
const DIGITS_MAX: usize = 15;

const POWERS_OF_TEN: [f64; DIGITS_MAX + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// The text of a record around its numbers: those of `seq` and `epoch`, and its values.
pub(super) struct Shape<'a>(Vec<&'a str>);

impl<'a> Shape<'a> {
    /// That of a record, which is JSON. `None` if it has not so many numbers, because some are in
    /// strings.
    pub(super) fn of(record: &'a str, numbers: usize) -> Option<Self> {
        let mut pieces = Vec::with_capacity(numbers + 1);
        let (mut piece, mut at) = (record, 0);
        while let Some(byte) = piece.as_bytes().get(at) {
            match byte {
                b'"' => at += string_bytes(&piece[at..]),
                b'-' | b'0'..=b'9' => {
                    let (before, number) = piece.split_at(at);
                    pieces.push(before);
                    piece = number.trim_start_matches(is_in_number);
                    at = 0;
                }
                _ => at += 1,
            }
        }
        pieces.push(piece);
        (pieces.len() == numbers + 1).then_some(Self(pieces))
    }

    /// The record that the text begins with, if it has this shape and short numbers. Says what is
    /// behind it.
    pub(super) fn read<'t>(
        &self,
        text: &'t str,
        values: &mut Vec<Value>,
    ) -> Option<(Seq, Epoch, &'t str)> {
        let [before_seq, before_epoch, before_values @ .., end] = &self.0[..] else {
            return None;
        };
        let (seq, text) = integer(text.strip_prefix(before_seq)?)?;
        let (epoch, mut text) = integer(text.strip_prefix(before_epoch)?)?;
        values.clear();
        for before in before_values {
            let (value, behind) = decimal(text.strip_prefix(before)?)?;
            values.push(Value::new(value)?);
            text = behind;
        }
        Some((Seq::new(seq)?, Epoch::new(epoch)?, text.strip_prefix(end)?))
    }
}

fn is_in_number(c: char) -> bool {
    matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')
}

/// The length of the JSON string that the text begins with.
fn string_bytes(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |inner| inner + 2)
}

/// A whole number in JSON's grammar, and what is behind it.
fn integer(text: &str) -> Option<(u64, &str)> {
    let (number, behind) = with_digits(0, text)?;
    let has_zero_before = text.starts_with('0') && text.len() - behind.len() > 1;
    (!has_zero_before).then_some((number, behind))
}

/// A number in JSON's grammar without an exponent, and what is behind it. It is the nearest f64: one
/// whole number is divided by another, both of them exact, and IEEE 754 rounds the quotient
/// correctly.
fn decimal(text: &str) -> Option<(f64, &str)> {
    let unsigned = text.strip_prefix('-');
    let (whole, behind) = integer(unsigned.unwrap_or(text))?;
    let (number, behind) = match behind.strip_prefix('.') {
        None => (whole as f64, behind),
        Some(fraction) => {
            let (all, behind) = with_digits(whole, fraction)?;
            let digits = fraction.len() - behind.len();
            (all as f64 / POWERS_OF_TEN.get(digits)?, behind)
        }
    };
    Some((if unsigned.is_some() { -number } else { number }, behind))
}

/// The digits that the text begins with, at least one, put behind those of a number; `None` if it
/// would have more than [`DIGITS_MAX`].
fn with_digits(mut number: u64, text: &str) -> Option<(u64, &str)> {
    const BELOW: u64 = 10_u64.pow(DIGITS_MAX as u32);
    let mut digits = 0;
    while let Some(digit @ b'0'..=b'9') = text.as_bytes().get(digits) {
        number = number * 10 + u64::from(digit - b'0');
        digits += 1;
        if number >= BELOW {
            return None;
        }
    }
    (digits > 0).then(|| (number, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_pieces_of_a_record() {
        let check = |record: &str, numbers, expected: Option<&[&str]>| {
            let shape = Shape::of(record, numbers);
            assert_eq!(shape.map(|shape| shape.0).as_deref(), expected, "{record}");
        };
        check(
            r#"{"a":-1.5e+3,"b":2}"#,
            2,
            Some(&[r#"{"a":"#, r#","b":"#, "}"]),
        );
        let quoted = r#"{"1\"2\\":7 }"#;
        check(quoted, 1, Some(&[r#"{"1\"2\\":"#, " }"]));
        check(quoted, 0, None);
        check(quoted, 2, None);
        check(r#"{"ß":"7"}"#, 0, Some(&[r#"{"ß":"7"}"#]));
    }

    #[test]
    fn a_record_of_the_same_shape() {
        let record = r#"{"seq":17,"epoch":1465001814,"values":{"cpu":4.98,"mem":61.2}}"#;
        let shape = Shape::of(record, 4).unwrap();
        let read = |text: &str| {
            let mut values = Vec::new();
            let (seq, epoch, behind) = shape.read(text, &mut values)?;
            let values: Vec<_> = values.iter().map(|value| value.get()).collect();
            Some((seq.get(), epoch.secs(), values, behind.to_owned()))
        };
        for (text, expected) in [
            (
                r#"{"seq":1,"epoch":2,"values":{"cpu":-0.5,"mem":100}},{"#,
                Some((1, 2, vec![-0.5, 100.0], ",{".to_owned())),
            ),
            (r#"{"seq":1,"epoch":2,"values":{"cpu":1,"mem":2}"#, None),
            (r#"{"seq":1,"epoch":2,"values":{"cpu":1,"men":2}}"#, None),
            (r#"{"seq":1,"epoch":2,"values":{"cpu":1e0,"mem":2}}"#, None),
            (r#"{"seq":1,"epoch":2,"values":{"cpu":1.,"mem":2}}"#, None),
            (r#"{"seq":1,"epoch":2,"values":{"cpu":01,"mem":2}}"#, None),
            (r#"{"seq":1,"epoch":2,"values":{"cpu":--1,"mem":2}}"#, None),
            (r#"{"seq":1,"epoch":2,"values":{"cpu":,"mem":2}}"#, None),
            (r#"{"seq":1.0,"epoch":2,"values":{"cpu":1,"mem":2}}"#, None),
            (r#"{"seq":-1,"epoch":2,"values":{"cpu":1,"mem":2}}"#, None),
            (r#"{"seq":0,"epoch":2,"values":{"cpu":1,"mem":2}}"#, None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_up_to_fifteen_digits() {
        for (text, expected) in [
            ("999999999999999", Some(999_999_999_999_999.0)),
            ("99999999999999.9", Some(99_999_999_999_999.9)),
            ("0.000000000000001", Some(1e-15)),
            ("-0", Some(-0.0_f64)),
            ("1000000000000000", None),
            ("1.000000000000000", None),
            ("0.0000000000000001", None),
            ("18446744073709551617", None),
        ] {
            let read = decimal(text).map(|(number, behind)| (number.to_bits(), behind));
            assert_eq!(
                read,
                expected.map(|number: f64| (number.to_bits(), "")),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_number_is_the_nearest(text in "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,6})?") {
            let (number, behind) = decimal(&text).unwrap();
            prop_assert_eq!(number.to_bits(), text.parse::<f64>().unwrap().to_bits());
            prop_assert_eq!(behind, "");
        }

        /// Whatever is read is a number of JSON.
        #[test]
        fn what_is_read_is_json(text in "[-+.0-9eE]{1,6}") {
            if let Some((number, behind)) = decimal(&text) {
                let read = &text[..text.len() - behind.len()];
                let expected: f64 = serde_json::from_str(read).unwrap();
                prop_assert_eq!(number.to_bits(), expected.to_bits());
            }
        }
    }
}
