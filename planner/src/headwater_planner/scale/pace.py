"""From what is wanted to what is ordered now: windows, policies, floors, limits, and what to remember."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from headwater_api.fleet_policy import ScalingBehavior
from headwater_api.sfucluster import RegionSpec, SFUClusterSpec

from headwater_planner.scale.behavior import (
    Sample,
    down_limit,
    down_window,
    remember_change,
    remember_high,
    remember_low,
    stabilise,
    up_limit,
    up_window,
)
from headwater_planner.scale.floors import Floor
from headwater_planner.scale.region import RegionView
from headwater_planner.scale.result import RegionMemory
from headwater_planner.scale.spill import cap_total


@dataclass(frozen=True, slots=True)
class Draft:
    """A region's number after the windows (`steady`) and after policies, floors and bounds (`paced`)."""

    highs: tuple[Sample, ...]
    lows: tuple[Sample, ...]
    steady: int
    paced: int


def first_memory(desired: int, serving: int, now: datetime) -> RegionMemory:
    """For a region that was not planned before: what was wanted or serves, whichever is more, is kept."""
    current = max(desired, serving)
    start = (Sample(now, current),)
    return RegionMemory(current, highs=start, lows=start)


def pace(
    region: RegionSpec,
    behavior: ScalingBehavior,
    memory: RegionMemory,
    wanted: int,
    *,
    floor: Floor,
    now: datetime,
) -> Draft:
    """The region's number for now, before the total's limit."""
    up, down = behavior.scale_up, behavior.scale_down
    current = memory.desired
    new = Sample(now, wanted)
    highs = remember_high(memory.highs, new, down_window(down))
    lows = remember_low(memory.lows, new, up_window(up))
    steady = stabilise(current, highs, lows)
    if steady > current:
        paced = min(steady, up_limit(up, memory.changes, current, now))
    else:
        paced = max(steady, down_limit(down, memory.changes, current, now))
    return Draft(highs, lows, steady, min(max(paced, floor.nodes), region.max_nodes))


def limit_total(
    spec: SFUClusterSpec,
    drafts: Mapping[str, Draft],
    floors: Mapping[str, Floor],
    views: Mapping[str, RegionView],
) -> dict[str, int]:
    """The numbers within autoscaling.maxNodes: first minNodes, then floors, then what is there, then more."""
    paced = {name: draft.paced for name, draft in drafts.items()}
    limit = spec.autoscaling.max_nodes
    if limit is None:
        return paced
    least = {region.name: region.min_nodes for region in spec.regions}
    wished = {name: floor.nodes for name, floor in floors.items()}
    present = {name: view.memory.desired for name, view in views.items()}
    return cap_total(limit, paced, (least, wished, present))


def next_memory(
    memory: RegionMemory,
    draft: Draft,
    behavior: ScalingBehavior,
    final: int,
    now: datetime,
    *,
    overflow: int,
    received: int,
) -> RegionMemory:
    """What the next pass needs."""
    rules = (behavior.scale_up, behavior.scale_down)
    return RegionMemory(
        desired=final,
        highs=draft.highs,
        lows=draft.lows,
        changes=remember_change(memory.changes, final - memory.desired, now, rules),
        overflow=overflow,
        received=received,
    )
