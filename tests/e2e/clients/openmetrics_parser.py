"""Reads OpenMetrics strictly, as Prometheus' own parser does, and prints one gauge as JSON.

usage: openmetrics_parser.py FILE GAUGE
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

file, gauge = sys.argv[1:]
with open(file, encoding="utf-8", newline="") as text:
    families = {family.name: family for family in text_string_to_metric_families(text.read())}
print(json.dumps([[sample.labels, sample.value] for sample in families[gauge].samples]))
