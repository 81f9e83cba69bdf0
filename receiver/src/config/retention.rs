//! The flags that say how long hours and days are kept.

use std::time::Duration;

use clap::Args;

use crate::store::HistoryRetention;

/// The longest time, which bounds what one query asks the store: a century.
const KEPT_SECS_MAX: u64 = 100 * 366 * 86_400;

/// How long closed intervals are kept.
#[derive(Debug, Clone, Args)]
pub struct RetentionFlags {
    /// How long closed hours of each series are kept, for `lizctl query --since` and the page; 0
    /// for none
    #[arg(long, env = "LIZMON_KEEP_HOURS", value_name = "TIME", default_value = "31d", value_parser = kept)]
    pub keep_hours: Duration,
    /// The same of closed days
    #[arg(long, env = "LIZMON_KEEP_DAYS", value_name = "TIME", default_value = "400d", value_parser = kept)]
    pub keep_days: Duration,
}

impl From<RetentionFlags> for HistoryRetention {
    fn from(flags: RetentionFlags) -> Self {
        Self {
            hours_secs: flags.keep_hours.as_secs(),
            days_secs: flags.keep_days.as_secs(),
        }
    }
}

fn kept(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 31d, or 0 for none"))?;
    match duration.as_secs() <= KEPT_SECS_MAX {
        true => Ok(duration),
        false => Err("more than 100 years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, secs) in [
            ("31d", Some(31 * 86_400)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("36h", Some(36 * 3_600)),
            ("36600d", Some(KEPT_SECS_MAX)),
            ("36601d", None),
            ("31", None),
            ("-1d", None),
            ("", None),
            ("18446744073709551615y", None),
        ] {
            let found = kept(text).ok().map(|kept| kept.as_secs());
            assert_eq!(found, secs, "{text}");
        }
    }
}
