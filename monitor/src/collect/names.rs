//! Names that the system gives, as parts of labels.
//!
//! Mount points, interfaces and units are named by others: with spaces, control characters, or
//! bytes that are not UTF-8. Different names give different labels, so that no values are mixed up.

use std::fmt::Write;

use lizmon_protocol::name::{LABEL_BYTES_MAX, Label, NameError};

/// What takes the place of the end of a long name: `~` and its CRC-32.
const CHECKSUM_BYTES: usize = 9;

/// The label of this name. A byte that no label may have is written `\xNN`; what is too long is
/// cut, and ends in `~` and a checksum of the whole name.
pub(super) fn label(prefix: &str, name: &[u8]) -> Result<Label<'static>, NameError> {
    if let Ok(name) = std::str::from_utf8(name)
        && prefix.len() + name.len() <= LABEL_BYTES_MAX
        && !has_escape(name)
        && let Ok(label) = Label::new(format!("{prefix}{name}"))
    {
        return Ok(label);
    }
    let mut text = format!("{prefix}{}", escaped(name));
    if text.len() > LABEL_BYTES_MAX {
        text.truncate(text.floor_char_boundary(LABEL_BYTES_MAX - CHECKSUM_BYTES));
        let _infallible = write!(text, "~{:08x}", crc32fast::hash(name));
    }
    Label::new(text)
}

/// The same text for every name, without what could disturb a log or a terminal.
pub(super) fn shown(name: &[u8]) -> String {
    label("", name).map_or_else(|_| String::new(), |label| label.to_string())
}

fn escaped(name: &[u8]) -> String {
    let mut escaped = String::with_capacity(name.len() * 2);
    let push_bytes = |escaped: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _infallible = write!(escaped, "\\x{byte:02x}");
        }
    };
    for chunk in name.utf8_chunks() {
        for (at, c) in chunk.valid().char_indices() {
            let rest = &chunk.valid()[at..];
            let is_kept = match c {
                '\\' => !starts_with_escape(rest),
                c => Label::new(c.to_string()).is_ok(),
            };
            match is_kept {
                true => escaped.push(c),
                false => push_bytes(&mut escaped, &rest.as_bytes()[..c.len_utf8()]),
            }
        }
        push_bytes(&mut escaped, chunk.invalid());
    }
    escaped
}

/// Whether a part of it reads like one of our own escapes. Names of systemd's units may have
/// backslashes; they are left alone where they cannot be mistaken: `dev-disk-by\x2dlabel`.
fn has_escape(name: &str) -> bool {
    name.match_indices('\\')
        .any(|(at, _)| starts_with_escape(&name[at..]))
}

fn starts_with_escape(text: &str) -> bool {
    let digits = text.strip_prefix("\\x").and_then(|rest| rest.get(..2));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|byte| byte == b'\\' || byte.is_ascii_control() || !byte.is_ascii())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_names() {
        let long = "/mnt/".to_owned() + &"é".repeat(100);
        let cases: [(&[u8], &str); 12] = [
            (b"/", "/"),
            (b"/mnt/My Disk", "/mnt/My Disk"),
            (b"eth0\n", "eth0\\x0a"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"caf\xc3\xa9", "café"),
            ("a\u{202e}b".as_bytes(), "a\\xe2\\x80\\xaeb"),
            (b"dev-disk\\x2did.mount", "dev-disk\\x2did.mount"),
            (b"eth0\\x0a", "eth0\\x5cx0a"),
            (b"a\\", "a\\"),
            (b"a\\x5cx0a", "a\\x5cx5cx0a"),
            (
                b"<img src=x onerror=alert(1)>",
                "<img src=x onerror=alert(1)>",
            ),
            ("\u{65e5}\u{672c}".as_bytes(), "日本"),
        ];
        for (name, expected) in cases {
            let got = label("p:", name).unwrap();
            assert_eq!(got.as_str(), format!("p:{expected}"));
        }
        let cut = label("p:", long.as_bytes()).unwrap();
        assert!(cut.as_str().len() <= LABEL_BYTES_MAX, "{cut}");
        let other = label("p:", (long + "/x").as_bytes()).unwrap();
        assert_ne!(cut, other);
    }

    proptest! {
        /// Any two names, of bytes that are likely to be taken for one another.
        #[test]
        fn different_names_give_different_labels(
            names in prop::collection::hash_set(
                prop::collection::vec(prop::sample::select(&b"\\x05ac\n\xff\xc3\xa9"[..]), 1..12),
                2..20,
            )
        ) {
            let labels: HashSet<_> = names.iter().map(|name| label("p:", name).unwrap()).collect();
            prop_assert_eq!(labels.len(), names.len());
        }
    }
}
