use std::path::Path;

use super::*;
use crate::state::AlarmState::{Firing, Pending, Resolved};

/// A whole minute.
const START: u64 = 1_465_001_760;
const MINUTE: u64 = 60;

const RULES: &str = r#"
[rules.cpu-busy]
label = "cpu"
above = 90
clear-below = 80
for = "3m"
[rules.cpu-now]
label = "cpu"
above = 90
keep-firing-for = "2m"
[channels.ops.webhook]
url = "http://localhost/"
"#;

struct Host {
    rules: RuleSet,
    alarms: HostAlarms,
    sees_since: u64,
}

impl Host {
    fn new() -> Self {
        Self {
            rules: RuleSet::parse(Path::new("rules.toml"), RULES).unwrap(),
            alarms: HostAlarms::default(),
            sees_since: 0,
        }
    }

    /// The minute with this number had this value.
    fn minute(&mut self, rule: &str, minute: u64, value: f64) -> Option<AlarmState> {
        let to = START + minute * MINUTE;
        let rule = self.rules.rule(rule).unwrap().clone();
        let RuleKind::Label(label) = &rule.kind else {
            panic!("not of a label");
        };
        let verdict = match () {
            () if label.threshold.is_breached(value) => RuleVerdict::Breached,
            () if label.threshold.is_clear(value) => RuleVerdict::Clear,
            () => RuleVerdict::Between,
        };
        let observed = Observed {
            verdict,
            value,
            from: to - MINUTE,
            to,
        };
        let rules = self.rules.clone();
        let round = self.round(&rules, to + 10);
        self.alarms.observe(&round, "web1", &rule, "cpu", observed);
        self.state(&rule.name)
    }

    fn round<'a>(&self, rules: &'a RuleSet, now: u64) -> Round<'a> {
        Round {
            rules,
            now,
            sees_since: self.sees_since,
            is_silenced: false,
        }
    }

    fn state(&self, rule: &str) -> Option<AlarmState> {
        let at = self.alarms.find(rule, "cpu")?;
        Some(self.alarms.alarms[at].state)
    }

    /// What was told: states, in order.
    fn told(&self) -> Vec<AlarmState> {
        self.alarms
            .notices
            .iter()
            .map(|notice| notice.state)
            .collect()
    }
}

#[test]
fn it_fires_once_it_has_held_and_ends_once_it_is_clear() {
    let mut host = Host::new();
    let minutes = [
        (95.0, Some(Pending)),
        (99.0, Some(Pending)),
        (95.0, Some(Firing)),
        (95.0, Some(Firing)),
        (85.0, Some(Firing)),
        (80.0, Some(Firing)),
        (79.0, Some(Resolved)),
        (50.0, Some(Resolved)),
        (85.0, Some(Resolved)),
        (95.0, Some(Pending)),
        (85.0, Some(Resolved)),
    ];
    for (minute, (value, expected)) in (1..).zip(minutes) {
        assert_eq!(host.minute("cpu-busy", minute, value), expected, "{minute}");
    }
    assert_eq!(host.told(), [Firing, Resolved]);
    let [fired, ended] = &host.alarms.notices[..] else {
        panic!("two");
    };
    assert_eq!((fired.since, fired.at), (START, START + 3 * MINUTE + 10));
    assert_eq!(
        (fired.alarm.as_str(), fired.value),
        (ended.alarm.as_str(), 95.0)
    );
    assert_eq!(fired.id, format!("{}-firing", fired.alarm));
    assert_eq!(ended.id, format!("{}-resolved", fired.alarm));
}

#[test]
fn what_is_pending_and_between_ends() {
    let mut host = Host::new();
    assert_eq!(host.minute("cpu-busy", 1, 95.0), Some(Pending));
    assert_eq!(host.minute("cpu-busy", 2, 85.0), None);
    assert_eq!(host.minute("cpu-busy", 3, 95.0), Some(Pending));
    assert_eq!(host.minute("cpu-busy", 4, 95.0), Some(Pending));
    assert!(host.told().is_empty());
}

/// A minute is judged again after a crash that lost nothing, or by the next owner of the shard.
#[test]
fn a_minute_judged_twice_is_told_once() {
    let mut host = Host::new();
    for minute in [1, 1, 2, 2, 3, 3, 3] {
        host.minute("cpu-busy", minute, 95.0);
    }
    assert_eq!(host.told(), [Firing]);
    let (bytes, _) = host.alarms.to_bytes();
    host.alarms = HostAlarms::from_bytes(&bytes).unwrap();
    host.minute("cpu-busy", 4, 95.0);
    assert_eq!(host.told(), [Firing]);
}

#[test]
fn what_was_not_seen_did_not_hold() {
    let mut host = Host::new();
    host.minute("cpu-busy", 1, 95.0);
    // The receiver was blind for minutes 2 to 9, and sees again.
    host.sees_since = START + 9 * MINUTE;
    assert_eq!(host.minute("cpu-busy", 10, 95.0), Some(Pending));
    assert_eq!(host.minute("cpu-busy", 11, 95.0), Some(Pending));
    assert_eq!(host.minute("cpu-busy", 12, 95.0), Some(Firing));
    // No samples for half an hour, though it saw.
    let mut host = Host::new();
    host.minute("cpu-busy", 1, 95.0);
    assert_eq!(host.minute("cpu-busy", 30, 95.0), Some(Pending));
    // A few minutes without samples change nothing.
    let mut host = Host::new();
    host.minute("cpu-busy", 1, 95.0);
    assert_eq!(host.minute("cpu-busy", 5, 95.0), Some(Firing));
}

#[test]
fn a_flapping_alarm_is_damped() {
    let mut host = Host::new();
    // Three minutes each: it fires, and is clear for two.
    let mut states = Vec::new();
    for minute in 1..=18 {
        let value = if minute % 3 == 1 { 95.0 } else { 10.0 };
        states.push(host.minute("cpu-now", minute, value));
    }
    assert_eq!(host.told(), [Firing, Resolved, Firing, Resolved, Firing]);
    assert_eq!(states.last(), Some(&Some(Firing)));
    let last = host.alarms.notices.last().unwrap();
    assert_eq!(last.flapping, Some(3));
    // Half an hour of quiet ends it.
    for minute in 19..=45 {
        assert_eq!(
            host.minute("cpu-now", minute, 10.0),
            Some(Firing),
            "{minute}"
        );
    }
    for minute in 46..=50 {
        host.minute("cpu-now", minute, 10.0);
    }
    assert_eq!(host.state("cpu-now"), Some(Resolved));
    assert_eq!(host.told().len(), 6);
}

#[test]
fn what_has_no_samples_and_what_has_no_rule_ends() {
    let settle = |host: &mut Host, now: u64, is_meant: bool| {
        let rules = host.rules.clone();
        let round = host.round(&rules, now);
        host.alarms.settle(&round, |_, _| is_meant);
        host.alarms
            .notices
            .last()
            .map(|notice| notice.reason.clone())
    };
    let fired = || {
        let mut host = Host::new();
        for minute in 1..=3 {
            host.minute("cpu-busy", minute, 95.0);
        }
        host
    };
    let at = START + 3 * MINUTE;
    let hour = 3_600;
    let mut host = fired();
    assert_eq!(settle(&mut host, at + hour, true).as_deref(), Some(""));
    assert_eq!(
        settle(&mut host, at + hour + 1, true).as_deref(),
        Some(NO_SAMPLES)
    );
    assert_eq!(host.told(), [Firing, Resolved]);
    // Nothing came because the receiver was blind.
    let mut host = fired();
    host.sees_since = at + hour;
    assert_eq!(settle(&mut host, at + hour + 60, true).as_deref(), Some(""));
    // The rule was removed.
    let mut host = fired();
    assert_eq!(
        settle(&mut host, at + 60, false).as_deref(),
        Some(RULE_REMOVED)
    );
    // What has ended is forgotten.
    assert_eq!(host.alarms.alarms.len(), 1);
    settle(&mut host, at + 2 * hour, false);
    assert_eq!(host.alarms.alarms.len(), 0);
}

#[test]
fn a_host_has_a_limited_number_of_alarms() {
    let mut host = Host::new();
    let rules = host.rules.clone();
    let rule = rules.rule("cpu-now").unwrap();
    let observed = Observed {
        verdict: RuleVerdict::Breached,
        value: 95.0,
        from: START,
        to: START + MINUTE,
    };
    for at in 0..100 {
        let round = host.round(&rules, START + MINUTE);
        host.alarms
            .observe(&round, "web1", rule, &format!("cpu:{at}"), observed);
    }
    assert_eq!(host.alarms.alarms.len(), ALARMS_MAX);
    assert!(host.alarms.notices.len() <= NOTICES_MAX);
}
