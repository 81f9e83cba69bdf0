//! Errors as one line of text.

use std::error::Error;

/// Formats an error and its sources on one line, separated by colons. If an error repeats the text
/// of its source, that text appears once.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let below = source.to_string();
        if !text.ends_with(&below) {
            text.push_str(": ");
            text.push_str(&below);
        }
        next = source.source();
    }
    text
}
