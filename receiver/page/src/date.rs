//! Times, in UTC: the same for everyone who is sent a link.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const CLOCK: &[BorrowedFormatItem<'_>] = format_description!("[hour]:[minute]");
const SECOND: &[BorrowedFormatItem<'_>] = format_description!("[hour]:[minute]:[second]");
const MOMENT: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:short] [hour]:[minute]");
const DAY: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:short] [year]");
const MACHINE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

fn formatted(epoch: u64, format: &[BorrowedFormatItem<'_>]) -> String {
    let time = i64::try_from(epoch)
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
    time.and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| format!("{epoch} s since 1970"))
}

/// `21:50`
pub fn clock(epoch: u64) -> String {
    formatted(epoch, CLOCK)
}

/// `21:50:12`
pub fn second(epoch: u64) -> String {
    formatted(epoch, SECOND)
}

/// `26 Nov 21:50`
pub fn moment(epoch: u64) -> String {
    formatted(epoch, MOMENT)
}

/// `26 Nov 2026`
pub fn day(epoch: u64) -> String {
    formatted(epoch, DAY)
}

/// `2026-11-26T21:50:12Z`, as in the attribute of `time`.
pub fn machine(epoch: u64) -> String {
    formatted(epoch, MACHINE)
}

/// A length of time in its largest unit.
///
/// ```
/// use lizmon_page::date::span;
/// assert_eq!([0, 59, 90, 5_400, 172_800].map(span), ["0 s", "59 s", "1 min", "1 h", "2 d"]);
/// ```
pub fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// How long ago.
///
/// ```
/// use lizmon_page::date::ago;
/// assert_eq!([ago(10, 12), ago(10, 100), ago(30, 12)], ["2 s ago", "1 min ago", "just now"]);
/// ```
pub fn ago(epoch: u64, now: u64) -> String {
    match now.checked_sub(epoch) {
        None | Some(0) => "just now".to_owned(),
        Some(secs) => format!("{} ago", span(secs)),
    }
}
