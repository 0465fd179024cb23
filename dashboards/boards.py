"""The Grafana dashboards that the chart installs, from boards.yaml; `make generate` writes them.

A panel of boards.yaml is a title, what it tells, a unit and queries; everything else is the same for all.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).resolve().parent
SELECT: Final = 'job=~"$job",instance=~"$instance"'
WIDTH: Final = 8
HEIGHT: Final = 8
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """`queries`: legend → PromQL. `kind`: timeseries, stat or table."""

    title: str
    tells: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"


@dataclass(frozen=True)
class Board:
    """One dashboard. `series`: those whose jobs and instances can be chosen."""

    name: str
    title: str
    tells: str
    series: str
    panels: tuple[Panel, ...]


def read_boards() -> tuple[Board, ...]:
    """The boards of boards.yaml, macros and selectors filled in."""
    document = yaml.safe_load((HERE / "boards.yaml").read_text())
    macros = {f"<{name}>": text for name, text in document["macros"].items()}

    def query(text: str, over: str) -> str:
        for name, macro in macros.items():
            text = text.replace(name, macro)
        if over == "range":
            text = text.replace("$__rate_interval", "$__range")
        return text.replace("%S", SELECT)

    def one(row: dict[str, Any]) -> Panel:
        over = row.pop("over", "")
        queries = {legend: query(text, over) for legend, text in row.pop("queries").items()}
        return Panel(queries=queries, **row)

    return tuple(
        Board(panels=tuple(one(row) for row in board.pop("panels")), **board) for board in document["boards"]
    )


def variables(board: Board) -> list[dict[str, Any]]:
    """The datasource, the job and the instance, as every dashboard of Prometheus' mixins has them."""
    matcher = f'{{__name__=~"{board.series}"}}'
    shown = {"includeAll": True, "multi": True, "allValue": ".+", "refresh": 2, "sort": 1, "type": "query"}
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "job",
            "label": "job",
            "datasource": DATASOURCE,
            "query": f"label_values({matcher}, job)",
            **shown,
        },
        {
            "name": "instance",
            "label": "instance",
            "datasource": DATASOURCE,
            "query": f'label_values({{__name__=~"{board.series}", job=~"$job"}}, instance)',
            **shown,
        },
    ]


def panel(number: int, made: Panel) -> dict[str, Any]:
    """One panel, three in a row."""
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query,
            "legendFormat": legend,
            **({"instant": True, "format": "table"} if made.kind == "table" else {}),
        }
        for index, (legend, query) in enumerate(made.queries.items())
    ]
    return {
        "id": number + 1,
        "type": made.kind,
        "title": made.title,
        "description": made.tells,
        "datasource": DATASOURCE,
        "gridPos": {"x": WIDTH * (number % 3), "y": HEIGHT * (number // 3), "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": made.unit}, "overrides": []},
        "targets": targets,
    }


def render(board: Board) -> str:
    """The dashboard as Grafana imports it."""
    document = {
        "uid": f"headwater-{board.name}",
        "title": board.title,
        "description": board.tells,
        "tags": ["headwater"],
        "editable": False,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables(board)},
        "panels": [panel(number, made) for number, made in enumerate(board.panels)],
    }
    return json.dumps(document, indent=1) + "\n"


def dashboards() -> dict[str, str]:
    """The text of each dashboard, by file name."""
    return {f"{board.name}.json": render(board) for board in read_boards()}
