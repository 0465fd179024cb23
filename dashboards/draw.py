# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.10", "pyyaml>=6"]
# ///
"""Draws the dashboards as pictures, where no Grafana is: the same panels and queries, from any Prometheus.

    uv run --script dashboards/draw.py http://127.0.0.1:9090 DIRECTORY [--minutes 5]

It looks like a plot and not like Grafana; what is in it is what Grafana would ask for.
"""

import argparse
import json
import math
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from boards import Board, Panel, read_boards

COLUMNS: Final = 3
POINTS: Final = 240
TIMEOUT_S: Final = 20
MAX_LEGEND: Final = 8
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a7f00", "#444444")
# Grafana's units: the factor and what stands behind the number.
UNITS: Final = {
    "short": (1.0, ""),
    "ops": (1.0, "/s"),
    "pps": (1.0, " packets/s"),
    "Mbits": (1.0, " Mbit/s"),
    "percent": (1.0, " %"),
    "percentunit": (100.0, " %"),
    "s": (1000.0, " ms"),
    "ms": (1.0, " ms"),
    "bytes": (1 / 2**20, " MiB"),
    "Bps": (1 / 1000, " kB/s"),
}
Series = list[dict[str, Any]]


class Source:
    """A Prometheus and the time that is shown."""

    def __init__(self, url: str, minutes: float, now: float) -> None:
        self._url, self.end, self._span = url.rstrip("/"), now, minutes * 60

    def over(self, query: str) -> Series:
        """The query's values over the time shown."""
        step = max(1.0, self._span / POINTS)
        bounds = {"start": self.end - self._span, "end": self.end, "step": step}
        return self._ask("query_range", {"query": self._filled(query), **bounds})

    def now(self, query: str) -> Series:
        """The query's values at the end of it."""
        return self._ask("query", {"query": self._filled(query), "time": self.end})

    def _filled(self, query: str) -> str:
        span = f"{int(self._span)}s"
        for name, value in (
            ("$__rate_interval", "30s"),
            ("$__range", span),
            ("$job", ".+"),
            ("$instance", ".+"),
        ):
            query = query.replace(name, value)
        return query

    def _ask(self, what: str, parameters: dict[str, Any]) -> Series:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            result: Series = json.load(response)["data"]["result"]
        return result


def legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def shown(value: float, unit: str) -> str:
    factor, suffix = UNITS[unit]
    scaled = value * factor
    return f"{scaled:.0f}{suffix}" if abs(scaled) >= 100 or scaled == int(scaled) else f"{scaled:.3g}{suffix}"


def draw_lines(axes: Any, panel: Panel, source: Source) -> bool:
    factor, suffix = UNITS[panel.unit]
    drawn, numbers = 0, 0
    for template, query in panel.queries.items():
        for series in source.over(query):
            at = [(float(t) - source.end) / 60 for t, _ in series["values"]]
            values = [float(v) * factor for _, v in series["values"]]
            label = legend(template, series["metric"]) if drawn < MAX_LEGEND else None
            axes.plot(at, values, color=COLOURS[drawn % len(COLOURS)], linewidth=1.2, label=label)
            drawn += 1
            numbers += sum(map(math.isfinite, values))
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.tick_params(labelsize=6, length=2)
    axes.set_xlabel("minutes", fontsize=6)
    axes.set_ylabel(suffix.strip(), fontsize=6)
    if drawn:
        axes.legend(fontsize=5.5, loc="upper left", frameon=True, framealpha=0.7, edgecolor="none")
    return numbers > 0


def draw_number(axes: Any, panel: Panel, source: Source) -> bool:
    axes.axis("off")
    lines = [
        (legend(template, series["metric"]), shown(float(series["value"][1]), panel.unit))
        for template, query in panel.queries.items()
        for series in source.now(query)
        if math.isfinite(float(series["value"][1]))
    ][:3]
    for number, (name, value) in enumerate(lines):
        height = 0.5 + (len(lines) - 1) * 0.16 - number * 0.32
        axes.text(0.5, height, value, ha="center", va="center", fontsize=20 if len(lines) == 1 else 14)
        axes.text(0.5, height - 0.16, name, ha="center", va="center", fontsize=6, color="#666666")
    return bool(lines)


def draw_table(axes: Any, panel: Panel, source: Source) -> bool:
    axes.axis("off")
    rows = [
        [legend(template, series["metric"]), shown(float(series["value"][1]), panel.unit)]
        for template, query in panel.queries.items()
        for series in source.now(query)
        if float(series["value"][1])
    ]
    if rows:
        table = axes.table(rows, loc="upper center", cellLoc="left", colWidths=[0.8, 0.2], edges="horizontal")
        table.auto_set_font_size(False)
        table.set_fontsize(6.5)
    return bool(rows)


# Each says whether there was anything to draw.
DRAWN: Final = {"timeseries": draw_lines, "stat": draw_number, "table": draw_table}


def draw(board: Board, source: Source, path: Path) -> list[str]:
    """One picture of one dashboard; the titles of panels that show nothing."""
    empty = []
    rows = -(-len(board.panels) // COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(11, 0.5 + 2.0 * rows), squeeze=False)
    figure.suptitle(board.title, fontsize=11, x=0.01, ha="left")
    for axes, panel in zip(grid.flat, board.panels, strict=False):
        axes.set_title(panel.title, fontsize=8, loc="left")
        if not DRAWN[panel.kind](axes, panel, source):
            empty.append(f"{board.title}: {panel.title}")
    for axes in list(grid.flat)[len(board.panels) :]:
        axes.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 70})
    plt.close(figure)
    return empty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prometheus")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    source = Source(arguments.prometheus, arguments.minutes, time.time())
    boards = read_boards()
    empty = [t for board in boards for t in draw(board, source, arguments.directory / f"{board.name}.webp")]
    if empty:
        sys.exit(f"panels that show nothing: {'; '.join(empty)}")


if __name__ == "__main__":
    main()
