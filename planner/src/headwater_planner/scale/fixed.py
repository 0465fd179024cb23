"""mode Fixed: minNodes and replicas, whatever the load."""

from collections.abc import Mapping
from datetime import datetime

from headwater_api.reasons import Reason

from headwater_planner.cluster import desired_nodes
from headwater_planner.scale.pace import first_memory
from headwater_planner.scale.result import Finding, RegionDecision, RegionMemory, ScalePlan, ScaleState
from headwater_planner.supply import nodes_text
from headwater_planner.world import ClusterWorld

FIXED_TEXT = "the fleet is held at minNodes and spec.replicas; nodes are not added by load"


def plan_fixed(world: ClusterWorld, state: ScaleState, now: datetime) -> ScalePlan:
    """The numbers of the spec. What was known of load is kept for the day it is Automatic."""
    desired = desired_nodes(world.cluster.spec)
    before = _before(world, state, desired)
    decisions = []
    for name, nodes in desired.items():
        reason = Reason.FIXED_SIZE
        if nodes == before[name]:
            text = f"Region {name} stays at {nodes_text(nodes)}: {FIXED_TEXT}"
        else:
            reason = Reason.SCALED_UP if nodes > before[name] else Reason.SCALED_DOWN
            text = (
                f"Scale region {name} from {before[name]} to {nodes_text(nodes)}: "
                "minNodes, maxNodes or replicas were changed"
            )
        decisions.append(RegionDecision(name, before[name], nodes, reason, text, nodes))
    wanted, limit = world.cluster.spec.replicas or 0, sum(r.max_nodes for r in world.cluster.spec.regions)
    limited = Finding(
        False, Reason.WITHIN_BOUNDS, f"{sum(desired.values())} nodes are wanted, {limit} are allowed"
    )
    if wanted > limit:
        text = f"spec.replicas is {wanted}, the regions' maxNodes allow {limit}"
        limited = Finding(True, Reason.AT_MAX_NODES, text)
    return ScalePlan(
        desired=desired,
        decisions=tuple(decisions),
        state=ScaleState(
            {name: first_memory(nodes, 0, now) for name, nodes in desired.items()},
            state.counters,
            state.history,
            state.forecasts,
        ),
        active=Finding(False, Reason.FIXED_SIZE, FIXED_TEXT),
        limited=limited,
    )


def _before(world: ClusterWorld, state: ScaleState, desired: Mapping[str, int]) -> dict[str, int]:
    written = {region.name: region.desired for region in world.cluster.status.regions}
    known: Mapping[str, RegionMemory] = state.regions
    return {
        name: known[name].desired if name in known else written.get(name, nodes)
        for name, nodes in desired.items()
    }
