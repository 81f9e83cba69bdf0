use super::*;

fn alarm(label: &str, state: AlarmState) -> Alarm {
    Alarm {
        id: alarm_id("web1", "rule", label, 7),
        rule: "rule".to_owned(),
        label: label.to_owned(),
        state,
        severity: AlarmSeverity::Warning,
        since: 7,
        at: 8,
        judged: 9,
        value: 1.5,
        quiet_since: None,
        firings: vec![8],
        flapping: false,
    }
}

fn notice(id: &str, state: AlarmState, is_held: bool, to: &[&str]) -> AlarmNotice {
    AlarmNotice {
        held: is_held,
        to: to.iter().map(|name| (*name).to_owned()).collect(),
        ..AlarmNotice::of(&Alarm {
            id: id.to_owned(),
            ..alarm("", state)
        })
    }
}

#[test]
fn an_identifier_is_of_host_rule_label_and_time() {
    let id = alarm_id("web1", "silent", "", 7);
    assert_eq!(id, alarm_id("web1", "silent", "", 7));
    assert_eq!(id.len(), 32);
    for (host, rule, label, since) in [
        ("web2", "silent", "", 7),
        ("web1", "silenu", "", 7),
        ("web1", "silent", "x", 7),
        ("web1", "silent", "", 8),
        ("web1s", "ilent", "", 7),
        ("web1", "silen", "t", 7),
    ] {
        assert_ne!(alarm_id(host, rule, label, since), id);
    }
}

#[test]
fn a_document_is_read_as_it_was_written() {
    let mut alarms = HostAlarms {
        alarms: vec![alarm("a\u{202e}\"<b>", AlarmState::Firing)],
        notices: vec![notice("1", AlarmState::Firing, true, &["a", "b"])],
    };
    let (bytes, left_out) = alarms.to_bytes();
    assert_eq!(left_out, 0);
    assert_eq!(HostAlarms::from_bytes(&bytes).unwrap(), alarms);
    assert!(HostAlarms::from_bytes(b"{}").unwrap().is_empty());
    assert!(HostAlarms::from_bytes(b"[").is_err());
}

/// A host with the longest labels that JSON makes twice as long.
#[test]
fn a_document_has_its_limit() {
    let label = |at: usize| format!("{at:03}{}", "\"".repeat(125));
    let states = [
        AlarmState::Pending,
        AlarmState::Firing,
        AlarmState::Resolved,
    ];
    let mut alarms = HostAlarms {
        alarms: (0..ALARMS_MAX)
            .map(|at| alarm(&label(at), states[at % 3]))
            .collect(),
        notices: (0..NOTICES_MAX)
            .map(|at| AlarmNotice {
                label: label(at),
                ..notice("1", AlarmState::Firing, false, &["a"])
            })
            .collect(),
    };
    let firing = |alarms: &HostAlarms| {
        let alarms = alarms.alarms.iter();
        alarms
            .filter(|alarm| alarm.state == AlarmState::Firing)
            .count()
    };
    let before = firing(&alarms);
    let (bytes, left_out) = alarms.to_bytes();
    assert!(bytes.len() <= BYTES_MAX && left_out > 0, "{left_out}");
    assert_eq!(firing(&alarms), before, "what fires is kept longest");
    assert_eq!(HostAlarms::from_bytes(&bytes).unwrap(), alarms);
}

#[test]
fn a_notice_stays_until_every_channel_has_accepted_it() {
    let mut alarms = HostAlarms {
        alarms: Vec::new(),
        notices: vec![notice("1", AlarmState::Firing, false, &["a", "b"])],
    };
    assert!(alarms.accepted("1-firing", "a"));
    assert!(!alarms.accepted("1-firing", "a"), "known");
    assert!(!alarms.accepted("2-firing", "b"), "another");
    assert_eq!(alarms.notices[0].to, ["b"]);
    assert!(alarms.keep_channels(|name| name != "b"));
    assert!(alarms.is_empty());
}

#[test]
fn at_the_end_of_a_silence_what_has_ended_is_not_told() {
    let firing = |id| notice(id, AlarmState::Firing, true, &["a"]);
    let resolved = |id| notice(id, AlarmState::Resolved, true, &["a"]);
    // What came meanwhile, and what is told then.
    let cases: [(Vec<AlarmNotice>, &[&str]); 4] = [
        (vec![firing("1")], &["1-firing"]),
        (vec![firing("1"), resolved("1")], &[]),
        (
            vec![resolved("0"), firing("1")],
            &["0-resolved", "1-firing"],
        ),
        (vec![firing("1"), firing("2"), resolved("1")], &["2-firing"]),
    ];
    for (notices, expected) in cases {
        let mut alarms = HostAlarms {
            alarms: Vec::new(),
            notices,
        };
        assert!(alarms.end_silence());
        let told: Vec<_> = alarms.notices.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(told, expected);
        assert!(!alarms.end_silence(), "once");
    }
    // One channel was told that it fired, before the host was silenced.
    let mut alarms = HostAlarms {
        alarms: Vec::new(),
        notices: vec![
            notice("1", AlarmState::Firing, true, &["b"]),
            notice("1", AlarmState::Resolved, true, &["a", "b"]),
        ],
    };
    assert!(alarms.end_silence());
    let told: Vec<_> = alarms
        .notices
        .iter()
        .map(|one| (&*one.id, &*one.to))
        .collect();
    assert_eq!(told, [("1-resolved", &["a".to_owned()][..])]);
}
