//! What OpenTelemetry sends.

use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use lizmon_protocol::token::Scope;
use utoipa::openapi::Content;

use super::operation::{Described, JSON, content_of};
use crate::body::BODY_BYTES_MAX;
use crate::protobuf::MEDIA_TYPE;

pub(in super::super) fn export_metrics() -> Vec<Described> {
    let message = || (MEDIA_TYPE, Content::default());
    let operation = Described::post(route::OTLP_METRICS, "exportMetrics", "OpenTelemetry's metrics by OTLP/HTTP")
        .tag("opentelemetry")
        .says("A message ExportMetricsServiceRequest. A resource is of the host that its attribute `host.name` names, else `service.instance.id`. What is sent again has been counted once")
        .with_token(&[Scope::MetricsWrite])
        .reads_any([message(), (JSON, content_of("MetricsExport"))], &["gzip", "zstd"], BODY_BYTES_MAX)
        .instead_of(&[Code::RequestTimeout])
        .may_be(&[
            Code::MalformedProtobuf,
            Code::WrongHost,
            Code::UnsupportedMediaType,
            Code::EpochTooOld,
            Code::EpochInFuture,
            Code::TooManyLabels,
            Code::TooManyRecords,
            Code::CertificateRenewed,
        ])
        .becomes_durable()
        .answers(200, "What was taken is durable. The rest is named: a message ExportMetricsServiceResponse, in the encoding of the request", Some(message()))
        .answers(200, "`{}` if all was taken", Some((JSON, content_of("MetricsExportAnswer"))));
    vec![operation]
}
