//! Which series a query means: matchers of labels, from a remote read or as text.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use super::message::{LabelMatcher, MatcherType};
use super::naming::{HOST, METRIC, Named, STAT, WHOLE, is_label_name, written};

mod text;

/// Most matchers of one query, which each series is compared with.
pub const MATCHERS_MAX: usize = 64;
/// Longest text of a matcher: Grafana lists what its user chose from as one expression.
pub const MATCHER_BYTES_MAX: usize = 16 << 10;
/// Most regular expressions of one request: each takes milliseconds to compile, if it is large.
pub const EXPRESSIONS_MAX: usize = 64;
/// Memory of a compiled expression, and of its cache: some thousand alternatives.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SelectorError {
    /// There are too many matchers.
    #[error("a query has at most {MATCHERS_MAX} matchers")]
    TooManyMatchers,
    /// There are too many regular expressions.
    #[error("a request has at most {EXPRESSIONS_MAX} regular expressions")]
    TooManyExpressions,
    /// One is too long.
    #[error("a matcher has at most {MATCHER_BYTES_MAX} bytes")]
    MatcherTooLong,
    /// There is no such way to compare.
    #[error("there is no matcher of type {0}")]
    UnknownType(i32),
    /// An expression that is none, or is too large.
    #[error("the regular expression of {name:?} is not valid, or is too large")]
    InvalidExpression {
        /// The label.
        name: String,
        /// What is wrong with it.
        #[source]
        source: regex::Error,
    },
    /// The text is no selector.
    #[error("{0:?} is not a selector such as cpu{{host=\"web1\"}}")]
    Malformed(String),
}

/// The series that a query means: those that all of its matchers match.
#[derive(Debug, Clone)]
pub struct Selector {
    /// Of the host.
    host: Vec<Matcher>,
    /// Of what the values are of the samples.
    stat: Vec<Matcher>,
    /// Of the metric and all other labels.
    own: Vec<Matcher>,
}

/// What the matchers of each query of a request say.
pub fn selectors<'a>(
    queries: impl Iterator<Item = &'a [LabelMatcher]> + Clone,
) -> Result<Vec<Selector>, SelectorError> {
    let is_expression = |matcher: &&LabelMatcher| {
        let kind = MatcherType::try_from(matcher.r#type);
        matches!(kind, Ok(MatcherType::Matches | MatcherType::MatchesNot))
    };
    let expressions = queries.clone().flatten().filter(is_expression);
    if expressions.count() > EXPRESSIONS_MAX {
        return Err(SelectorError::TooManyExpressions);
    }
    queries.map(Selector::of).collect()
}

/// The matchers of a selector of PromQL, as `cpu{host=~"web.*"}`.
pub fn matchers(text: &str) -> Result<Vec<LabelMatcher>, SelectorError> {
    let shown = || text.chars().take(text::SHOWN_MAX).collect();
    text::matchers(text).ok_or_else(|| SelectorError::Malformed(shown()))
}

impl Selector {
    /// What the matchers of a remote read say.
    pub fn of(matchers: &[LabelMatcher]) -> Result<Self, SelectorError> {
        if matchers.len() > MATCHERS_MAX {
            return Err(SelectorError::TooManyMatchers);
        }
        let mut selector = Self {
            host: Vec::new(),
            stat: Vec::new(),
            own: Vec::new(),
        };
        for matcher in matchers {
            let group = match matcher.name.as_str() {
                HOST => &mut selector.host,
                STAT => &mut selector.stat,
                _ => &mut selector.own,
            };
            group.push(Matcher::of(matcher)?);
        }
        Ok(selector)
    }

    /// What a selector of PromQL says.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Self::of(&matchers(text)?)
    }

    /// Whether it means series of this host.
    pub fn has_host(&self, host: &str) -> bool {
        self.host.iter().all(|matcher| matcher.matches(host))
    }

    /// Whether it means the series of this label, whatever its host.
    pub fn has_label(&self, label: &str) -> bool {
        if self.own.is_empty() {
            return true;
        }
        let named = Named::of(label);
        let matches = |matcher: &Matcher| matcher.matches(named.value(&matcher.name));
        self.own.iter().all(matches)
    }

    /// Of each series those that a query means: averages alone, if it says nothing of [`STAT`].
    pub fn has_stat(&self, stat: Option<&str>) -> bool {
        let stat = stat.unwrap_or_default();
        match self.stat.is_empty() {
            true => stat.is_empty(),
            false => self.stat.iter().all(|matcher| matcher.matches(stat)),
        }
    }

    /// The host, if there is one that it can mean alone.
    pub fn only_host(&self) -> Option<&str> {
        self.host.iter().find_map(Matcher::text)
    }

    /// Its host and label, if it names both exactly: then it finds series that have ended, too.
    pub fn only_series(&self) -> Option<(&str, String)> {
        let host = self.only_host().filter(|host| !host.is_empty())?;
        let said = self
            .own
            .iter()
            .filter_map(|matcher| Some((&*matcher.name, matcher.text()?)));
        let label = match said.clone().find(|(name, _)| *name == WHOLE) {
            Some((_, whole)) if !whole.is_empty() => whole.to_owned(),
            _ => {
                let (_, metric) = said.clone().find(|(name, _)| *name == METRIC)?;
                let labels = said.filter(|(name, _)| *name != METRIC);
                written(metric, labels.collect::<BTreeMap<_, _>>())
            }
        };
        self.has_label(&label).then_some((host, label))
    }
}

/// What the value of one label must be.
#[derive(Debug, Clone)]
struct Matcher {
    name: Box<str>,
    expected: Expected,
    is_negated: bool,
}

#[derive(Debug, Clone)]
enum Expected {
    Text(Box<str>),
    Expression(Regex),
}

impl Matcher {
    fn of(matcher: &LabelMatcher) -> Result<Self, SelectorError> {
        let LabelMatcher {
            r#type,
            name,
            value,
        } = matcher;
        if name.len() + value.len() > MATCHER_BYTES_MAX {
            return Err(SelectorError::MatcherTooLong);
        }
        let kind =
            MatcherType::try_from(*r#type).map_err(|_| SelectorError::UnknownType(*r#type))?;
        let expected = match kind {
            MatcherType::Equal | MatcherType::NotEqual => Expected::Text(value.as_str().into()),
            MatcherType::Matches | MatcherType::MatchesNot => {
                let compiled =
                    whole_of(value).map_err(|source| SelectorError::InvalidExpression {
                        name: name.clone(),
                        source,
                    })?;
                Expected::Expression(compiled)
            }
        };
        Ok(Self {
            name: name.as_str().into(),
            expected,
            is_negated: matches!(kind, MatcherType::NotEqual | MatcherType::MatchesNot),
        })
    }

    fn matches(&self, value: &str) -> bool {
        let is_expected = match &self.expected {
            Expected::Text(text) => **text == *value,
            Expected::Expression(expression) => expression.is_match(value),
        };
        is_expected != self.is_negated
    }

    /// The one value that it matches.
    fn text(&self) -> Option<&str> {
        match &self.expected {
            Expected::Text(text) if !self.is_negated => Some(text),
            _ => None,
        }
    }
}

/// The expression for a whole text, as Prometheus has it: anchored at both ends.
fn whole_of(expression: &str) -> Result<Regex, regex::Error> {
    let compile = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(EXPRESSION_BYTES_MAX)
            .dfa_size_limit(EXPRESSION_BYTES_MAX)
            .build()
    };
    // By itself as well: `a)|(?:b` would be anchored by halves.
    compile(expression)?;
    compile(&format!("^(?s:{expression})$"))
}

#[cfg(test)]
mod tests;
