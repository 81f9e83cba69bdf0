//! What there is to be seen of a host, rule by rule. Pure.

use lizmon_alarms::judge::{Observed, RuleVerdict};
use lizmon_alarms::rules::{LabelRule, Rule, RuleKind, RuleTier, Statistic};
use lizmon_summary::Series;

use crate::silence;
use crate::summarize::HostSummaries;

/// The label by which a monitor reports how far its clock is off.
const CLOCK_SKEW: &str = "clock-skew";
/// What a monitor said of its clock counts for so long.
const CLOCK_SAID_SECS_MAX: u64 = 300;

/// When intervals have closed that are to be judged now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// The end of the minute.
    pub(super) minute: Option<u64>,
    /// The end of the hour.
    pub(super) hour: Option<u64>,
}

impl Closed {
    fn of(self, tier: RuleTier) -> Option<u64> {
        match tier {
            RuleTier::Minute => self.minute,
            RuleTier::Hour => self.hour,
        }
    }
}

/// One look at a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostLook {
    pub(super) now: u64,
    pub(super) expiry: Option<u64>,
    pub(super) sees_since: u64,
    pub(super) closed: Closed,
}

/// What is seen of a rule that judges the host itself; none if nothing can be said now.
pub(super) fn of_host(host: &HostSummaries, rule: &Rule, look: HostLook) -> Option<Observed> {
    let is_minute = look.closed.minute.is_some();
    match rule.kind {
        RuleKind::Silent => silent(host, rule.for_secs, look),
        RuleKind::CertificateEnds { within_secs } if is_minute => {
            certificate_ends(host, within_secs, look.now)
        }
        RuleKind::RecordsLost { above } if is_minute => Some(records_lost(host, above, look.now)),
        RuleKind::ClockSkew { above, clear_below } if is_minute => {
            clock_skew(host, above, clear_below, look)
        }
        _ => None,
    }
}

/// What is seen of a label.
pub(super) fn of_series(series: &Series, rule: &LabelRule, closed: Closed) -> Option<Observed> {
    let end = closed.of(rule.tier)?;
    let interval = series.ending(rule.tier.index(), end)?;
    let value = match rule.statistic {
        Statistic::Avg => interval.avg,
        Statistic::Min => interval.min,
        Statistic::Max => interval.max,
    };
    let verdict = match () {
        () if rule.threshold.is_breached(value) => RuleVerdict::Breached,
        () if rule.threshold.is_clear(value) => RuleVerdict::Clear,
        () => RuleVerdict::Between,
    };
    Some(Observed {
        verdict,
        value,
        from: interval.start,
        to: interval.end,
    })
}

/// Nothing is said of a host that was last heard before the receiver saw it, until it has seen it
/// for long enough.
fn silent(host: &HostSummaries, least_secs: u64, look: HostLook) -> Option<Observed> {
    let HostLook {
        now, sees_since, ..
    } = look;
    let last = silence::last_received(host, now);
    if last == 0 {
        return None;
    }
    let is_overdue = |since: u64| {
        let quiet_secs = now.saturating_sub(since);
        silence::is_overdue(host, now, quiet_secs, least_secs)
    };
    let verdict = match () {
        () if !is_overdue(last) => RuleVerdict::Clear,
        () if is_overdue(last.max(sees_since)) => RuleVerdict::Breached,
        () => return None,
    };
    Some(Observed {
        verdict,
        value: now.saturating_sub(last) as f64,
        from: last.min(now),
        to: now,
    })
}

fn certificate_ends(host: &HostSummaries, within_secs: u64, now: u64) -> Option<Observed> {
    let end = host.certificate_end;
    if end == 0 {
        return None;
    }
    let left = end.saturating_sub(now);
    let verdict = match left < within_secs {
        true => RuleVerdict::Breached,
        false => RuleVerdict::Clear,
    };
    Some(Observed {
        verdict,
        value: left as f64,
        from: end.saturating_sub(within_secs).min(now),
        to: now,
    })
}

fn records_lost(host: &HostSummaries, above: u64, now: u64) -> Observed {
    let lost = host.producers.values().map(|producer| {
        // Most have one range from the first number on, and need no more work than this.
        let mut missing = producer.set.missing().peekable();
        if missing.peek().is_none() {
            return 0;
        }
        let missing = producer.dropped.take_out_of(missing);
        missing.iter().map(|(from, to)| to - from + 1).sum()
    });
    let lost: u64 = lost.sum();
    let verdict = match lost > above {
        true => RuleVerdict::Breached,
        false => RuleVerdict::Clear,
    };
    Observed {
        verdict,
        value: lost as f64,
        from: now,
        to: now,
    }
}

/// What the monitor said when it sent its samples, or else what it measured.
fn clock_skew(
    host: &HostSummaries,
    above: f64,
    clear_below: f64,
    look: HostLook,
) -> Option<Observed> {
    let end = look.closed.minute?;
    let said = host
        .clock
        .filter(|(_, at)| at + CLOCK_SAID_SECS_MAX >= look.now);
    let measured = || host.series.get(CLOCK_SKEW)?.ending(0, end);
    let value = match said {
        Some((ahead_secs, _)) => ahead_secs as f64,
        None => measured()?.avg,
    };
    let verdict = match value.abs() {
        off if off > above => RuleVerdict::Breached,
        off if off < clear_below || clear_below >= above => RuleVerdict::Clear,
        _ => RuleVerdict::Between,
    };
    Some(Observed {
        verdict,
        value,
        from: end.saturating_sub(60),
        to: end,
    })
}
