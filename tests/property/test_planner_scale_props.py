"""What the number of nodes never does, however hostile the figures are."""

import math
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

from headwater_api.meeting import Meeting
from headwater_planner.scale.need import REQUIRED
from headwater_planner.scale.result import ScalePlan
from headwater_planner.scale.signals import NodeSignals, fault_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fleet import NOW, a_meeting
from support.scaling import Passes, an_autoscaled

SETTINGS = settings(max_examples=int(os.environ.get("HEADWATER_EXAMPLES", "30")), deadline=None)
BAD = (math.nan, math.inf, -math.inf, -1.0, -1e300, 1e300, 1e12)
FIGURES = tuple(name for name in NodeSignals.__dataclass_fields__ if name != "age_s")
GOOD = {
    "cpu_percent": st.floats(0, 100),
    "connections": st.integers(0, 1500).map(float),
    "p95_ms": st.floats(0, 400),
    "egress_mbps": st.floats(0, 5000),
    "packets_per_second": st.floats(0, 1e6),
    "queue_percent": st.floats(0, 100),
    "transports_created": st.integers(0, 10_000).map(float),
}


@st.composite
def good_nodes(draw: st.DrawFn) -> NodeSignals:
    return NodeSignals(draw(st.floats(0, 30)), **{name: draw(values) for name, values in GOOD.items()})


@st.composite
def hostile_nodes(draw: st.DrawFn) -> NodeSignals | None:
    """Silent, stale, or with one figure that cannot be."""
    kind = draw(st.sampled_from(("silent", "stale", "figure", "missing")))
    node = draw(good_nodes())
    if kind == "silent":
        return None
    if kind == "stale":
        return replace(node, age_s=draw(st.sampled_from((30.01, 1e9, math.nan, math.inf, -1.0))))
    if kind == "missing":
        return replace(node, **{draw(st.sampled_from(REQUIRED)): None})
    return replace(node, **{draw(st.sampled_from(FIGURES)): draw(st.sampled_from(BAD))})


@st.composite
def fleets(draw: st.DrawFn, *, total: bool = True) -> Passes:
    bounds = {}
    for name in ("eu", "us", "ap")[: draw(st.integers(1, 3))]:
        low = draw(st.integers(0, 3))
        bounds[name] = (low, draw(st.integers(max(1, low), 12)))
    autoscaling: dict[str, Any] = {
        "behavior": {
            "scaleUp": draw(rules()),
            "scaleDown": draw(rules()),
        }
    }
    lowest, highest = sum(low for low, _ in bounds.values()), sum(high for _, high in bounds.values())
    replicas = draw(st.none() | st.integers(0, highest))
    if total and draw(st.booleans()):
        autoscaling["maxNodes"] = draw(st.integers(max(1, lowest, replicas or 0), highest))
    return Passes(an_autoscaled(bounds, autoscaling=autoscaling, replicas=replicas))


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    kinds = st.fixed_dictionaries(
        {
            "type": st.sampled_from(("Nodes", "Percent")),
            "value": st.integers(1, 200),
            "period": st.sampled_from(("5s", "15s", "1m")),
        }
    )
    chosen: dict[str, Any] = {
        "policies": draw(st.lists(kinds, max_size=2)),
        "selectPolicy": draw(st.sampled_from(("Max", "Max", "Min", "Disabled"))),
        "tolerancePercent": draw(st.sampled_from((0, 10, 50))),
    }
    window = draw(st.sampled_from((None, "0s", "30s", "5m")))
    return chosen if window is None else {**chosen, "stabilizationWindow": window}


def bounds_are_kept(fleet: Passes, plan: ScalePlan) -> None:
    spec = fleet.cluster.spec
    for region in spec.regions:
        assert region.min_nodes <= plan.desired[region.name] <= region.max_nodes
    assert sum(plan.desired.values()) <= (spec.autoscaling.max_nodes or math.inf)
    assert sum(plan.desired.values()) >= (spec.replicas or 0)


def nodes_for(fleet: Passes, draw: st.DrawFn, kind: st.SearchStrategy[Any]) -> dict[str, list[Any]]:
    return {r.name: draw(st.lists(kind, max_size=5)) for r in fleet.cluster.spec.regions}


@SETTINGS
@given(st.data())
def test_bad_figures_lower_nothing(data: st.DataObject) -> None:
    """Each pass has bad figures in one region at least: that region's number never falls."""
    fleet = data.draw(fleets())
    before: dict[str, int] = {}
    for _ in range(data.draw(st.integers(2, 8))):
        nodes = nodes_for(fleet, data.draw, good_nodes() | hostile_nodes())
        plan = fleet.step(nodes, after_s=data.draw(st.sampled_from((1.0, 5.0, 400.0))))
        for name, figures in nodes.items():
            if name in before and any(fault_of(figure) for figure in figures):
                assert plan.desired[name] >= before[name], fleet.decision(name).sentence
        before = dict(plan.desired)
        bounds_are_kept(fleet, plan)


@SETTINGS
@given(st.data())
def test_a_fleet_that_is_not_heard_of_keeps_its_size_for_ever(data: st.DataObject) -> None:
    fleet = data.draw(fleets())
    plan = fleet.step(nodes_for(fleet, data.draw, good_nodes()))
    size = dict(plan.desired)
    for _ in range(5):
        silent = {name: [None] * count for name, count in size.items()}
        plan = fleet.step(silent, after_s=data.draw(st.sampled_from((5.0, 3600.0))))
        assert all(plan.desired[name] >= size[name] for name in size)
        size = dict(plan.desired)


@SETTINGS
@given(st.data())
def test_one_more_figure_of_load_never_asks_for_fewer_nodes(data: st.DataObject) -> None:
    """From the same state, with every figure at least as high, each region gets at least as many."""
    fleet = data.draw(fleets(total=False))
    for _ in range(data.draw(st.integers(0, 3))):
        fleet.step(nodes_for(fleet, data.draw, good_nodes()), after_s=60)
    low = nodes_for(fleet, data.draw, good_nodes())
    high = {
        name: [
            replace(
                node,
                cpu_percent=min(100.0, (node.cpu_percent or 0.0) * data.draw(st.floats(1, 3))),
                connections=(node.connections or 0.0) + data.draw(st.integers(0, 2000)),
                p95_ms=(node.p95_ms or 0.0) * data.draw(st.floats(1, 3)),
            )
            for node in figures
        ]
        for name, figures in low.items()
    }
    other = replace(fleet)
    fewer, more = fleet.step(low, after_s=60), other.step(high, after_s=60)
    for name in low:
        assert more.desired[name] >= fewer.desired[name]


@SETTINGS
@given(st.data())
def test_no_number_goes_down_within_a_window_of_going_up(data: st.DataObject) -> None:
    """A turn to more is never delayed; a turn to fewer waits for the whole window, whatever load does."""
    window = data.draw(st.sampled_from((30, 120, 300)))
    behavior = {"scaleDown": {"stabilizationWindow": f"{window}s"}}
    fleet = Passes(an_autoscaled({"eu": (0, 12)}, autoscaling={"behavior": behavior}))
    last_raise, before = None, None
    for _ in range(40):
        step_s = data.draw(st.sampled_from((5.0, 5.0, 20.0)))
        connections = data.draw(st.sampled_from((0.0, 900.0, 3000.0)))
        node = NodeSignals(0.5, cpu_percent=10.0, connections=connections, p95_ms=1.0)
        now = fleet.step({"eu": [node, node]}, after_s=step_s).desired["eu"]
        if before is not None and now > before:
            last_raise = fleet.now
        if before is not None and now < before and last_raise is not None:
            assert fleet.now - last_raise >= timedelta(seconds=window)
        before = now


@st.composite
def meetings(draw: st.DrawFn) -> list[Meeting]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        start = NOW + timedelta(seconds=draw(st.integers(-7200, 3600)))
        by_region = draw(st.dictionaries(st.sampled_from(("eu", "us", "mars")), st.integers(0, 4000)))
        placement = draw(st.sampled_from(({}, {"pin": ["eu"]}, {"deny": ["us"]}, {"allow": ["us", "ap"]})))
        found.append(
            a_meeting(
                f"m{number}",
                schedule={
                    "start": start.isoformat(),
                    "leadTime": "5m",
                    **draw(st.sampled_from(({}, {"duration": "30m"}))),
                },
                expectedParticipants={"byRegion": by_region},
                placement=placement,
            )
        )
    return found


@SETTINGS
@given(st.data())
def test_no_number_is_below_what_is_announced(data: st.DataObject) -> None:
    """Whatever the figures: while a meeting is on, its regions have nodes for it, or their maxNodes."""
    fleet = data.draw(fleets(total=False))
    known = data.draw(meetings())
    plan = fleet.step(nodes_for(fleet, data.draw, good_nodes() | hostile_nodes()), meetings=known)
    bounds_are_kept(fleet, plan)
    for meeting in known:
        schedule = meeting.spec.schedule
        assert schedule is not None
        end = schedule.start + (schedule.duration or timedelta(hours=2))
        if not schedule.start - schedule.lead_time <= NOW <= end:
            continue
        permitted = [r for r in fleet.cluster.spec.regions if meeting.spec.placement.permits(r.name)]
        people = sum(meeting.spec.expected_participants.by_region.values())
        room = sum(plan.desired[region.name] for region in permitted) * 1000 / 1.2 / 2
        full = all(plan.desired[region.name] == region.max_nodes for region in permitted)
        assert people <= room + 1e-6 or full


@SETTINGS
@given(st.data())
def test_the_same_input_gives_the_same_plan(data: st.DataObject) -> None:
    fleet = data.draw(fleets())
    nodes, known = nodes_for(fleet, data.draw, good_nodes() | hostile_nodes()), data.draw(meetings())
    other = replace(fleet)
    first, second = fleet.step(nodes, meetings=known), other.step(nodes, meetings=known)
    assert first.desired == second.desired and str(first) == str(second)
