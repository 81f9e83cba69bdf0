"""Asks the IAM policies of deploy/aws, as far as they are written: statements that allow, with conditions."""

import fnmatch
import re


class Policies:
    """The documents of `check.mjs --facts`, with Terraform's names replaced by these values."""

    def __init__(self, facts, values, packages):
        self.values = values
        self.documents = {
            "receiver": self.resolve(facts["member"]["statement"], {"each.key": "receiver"}),
            "summarizer": self.resolve(facts["member"]["statement"], {"each.key": "summarizer"}),
            "ca": self.resolve(facts["ca"]["statement"], {}),
        }
        # The dynamic statement of each document.
        for role, statements in self.documents.items():
            statements.append({"actions": ["s3:GetObject"], "resources": packages[role]})

    def resolve(self, value, more):
        if isinstance(value, dict):
            return {key: self.resolve(inner, more) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.resolve(inner, more) for inner in value]
        if not isinstance(value, str):
            return value
        known = {**self.values, **more}

        def name(match):
            text = match.group(1)
            for key, inner in more.items():
                text = text.replace(f"[{key}]", f'["{inner}"]')
            return known[text]

        # $${…} is for IAM, and stays.
        text = re.sub(r"(?<!\$)\$\{((?:local|var|aws_)[^}]*)\}", name, value)
        return text.replace("$${", "${")

    def allows(self, role, action, resource, context):
        return any(fits(statement, action, resource, context) for statement in self.documents[role])


def fits(statement, action, resource, context):
    return (
        any(fnmatch.fnmatchcase(action, wanted) for wanted in statement["actions"])
        and any(fnmatch.fnmatchcase(resource, wanted) for wanted in statement["resources"])
        and all(holds(condition, context) for condition in statement.get("condition", []))
    )


def holds(condition, context):
    found = context.get(condition["variable"])
    if found is None:
        return False
    for wanted in condition["values"]:
        wanted = re.sub(r"\$\{([^}]+)\}", lambda match: context.get(match.group(1), "\0"), wanted)
        if condition["test"] == "StringEquals" and found == wanted:
            return True
        if condition["test"] == "StringLike" and fnmatch.fnmatchcase(found, wanted):
            return True
    return False
