"""Markdown as all pages need it."""

from collections.abc import Iterable, Sequence


def cell(text: object) -> str:
    """Text that stays inside one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: object) -> str:
    """As code, inside a cell."""
    shown = " ".join(str(text).split()).replace("|", "\\|")
    return f"`{shown}`" if shown else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; nothing where there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", "|" + " --- |" * len(header), *lines]) + "\n"
