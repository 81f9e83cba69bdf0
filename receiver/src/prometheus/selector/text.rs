//! A series selector of PromQL as text: `cpu{host=~"web.*",label!=""}`.
//!
//! No crate is used for it: those there are read all of PromQL, and one of them brings chrono.

use super::super::message::{LabelMatcher, MatcherType};
use super::super::naming::{METRIC, is_metric};
use super::is_label_name;

/// How much of a malformed text an error repeats.
pub(super) const SHOWN_MAX: usize = 100;

/// The matchers of a selector; none if it is not one. It must have one, as in PromQL.
pub(super) fn matchers(text: &str) -> Option<Vec<LabelMatcher>> {
    let text = text.trim();
    let (metric, braces) = match text.find('{') {
        Some(at) => (text[..at].trim(), Some(text[at + 1..].strip_suffix('}')?)),
        None => (text, None),
    };
    let mut all = Vec::new();
    if !metric.is_empty() {
        let name = is_metric(metric).then_some(metric)?;
        all.push(matcher(MatcherType::Equal, METRIC, name.to_owned()));
    }
    let mut rest = braces.unwrap_or_default().trim_start();
    while !rest.is_empty() {
        let (found, after) = next(rest)?;
        all.push(found);
        rest = match after.trim_start().strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.trim().is_empty() => "",
            None => return None,
        };
    }
    (!all.is_empty()).then_some(all)
}

fn matcher(kind: MatcherType, name: &str, value: String) -> LabelMatcher {
    LabelMatcher {
        r#type: kind.into(),
        name: name.to_owned(),
        value,
    }
}

/// One matcher, and what comes after it.
fn next(text: &str) -> Option<(LabelMatcher, &str)> {
    let (name, rest) = text.split_at(text.find(['=', '!'])?);
    let name = name.trim_end();
    let (kind, rest) = [
        ("=~", MatcherType::Matches),
        ("!~", MatcherType::MatchesNot),
        ("!=", MatcherType::NotEqual),
        ("=", MatcherType::Equal),
    ]
    .into_iter()
    .find_map(|(sign, kind)| Some((kind, rest.strip_prefix(sign)?)))?;
    let (value, rest) = quoted(rest.trim_start())?;
    is_label_name(name).then(|| (matcher(kind, name, value), rest))
}

/// A text in quotes, as Go has them, and what comes after it. Of the escapes those that labels need.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text
        .chars()
        .next()
        .filter(|quote| "\"'`".contains(*quote))?;
    let mut value = String::new();
    let mut characters = text[1..].char_indices();
    while let Some((at, character)) = characters.next() {
        value.push(match character {
            end if end == quote => return Some((value, &text[at + 2..])),
            '\\' if quote != '`' => match characters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other @ ('\\' | '"' | '\'') => other,
                _ => return None,
            },
            '\n' if quote != '`' => return None,
            other => other,
        });
    }
    None
}
