//! Lifetimes in whole days.

/// Longest lifetime, in days: about a century.
pub(crate) const DAYS_MAX: i64 = 36_500;

/// Parses a lifetime in days.
pub(crate) fn days() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=DAYS_MAX)
}
