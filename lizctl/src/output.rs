//! The only place that writes to stdout, and the one line on stderr that a failure gets.

/// `lizctl: what failed: because of what`, on one line whatever the causes say.
pub(crate) fn complain(error: &anyhow::Error) {
    let text = format!("{error:#}");
    let line: Vec<&str> = text.lines().map(str::trim).collect();
    eprintln!("lizctl: {}", line.join(" "));
}
