"""What a pass reads off the world: each region's nodes, their figures, who is in which room."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from headwater_planner.heal import assess
from headwater_planner.pods import RegionPods, is_draining, sort_pods
from headwater_planner.scale.need import RegionUsage, measure, needs_of
from headwater_planner.scale.pace import first_memory
from headwater_planner.scale.region import RegionView
from headwater_planner.scale.result import RegionMemory, ScaleState
from headwater_planner.scale.signals import NodeSignals
from headwater_planner.world import ClusterWorld

# A node that has just become ready may not have been heard of yet: no reason to call metrics missing.
REPORT_GRACE: Final = timedelta(seconds=10)


def view_regions(
    world: ClusterWorld,
    state: ScaleState,
    *,
    signals: Mapping[str, NodeSignals],
    joins: Mapping[str, float],
    expected: Mapping[str, float],
    now: datetime,
) -> dict[str, RegionView]:
    """Every region of the spec. `joins`: by node; `expected`: connections by region."""
    spec, health = world.cluster.spec, assess(world, now)
    views = {}
    for region in spec.regions:
        pods = sort_pods(world, region.name, health)
        memory = state.regions.get(region.name) or _first_memory(world, region.name, pods, now)
        usage = _usage(world, pods, signals, joins)
        needs = needs_of(spec, region, usage, expected.get(region.name, 0.0))
        views[region.name] = RegionView(region, memory, usage, needs)
    return views


def participants_of(world: ClusterWorld) -> Callable[[str, str], int]:
    """Participants by room and region, counted when first asked for: most passes need none."""
    counts: Counter[tuple[str, str]] = Counter()
    counted = False

    def present(room: str, region: str) -> int:
        nonlocal counted
        if not counted:
            counted = True
            for load in world.loads.values():
                for entry in load.rooms:
                    counts[entry.room, load.region] += entry.participants
        return counts[room, region]

    return present


def settled_faults(world: ClusterWorld, usage: RegionUsage, now: datetime) -> list[str]:
    """The faults that are worth a condition."""
    young = {pod.name for pod in world.pods if now - (pod.ready_changed_at or pod.created_at) < REPORT_GRACE}
    return [fault for fault in usage.faults if fault.split(":")[0] not in young]


def _first_memory(world: ClusterWorld, name: str, pods: RegionPods, now: datetime) -> RegionMemory:
    """After a restart: the status tells what was wanted, the Pods tell what serves."""
    written = next((r.desired for r in world.cluster.status.regions if r.name == name), 0)
    serving = sum(1 for pod in pods.alive if not is_draining(world.load(pod)))
    return first_memory(written, serving, now)


def _usage(
    world: ClusterWorld, pods: RegionPods, signals: Mapping[str, NodeSignals], joins: Mapping[str, float]
) -> RegionUsage:
    """A node that is not ready counts from its first report on: it may be one that drains, or limps."""
    heard = [pod for pod in pods.starting if world.load(pod) is not None]
    up = [*pods.ready, *heard]
    leaving = {pod.name for pod in up if is_draining(world.load(pod))}
    return measure(
        world.cluster.spec,
        signals,
        joins,
        in_service=[pod.name for pod in up if pod.name not in leaving],
        leaving=[*sorted(leaving), *(pod.name for pod in pods.terminating)],
        lost=[pod.name for pod in pods.lost],
    )
