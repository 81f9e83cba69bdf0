"""Writes OpenMetrics in the older text format, the only one that promtool reads.

usage: openmetrics_to_text.py FILE
"""

import sys

from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families


class Families:
    def __init__(self, families):
        self.collect = lambda: families


with open(sys.argv[1], encoding="utf-8", newline="") as text:
    families = list(text_string_to_metric_families(text.read()))
sys.stdout.buffer.write(generate_latest(Families(families)))
