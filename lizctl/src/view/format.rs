//! Names, times and numbers in tables and charts.

use time::OffsetDateTime;

/// `summary:by-minute:cpu` is the label `cpu` in the window `by-minute`.
pub(crate) fn window_and_label(name: &str) -> (&str, &str) {
    let bare = name.strip_prefix("summary:").unwrap_or(name);
    bare.split_once(':').unwrap_or(("", bare))
}

/// The age in whole units. JSON has the exact second.
pub(crate) fn ago(epoch: u64, now: u64) -> String {
    let Some(secs) = now.checked_sub(epoch) else {
        return format!("{} s ahead", epoch - now);
    };
    match secs {
        0..120 => format!("{secs} s ago"),
        120..7200 => format!("{} min ago", secs / 60),
        7200..172_800 => format!("{} h ago", secs / 3600),
        _ => format!("{} d ago", secs / 86_400),
    }
}

/// The same in few columns.
pub(crate) fn ago_short(epoch: u64, now: u64) -> String {
    match now.saturating_sub(epoch) {
        secs @ 0..120 => format!("{secs} s"),
        secs @ 120..7200 => format!("{} min", secs / 60),
        secs @ 7200..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} d", (secs / 86_400).min(9999)),
    }
}

/// How much of the date is printed before the time of day.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatePart {
    None,
    Shown,
    WithYear,
}

/// Hours and minutes in UTC; epoch seconds if the calendar cannot express the time.
pub(crate) fn utc_minute(epoch: u64, date: DatePart) -> String {
    let at = i64::try_from(epoch).map(OffsetDateTime::from_unix_timestamp);
    let Ok(Ok(at)) = at else {
        return epoch.to_string();
    };
    let time = format!("{:02}:{:02}", at.hour(), at.minute());
    let day = format!("{:02}-{:02}", u8::from(at.month()), at.day());
    match date {
        DatePart::None => time,
        DatePart::Shown => format!("{day} {time}"),
        DatePart::WithYear => format!("{}-{day} {time}", at.year()),
    }
}

/// Whole percent.
pub(crate) fn percent(value: f64) -> String {
    format!("{value:.0} %")
}

/// Two decimals, as summaries have; scientific notation for tiny and huge values.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(0.01..1e9).contains(&size) {
        format!("{value:.2e}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases = [
            (0.0, "0.00"),
            (4.98, "4.98"),
            (-100.0, "-100.00"),
            (0.001, "1.00e-3"),
            (123_456_789.5, "123456789.50"),
            (1e290, "1.00e290"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn ages() {
        let cases = [
            (1000, "0 s ago"),
            (1001, "1 s ahead"),
            (881, "119 s ago"),
            (880, "2 min ago"),
        ];
        for (epoch, expected) in cases {
            assert_eq!(ago(epoch, 1000), expected);
        }
    }
}
