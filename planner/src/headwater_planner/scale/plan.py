"""`plan_scale`: desired SFU nodes by region from load, floors and limits.

A raise needs one believable figure; a lowering needs every figure of its region. Floors and maxNodes act at
once, load through stabilisation windows and policies.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from headwater_api.meeting import Meeting
from headwater_api.sfucluster import SFUClusterSpec

from headwater_planner.scale.explain import Story, explain
from headwater_planner.scale.findings import active_finding, limited_finding
from headwater_planner.scale.fixed import plan_fixed
from headwater_planner.scale.floors import Floor, expected_of_meetings, schedule_floors
from headwater_planner.scale.forecast import Forecast, forecast_region
from headwater_planner.scale.history import History, record
from headwater_planner.scale.observe import participants_of, settled_faults, view_regions
from headwater_planner.scale.pace import Draft, limit_total, next_memory, pace
from headwater_planner.scale.region import RegionView
from headwater_planner.scale.result import RegionDecision, RegionMemory, ScalePlan, ScaleState
from headwater_planner.scale.signals import NodeSignals, joins_since
from headwater_planner.scale.wishes import Wishes, floors_of, wishes_of
from headwater_planner.world import ClusterWorld


def plan_scale(
    world: ClusterWorld,
    signals: Mapping[str, NodeSignals],
    meetings: Iterable[Meeting],
    state: ScaleState,
    now: datetime,
    *,
    seed: int = 0,
) -> ScalePlan:
    """The wanted number of nodes of every region of `world.cluster.spec`, and why.

    `signals`: figures by node (Pod) name, from `signals.signals_of_reports(world.loads)` or a metrics source;
    nodes without an entry are silent. `meetings`: the fleet's Meetings, in any order; those without a
    schedule or expectedParticipants ask for nothing. `state`: `ScaleState()` at first, then the last plan's
    `state`. `seed` sets the jitter of schedules apart from other fleets'; keep it the same between passes.

    The result's `desired` replaces `cluster.desired_nodes`; each changed number is one of `changes`, whose
    `sentence` and `reason` are for log, event, condition and status.lastScale. Nothing is raised.
    """
    spec = world.cluster.spec
    if spec.autoscaling.mode == "Fixed":
        return plan_fixed(world, state, now)
    joins, counters = joins_since(signals, state.counters)
    expected = expected_of_meetings(spec, meetings, participants_of(world), now, seed)
    views = view_regions(world, state, signals=signals, joins=joins, expected=expected.missing, now=now)
    loads = {name: view.load for name, view in views.items()}
    history = record(state.history, spec.autoscaling.forecast.season, loads, now)
    forecasts = _forecasts(spec, history, state, now)
    scheduled, problems = schedule_floors(spec, now, seed)
    floors = floors_of(spec, scheduled, expected.floors, forecasts=forecasts)
    wishes = wishes_of(spec, views, floors)
    drafts = {
        region.name: pace(
            region,
            spec.autoscaling.behavior,
            views[region.name].memory,
            wishes.wanted[region.name],
            floor=floors[region.name],
            now=now,
        )
        for region in spec.regions
    }
    final = limit_total(spec, drafts, floors, views)
    decisions, regions = _decide(
        spec, views, wishes, floors=floors, drafts=drafts, final=final, forecasts=forecasts, now=now
    )
    faults = {name: settled_faults(world, view.usage, now) for name, view in views.items()}
    return ScalePlan(
        desired=final,
        decisions=decisions,
        state=ScaleState(regions, counters, history, forecasts),
        active=active_finding(faults),
        limited=limited_finding(spec, wishes, drafts, final),
        problems=(*problems, *expected.unplaced),
    )


def _decide(
    spec: SFUClusterSpec,
    views: Mapping[str, RegionView],
    wishes: Wishes,
    *,
    floors: Mapping[str, Floor],
    drafts: Mapping[str, Draft],
    final: Mapping[str, int],
    forecasts: Mapping[str, Forecast],
    now: datetime,
) -> tuple[tuple[RegionDecision, ...], dict[str, RegionMemory]]:
    """Each region's sentence and what to remember of it."""
    behavior = spec.autoscaling.behavior
    decisions: list[RegionDecision] = []
    regions: dict[str, RegionMemory] = {}
    for name, view in views.items():
        story = _story(spec, view, wishes, floor=floors[name], draft=drafts[name], final=final[name])
        reason, sentence = explain(story)
        forecast = forecasts.get(name)
        decisions.append(
            RegionDecision(
                name, view.memory.desired, final[name], reason, sentence, story.wanted, view.load, forecast
            )
        )
        received = min(final[name], sum(spill.nodes for spill in story.into))
        regions[name] = next_memory(
            view.memory,
            drafts[name],
            behavior,
            final[name],
            now,
            overflow=wishes.overflow[name],
            received=received,
        )
    return tuple(decisions), regions


def _story(
    spec: SFUClusterSpec, view: RegionView, wishes: Wishes, *, floor: Floor, draft: Draft, final: int
) -> Story:
    name = view.region.name
    return Story(
        view=view,
        floor=floor,
        own=wishes.own[name],
        wanted=wishes.wanted[name],
        steady=draft.steady,
        paced=draft.paced,
        final=final,
        out=wishes.out_of(name),
        into=wishes.into(name),
        behavior=spec.autoscaling.behavior,
        total_limit=spec.autoscaling.max_nodes,
    )


def _forecasts(
    spec: SFUClusterSpec, history: History, state: ScaleState, now: datetime
) -> dict[str, Forecast]:
    """Made once for each of history's buckets."""
    policy = spec.autoscaling.forecast
    if policy.method == "None":
        return {}
    known = state.forecasts if state.history.bucket_s == history.bucket_s else {}
    bucket = history.bucket(now)
    return {
        name: old
        if (old := known.get(name)) is not None and old.bucket == bucket
        else forecast_region(history, name, policy.horizon, now)
        for name in (region.name for region in spec.regions)
    }
