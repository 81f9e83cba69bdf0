use proptest::prelude::*;

use super::*;

fn matcher(r#type: MatcherType, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher {
        r#type: r#type.into(),
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A label that is not there is one that is empty.
#[test]
fn labels_that_match() {
    let requests = r#"requests{code="200"}"#;
    for (text, label, expected) in [
        ("cpu", "cpu", true),
        ("cpu", "cpus", false),
        ("cpu", "disk-used:/", false),
        ("{__name__=\"cpu\"}", "cpu", true),
        ("{__name__=~\"c.*\"}", "cpu", true),
        ("{__name__=~\"c|d\"}", "cpu", false),
        ("{__name__=~\"c|cpu\"}", "cpu", true),
        ("{__name__!=\"cpu\"}", "cpu", false),
        ("{__name__!~\"c.*\"}", "mem", true),
        ("{__name__!~\"c\"}", "cpu", true),
        ("disk_used", "disk-used:/", true),
        ("disk_used{label=\"disk-used:/\"}", "disk-used:/", true),
        ("disk_used{label=~\".*:/home\"}", "disk-used:/", false),
        ("{label=\"\"}", "cpu", true),
        ("{label!=\"\"}", "cpu", false),
        ("{label!=\"\"}", "disk-used:/", true),
        ("requests{code=\"200\"}", requests, true),
        ("requests{code=~\"2..\"}", requests, true),
        ("requests{code=~\"2.\"}", requests, false),
        ("requests{code!~\"5..\"}", requests, true),
        ("requests{job=\"\"}", requests, true),
        ("requests{job=~\".*\"}", requests, true),
        ("requests{job=~\".+\"}", requests, false),
        ("requests{job!=\"a\"}", requests, true),
        ("{job=\"a\"}", "cpu", false),
        // A line's end is a character like others.
        ("{a=~\"x.y\"}", "m{a=\"x\\ny\"}", true),
        ("{a=~\"x\"}", "m{a=\"x\\n\"}", false),
        ("{__name__=~\"(?i)CPU\"}", "cpu", true),
        ("{__name__=~\"\"}", "cpu", false),
    ] {
        assert_eq!(selector(text).has_label(label), expected, "{text} {label}");
    }
}

#[test]
fn hosts_and_stats() {
    for (text, host, expected) in [
        ("cpu", "web1", true),
        ("cpu{host=\"web1\"}", "web1", true),
        ("cpu{host=\"web1\"}", "web10", false),
        ("cpu{host=~\"web.\"}", "web10", false),
        ("cpu{host!~\"web.*\",host!=\"db1\"}", "db1", false),
        ("cpu{host=\"\"}", "web1", false),
    ] {
        assert_eq!(selector(text).has_host(host), expected, "{text} {host}");
    }
    for (text, stat, expected) in [
        ("cpu", None, true),
        ("cpu", Some("min"), false),
        ("cpu{stat=\"min\"}", None, false),
        ("cpu{stat=\"min\"}", Some("min"), true),
        ("cpu{stat=\"min\"}", Some("max"), false),
        ("cpu{stat!=\"min\"}", None, true),
        ("cpu{stat=~\"min|max\"}", Some("max"), true),
        ("cpu{stat=\"\"}", None, true),
        ("cpu{stat=\"\"}", Some("avg"), false),
    ] {
        assert_eq!(selector(text).has_stat(stat), expected, "{text} {stat:?}");
    }
}

#[test]
fn what_is_named_exactly() {
    for (text, expected) in [
        ("cpu{host=\"a\"}", Some("cpu")),
        ("cpu{host=\"a\",host=~\".*\"}", Some("cpu")),
        ("cpu", None),
        ("cpu{host=\"\"}", None),
        ("cpu{host=~\"a\"}", None),
        ("{host=\"a\",label=\"disk-used:/\"}", Some("disk-used:/")),
        (
            "requests{host=\"a\",code=\"200\",b=\"1\",c=\"\"}",
            Some("requests{b=\"1\",code=\"200\"}"),
        ),
        // Of a metric with other labels it is not known which.
        ("requests{host=\"a\",code!=\"\"}", None),
    ] {
        let selector = selector(text);
        let found = selector.only_series();
        let found = found.as_ref().map(|(host, label)| (*host, label.as_str()));
        assert_eq!(found, expected.map(|label| ("a", label)), "{text}");
    }
}

#[test]
fn texts_that_are_selectors() {
    for text in [
        " cpu ",
        "cpu{}",
        "a:b",
        "{ host = 'a' , stat=~`a\\b` , }",
        "cpu {host=\"}\"}",
        r#"{host="\\\"\n"}"#,
    ] {
        assert!(Selector::parse(text).is_ok(), "{text}");
    }
    let escaped = selector(r#"{host="\\\"\n"}"#);
    assert!(escaped.has_host("\\\"\n"));
    assert!(selector("{host=`\\\n`}").has_host("\\\n"));
    for text in [
        "",
        "{}",
        "{,}",
        "cpu{",
        "cpu}",
        "cpu{host}",
        "cpu{host=}",
        "cpu{host=a}",
        "cpu{host=\"a}",
        "cpu{host=\"a\"",
        "cpu{host=\"a\"}[5m]",
        "cpu{host==\"a\"}",
        "cpu{host~\"a\"}",
        "cpu{\"host\"=\"a\"}",
        "cpu{host=\"a\" stat=\"b\"}",
        "cpu{host=\"a\",,}",
        "9cpu",
        "sum(cpu)",
        "cpu{9=\"a\"}",
        "cpu{a:b=\"a\"}",
        "{host=\"\\q\"}",
        "{host=\"a\nb\"}",
        "cpu offset 5m",
    ] {
        assert!(
            matches!(Selector::parse(text), Err(SelectorError::Malformed(_))),
            "{text}"
        );
    }
}

#[test]
fn expressions_that_are_refused() {
    let of = |value: &str| Selector::of(&[matcher(MatcherType::Matches, "a", value)]);
    for value in [
        "(",
        "[",
        "a{2,1}",
        "*",
        "\\q",
        "(?P<n",
        "(?=a)",
        "\\1",
        "a)|(?:b",
        // Larger than there is memory for.
        "((a{100}){100}){100}",
        "\\pL{1000}{100}",
    ] {
        assert!(
            matches!(of(value), Err(SelectorError::InvalidExpression { .. })),
            "{value}"
        );
    }
    assert_eq!(
        of(&"a".repeat(MATCHER_BYTES_MAX)).err(),
        Some(SelectorError::MatcherTooLong)
    );
    assert!(of(&"a".repeat(MATCHER_BYTES_MAX - 1)).is_ok());
    // What Grafana makes of a thousand chosen hosts.
    let hosts: Vec<_> = (0..1_000).map(|host| format!("web{host}\\.lan")).collect();
    assert!(
        of(&hosts.join("|"))
            .unwrap()
            .has_label("m{a=\"web999.lan\"}")
    );
    let many = |count| vec![matcher(MatcherType::Equal, "a", "b"); count];
    assert!(Selector::of(&many(MATCHERS_MAX)).is_ok());
    let refused = Selector::of(&many(MATCHERS_MAX + 1));
    assert_eq!(refused.err(), Some(SelectorError::TooManyMatchers));
    let unknown = LabelMatcher {
        r#type: 4,
        ..LabelMatcher::default()
    };
    assert_eq!(
        Selector::of(&[unknown]).err(),
        Some(SelectorError::UnknownType(4))
    );
}

/// Of all queries of a request together.
#[test]
fn expressions_have_a_number() {
    let of = |count| vec![matcher(MatcherType::MatchesNot, "a", "b"); count];
    let check = |counts: &[usize]| {
        let queries: Vec<_> = counts.iter().map(|count| of(*count)).collect();
        selectors(queries.iter().map(Vec::as_slice)).map(|all| all.len())
    };
    assert_eq!(check(&[EXPRESSIONS_MAX / 2, EXPRESSIONS_MAX / 2]), Ok(2));
    let refused = check(&[EXPRESSIONS_MAX / 2, EXPRESSIONS_MAX / 2 + 1]);
    assert_eq!(refused, Err(SelectorError::TooManyExpressions));
}

proptest! {
    #[test]
    fn any_text(text in "[a-c{}=!~\"'`,\\\\ \nä]{0,20}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn quoted_values(value in "\\PC{0,8}|[\\\\\"\n]{0,4}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let selector = selector(&format!("{{host=\"{escaped}\"}}"));
        prop_assert!(selector.has_host(&value));
        prop_assert_eq!(selector.only_host(), Some(value.as_str()));
    }
}
