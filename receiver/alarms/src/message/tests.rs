use super::*;
use crate::template::{DEFAULT_BODY, DEFAULT_SUBJECT, check};

fn message(host: &str, label: &str, state: AlarmState) -> Message {
    let mut message = Message::test("77", host, 1_465_001_814);
    message.notice.state = state;
    message.notice.label = label.to_owned();
    message.notice.value = 93.456;
    message.notice.rule = "cpu-busy".to_owned();
    message.notice.flapping = Some(3);
    message
}

#[test]
fn the_default_words() {
    let rules = RuleSet::built_in().unwrap();
    let test = message("web1", "cpu", AlarmState::Resolved);
    let message = Message::new("web1", &test.notice, &rules);
    assert_eq!(message.summary, "web1: cpu-busy (cpu), 93.46");
    let subject = message.render(DEFAULT_SUBJECT).unwrap();
    assert_eq!(subject, "[RESOLVED] web1: cpu-busy (cpu)");
    let body = message.render(DEFAULT_BODY).unwrap();
    for part in [
        "host      web1\n",
        "label     cpu\n",
        "value     93.46\n",
        "since     2016-06-04T00:56:54Z\n",
        "it has fired 3 times",
        "quiet for 30m",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
}

#[test]
fn every_built_in_rule_has_words() {
    let rules = RuleSet::built_in().unwrap();
    for rule in &rules.rules {
        let mut notice = message("web1", "disk-used:/", AlarmState::Firing).notice;
        notice.rule = rule.name.clone();
        notice.value = 86_400.0;
        let message = Message::new("web1", &notice, &rules);
        assert!(!message.summary.is_empty(), "{}", rule.name);
        assert!(message.render(&rule.summary).is_ok(), "{}", rule.name);
    }
}

/// Names and labels are hostile: a template's result shows them as they are, and JSON has them
/// exactly.
#[test]
fn hostile_text_is_shown() {
    for (label, shown) in [
        ("a\u{202e}b", "a\\u{202e}b"),
        ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
        ("a\nb", "a\\u{a}b"),
        ("\u{200b}", "\\u{200b}"),
        ("{{ id }}", "{{ id }}"),
        (
            "<img src=x onerror=alert(1)>",
            "<img src=x onerror=alert(1)>",
        ),
        ("漢字", "漢字"),
        ("=cmd", "=cmd"),
    ] {
        let message = message("web1", label, AlarmState::Firing);
        assert_eq!(message.render("{{ label }}").unwrap(), shown);
        let json: serde_json::Value = serde_json::from_slice(&message.to_json().unwrap()).unwrap();
        assert_eq!(json["label"], label);
    }
}

#[test]
fn a_body_template_makes_valid_json_of_hostile_text() {
    let hostile = "\"}, \\ <b> 漢\u{202e}";
    let message = message("web1", hostile, AlarmState::Firing);
    let body = message.render(r#"{"text": {{ label | tojson }}}"#).unwrap();
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["text"], visible(hostile));
}

/// A template of the file may be wrong, but must not hold up the others.
#[test]
fn a_template_has_limits() {
    for template in [
        "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
        "{% for a in range(3000) %}{% for b in range(3000) %}{% endfor %}{% endfor %}",
        "{% for a in range(900) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
    ] {
        assert!(check(template).is_err(), "{template}");
    }
}
