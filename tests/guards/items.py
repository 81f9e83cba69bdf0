"""Finds items of our crates by name, in source text that rustfmt has laid out."""

import functools
import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEAD = re.compile(
    r"^(?P<indent> *)(?:pub(?:\([\w: ]+\))? )?(?:default |async |unsafe |const )*"
    r"(?P<kind>fn|struct|enum|union|trait|type|const|static|mod|impl|macro_rules!)\b ?(?P<rest>.*)$"
)


class Item:
    """A function, constant, type or the like: where it stands, attributes and comments included, and its path in the crate."""

    def __init__(self, file, path, start, end):
        self.file, self.path, self.start, self.end = file, path, start, end

    def text(self):
        return self.file.read_text()[self.start : self.end]


def name_of(kind, rest):
    """What an item is called: an `impl` by its type."""
    if kind == "impl":
        rest = without_generics(rest).split(" for ")[-1]
        found = re.match(r"&?(?:'\w+ )?(?:dyn )?(?:\w+::)*(\w+)", rest)
    else:
        found = re.match(r"(?:mut )?(\w+)", rest)
    # In a macro it may be a parameter.
    return found and found[1]


def without_generics(rest):
    """An `impl` without the parameters that stand behind the word."""
    depth = 0
    for at, char in enumerate(rest):
        depth += (char == "<") - (char == ">" and rest[at - 1] != "-")
        if depth == 0:
            return rest[at + 1 :].strip() if char == ">" else rest
    return rest


def module_of(source, file):
    parts = list(file.relative_to(source).with_suffix("").parts)
    return [part for part in parts if part not in ("lib", "main", "mod")]


def items_of(file, module):
    lines = file.read_text().splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    items, open_scopes = [], []
    for number, line in enumerate(lines):
        found = HEAD.match(line.rstrip("\n"))
        if not found:
            continue
        indent, kind = found["indent"], found["kind"]
        while open_scopes and open_scopes[-1][1] <= number:
            open_scopes.pop()
        # Inside a function nothing has a name of its own.
        if open_scopes and open_scopes[-1][2] not in ("impl", "trait", "mod"):
            continue
        name = name_of(kind, found["rest"])
        if name is None:
            continue
        end = end_of(lines, number, indent)
        scope = [scope[0] for scope in open_scopes]
        open_scopes.append((name, end, kind))
        if kind in ("impl", "mod"):
            continue
        first = start_of(lines, number, indent)
        items.append(Item(file, [*module, *scope, name], offsets[first], offsets[end]))
    return items


def start_of(lines, number, indent):
    """The line of the first comment or attribute of what begins at this one."""
    while number and lines[number - 1].startswith((f"{indent}//", f"{indent}#[", f"{indent})]")):
        number -= 1
        if lines[number].startswith(f"{indent})]"):
            while not lines[number].startswith(f"{indent}#["):
                number -= 1
    return number


def end_of(lines, number, indent):
    """The line after the last one of what begins at this one."""
    has_block = False
    for at in range(number, len(lines)):
        line = lines[at].rstrip("\n")
        closes = at == number or re.match(rf"{indent}[}})\]]", line)
        if closes and line.endswith((";", "}")) or not has_block and line.endswith(";"):
            return at + 1
        has_block |= line.endswith("{")
    return len(lines)


@functools.cache
def packages():
    """Source folders of each crate."""
    shown = subprocess.run(["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"], cwd=ROOT, check=True, capture_output=True)
    return {package["name"]: pathlib.Path(package["manifest_path"]).parent / "src" for package in json.loads(shown.stdout)["packages"]}


@functools.cache
def items(package):
    source = packages()[package]
    return [item for file in sorted(source.rglob("*.rs")) for item in items_of(file, module_of(source, file))]


def find(anchor):
    """Items that `PACKAGE PATH` names: PATH is the end of their path, as `Type::method` or `module::function`."""
    package, path = anchor.split(" ")
    wanted = path.split("::")
    return [item for item in items(package) if item.path[-len(wanted) :] == wanted]
