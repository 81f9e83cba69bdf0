//! `label value`, one a line.

/// More lines than these are none of values.
const VALUES_MAX: usize = 256;

/// What was found in a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct OwnValues {
    pub(super) pairs: Vec<(Vec<u8>, f64)>,
    /// The first line that is wrong. The others count.
    pub(super) fault: Option<String>,
}

/// Reads the lines. A label may have blanks: the value is what follows the last one. Empty lines
/// and those that begin with `#` are passed over. A line with nothing but a number is the value of
/// `name`, if there is one.
pub(super) fn parse(text: &[u8], name: Option<&str>) -> OwnValues {
    let mut values = OwnValues::default();
    let lines = text.split(|byte| *byte == b'\n').zip(1..);
    for (line, number) in lines.map(|(line, number)| (line.trim_ascii(), number)) {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let fault = match pair(line, name) {
            Some(_) if values.pairs.len() >= VALUES_MAX => {
                format!("it has more than {VALUES_MAX} values")
            }
            Some(pair) => {
                values.pairs.push(pair);
                continue;
            }
            None => format!("line {number} is not `label value`"),
        };
        values.fault.get_or_insert(fault);
    }
    values
}

fn pair(line: &[u8], name: Option<&str>) -> Option<(Vec<u8>, f64)> {
    let blank = line.iter().rposition(u8::is_ascii_whitespace);
    let (label, value) = match blank {
        Some(blank) => (line[..blank].trim_ascii_end(), &line[blank + 1..]),
        None => (name?.as_bytes(), line),
    };
    let value: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    value.is_finite().then(|| (label.to_vec(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_values() {
        let check = |text: &[u8], expected: &[(&[u8], f64)], fault: Option<&str>| {
            let values = parse(text, Some("job"));
            let pairs: Vec<_> = values
                .pairs
                .iter()
                .map(|(label, value)| (&label[..], *value))
                .collect();
            assert_eq!(pairs, expected, "{text:?}");
            assert_eq!(values.fault.as_deref(), fault, "{text:?}");
        };
        check(
            b"a 1\nb c  2.5\r\n\n# comment\n\td\t-3e2 \n",
            &[(b"a", 1.0), (b"b c", 2.5), (b"d", -300.0)],
            None,
        );
        check(b"42\n", &[(b"job", 42.0)], None);
        check(
            b"a 1\nnonsense\nb x\nc 3",
            &[(b"a", 1.0), (b"c", 3.0)],
            Some("line 2 is not `label value`"),
        );
        check(
            b"a NaN\nb inf\nc 1e999\n",
            &[],
            Some("line 1 is not `label value`"),
        );
        check(b"\xff\xfe 1\n", &[(b"\xff\xfe", 1.0)], None);
        check(b"a 1 \xff\n", &[], Some("line 1 is not `label value`"));
        check(
            b"a{b=\"c\"} 1 1465001814\n",
            &[(b"a{b=\"c\"} 1", 1_465_001_814.0)],
            None,
        );
        check(b"", &[], None);
        check(&b"\0".repeat(9), &[], Some("line 1 is not `label value`"));
        assert_eq!(
            parse(b"42\n", None).fault.as_deref(),
            Some("line 1 is not `label value`")
        );
        let many: String = (0..300).map(|n| format!("l{n} 1\n")).collect();
        let values = parse(many.as_bytes(), None);
        assert_eq!(
            (values.pairs.len(), values.fault.is_some()),
            (VALUES_MAX, true)
        );
    }
}
