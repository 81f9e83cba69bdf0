use super::*;

const NOW: i64 = 1_465_001_814_000;

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
    let labels = labels.iter().map(|(name, value)| LabelPair {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    let samples = samples.iter().map(|(timestamp, value)| SamplePair {
        value: *value,
        timestamp: *timestamp,
    });
    TimeSeries {
        labels: labels.collect(),
        samples: samples.collect(),
        ..TimeSeries::default()
    }
}

fn request(timeseries: Vec<TimeSeries>) -> WriteRequest {
    WriteRequest {
        timeseries,
        ..WriteRequest::default()
    }
}

#[test]
fn the_host_of_a_series() {
    let check = |labels: &[(&str, &str)], expected: &str| {
        let found = hosts(&request(vec![series(labels, &[])])).unwrap();
        let found: Vec<_> = found.iter().map(|of| &of.host).collect();
        assert_eq!(found, [&SeriesHost::of(expected)], "{labels:?}");
    };
    let instance = |value| [("__name__", "up"), ("instance", value)];
    check(&instance("web1:9100"), "web1");
    check(&instance("web1"), "web1");
    check(&instance("192.0.2.1:9100"), "192.0.2.1");
    check(&instance("web1:"), "web1:");
    check(&instance("web1:x"), "web1:x");
    check(&instance("[2001:db8::1]:9100"), "[2001:db8::1]");
    check(&instance("2001:db8::1"), "2001:db8::1");
    check(&instance("../web1"), "../web1");
    // `host` counts before `instance`, and one that says nothing is none.
    check(&[("host", "web1"), ("instance", "db1:1")], "web1");
    check(&[("host", ""), ("instance", "db1:1")], "db1");
    let nobody = hosts(&request(vec![
        series(&[("__name__", "up")], &[]),
        series(&[("__name__", "up"), ("host", "web1")], &[]),
    ]));
    assert_eq!(nobody.unwrap_err().len(), 1);
}

#[test]
fn series_become_points() {
    let of_web1 =
        |more: &[(&'static str, &'static str)]| [&[("instance", "web1:9100")], more].concat();
    let request = request(vec![
        series(
            &of_web1(&[("job", "node"), ("__name__", "up")]),
            &[(NOW, 1.0), (NOW + 15_000, 0.0)],
        ),
        series(
            &of_web1(&[("__name__", "http_requests_total"), ("code", "200")]),
            &[(NOW, 7.0), (NOW + 15_000, f64::from_bits(STALE_NAN_BITS))],
        ),
        series(&[("host", "db1"), ("__name__", "up")], &[(NOW, 1.0)]),
    ]);
    let of_hosts = hosts(&request).unwrap();
    let names: Vec<_> = of_hosts
        .iter()
        .map(|of| of.host.name().unwrap().as_str())
        .collect();
    assert_eq!(names, ["web1", "db1"]);
    let found = points(&request, &of_hosts[0], &MetricKinds::default()).unwrap();
    let number = |millis: i64, kind| PointNumber {
        millis: millis as u64,
        kind,
    };
    let told: Vec<_> = found
        .iter()
        .map(|(number, values)| {
            let values = values.iter();
            let values = values.map(|(label, value)| (label.as_str(), value.get()));
            (*number, values.collect::<Vec<_>>())
        })
        .collect();
    let up = r#"up{job="node"}"#;
    let requests = r#"http_requests_total{code="200"}"#;
    assert_eq!(
        told,
        [
            (number(NOW, PointKind::Gauge), vec![(up, 1.0)]),
            (number(NOW, PointKind::Counter), vec![(requests, 7.0)]),
            (number(NOW + 15_000, PointKind::Gauge), vec![(up, 0.0)]),
            (number(NOW + 15_000, PointKind::End), vec![(requests, 0.0)]),
        ]
    );
}

/// A value may have any character: one that hides or turns round others is not written as it is.
#[test]
fn characters_that_are_not_seen() {
    let odd = series(
        &[
            ("__name__", "up"),
            ("host", "web1"),
            ("a", "tab\t\u{202e}\\u{9}"),
        ],
        &[(NOW, 1.0)],
    );
    let request = request(vec![odd]);
    let of_hosts = hosts(&request).unwrap();
    let found = points(&request, &of_hosts[0], &MetricKinds::default()).unwrap();
    let label = &found.values().next().unwrap()[0].0;
    assert_eq!(label.as_str(), r#"up{a="tab\u{9}\u{202e}\\u{9}"}"#);
}

#[test]
fn what_is_refused() {
    let check = |labels: &[(&str, &str)], samples: &[(i64, f64)], expected: &str| {
        let labels = [&[("host", "web1")], labels].concat();
        let request = request(vec![series(&labels, samples)]);
        let of_hosts = hosts(&request).unwrap();
        let found = points(&request, &of_hosts[0], &MetricKinds::default());
        let errors = found.unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].reason.contains(expected), "{errors:?}");
    };
    let good = [("__name__", "up")];
    check(&good, &[(NOW, f64::NAN)], "NaN");
    check(&good, &[(NOW, f64::INFINITY)], "inf");
    check(&good, &[(NOW, 1e291)], "is not a value");
    check(&good, &[(-1, 1.0)], "-1 ms");
    check(&good, &[(i64::MAX, 1.0)], "cannot be");
    check(&[], &[(NOW, 1.0)], "name of a metric");
    check(&[("__name__", "1up")], &[(NOW, 1.0)], "name of a metric");
    check(
        &[("__name__", "up"), ("a-b", "1")],
        &[(NOW, 1.0)],
        "name of a label",
    );
    check(
        &[("__name__", "up"), ("a", "1"), ("a", "2")],
        &[(NOW, 1.0)],
        "twice",
    );
    let long = "x".repeat(1_100);
    check(&[("__name__", "up"), ("a", &long)], &[(NOW, 1.0)], "1024");
}
