"""A custom resource's fields, from its definition."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from text import cell, code, table

Schema = dict[str, Any]


def page(path: Path) -> str:
    """Spec and status of the definition, a row for each field, and the rules that the API server enforces."""
    document = yaml.safe_load(path.read_text())["spec"]
    names, (version,) = document["names"], document["versions"]
    root: Schema = version["schema"]["openAPIV3Schema"]
    short = ", ".join(names.get("shortNames", ()))
    kind, api = names["kind"], f"{document['group']}/{version['name']}"
    parts = [
        f"# {kind}\n\n{root['description']}\n\n`apiVersion: {api}`, `kind: {kind}`, short name `{short}`, "
        f"{document['scope'].lower()}.\n"
    ]
    for part in ("spec", "status"):
        schema = root["properties"].get(part)
        if schema is None:
            continue
        rows = [_row(where, field, needed) for where, field, needed in _fields(part, schema)]
        parts.append(f"## {part}\n\n{schema.get('description', '')}\n")
        parts.append(table(("Field", "Type", "Default", "What it says"), rows))
    rules = [(code(where or "metadata"), cell(rule["message"])) for where, rule in _rules("", root)]
    parts.append("## Rules\n\nRefused by the API server, with these words:\n")
    parts.append(table(("At", "Rule"), rules))
    return "\n".join(parts)


def _fields(path: str, schema: Schema) -> Iterator[tuple[str, Schema, bool]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        yield where, field, name in required
        yield from _fields(where, field)
        items = field.get("items")
        if isinstance(items, dict):
            yield from _fields(f"{where}[]", items)


def _row(where: str, field: Schema, needed: bool) -> tuple[str, str, str, str]:
    default = "required" if needed else code(_plain(field["default"])) if "default" in field else ""
    return code(where), _type(field), default, cell(field.get("description", ""))


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "{}" if value == {} else str(value)


def _type(field: Schema) -> str:
    if "enum" in field:
        return " \\| ".join(code(value) for value in field["enum"])
    kind = str(field.get("type", "any"))
    if kind == "array":
        kind = f"list of {_type(field['items'])}" if "items" in field else "list"
    elif kind == "object" and "additionalProperties" in field:
        kind = "map"
    low, high = field.get("minimum"), field.get("maximum")
    return kind if low is None and high is None else f"{kind}, {low} … {high}"


def _rules(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), rule
    for name, field in schema.get("properties", {}).items():
        yield from _rules(f"{path}.{name}".strip("."), field)
    items = schema.get("items")
    if isinstance(items, dict):
        yield from _rules(f"{path}[]", items)
