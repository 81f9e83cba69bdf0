use std::path::Path;

use super::*;

fn read(text: &str) -> Result<RuleSet, String> {
    RuleSet::parse(Path::new("/etc/lizmon/rules.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn built_in_rules_are_there_without_a_file() {
    let rules = RuleSet::built_in().unwrap();
    let names: Vec<_> = rules.rules.iter().map(|rule| rule.name.as_str()).collect();
    let expected = [
        "certificate-ends",
        "clock-skew",
        "disk-nearly-full",
        "inodes-nearly-full",
        "memory-nearly-full",
        "receiver-blind",
        "records-lost",
        "silent",
    ];
    assert_eq!(names, expected);
    assert!(
        rules
            .rules
            .iter()
            .all(|rule| rule.hosts.matches("any.host"))
    );
    assert_eq!(rules.every_secs, 15);
}

#[test]
fn a_key_in_the_file_replaces_that_of_the_built_in_rule() {
    let text = r#"
evaluation-interval = "1s"
[rules.silent]
for = "2s"
hosts = ["web*", "db?"]
[rules.disk-nearly-full]
above = 80
[rules.clock-skew]
enabled = false
[channels.ops.webhook]
url = "https://hooks.example/x"
[rules.cpu-busy]
label = ["cpu", "cpu:*"]
statistic = "min"
interval = "hour"
above = 90
clear-below = 80.5
for = "3h"
severity = "info"
channels = ["ops"]
"#;
    let rules = read(text).unwrap();
    let silent = rules.rule("silent").unwrap();
    assert_eq!(
        (silent.for_secs, silent.severity),
        (2, AlarmSeverity::Critical)
    );
    let hosts = ["web1", "db1", "db11", "xweb1"].map(|host| silent.hosts.matches(host));
    assert_eq!(hosts, [true, true, false, false]);
    let RuleKind::Label(disk) = &rules.rule("disk-nearly-full").unwrap().kind else {
        panic!("not of labels");
    };
    assert_eq!(disk.threshold.above, Some(80.0));
    assert_eq!(
        disk.threshold.clear_below, None,
        "the threshold is one thing"
    );
    assert!(rules.rule("clock-skew").is_none());
    let RuleKind::Label(cpu) = &rules.rule("cpu-busy").unwrap().kind else {
        panic!("not of labels");
    };
    assert_eq!((cpu.tier, cpu.statistic), (RuleTier::Hour, Statistic::Min));
    let channels = rules.channels_of(rules.rule("cpu-busy").unwrap(), true);
    assert_eq!((channels, rules.every_secs), (vec!["ops".to_owned()], 1));
}

#[test]
fn an_error_names_file_line_and_key() {
    let check = |text: &str, expected: &str| {
        let error = read(text).unwrap_err();
        let error = error.strip_prefix("/etc/lizmon/rules.toml:").unwrap();
        assert!(error.starts_with(expected), "{text}\n{error}");
    };
    let cases = [
        (
            "[rules.a]\nlabel = \"x\"\n",
            "1: rules.a: `above` or `below` is missing",
        ),
        ("\n[rules.a]\nabove = 1\n", "2: rules.a: `label` is missing"),
        (
            "[rules.a]\nlabel = \"x\"\nabove = \"1\"\n",
            "3: rules.a.above: invalid type",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = nan\n",
            "3: rules.a.above: this is no finite number",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nfor = \"5\"\n",
            "4: rules.a.for: time unit needed",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nfor = \"400d\"\n",
            "4: rules.a.for: this is from 0s to 30days",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nclear-below = 2\n",
            "4: rules.a.clear-below: this is more than `above`",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nbelow = 2\n",
            "1: rules.a: no value would end such an alarm",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nfro = \"5m\"\n",
            "4: rules.a.fro: unknown field `fro`",
        ),
        (
            "[rules.a]\nlabel = 7\nabove = 1\n",
            "2: rules.a.label: a pattern, or a list of patterns",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nchannels = [\"ops\"]\n",
            "4: rules.a.channels: there is no channel `ops`",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nsummary = \"{{ hots }}\"\n",
            "4: rules.a.summary: undefined value",
        ),
        (
            "[rules.a]\nlabel = \"x\"\nabove = 1\nsummary = \"{% for %}\"\n",
            "4: rules.a.summary: syntax error",
        ),
        (
            "[rules.silent]\nabove = 1\n",
            "2: rules.silent.above: a rule of this kind has no",
        ),
        (
            "[rules.'a b']\nlabel = \"x\"\n",
            "1: rules.'a b': a name has 1 to 64",
        ),
        ("x = 1\n", "1: x: unknown field `x`"),
        ("[rules.a\n", "1: "),
        (
            "evaluation-interval = \"0s\"\n",
            "1: evaluation-interval: this is from 1s to 5m",
        ),
        (
            "[flapping]\nfirings = 1\n",
            "2: flapping.firings: this is from 2 to 20",
        ),
        (
            "[channels.a.webhook]\nurl = \"http://example.org/\"\n",
            "2: channels.a.webhook.url: http goes to this machine only",
        ),
        (
            "[channels.a.webhook]\nurl = \"ftp://example.org/\"\n",
            "2: channels.a.webhook.url: neither https nor http",
        ),
        (
            "[channels.a.command]\ncommand = [\"notify\"]\n",
            "2: channels.a.command.command: the first is the program, with its full path",
        ),
        (
            "[channels.a.mail]\nserver = \"mail.example\"\ntls = \"none\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]\n",
            "2: channels.a.mail.server: mail goes unprotected to this machine only",
        ),
        (
            "[channels.a.mail]\nserver = \"mail.example\"\nfrom = \"a@b.c\\r\\nBcc: x@y.z\"\nto = [\"a@b.c\"]\n",
            "3: channels.a.mail.from: ",
        ),
        (
            "[channels.a.alertmanager]\nurl = \"https://a.example\"\ncert-file = \"c\"\n",
            "1: channels.a.alertmanager: `cert-file` and `key-file` belong together",
        ),
        (
            "[channels.a.pigeon]\n",
            "1: channels.a.pigeon: unknown variant `pigeon`",
        ),
    ];
    for (text, expected) in cases {
        check(text, expected);
    }
}

#[test]
fn http_goes_to_this_machine() {
    for (url, is_fine) in [
        ("http://127.0.0.1:9/x", true),
        ("http://[::1]:9/x", true),
        ("http://localhost/x", true),
        ("http://127.0.0.1.example/", false),
        ("http://localhost.example/", false),
        ("http://0.0.0.0/", false),
        ("https://example.org/", true),
    ] {
        let text = format!("[channels.a.webhook]\nurl = \"{url}\"\n");
        assert_eq!(read(&text).is_ok(), is_fine, "{url}");
    }
}

#[test]
fn thresholds_begin_and_end() {
    let upper = Threshold {
        above: Some(90.0),
        below: None,
        clear_below: Some(80.0),
        clear_above: None,
    };
    let both = Threshold {
        below: Some(-90.0),
        clear_above: Some(-80.0),
        ..upper
    };
    let plain = Threshold {
        clear_below: None,
        ..upper
    };
    // The value, whether it is an alarm, whether it ends one.
    let cases = [
        (&upper, 90.0, false, false),
        (&upper, 90.1, true, false),
        (&upper, 80.0, false, false),
        (&upper, 79.9, false, true),
        (&both, -90.1, true, false),
        (&both, -85.0, false, false),
        (&both, 0.0, false, true),
        (&plain, 90.0, false, true),
        (&plain, 90.1, true, false),
    ];
    for (threshold, value, is_breached, is_clear) in cases {
        let judged = (threshold.is_breached(value), threshold.is_clear(value));
        assert_eq!(judged, (is_breached, is_clear), "{threshold:?} {value}");
    }
}

/// Whoever reads a log must not read a secret.
#[test]
fn no_secret_is_in_debug() {
    let text = r#"
[channels.a.webhook]
url = "https://hooks.example/services/SECRET?token=SECRET"
[channels.b.command]
command = ["/bin/notify", "--key", "SECRET"]
[channels.c.alertmanager]
url = "https://user:SECRET@am.example"
"#;
    let rules = read(text).unwrap();
    assert!(!format!("{rules:?}").contains("SECRET"), "{rules:?}");
}

/// docs/prometheus.md has a rule for what Prometheus cannot scrape.
#[test]
fn the_rule_for_prometheus_is_one() {
    let page = include_str!("../../../../docs/prometheus.md");
    let (_, text) = page.split_once("```toml\n").unwrap();
    let (text, _) = text.split_once("```").unwrap();
    let rules = read(text).unwrap();
    let rule = rules.rules.iter().find(|rule| rule.name == "not-scraped");
    let RuleKind::Label(of_label) = &rule.unwrap().kind else {
        panic!("{rule:?}");
    };
    assert!(of_label.labels.matches(r#"up{job="node"}"#));
    assert!(!of_label.labels.matches("uptime"));
}

/// docs/alarms.md shows the built-in rules as they are, and names every key.
#[test]
fn the_page_says_what_there_is() {
    let page = include_str!("../../../../docs/alarms.md");
    assert!(
        page.contains(&format!("```toml\n{BUILT_IN}```\n")),
        "copy built_in.toml"
    );
    let keys = |text: &str| {
        let error = read(text).unwrap_err();
        let (_, keys) = error.split_once("expected one of ").unwrap();
        let keys = keys.split('`').skip(1).step_by(2);
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    let tables = [
        ("no-such-key = 1\n", 4),
        ("[flapping]\nno-such-key = 1\n", 3),
        ("[rules.a]\nno-such-key = 1\n", 17),
        ("[channels.a.webhook]\nno-such-key = 1\n", 9),
        ("[channels.a.alertmanager]\nno-such-key = 1\n", 7),
        ("[channels.a.mail]\nno-such-key = 1\n", 12),
        ("[channels.a.command]\nno-such-key = 1\n", 3),
    ];
    for (text, count) in tables {
        let keys = keys(text);
        assert_eq!(keys.len(), count, "{keys:?}");
        let is_named = |key: &&String| {
            let key = key.as_str();
            page.contains(&format!("`{key}`")) || page.contains(&format!("`{key} = "))
        };
        let unnamed: Vec<_> = keys
            .iter()
            .filter(|key| !["rules", "channels", "flapping"].contains(&key.as_str()))
            .filter(|key| !is_named(key))
            .collect();
        assert!(unnamed.is_empty(), "{text}: {unnamed:?}");
    }
}
