"""Prometheus' instant vectors as a node's figures: what is doubled, timeless or not a number."""

import math
from typing import Any

import pytest
from headwater_operator.metrics_source.prometheus import signals_of_series
from headwater_planner.scale.signals import fault_of

NOW_S = 1_900_000_000.0


def series(name: str, value: object, pod: str = "n1", **labels: str) -> dict[str, Any]:
    metric = {"__name__": f"headwater_sfu_{name}", "pod": pod, **labels}
    return {"metric": metric, "value": [NOW_S, value]}


def scraped(ago_s: float, pod: str = "n1") -> dict[str, Any]:
    return {"metric": {"pod": pod}, "value": [NOW_S, str(NOW_S - ago_s)]}


NODE = [series("cpu_percent", "40"), series("connections", "7"), series("forward_seconds", "0.002")]


@pytest.mark.parametrize(
    ("ago_s", "fault"),
    [(1.0, ""), (29.0, ""), (-3.0, ""), (31.0, "has figures 31 s old"), (-60.0, "has figures -60 s old")],
)
def test_age_is_the_scrape_s(ago_s: float, fault: str) -> None:
    assert fault_of(signals_of_series(NODE, [scraped(ago_s)], NOW_S)["n1"]) == fault


@pytest.mark.parametrize("times", [[], [{"metric": {"pod": "n1"}, "value": [NOW_S, "NaN"]}]])
def test_without_a_time_figures_are_of_an_unknown_age(times: list[dict[str, Any]]) -> None:
    assert fault_of(signals_of_series(NODE, times, NOW_S)["n1"]) == "has figures of an unknown time"


def test_of_two_scrapes_the_higher_figure_and_the_older_time() -> None:
    twice = [*NODE, series("cpu_percent", "90", job="other"), series("participants", "9")]
    node = signals_of_series(twice, [scraped(2), scraped(12)], NOW_S)["n1"]
    assert (node.cpu_percent, node.connections, node.p95_ms, node.age_s) == (90.0, 9.0, 2.0, 12.0)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "", None, "12 apples"])
def test_what_is_no_number_is_a_fault_even_beside_a_number(value: object) -> None:
    node = signals_of_series([*NODE, series("cpu_percent", value, job="x")], [scraped(1)], NOW_S)["n1"]
    assert fault_of(node).startswith("says CPU percent") and not math.isfinite(node.cpu_percent or 0.0)


def test_series_without_a_pod_are_nobody_s() -> None:
    assert signals_of_series([series("cpu_percent", "40", pod="")], [scraped(1)], NOW_S) == {}
