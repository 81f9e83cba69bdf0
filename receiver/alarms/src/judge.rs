//! What an observation changes in the alarms of a host. Pure.
//!
//! | observed | pending | firing |
//! | --- | --- | --- |
//! | the rule holds | fires once it has held for `for` | goes on |
//! | between the numbers where it begins and where it ends | ends | goes on |
//! | clear | ends | ends once it has been clear for `keep-firing-for`, or long enough if it flaps |
//! | nothing | goes on for a while | goes on; ends after `STALE_INTERVALS` |

use crate::rules::{Flapping, Rule, RuleKind, RuleSet, RuleTier};
use crate::state::{ALARMS_MAX, Alarm, AlarmNotice, AlarmState, HostAlarms, NOTICES_MAX, alarm_id};

/// An alarm that nothing was observed of for so many intervals ends: what it was about is gone.
const STALE_INTERVALS: u64 = 60;
/// What is pending must be observed that often, or it begins again: intervals.
const PENDING_INTERVALS: u64 = 15;
/// The reason of an alarm that ended for want of samples.
pub const NO_SAMPLES: &str = "no samples of it have come for an hour or more";
/// The reason of an alarm whose rule is gone.
pub const RULE_REMOVED: &str = "the rule was removed, changed, or does not name this host any more";
/// The reason of an alarm whose host is gone.
pub const HOST_REMOVED: &str = "the host is no longer kept: nothing has come from it for long";
/// How long an alarm that has ended is still shown: seconds.
const SHOWN_SECS: u64 = 3_600;

/// What was observed of one rule and one label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// What it comes to.
    pub verdict: RuleVerdict,
    /// The value, if one was observed.
    pub value: f64,
    /// The time that this is about: from, and to.
    pub from: u64,
    /// The end of that time.
    pub to: u64,
}

/// What an observation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleVerdict {
    /// The rule holds.
    Breached,
    /// It does not, and an alarm goes on.
    Between,
    /// It does not, and an alarm ends.
    Clear,
}

/// One look at a host.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// The rules in force.
    pub rules: &'a RuleSet,
    /// Epoch seconds.
    pub now: u64,
    /// Since when the receiver sees its hosts.
    pub sees_since: u64,
    /// Whether the host is silenced.
    pub is_silenced: bool,
}

impl HostAlarms {
    /// Takes an observation. Says whether anything changed that must be stored.
    pub fn observe(
        &mut self,
        round: &Round<'_>,
        host: &str,
        rule: &Rule,
        label: &str,
        observed: Observed,
    ) -> bool {
        let found = self.find(&rule.name, label);
        match (observed.verdict, found) {
            (RuleVerdict::Between | RuleVerdict::Clear, None) => false,
            (RuleVerdict::Breached, found) => {
                self.breached(round, host, rule, label, observed, found)
            }
            (RuleVerdict::Between, Some(at)) => {
                let alarm = &mut self.alarms[at];
                alarm.judged = observed.to;
                match alarm.state {
                    AlarmState::Pending => self.forget(at),
                    AlarmState::Firing => {
                        alarm.value = observed.value;
                        alarm.quiet_since.take().is_some()
                    }
                    AlarmState::Resolved => false,
                }
            }
            (RuleVerdict::Clear, Some(at)) => self.clear(round, rule, observed, at),
        }
    }

    fn breached(
        &mut self,
        round: &Round<'_>,
        host: &str,
        rule: &Rule,
        label: &str,
        observed: Observed,
        found: Option<usize>,
    ) -> bool {
        let is_over = |alarm: &Alarm| {
            let patience = PENDING_INTERVALS * interval_secs(rule);
            match alarm.state {
                AlarmState::Firing => false,
                AlarmState::Resolved => true,
                // What was not observed did not hold.
                AlarmState::Pending => {
                    alarm.judged < round.sees_since.min(observed.from)
                        || observed.from > alarm.judged.saturating_add(patience)
                }
            }
        };
        let (at, is_new) = match found {
            Some(at) => (at, is_over(&self.alarms[at])),
            None if self.live() >= ALARMS_MAX => return false,
            None => {
                self.alarms.push(new_alarm(rule, label));
                (self.alarms.len() - 1, true)
            }
        };
        let alarm = &mut self.alarms[at];
        if is_new {
            alarm.since = observed.from;
            alarm.id = alarm_id(host, &rule.name, label, observed.from);
            alarm.state = AlarmState::Pending;
            alarm.at = round.now;
            alarm.severity = rule.severity;
        }
        alarm.judged = observed.to;
        alarm.value = observed.value;
        let was_quiet = alarm.quiet_since.take().is_some();
        let held_secs = observed.to.saturating_sub(alarm.since);
        let fires = alarm.state == AlarmState::Pending && held_secs >= for_secs(rule);
        if fires {
            fire(alarm, round);
            self.notify(round, rule, at, "");
        }
        // How long it has held is stored with the next commit, for whoever owns the shard then.
        is_new || was_quiet || fires || self.alarms[at].state == AlarmState::Pending
    }

    fn clear(&mut self, round: &Round<'_>, rule: &Rule, observed: Observed, at: usize) -> bool {
        let alarm = &mut self.alarms[at];
        alarm.judged = observed.to;
        match alarm.state {
            AlarmState::Resolved => return false,
            AlarmState::Pending => return self.forget(at),
            AlarmState::Firing => (),
        }
        alarm.value = observed.value;
        let is_news = alarm.quiet_since.is_none();
        let quiet_since = *alarm.quiet_since.get_or_insert(observed.from);
        let quiet_secs = observed.to.saturating_sub(quiet_since);
        let needed = match alarm.flapping {
            true => rule.keep_firing_secs.max(round.rules.flapping.quiet_secs),
            false => rule.keep_firing_secs,
        };
        if quiet_secs < needed {
            return is_news;
        }
        self.resolve(round, rule, at, "");
        true
    }

    /// Forgets what is only pending; of what has fired before, how often that was is kept.
    fn forget(&mut self, at: usize) -> bool {
        let alarm = &mut self.alarms[at];
        if alarm.firings.is_empty() {
            self.alarms.remove(at);
        } else {
            alarm.state = AlarmState::Resolved;
        }
        true
    }

    fn resolve(&mut self, round: &Round<'_>, rule: &Rule, at: usize, reason: &str) {
        let alarm = &mut self.alarms[at];
        alarm.state = AlarmState::Resolved;
        alarm.at = round.now;
        alarm.quiet_since = None;
        self.notify(round, rule, at, reason);
        self.alarms[at].flapping = false;
    }

    fn notify(&mut self, round: &Round<'_>, rule: &Rule, at: usize, reason: &str) {
        let alarm = &self.alarms[at];
        let to = round
            .rules
            .channels_of(rule, alarm.state == AlarmState::Resolved);
        if to.is_empty() || self.notices.len() >= NOTICES_MAX {
            return;
        }
        self.notices.push(AlarmNotice {
            reason: reason.to_owned(),
            held: round.is_silenced,
            to,
            ..AlarmNotice::of(alarm)
        });
    }

    fn live(&self) -> usize {
        let alarms = self.alarms.iter();
        alarms
            .filter(|alarm| alarm.state != AlarmState::Resolved)
            .count()
    }

    /// Notes something that is over, and tells it once: no all-clear follows.
    pub fn tell_event(
        &mut self,
        round: &Round<'_>,
        host: &str,
        rule: &Rule,
        observed: Observed,
        reason: &str,
    ) {
        let mut alarm = new_alarm(rule, "");
        alarm.id = alarm_id(host, &rule.name, "", observed.from);
        alarm.state = AlarmState::Firing;
        (alarm.since, alarm.at) = (observed.from, observed.to);
        (alarm.judged, alarm.value) = (observed.to, observed.value);
        self.alarms.retain(|known| known.rule != rule.name);
        self.alarms.push(alarm);
        let at = self.alarms.len() - 1;
        self.notify(round, rule, at, reason);
        self.alarms[at].state = AlarmState::Resolved;
    }

    /// Ends everything: the host is gone.
    pub fn end_all(&mut self, round: &Round<'_>) {
        for at in (0..self.alarms.len()).rev() {
            match self.alarms[at].state {
                AlarmState::Pending => drop(self.alarms.remove(at)),
                AlarmState::Resolved => (),
                AlarmState::Firing => {
                    let rule = round.rules.rule(&self.alarms[at].rule);
                    let ended = ended_rule(&self.alarms[at]);
                    self.resolve(round, rule.unwrap_or(&ended), at, HOST_REMOVED);
                }
            }
        }
        self.alarms.clear();
    }

    /// Ends what nothing is observed of any more, or what has no rule, and forgets what ended long
    /// ago. `meant` says whether a rule judges this host and label. Says whether anything changed.
    pub fn settle(&mut self, round: &Round<'_>, meant: impl Fn(&Rule, &str) -> bool) -> bool {
        let mut has_changed = false;
        for at in (0..self.alarms.len()).rev() {
            let alarm = &self.alarms[at];
            let rule = round.rules.rule(&alarm.rule);
            let rule = rule.filter(|rule| meant(rule, &alarm.label));
            let stale_secs = STALE_INTERVALS * rule.map_or(60, interval_secs);
            let is_stale = rule.is_some_and(goes_stale)
                && alarm
                    .judged
                    .max(round.sees_since)
                    .saturating_add(stale_secs)
                    < round.now;
            match alarm.state {
                AlarmState::Resolved => {
                    let kept = SHOWN_SECS.max(round.rules.flapping.within_secs);
                    if alarm.at.saturating_add(kept) < round.now {
                        self.alarms.remove(at);
                        has_changed = true;
                    }
                }
                AlarmState::Pending if rule.is_none() || is_stale => {
                    has_changed |= self.forget(at);
                }
                AlarmState::Firing if rule.is_none() => {
                    let ended = ended_rule(alarm);
                    self.resolve(round, &ended, at, RULE_REMOVED);
                    has_changed = true;
                }
                AlarmState::Firing if is_stale => {
                    let rule = rule.cloned().unwrap_or_else(|| ended_rule(alarm));
                    self.resolve(round, &rule, at, NO_SAMPLES);
                    has_changed = true;
                }
                AlarmState::Pending | AlarmState::Firing => (),
            }
        }
        has_changed
    }
}

fn new_alarm(rule: &Rule, label: &str) -> Alarm {
    Alarm {
        id: String::new(),
        rule: rule.name.clone(),
        label: label.to_owned(),
        state: AlarmState::Pending,
        severity: rule.severity,
        since: 0,
        at: 0,
        judged: 0,
        value: 0.0,
        quiet_since: None,
        firings: Vec::new(),
        flapping: false,
    }
}

fn fire(alarm: &mut Alarm, round: &Round<'_>) {
    let Flapping {
        firings,
        within_secs,
        ..
    } = round.rules.flapping;
    alarm.state = AlarmState::Firing;
    alarm.at = round.now;
    alarm
        .firings
        .retain(|at| at.saturating_add(within_secs) >= round.now);
    alarm.firings.push(round.now);
    alarm.flapping = alarm.firings.len() >= firings;
}

/// For the last notice of an alarm whose rule is gone: every channel may have told of it.
fn ended_rule(alarm: &Alarm) -> Rule {
    Rule {
        name: alarm.rule.clone(),
        kind: RuleKind::Silent,
        hosts: crate::rules::Wildcards::new([]),
        for_secs: 0,
        keep_firing_secs: 0,
        severity: alarm.severity,
        channels: None,
        summary: crate::template::DEFAULT_SUMMARY.to_owned(),
        description: String::new(),
    }
}

/// How far apart the observations of a rule are.
fn interval_secs(rule: &Rule) -> u64 {
    match &rule.kind {
        RuleKind::Label(label) => label.tier.width_secs(),
        _ => RuleTier::Minute.width_secs(),
    }
}

/// Whether an alarm ends when nothing is observed of it. That nothing comes from a host is an
/// observation.
fn goes_stale(rule: &Rule) -> bool {
    matches!(rule.kind, RuleKind::Label(_) | RuleKind::ClockSkew { .. })
}

/// The `for` of a rule; a host is silent only after it, so that it need not hold any longer.
fn for_secs(rule: &Rule) -> u64 {
    match rule.kind {
        RuleKind::Silent => 0,
        _ => rule.for_secs,
    }
}

#[cfg(test)]
mod tests;
