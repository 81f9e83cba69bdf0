//! A family of gauges whose values are looked up when they are asked for.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Encodes one: its values by their labels.
pub(super) fn gauges<const LABELS: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = ([(&'static str, String); LABELS], u64)>,
) -> Result<(), fmt::Error> {
    type Value = ConstGauge<i64>;
    let mut family = encoder.encode_descriptor(name, help, unit, Value::TYPE)?;
    for (labels, value) in values {
        let value = Value::new(i64::try_from(value).unwrap_or(i64::MAX));
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
