"""Which commands of the pages are run by a test, and which are not, and why."""

from pathlib import Path

from blocks import pages_of, read_blocks
from text import cell, table


def page(root: Path) -> str:
    """How many commands are run, page by page, and each block that is not, with its reason."""
    counts, left = [], []
    for path in pages_of(root):
        blocks = read_blocks(path)
        run = sum(len(block.commands) for block in blocks if not block.reason)
        skipped = [block for block in blocks if block.reason]
        name = str(path.relative_to(root))
        if blocks:
            counts.append((f"`{name}`", str(run), str(sum(len(b.commands) for b in skipped))))
        left += [(f"`{name}`", f"`{cell(b.commands[0])}`", cell(b.reason)) for b in skipped]
    return (
        "# Commands of these pages\n\nEvery command in a `console` block is run by "
        "`tests/component/test_docs_commands.py`, page by page, against one sandbox that the quick "
        "start's own first command starts. `helm` is a stand-in there: Helm's own engine renders the chart "
        "with the values given, and the API server takes each object in a dry run.\n\n"
        + table(("Page", "Run", "Not run"), counts)
        + "\n## Not run, and why\n\n"
        + table(("Page", "First command", "Reason"), left)
    )
