use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn check(label: &str, metric: &str, labels: &[(&str, &str)]) {
    let named = Named::of(label);
    let found: Vec<_> = named
        .labels
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    assert_eq!((&*named.metric, &found[..]), (metric, labels), "{label}");
}

#[test]
fn labels_that_are_metrics() {
    check("cpu", "cpu", &[]);
    check("_:a9", "_:a9", &[]);
    check("up{job=\"a\"}", "up", &[("job", "a")]);
    check("a:b{c=\"1\",d=\"2\"}", "a:b", &[("c", "1"), ("d", "2")]);
    check(
        r#"a{b="\\\"\n",c="},{="}"#,
        "a",
        &[("b", "\\\"\n"), ("c", "},{=")],
    );
    check("a{b=\"é ok\"}", "a", &[("b", "é ok")]);
}

/// What is not written as [`written`] does is no metric: two labels would be one series.
#[test]
fn labels_that_are_none() {
    for (label, metric) in [
        ("disk-used:/home", "disk_used"),
        ("disk.read/sda", "disk_read_sda"),
        ("5min load", "_5min_load"),
        (":a b", "_"),
        ("Größe", "Gr__e"),
        ("a{}", "a"),
        ("a{b}", "a"),
        // Not by name, twice, empty, spaces, an escape that is none, no end.
        (r#"a{c="1",b="2"}"#, "a"),
        (r#"a{b="1",b="1"}"#, "a"),
        (r#"a{b=""}"#, "a"),
        (r#"a{b="1", c="2"}"#, "a"),
        (r#"a{b="1",}"#, "a"),
        (r#"a{b="\t"}"#, "a"),
        (r#"a{b="\"}"#, "a"),
        (r#"a{b="1"}x"#, "a"),
        (r#"a{b:="1"}"#, "a"),
        (r#"-{b="1"}"#, "__b__1__"),
        // What lizmon says itself.
        (r#"a{host="b"}"#, "a"),
        (r#"a{label="b"}"#, "a"),
        (r#"a{stat="min"}"#, "a"),
        (r#"a{__name__="b"}"#, "a"),
    ] {
        check(label, metric, &[(WHOLE, label)]);
    }
}

prop_compose! {
    /// Texts of few characters, so that many of them are nearly the same.
    fn any_label()(text in "[ab19:_\\-\\\\{}=\",\n ]{1,8}|[ab:]{1,2}\\{[abhost]{1,4}=\"[ab\\\\n\"]{0,3}\"(,[b-d]=\"[a,]{1}\")?\\}") -> String {
        text
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn names_are_valid_and_different(labels in prop::collection::btree_set(any_label(), 1..40)) {
        let mut seen = BTreeSet::new();
        for label in &labels {
            let named = Named::of(label);
            prop_assert!(is_metric(&named.metric), "{}", label);
            for (name, value) in &named.labels {
                prop_assert!(is_label_name(name) && !value.is_empty(), "{}", label);
                prop_assert!(*name == WHOLE || !RESERVED.contains(name), "{}", label);
            }
            let pairs: Vec<_> = named.labels.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
            prop_assert!(seen.insert((named.metric.to_string(), pairs)), "{}", label);
        }
    }

    #[test]
    fn what_was_written_is_named(
        metric in "[a-z_:][a-z0-9_:]{0,5}",
        labels in prop::collection::btree_map("[a-g_][a-g0-9_]{0,3}", "\\PC{0,4}|[\\\\\"\n]{0,3}", 0..4),
    ) {
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let label = written(&metric, pairs.clone());
        let named = Named::of(&label);
        prop_assert_eq!(&*named.metric, metric.as_str());
        let expected: Vec<_> = pairs.filter(|(_, value)| !value.is_empty()).collect();
        let found: Vec<_> = named.labels.iter().map(|(name, value)| (*name, &**value)).collect();
        prop_assert_eq!(found, expected);
    }
}
