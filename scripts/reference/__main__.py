"""Writes docs/reference and the chart's dashboards from what they describe; `--check` only compares.

Sources: the CRDs, the REST endpoints' models, the node's proto, docstrings of the contract and the planner,
the chart's values, the alert rules, and the `console` blocks of the pages; dashboards/boards.yaml.
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
PAGES: Final = ROOT / "docs" / "reference"
DASHBOARDS: Final = ROOT / "charts" / "headwater" / "files" / "dashboards"
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


def dashboards() -> dict[str, str]:
    """The text of each dashboard, by file name."""
    sys.path.append(str(ROOT / "dashboards"))
    import boards

    return boards.dashboards()


def stale(folder: Path, wanted: dict[str, str], kind: str) -> dict[Path, str | None]:
    """The files that are not as they are wanted, with what they should be; None: they should not be."""
    found = {path.name: path.read_text() for path in folder.glob(kind) if path.name != "index.md"}
    names = sorted(wanted.keys() | found.keys())
    return {folder / name: wanted.get(name) for name in names if wanted.get(name) != found.get(name)}


def main() -> None:
    wrong = stale(PAGES, pages(), "*.md") | stale(DASHBOARDS, dashboards(), "*.json")
    if sys.argv[1:] == ["--check"]:
        if wrong:
            sys.exit(
                f"stale: {', '.join(str(path.relative_to(ROOT)) for path in wrong)}: run `make generate`"
            )
        return
    for path, text in wrong.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text)


if __name__ == "__main__":
    main()
