//! Lifetimes in whole days.

/// Longest lifetime that can be asked for.
pub(crate) const DAYS_MAX: i64 = 36_500;

/// From a day to a century.
pub(crate) fn days() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=DAYS_MAX)
}
