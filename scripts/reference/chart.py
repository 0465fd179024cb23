"""The chart's values, from values.yaml and its `# --` comments (helm-docs' form)."""

import re
from pathlib import Path
from typing import Any

import yaml
from text import cell, code, table


def page(path: Path) -> str:
    """A row for each leaf that a comment describes or that stands by itself."""
    text = path.read_text()
    values: dict[str, Any] = yaml.safe_load(text)
    said = _comments(text)
    rows = [
        (code(key), code(_plain(value)), cell(said.get(key, ""))) for key, value in _leaves("", values, said)
    ]
    intro = (
        "# Chart values\n\nOf the chart `headwater`. The chart `headwater-crds` has none and is installed "
        "first. A key that is not here is refused by `values.schema.json`; so is one without secrets.\n"
    )
    return intro + "\n" + table(("Value", "Default", "What it says"), rows)


def _leaves(path: str, values: dict[str, Any], said: dict[str, str]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        key = f"{path}.{name}".strip(".")
        if isinstance(value, dict) and value:
            if key in said:
                found.append((key, ""))
            found.extend(_leaves(key, value, said))
        else:
            found.append((key, value))
    return found


def _comments(text: str) -> dict[str, str]:
    """What `# --` says before a key, by the key's path; keys are found by their indentation."""
    said: dict[str, str] = {}
    pending: list[str] = []
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        comment = re.match(r"\s*# (?:(--) )?(.*)", line)
        if comment:
            if comment[1]:
                pending = [comment[2]]
            elif pending:
                pending.append(comment[2])
            continue
        found = re.match(r"(\s*)([A-Za-z]\w*):", line)
        if found:
            depth = len(found[1])
            stack = [(at, name) for at, name in stack if at < depth] + [(depth, found[2])]
            if pending:
                said[".".join(name for _, name in stack)] = " ".join(pending)
        pending = []
    return said


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)
