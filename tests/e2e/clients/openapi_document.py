"""Validates a description of an API: against OpenAPI 3.1's own schema, and each example against the
schema that it is an example of. Prints how many examples there are.

usage: openapi_document.py FILE
"""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
OpenAPIV31SpecValidator(document).validate()

base = "urn:document"
registry = Registry().with_resource(base, Resource(contents=document, specification=DRAFT202012))


def absolute(schema):
    """The schema with references that do not depend on where it stands."""
    if isinstance(schema, dict):
        return {
            key: base + value if key == "$ref" and isinstance(value, str) else absolute(value)
            for key, value in schema.items()
        }
    return [absolute(item) for item in schema] if isinstance(schema, list) else schema


def examples(node):
    """Each schema with an example of it, wherever in the document."""
    if isinstance(node, dict):
        if "schema" in node:
            if "example" in node:
                yield node["schema"], node["example"]
            for example in node.get("examples", {}).values():
                yield node["schema"], example["value"]
        node = node.values()
    elif not isinstance(node, list):
        return
    for child in node:
        yield from examples(child)


# What a reference leads to is resolved in the whole document.
document = absolute(document)
registry = Registry().with_resource(base, Resource(contents=document, specification=DRAFT202012))
count = 0
for schema, example in examples(document):
    Draft202012Validator(schema, registry=registry).validate(example)
    count += 1
print(count)
