"""Dashboards keep the rules that Grafana's dashboard linter knows."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from support.dashboards import BOARDS, expressions, substitute

Board = dict[str, Any]
COUNTER: Final = re.compile(r"\b(\w+_total|\w+_bucket|\w+_count|\w+_sum)\{")


def boards() -> list[Any]:
    return [pytest.param(board, id=name) for name, board in BOARDS.items()]


def variable(board: Board, name: str) -> Board:
    (found,) = [v for v in board["templating"]["list"] if v["name"] == name]
    return dict(found)


def test_there_are_eight() -> None:
    assert len(BOARDS) == 8


@pytest.mark.parametrize("board", boards())
def test_variables_are_the_usual_ones(board: Board) -> None:
    """template-datasource, template-job, template-instance, template-label-promql, on-time-change-reload."""
    assert variable(board, "datasource")["query"] == "prometheus"
    for name in ("job", "instance"):
        found = variable(board, name)
        assert found["label"] == name and found["datasource"]["uid"] == "${datasource}"
        assert found["multi"] and found["includeAll"] and found["allValue"] == ".+"
        assert found["refresh"] == 2, "read again when the time range changes"
        assert re.fullmatch(r"label_values\(\{.+\}, " + name + r"\)", found["query"])


@pytest.mark.parametrize("board", boards())
def test_panels_say_what_they_show(board: Board) -> None:
    """panel-datasource, panel-title-description, panel-units, panel-no-targets, uneditable-dashboard."""
    assert board["editable"] is False
    assert board["title"] and board["description"] and board["uid"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        title = panel["title"]
        assert title and panel["description"].endswith("."), title
        assert panel["datasource"]["uid"] == "${datasource}", title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["targets"], title
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}" and target["legendFormat"], title


@pytest.mark.parametrize("board", boards())
def test_queries_select_by_job_and_instance_and_take_rates_of_counters(board: Board) -> None:
    """target-job, target-instance, target-rate-interval, target-counter-agg."""
    for title, expression in expressions(board):
        for selector in re.findall(r"\w+\{([^}]*)\}", expression):
            assert 'job=~"$job"' in selector and 'instance=~"$instance"' in selector, (title, selector)
        assert not re.search(r"\bheadwater_\w+(?![\w{])", re.sub(r"\w+\{", "{", expression)), (
            title,
            "no selector",
        )
        for window in re.findall(r"\[([^\]]+)\]", expression):
            assert window in ("$__rate_interval", "$__range"), (title, window)
        for match in COUNTER.finditer(expression):
            before = expression[: match.start()]
            assert re.search(r"(rate|increase|irate)\($", before), (title, match.group(1))


def test_every_query_is_promql(tmp_path: Path) -> None:
    """target-promql: Prometheus' own parser, by way of a rule file."""
    rules = [
        {"record": f"panel:{number}", "expr": substitute(expression)}
        for number, (_, expression) in enumerate(pair for b in BOARDS.values() for pair in expressions(b))
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rules) > 60
