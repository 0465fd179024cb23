"""The chart's dashboards as data."""

import json
from collections.abc import Iterator
from typing import Any, Final

from support.charts import CHARTS

BOARDS: Final[dict[str, dict[str, Any]]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted((CHARTS / "headwater" / "files" / "dashboards").glob("*.json"))
}


def expressions(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each panel's title with each of its queries."""
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def substitute(expression: str, window: str = "1m", span: str = "10m") -> str:
    """The query with Grafana's variables as its page would fill them in, all jobs and instances."""
    filled = expression.replace("$__rate_interval", window).replace("$__range", span)
    return filled.replace("$job", ".+").replace("$instance", ".+")
