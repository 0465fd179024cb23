"""Who leaves a region, and how far each drain may go now: pure.

A node leaves by one way only: cordoned and told its terms (DrainNode), emptied by the gateways, deleted once
its own fresh report says that it is cordoned and empty. A deadline makes the gateways move the rest at once;
it never makes us delete a node that serves. Scale-down, upgrade and repair share one Budget per region.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from headwater_api.reasons import Reason

from headwater_planner.heal import LOST_AFTER_S, Evidence, Health, may_give_up
from headwater_planner.pods import (
    ASKED_TEXT,
    CORDONED_TEXT,
    RegionPods,
    is_draining,
    never_served,
    victim_order,
)
from headwater_planner.supply import Action, DeleteNode, DrainNode, Held, UncordonNode
from headwater_planner.world import ClusterWorld, KubeNodeView, PodView

# A machine that is about to go leaves about two minutes: most are to be moved in the first.
URGENT_DEADLINE_S: Final = 60.0
# A node that people asked to go waits so long for its substitute to be ready, then goes without.
SUBSTITUTE_WAIT_S: Final = 60.0
# Gateways hear of a new node when we do. Who is moved before they follow it is moved elsewhere, perhaps to
# another region, and from there once more. Kubernetes tells when a node became ready in whole seconds.
KNOWN_AFTER_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A node that should go. `urgent`: at once, whoever else is leaving. `patient`: never without a
    substitute that is ready."""

    pod: PodView
    reason: Reason
    because: str
    urgent: bool = False
    patient: bool = False


@dataclass(slots=True)
class Budget:
    """How many nodes of one region may be leaving at once; those that already are have their place."""

    limit: int
    taken: set[str] = field(default_factory=set)

    def take(self, name: str) -> bool:
        """Whether that node may leave now."""
        if name not in self.taken and len(self.taken) >= self.limit:
            return False
        self.taken.add(name)
        return True

    def force(self, name: str) -> None:
        """That node leaves in any case; others wait for it."""
        self.taken.add(name)


@dataclass(frozen=True, slots=True)
class RegionDrains:
    """`leaving`: Pods that no longer count towards the wanted number; `again_at`: look again then."""

    actions: tuple[Action, ...]
    leaving: frozenset[str]
    held: tuple[Held, ...] = ()
    again_at: datetime | None = None


def triggers(world: ClusterWorld, pods: Iterable[PodView]) -> list[Wish]:
    """Wishes of people and of the cluster, the urgent ones first.

    The other two ways, eviction and `kubectl delete pod`, need no wish: the Pod has a deletion time and its
    node has begun the same drain by itself on SIGTERM.
    """
    kube_nodes: Mapping[str, KubeNodeView] = {node.name: node for node in world.kube_nodes or ()}
    wishes = []
    for pod in pods:
        machine = kube_nodes.get(pod.node_name)
        if machine is not None and machine.notice:
            because = f"the machine {machine.name} is about to go ({machine.notice})"
            wishes.append(Wish(pod, Reason.TERMINATION_NOTICE, because, urgent=True))
        elif machine is not None and not machine.schedulable:
            because = CORDONED_TEXT.format(machine.name)
            wishes.append(Wish(pod, Reason.KUBERNETES_NODE_CORDONED, because))
        elif pod.drain_wanted:
            wishes.append(Wish(pod, Reason.DRAIN_REQUESTED, ASKED_TEXT))
    return sorted(wishes, key=lambda wish: (not wish.urgent, wish.reason, victim_order(world, wish.pod)))


def repairs(health: Health, pods: Iterable[PodView]) -> list[Wish]:
    """Grey nodes: their control answers, their media is dead."""
    wishes = []
    for pod in pods:
        kind = health.grey(pod)
        if kind is not None:
            urgent = kind is Evidence.ITSELF
            wishes.append(Wish(pod, Reason.NODE_UNHEALTHY, f"it answers, but {kind.value}", urgent=urgent))
    return wishes


def plan_drains(
    world: ClusterWorld,
    pods: RegionPods,
    wishes: Sequence[Wish],
    wanted: int,
    health: Health,
    *,
    surplus_reason: tuple[Reason, str],
    first: frozenset[str],
    now: datetime,
) -> RegionDrains:
    """Everything about leaving in one region. `wishes`: in the order of their weight; `first`: nodes that
    go before others where there are too many."""
    budget = _budget(world, pods)
    granted = _grant(world, pods, wishes, budget, health)
    stopping = {pod.name for pod in pods.alive if (load := world.fresh_load(pod)) and load.stopping}
    leaving = stopping | {wish.pod.name for wish in granted}
    staying_ready = [pod for pod in pods.ready if pod.name not in leaving]
    staying = [pod for pod in pods.alive if pod.name not in leaving]
    fresh = [pod for pod in staying_ready if not _is_known(pod, now)]
    known = len(staying_ready) - len(fresh)
    actions: list[Action] = []
    held: list[Held] = []
    for wish in granted:
        if wish.pod.name not in stopping and _may_begin(world, wish, staying, known, wanted, now):
            _step(world, wish, health, now, actions, held)
    # Under an alarm nobody leaves for good order's sake, and nobody who leaves is called back.
    if health.alarm is None:
        surplus = _surplus(world, staying, staying_ready, wanted, surplus_reason, budget, first)
        for wish in surplus:
            _step(world, wish, health, now, actions, held)
        going = leaving | {wish.pod.name for wish in surplus}
        actions += [
            UncordonNode(pod.name, pod.region, Reason.DRAIN_CANCELLED, f"{wanted} nodes are wanted")
            for pod in pods.alive
            if pod.name not in going and is_draining(world.fresh_load(pod))
        ]
    known_at = [
        pod.ready_changed_at + timedelta(seconds=KNOWN_AFTER_S) for pod in fresh if pod.ready_changed_at
    ]
    again_at = min(known_at, default=None) if granted else None
    return RegionDrains(tuple(actions), frozenset(leaving), tuple(held), again_at)


def _is_known(pod: PodView, now: datetime) -> bool:
    """Whether gateways follow the ready node by now. A time ahead of our clock says nothing."""
    age_s = (now - pod.ready_changed_at).total_seconds() if pod.ready_changed_at else KNOWN_AFTER_S
    return not 0 <= age_s < KNOWN_AFTER_S


def _budget(world: ClusterWorld, pods: RegionPods) -> Budget:
    """Those that leave already: cordoned ones, and serving ones whose Pod has a deletion time."""
    budget = Budget(world.cluster.spec.drain.max_concurrent_per_region)
    for pod in pods.alive:
        load = world.load(pod)
        if is_draining(load) or (load is None and pod.was_ready):
            budget.force(pod.name)  # not heard yet, as after a restart: it may well be draining
    for pod in pods.terminating:
        load = world.load(pod)
        # Its machine may be gone: one that fell silent does not hold up others for ever.
        is_serving = load is not None and not load.empty and load.age_s < LOST_AFTER_S
        if is_serving or (load is None and pod.was_ready and not pod.dead):
            budget.force(pod.name)
    return budget


def _grant(
    world: ClusterWorld, pods: RegionPods, wishes: Sequence[Wish], budget: Budget, health: Health
) -> list[Wish]:
    """The wishes that may be acted on now, one for each Pod."""
    granted: dict[str, Wish] = {}
    alive = {pod.name for pod in pods.alive}
    for wish in wishes:
        name = wish.pod.name
        if name not in alive or name in granted:
            continue
        if wish.urgent:
            budget.force(name)
            granted[name] = wish
        elif (
            is_draining(world.fresh_load(wish.pod))
            or never_served(world, wish.pod)
            or (health.alarm is None and budget.take(name))
        ):
            granted[name] = wish
    return list(granted.values())


def _may_begin(  # noqa: PLR0917
    world: ClusterWorld, wish: Wish, staying: Sequence[PodView], known: int, wanted: int, now: datetime
) -> bool:
    """Whether the node's drain may begin or go on: its substitute is ready and known, or will not be soon."""
    if wish.urgent or known >= wanted or is_draining(world.fresh_load(wish.pod)):
        return True
    if never_served(world, wish.pod):
        return True
    if wish.patient:
        return False
    coming = [pod for pod in staying if not pod.ready]
    late = [pod for pod in coming if (now - pod.created_at).total_seconds() >= SUBSTITUTE_WAIT_S]
    return bool(coming) and all(pod.unschedulable or pod in late for pod in coming)


def _surplus(  # noqa: PLR0917
    world: ClusterWorld,
    staying: Sequence[PodView],
    ready: Sequence[PodView],
    wanted: int,
    why: tuple[Reason, str],
    budget: Budget,
    first: frozenset[str],
) -> list[Wish]:
    """Which nodes go because there are too many; the ready ones never fall below `wanted`."""
    # A cordoned node is not ready, but would be as soon as it is called back.
    up = {pod.name for pod in staying if pod.ready or is_draining(world.fresh_load(pod))}
    surplus, spare = len(staying) - wanted, len(up) - wanted
    victims: list[PodView] = []
    for pod in sorted(staying, key=lambda pod: victim_order(world, pod, first)):
        if len(victims) >= surplus:
            break
        if pod.name in up and spare <= 0:
            continue
        spare -= pod.name in up
        victims.append(pod)
    may_go = len(ready) - wanted
    wishes = []
    for pod in victims:
        if pod.ready and may_go <= 0:
            continue
        if never_served(world, pod) or (world.fresh_load(pod) is not None and budget.take(pod.name)):
            may_go -= pod.ready
            wishes.append(Wish(pod, *why))
    return wishes


def _step(  # noqa: PLR0917
    world: ClusterWorld,
    wish: Wish,
    health: Health,
    now: datetime,
    actions: list[Action],
    held: list[Held],
) -> None:
    """The next step of one node's drain, if there is one."""
    pod, load = wish.pod, world.fresh_load(wish.pod)
    if never_served(world, pod):
        actions.append(delete_node(pod, wish.reason, wish.because))
        return
    if load is None:
        return  # silent is not empty
    if not load.draining:
        drain = world.cluster.spec.drain
        after = min(drain.deadline, timedelta(seconds=URGENT_DEADLINE_S)) if wish.urgent else drain.deadline
        rate = _rate(drain.moves_per_second, load.participants, after, urgent=wish.urgent)
        actions.append(DrainNode(pod.name, pod.region, wish.reason, wish.because, now + after, rate))
    elif load.empty:
        because = f"{wish.because}; it is cordoned and empty"
        actions.append(delete_node(pod, wish.reason, because, drained=True))
    elif given_up := may_give_up(world, health, pod, now):
        actions.append(delete_node(pod, Reason.NODE_FAILED, given_up))
    elif load.drain_deadline is not None and now > load.drain_deadline + timedelta(seconds=5):
        late_s = (now - load.drain_deadline).total_seconds()
        text = (
            f"{pod.name} in region {pod.region} still serves {load.participants} participants "
            f"{_coarse(late_s)} past its deadline: it is kept until they have been moved"
        )
        held.append(Held(Reason.DRAIN_TIMEOUT, text))


def _rate(per_s: int, participants: int, after: timedelta, *, urgent: bool) -> float:
    """Moves per second; of an urgent drain as many as let everybody go in the first half."""
    if not urgent:
        return float(per_s)
    return max(float(per_s), participants / max(1.0, after.total_seconds() / 2))


def delete_node(pod: PodView, reason: Reason, because: str, *, drained: bool = False) -> DeleteNode:
    """The deletion of the Pod as it was seen."""
    return DeleteNode(pod.name, pod.uid, pod.region, reason, because, pod.resource_version, drained)


def _coarse(seconds: float) -> str:
    """Minutes, so that the text does not change each second."""
    return f"{int(seconds // 60)} min" if seconds >= 60 else "some seconds"
