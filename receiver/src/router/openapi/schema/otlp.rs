//! What OpenTelemetry sends as JSON, and the answer.

use serde_json::json;
use utoipa::openapi::ObjectBuilder;

use super::parts::{Keys as _, NamedSchema, list, object, text};
use super::samples::{HOST, NOW};
use crate::otlp::answer::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};

pub(super) fn all() -> Vec<NamedSchema> {
    vec![export(), answer()]
}

/// The rest is for the `.proto` files to say.
fn export() -> NamedSchema {
    let attribute = object().may_have("key", text()).may_have("value", object());
    let resource = object().may_have("attributes", list(attribute));
    let metrics = object()
        .says("A `Metric` of `metrics.proto`")
        .may_have("name", text());
    let scope = object()
        .may_have("scope", object().may_have("name", text()))
        .may_have("metrics", list(metrics));
    let of_resource = object()
        .may_have("resource", resource)
        .may_have("scopeMetrics", list(scope));
    let schema = object()
        .says("An `ExportMetricsServiceRequest` of opentelemetry-proto, as protobuf writes it in JSON")
        .may_have("resourceMetrics", list(of_resource));
    let nanos = (NOW * 1_000_000_000).to_string();
    let point = json!({"timeUnixNano": nanos, "asDouble": 4.98});
    let gauge = json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": HOST}}]},
        "scopeMetrics": [{"metrics": [{"name": "cpu", "gauge": {"dataPoints": [point]}}]}],
    }]});
    NamedSchema::new("MetricsExport", schema)
        .example("gauge", &gauge)
        .example("nothing", &json!({}))
}

fn answer() -> NamedSchema {
    let partial = object()
        .may_have("rejectedDataPoints", count_as_text())
        .may_have("errorMessage", text().says("Which points, and why"));
    let schema = object()
        .says(
            "An `ExportMetricsServiceResponse`: `{}` if all was taken, and there is nothing to say",
        )
        .may_have("partialSuccess", partial);
    let some = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 2,
            error_message: "left out: `cpu` (2 times): its time is too long ago".to_owned(),
        }),
    };
    NamedSchema::new("MetricsExportAnswer", schema)
        .example("some", &some)
        .example("all", &ExportMetricsServiceResponse::default())
}

fn count_as_text() -> ObjectBuilder {
    text()
        .says("How many points were left out; none is a warning")
        .pattern(Some("^[0-9]+$"))
}

#[cfg(test)]
mod tests {
    use super::super::examples_of;
    use crate::otlp::OtlpEncoding;
    use crate::otlp::points::points;

    use super::*;

    /// All of an example is taken.
    #[test]
    fn examples_are_accepted() {
        let taken = examples_of("MetricsExport").iter().map(|(word, example)| {
            let message = OtlpEncoding::Json.parse(example.to_string().as_bytes());
            let found = points(&message.unwrap(), NOW);
            assert!(found.left_out.is_nothing(), "{word}: {}", found.left_out);
            found.hosts.len()
        });
        assert_eq!(taken.collect::<Vec<_>>(), [1, 0]);
    }
}
