"""Writes docs/reference from what it describes: `python scripts/reference`; `--check` only compares.

Sources: the CRDs, the REST endpoints' models, the node's proto, docstrings of the contract and the planner,
the chart's values, the alert rules, and the `console` blocks of the pages.
"""

import sys
from pathlib import Path
from typing import Final

import alerts
import chart
import commands
import crd
import docstrings
import proto
import rest

ROOT: Final = Path(__file__).resolve().parents[2]
OUT: Final = ROOT / "docs" / "reference"
NOTE: Final = "<!-- Written by scripts/reference. Change its source, then run it. -->\n\n"


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    made = {
        "sfucluster.md": crd.page(ROOT / "crds" / "sfuclusters.yaml"),
        "meeting.md": crd.page(ROOT / "crds" / "meetings.yaml"),
        "rest.md": rest.page(),
        "node-protocol.md": proto.page(ROOT / "crds" / "proto" / "headwater" / "node" / "v1" / "node.proto"),
        "python.md": docstrings.page(),
        "chart.md": chart.page(ROOT / "charts" / "headwater" / "values.yaml"),
        "alerts.md": alerts.page(ROOT / "charts" / "headwater" / "files" / "rules.yaml"),
        "commands.md": commands.page(ROOT),
    }
    return {name: NOTE + text for name, text in made.items()}


def main() -> None:
    wanted = pages()
    found = {path.name: path.read_text() for path in OUT.glob("*.md") if path.name != "index.md"}
    if sys.argv[1:] == ["--check"]:
        stale = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if stale:
            sys.exit(f"docs/reference is stale ({', '.join(stale)}): run `python scripts/reference`")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    for name in found.keys() - wanted.keys():
        (OUT / name).unlink()
    for name, text in wanted.items():
        (OUT / name).write_text(text)


if __name__ == "__main__":
    main()
