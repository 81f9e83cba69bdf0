//! Hosts, and the labels of series.

use super::*;

/// The label of a gauge with these attributes of its resource, scope and point.
fn label(
    name: &str,
    resource: &[(&str, &str)],
    scope: &str,
    point: &[(&str, &str)],
) -> Vec<String> {
    let point = json!({
        "asInt": 1,
        "timeUnixNano": at(0),
        "attributes": attributes(point),
    });
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": attributes(resource)},
        "scopeMetrics": [{
            "scope": {"name": scope, "version": "1", "attributes": attributes(&[("a", "b")])},
            "metrics": [{"name": name, "gauge": {"dataPoints": [point]}}],
        }],
    }]});
    told(&taken(&request))
}

fn check_label(
    name: &str,
    resource: &[(&str, &str)],
    scope: &str,
    point: &[(&str, &str)],
    label_is: &str,
) {
    let expected = format!("web1 0s Gauge {label_is} 1");
    assert_eq!(label(name, resource, scope, point), [expected]);
}

#[test]
fn names_are_those_of_prometheus() {
    let web1 = [("host.name", "web1")];
    let check = |name: &str, attributes: &[(&str, &str)], expected: &str| {
        check_label(name, &web1, "", attributes, expected);
    };
    check("http.server.duration", &[], "http_server_duration");
    check("job:rate", &[], "job:rate");
    check("2xx", &[], "_2xx");
    check("süß/µs", &[], "s____s");
    check("up", &[("http.route", "/a")], r#"up{http_route="/a"}"#);
    check("up", &[("b", "2"), ("a", "1")], r#"up{a="1",b="2"}"#);
    check(
        "up",
        &[("a:b", "1"), ("2", "2"), ("", "3")],
        r#"up{_="3",_2="2",a_b="1"}"#,
    );
    check("up", &[("empty", "")], "up");
    check(
        "up",
        &[("a", "line\nquote\"back\\")],
        r#"up{a="line\nquote\"back\\"}"#,
    );
    // opentelemetry-python#3928: keys that come to be the same, in the order of the keys.
    let collide = [
        ("hello_world", "3"),
        ("hello.world", "2"),
        ("hello-world", "1"),
    ];
    check("up", &collide, r#"up{hello_world="1;2;3"}"#);
}

#[test]
fn services_instances_and_scopes_are_different_series() {
    let check = |resource: &[(&str, &str)], scope: &str, expected: &str| {
        check_label("up", resource, scope, &[], expected);
    };
    check(
        &[("host.name", "web1"), ("service.name", "shop")],
        "",
        r#"up{job="shop"}"#,
    );
    check(
        &[
            ("service.namespace", "eu"),
            ("host.name", "web1"),
            ("service.name", "shop"),
            ("service.instance.id", "4711"),
        ],
        "lib",
        r#"up{instance="4711",job="eu/shop",otel_scope_name="lib"}"#,
    );
    check(
        &[("host.name", "web1"), ("service.namespace", "eu")],
        "",
        "up",
    );
    check(
        &[("host.name", "web1"), ("service.instance.id", "web1")],
        "",
        "up",
    );
    // Without a name of the host the instance is one.
    check(&[("service.instance.id", "web1")], "", "up");
    check(
        &[("host.name", ""), ("service.instance.id", "web1")],
        "",
        "up",
    );
}

/// No attribute of a point makes its series that of another service, instance, scope or host.
#[test]
fn labels_of_the_resource_are_not_the_points_to_set() {
    let check = |resource: &[(&str, &str)], point: &[(&str, &str)], expected: &str| {
        check_label("up", resource, "lib", point, expected);
    };
    let web1 = [("host.name", "web1")];
    check(
        &web1,
        &[("job", "shop")],
        r#"up{exported_job="shop",otel_scope_name="lib"}"#,
    );
    check(
        &[("host.name", "web1"), ("service.name", "shop")],
        &[
            ("job", "x"),
            ("instance", "y"),
            ("otel.scope.name", "z"),
            ("host", "db1"),
        ],
        r#"up{exported_host="db1",exported_instance="y",exported_job="x",exported_otel_scope_name="z",job="shop",otel_scope_name="lib"}"#,
    );
    check(
        &web1,
        &[("job", "a"), ("exported_job", "b"), ("__name__", "c")],
        r#"up{exported___name__="c",exported_job="b;a",otel_scope_name="lib"}"#,
    );
    // Of a summary a quantile is not, and of others it is.
    check(
        &web1,
        &[("quantile", "0.5")],
        r#"up{otel_scope_name="lib",quantile="0.5"}"#,
    );
    let summary = of_web1(json!([{"name": "s", "summary": {"dataPoints": [{
        "timeUnixNano": at(0),
        "attributes": attributes(&[("quantile", "0.5"), ("z", "1")]),
        "quantileValues": [{"quantile": 0.99, "value": 2}, {"quantile": 1, "value": 3}],
    }]}}]));
    super::check(
        &summary,
        &[
            r#"web1 0s Gauge s{exported_quantile="0.5",quantile="0.99",z="1"} 2"#,
            r#"web1 0s Gauge s{exported_quantile="0.5",quantile="1",z="1"} 3"#,
            r#"web1 0s Counter s_count{exported_quantile="0.5",z="1"} 0"#,
            r#"web1 0s Counter s_sum{exported_quantile="0.5",z="1"} 0"#,
        ],
        0,
        &[],
    );
}

#[test]
fn labels_that_cannot_be() {
    let check = |name: &str, attributes_of: &[(&str, &str)], reason: &str| {
        let point =
            json!({"asInt": 1, "timeUnixNano": at(0), "attributes": attributes(attributes_of)});
        let metric = json!([{"name": name, "gauge": {"dataPoints": [point]}}]);
        super::check(&of_web1(metric), &[], 1, &[reason]);
    };
    check("", &[], "``: it has no name");
    check("up", &[("a", &"x".repeat(1_100))], "1024");
    check("summary:x", &[], "summary:");
}

/// A host that cannot be, or is another's, is for others to refuse: also if nothing is taken of it.
#[test]
fn hosts() {
    let metrics = |value: Value| json!([{"name": "up", "gauge": {"dataPoints": [{"asDouble": value, "timeUnixNano": at(0)}]}}]);
    let request = json!({"resourceMetrics": [
        of_resource(&[("host.name", "web1")], metrics(json!(1))),
        of_resource(&[("host.name", "db1")], metrics(json!("NaN"))),
        of_resource(&[("host.name", "../web1")], json!([])),
        of_resource(&[("service.name", "shop")], metrics(json!(1))),
        {"scopeMetrics": [{"metrics": metrics(json!(2))}]},
        // The same host again is the same host.
        of_resource(&[("host.name", "web1"), ("service.name", "shop")], metrics(json!(3))),
    ]});
    let found = taken(&request);
    let hosts: Vec<_> = found.hosts.keys().cloned().collect();
    let expected = ["db1", "web1", "../web1"].map(crate::ingest::SeriesHost::of);
    assert_eq!(hosts, expected);
    let reason = "`up` (2 times): its resource names no host: set `host.name`";
    check(
        &request,
        &[r#"web1 0s Gauge up 1"#, r#"web1 0s Gauge up{job="shop"} 3"#],
        3,
        &["`up`: a value is NaN", reason],
    );
    // A name that is no text is one that it is written as.
    let number = json!({"resourceMetrics": [{"resource": {"attributes": [
        {"key": "host.name", "value": {"intValue": "42"}},
    ]}}]});
    let found = taken(&number);
    let hosts: Vec<_> = found.hosts.keys().cloned().collect();
    assert_eq!(hosts, [crate::ingest::SeriesHost::of("42")]);
}
