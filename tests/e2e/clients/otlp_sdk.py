"""Metrics of the OpenTelemetry SDK, twice, and what was sent, as a line of JSON.

usage: otlp_sdk.py FOLDER ENCODING TEMPORALITY HOST SERVICE

FOLDER has the module of docs/opentelemetry.md. With JSON the settings come from the environment, but for the token.
"""

import json
import os
import sys
import time

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

folder, encoding, temporality, host, service = sys.argv[1:]
sys.path.insert(0, folder)
import lizmon_metrics  # noqa: E402

kinds = (Counter, Histogram, ObservableCounter, UpDownCounter)
preferred = {kind: AggregationTemporality[temporality] for kind in kinds}
if encoding == "protobuf":
    exporter = lizmon_metrics.exporter(preferred_temporality=preferred)
else:
    from opentelemetry.exporter.otlp.json.http.metric_exporter import OTLPMetricExporter

    headers = os.environ["OTEL_EXPORTER_OTLP_HEADERS"]
    os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = headers.replace("$TOKEN", lizmon_metrics.Token().get())
    exporter = OTLPMetricExporter(preferred_temporality=preferred)

exports = []
export = exporter.export


def keep(metrics, *args, **kwargs):
    result = export(metrics, *args, **kwargs)
    exports.append({"result": result.name, "metrics": json.loads(metrics.to_json())})
    return result


def next_millisecond():
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= now:
        pass


exporter.export = keep
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
view = View(instrument_name="shop.size", aggregation=ExponentialBucketHistogramAggregation())
resource = Resource({"host.name": host, "service.name": service})
provider = MeterProvider(metric_readers=[reader], resource=resource, views=[view])
meter = provider.get_meter("shop.lib")

orders = meter.create_counter("shop.orders")
stock = meter.create_up_down_counter("shop.stock")
duration = meter.create_histogram("shop.duration")
size = meter.create_histogram("shop.size")
temperature = meter.create_gauge("shop.temperature")
for round in (1, 2):
    orders.add(3 * round, {"region": "eu"})
    orders.add(1.5, {"region": "us", "paid": True})
    stock.add(5 - 4 * round)
    duration.record(0.25 * round, {"http.route": "/a"})
    duration.record(2, {"http.route": "/a"})
    size.record(7 * round)
    temperature.set(20.5 + round)
    next_millisecond()
    reader.force_flush()
# What it would send at the end is what it has sent.
exporter.export = lambda *args, **kwargs: None
provider.shutdown()
print(json.dumps(exports))
