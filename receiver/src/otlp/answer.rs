//! The answer to an export, in the encoding of its request.

use prost::Message;
use serde::{Serialize, Serializer};

use super::OtlpEncoding;
use super::left_out::LeftOut;

/// The body of an answer.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportMetricsServiceResponse {
    /// Not there if everything was taken and there is nothing to say.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_success: Option<ExportMetricsPartialSuccess>,
}

/// What was not taken.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportMetricsPartialSuccess {
    /// So many points. With none, the message is a warning.
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    pub rejected_data_points: i64,
    /// Which and why.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_message: String,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// An integer of 64 bits is a text in the JSON of protobuf.
fn as_text<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

impl ExportMetricsServiceResponse {
    /// What is said of a request of which this was left out. `warning` is about what was taken.
    pub fn of(left_out: &LeftOut, warning: Option<&str>) -> Self {
        let named = (!left_out.is_nothing()).then(|| left_out.to_string());
        let said = [named.as_deref(), warning];
        let said: Vec<_> = said.into_iter().flatten().collect();
        let partial_success = (!said.is_empty()).then(|| ExportMetricsPartialSuccess {
            rejected_data_points: i64::try_from(left_out.points).unwrap_or(i64::MAX),
            error_message: said.join(". "),
        });
        Self { partial_success }
    }

    /// The body.
    pub fn body(&self, encoding: OtlpEncoding) -> Vec<u8> {
        match encoding {
            OtlpEncoding::Protobuf => self.encode_to_vec(),
            // It has texts alone, and no map.
            OtlpEncoding::Json => serde_json::to_vec(self).unwrap_or_default(),
        }
    }
}
