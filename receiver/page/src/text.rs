//! Text of somebody else's: names and labels.

use std::borrow::Cow;
use std::fmt::Write as _;

use maud::{Markup, html};

/// The text with what a reader could not see made visible. Characters that change the direction or
/// have no width let one label look like another, or turn the text beside it around.
///
/// ```
/// use lizmon_page::text::visible;
/// assert_eq!(visible("disk-used:/"), "disk-used:/");
/// assert_eq!(visible("gpj\u{202e}exe"), "gpj⟨U+202E⟩exe");
/// ```
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match is_unseen(character) {
            false => shown.push(character),
            // Writing to a String cannot fail.
            true => _ = write!(shown, "⟨U+{:04X}⟩", u32::from(character)),
        }
    }
    Cow::Owned(shown)
}

/// Control and format characters, but for the joiners that some scripts are written with.
fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{00}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0e}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// A name or label, apart from the direction of the text around it.
pub fn isolated(text: &str) -> Markup {
    html! { bdi { (visible(text)) } }
}

/// The same for an attribute, where there are no elements.
pub fn isolated_in_attribute(text: &str) -> String {
    format!("\u{2068}{}\u{2069}", visible(text))
}

/// A number with a comma after each three digits.
///
/// ```
/// assert_eq!(lizmon_page::text::grouped(1_234_567), "1,234,567");
/// assert_eq!(lizmon_page::text::grouped(999), "999");
/// ```
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 host`, `2 hosts`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{} {word}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_text() {
        for (text, expected) in [
            ("cpu", "<bdi>cpu</bdi>"),
            (
                "<img src=x onerror=\"a\">",
                "<bdi>&lt;img src=x onerror=&quot;a&quot;&gt;</bdi>",
            ),
            ("a\u{202e}b\u{2069}", "<bdi>a⟨U+202E⟩b⟨U+2069⟩</bdi>"),
            ("負荷", "<bdi>負荷</bdi>"),
        ] {
            assert_eq!(isolated(text).into_string(), expected);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in [
            (0, "0"),
            (1000, "1,000"),
            (100_000, "100,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }
}
