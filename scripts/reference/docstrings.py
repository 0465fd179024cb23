"""The Python contract (headwater_api) and the planner's decisions, from their docstrings."""

import ast
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import headwater_api
import headwater_planner
from text import cell

PACKAGES: Final = (headwater_api, headwater_planner)
LEFT_OUT: Final = "nodev1"  # generated; it is the page of the node protocol

INTRO = """# Python reference

What other programs build on: `headwater_api`, the contract, and `headwater_planner`, the decisions. Both are
pure: no input or output, no clock, no randomness; only `headwater_api.certificates` reads the files of a
certificate, and `headwater_api.exporting` sends traces. Units and errors are in the docstrings.
"""


def page() -> str:
    """Each module's public classes and functions with signature and docstring."""
    parts = [INTRO]
    for package in PACKAGES:
        for module in _modules(package):
            source = ast.parse(_text(module))
            parts.append(f"## {module.__name__}\n\n{ast.get_docstring(source) or ''}\n")
            parts.extend(_entries(source))
    return "\n".join(parts)


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    names = [package.__name__]
    names += [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in names:
        if LEFT_OUT not in name:
            module = import_module(name)
            if _text(module).strip():
                yield module


def _text(module: ModuleType) -> str:
    return Path(module.__file__ or "").read_text()


def _entries(source: ast.Module) -> Iterator[str]:
    for node in source.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        docstring = ast.get_docstring(node)
        if docstring is None:
            continue
        kind, shown = ("class", node.name) if isinstance(node, ast.ClassDef) else ("", _signature(node))
        yield f"`{f'{kind} {shown}'.strip()}`\n:   {cell(docstring)}\n"


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"
