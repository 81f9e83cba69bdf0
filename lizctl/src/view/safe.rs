//! Text of others on a terminal: names and labels may hold anything that is printable.

/// Every character is seen, and none acts: what is not printed as itself is escaped, such as
/// control characters and those that change the direction of what follows.
pub(crate) fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_the_terminal() {
        for (given, expected) in [
            ("web1", "web1"),
            ("disk-used:/var/log", "disk-used:/var/log"),
            ("C:\\ \"x\" 'y'", "C:\\ \"x\" 'y'"),
            ("漢字 é", "漢字 é"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{200b}\u{2066}", "a\\u{200b}\\u{2066}"),
            ("\u{1b}[2J\n\u{9b}", "\\u{1b}[2J\\n\\u{9b}"),
            ("a\u{301}", "a\\u{301}"),
            ("=cmd", "=cmd"),
        ] {
            assert_eq!(text(given), expected, "{given:?}");
        }
    }
}
