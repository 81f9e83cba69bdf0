//! Durations in the file: `30s`, `5m`, `1h`.

use toml::Spanned;

use super::error::{RulesError, Source};

/// Seconds.
pub(super) fn duration(
    source: Source<'_>,
    value: Option<&Spanned<String>>,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, RulesError> {
    let Some(value) = value else { return Ok(None) };
    let read = humantime::parse_duration(value.get_ref())
        .map_err(|error| source.error(value.span(), error.to_string()))?;
    let secs = read.as_secs();
    if !allowed.contains(&secs) || read.subsec_nanos() > 0 {
        let in_words = |secs: u64| humantime::format_duration(std::time::Duration::from_secs(secs));
        let (least, most) = (in_words(*allowed.start()), in_words(*allowed.end()));
        let why = format!("this is from {least} to {most}, in whole seconds");
        return Err(source.error(value.span(), why));
    }
    Ok(Some(secs))
}
