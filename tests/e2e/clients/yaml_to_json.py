"""Writes the YAML on stdin as JSON.

usage: yaml_to_json.py
"""

import json
import sys

import yaml

json.dump(yaml.safe_load(sys.stdin), sys.stdout)
