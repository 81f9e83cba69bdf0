//! The text outside of sections: harmless text, or something that was to be a section.

use super::error::PemError;

/// A line of base64 is at least this long before it is taken for one: OpenSSL writes 64 characters,
/// RFC 7468 wants it so.
const STRAY_CHARS_MIN: usize = 32;
/// How much of a line is shown.
const SHOWN_CHARS_MAX: usize = 60;
/// What sections are called, for one that lost its dashes.
const NOUNS: [&str; 5] = ["CERTIFICATE", "KEY", "CRL", "REQUEST", "PARAMETERS"];

/// Whether it is text in one of the encodings that PEM can be in, as far as its first bytes tell.
pub(super) fn encoding(bytes: &[u8]) -> Result<(), PemError> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, b'-', 0, b'-', ..] | [b'-', 0, b'-', 0, ..] => {
            Err(PemError::Utf16)
        }
        // A DER SEQUENCE of more than 127 bytes: as text it would be a zero and something that is
        // no ASCII.
        [0x30, 0x80..=0x84, ..] => Err(PemError::Der),
        _ => Ok(()),
    }
}

/// How many lines end in the first bytes of a text.
pub(super) fn line_ends(text: &[u8], bytes: usize) -> usize {
    let ends = |at: usize| match text[at] {
        b'\n' => true,
        b'\r' => text.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    (0..bytes.min(text.len())).filter(|at| ends(*at)).count()
}

/// Nothing but what editors leave.
pub(super) fn is_blank(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    line.iter()
        .all(|byte| byte.is_ascii_whitespace() || matches!(byte, 0x0b | 0x1a))
}

/// Makes sure that nothing here was to be part of a section. `first_line` is the number of its
/// first line.
pub(super) fn check(text: &[u8], first_line: usize) -> Result<(), PemError> {
    for (at, one) in lines(text).enumerate() {
        let line = first_line + at;
        if one.iter().any(|byte| is_no_text(*byte)) {
            return Err(PemError::NotText { line });
        }
        let one = String::from_utf8_lossy(one);
        let one = one.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        if looks_like_a_boundary(one) {
            return Err(boundary(one.as_bytes(), line));
        }
        if looks_like_base64(one) {
            return Err(PemError::Stray { line });
        }
    }
    Ok(())
}

/// The error that a line looks like a boundary. It shows the line, cut short.
pub(super) fn boundary(text: &[u8], line: usize) -> PemError {
    let text = String::from_utf8_lossy(text);
    let text = text.trim().chars().take(SHOWN_CHARS_MAX).collect();
    PemError::Boundary { line, text }
}

/// Cut at `\n`, `\r\n` and `\r`.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').flat_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.split(|byte| *byte == b'\r')
    })
}

/// Control characters but those that move on: tabs, line ends, form feeds, and the last byte of old
/// DOS texts.
fn is_no_text(byte: u8) -> bool {
    const CONTROL_Z: u8 = 0x1a;
    byte < b' ' && !matches!(byte, b'\t' | b'\r' | 0x0b | 0x0c | CONTROL_Z) || byte == 0x7f
}

/// BEGIN or END behind what looks like dashes, or before the name of something that sections hold.
/// Neither is the end of "front-end key".
fn looks_like_a_boundary(line: &str) -> bool {
    let is_other_dash = |c: char| ('\u{2010}'..='\u{2015}').contains(&c) || c == '\u{2212}';
    let upper = line.to_ascii_uppercase();
    let is_one = |word: &str, at: usize| {
        let (before, behind) = (upper[..at].trim_end(), &upper[at + word.len()..]);
        let is_upper = line[at..].starts_with(word);
        let names_a_section = NOUNS.iter().any(|noun| behind.contains(noun));
        let is_behind_dashes = before.ends_with("--")
            || before.ends_with(is_other_dash)
            || before.ends_with('-') && is_upper;
        let is_before_dashes = behind.contains('-') || behind.contains(is_other_dash);
        !behind.starts_with(char::is_alphanumeric)
            && (is_behind_dashes && (is_upper || names_a_section || is_before_dashes)
                || before.is_empty() && is_upper && names_a_section)
    };
    ["BEGIN", "END"]
        .iter()
        .any(|word| upper.match_indices(word).any(|(at, word)| is_one(word, at)))
}

/// Long, of base64 alone, and no number in hexadecimal: fingerprints are written beside
/// certificates.
fn looks_like_base64(line: &str) -> bool {
    let line = line.trim_end_matches('=');
    let in_alphabet = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    let is_word = line.chars().all(|c| c.is_ascii_alphabetic());
    line.len() >= STRAY_CHARS_MIN
        && line.chars().all(in_alphabet)
        && !line.chars().all(|c| c.is_ascii_hexdigit())
        && !is_word
}
