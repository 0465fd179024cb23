"""What SFU Pods say to those who would evict them: protected while a node serves or may serve, and only then.

The same write tells people, as one sentence, what becomes of the node, and gateways where clients reach it.
"""

from dataclasses import replace
from typing import Final

from headwater_api.reasons import Reason

from headwater_planner.exposure import reach
from headwater_planner.supply import DeleteNode, DrainNode, GuardNode, Plan, UncordonNode
from headwater_planner.world import ClusterWorld, Guard, PodView

MAX_GUARDS_PER_PASS: Final = 20
# A node that has been empty for so long may be evicted until somebody joins there again.
IDLE_AFTER_S: Final = 60.0


def plan_guards(world: ClusterWorld, plan: Plan) -> list[GuardNode]:
    """Pods whose labels and annotations must say something else than they do."""
    leaving = {action.name: action for action in plan.actions if isinstance(action, DrainNode)}
    back = {action.name for action in plan.actions if isinstance(action, UncordonNode)}
    deleted = {action.name for action in plan.actions if isinstance(action, DeleteNode)}
    guards = []
    for pod in sorted(world.pods, key=lambda pod: pod.name):
        if pod.dead or pod.terminating or pod.guard is None or pod.name in deleted:
            continue
        guard = _guard(world, pod, leaving.get(pod.name), pod.name in back)
        # What is not known now is not taken back: the node is reached there as before.
        guard = replace(guard, external=reach(world, pod).addresses or pod.guard.external)
        if guard != pod.guard:
            guards.append(GuardNode(pod.name, pod.uid, pod.region, Reason.NODE_GUARDED, guard))
    return guards[:MAX_GUARDS_PER_PASS]


def _guard(world: ClusterWorld, pod: PodView, drain: DrainNode | None, is_back: bool) -> Guard:
    """Serving is believed until the node has been empty, by its own reports, for a while."""
    load = world.fresh_load(pod)
    old = pod.guard or Guard(True)
    if load is None:
        return old
    serves = not (load.empty and (load.draining or load.empty_s >= IDLE_AFTER_S))
    if drain is not None:
        return Guard(serves, f"Draining: {drain.because}")
    if is_back or not load.draining:
        return Guard(serves)
    return Guard(serves, old.state or f"Draining: {load.drain_reason or 'no reason given'}")
