"""How many SFU nodes each region should have, and which Pods to make, cordon or delete for that.

Never deletes a node that serves or might serve: a running node goes only after its own fresh report says
that it is cordoned and empty. Caps each pass; the rest comes with the next one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUClusterSpec

from headwater_planner.drain import RegionDrains, delete_node, plan_drains, repairs, triggers
from headwater_planner.exposure import plan_services
from headwater_planner.guard import plan_guards
from headwater_planner.heal import MASS_SHARE, Health, assess, may_give_up
from headwater_planner.pods import RegionPods, sort_pods
from headwater_planner.supply import (
    Action,
    CreateNode,
    DeleteNode,
    Held,
    Plan,
)
from headwater_planner.upgrade import UpgradePlan, plan_upgrade
from headwater_planner.world import ClusterWorld, Death

MAX_CREATES_PER_PASS: Final = 20
MAX_DELETES_PER_PASS: Final = 10
# A process that ends sooner than this did not work: the next one waits, twice as long each time.
SHORT_LIFE_S: Final = 60.0
CRASH_WINDOW_S: Final = 600.0
MAX_CREATE_DELAY_S: Final = 60.0
_SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words
_SUFFIX_LENGTH: Final = 5


class Chooser(Protocol):
    """The part of `random.Random` that names need."""

    def choice(self, seq: str, /) -> str:
        """One character of the text."""
        ...


def desired_nodes(spec: SFUClusterSpec) -> dict[str, int]:
    """Wanted nodes by region: minNodes, then `replicas` spread evenly, never above maxNodes."""
    wanted = {region.name: min(region.min_nodes, region.max_nodes) for region in spec.regions}
    ceiling = {region.name: region.max_nodes for region in spec.regions}
    for _ in range(max(0, (spec.replicas or 0) - sum(wanted.values()))):
        growable = [name for name in wanted if wanted[name] < ceiling[name]]
        if not growable:
            break
        wanted[min(growable, key=lambda name: (wanted[name], name))] += 1
    return wanted


def plan_cluster(world: ClusterWorld, desired: Mapping[str, int], now: datetime, rng: Chooser) -> Plan:
    """The plan for one pass. `desired`: wanted nodes by region; `rng` names the new Pods."""
    cluster = world.cluster
    if cluster.metadata.deletion_timestamp is not None:
        return Plan()  # its Pods go with it, by their owner reference
    health = assess(world, now)
    regions = {
        region: sort_pods(world, region, health)
        for region in sorted({*desired, *(pod.region for pod in world.pods)})
    }
    upgrade = plan_upgrade(world, regions, desired, health, now)
    parts = [_plan_region(world, name, pods, desired, health, upgrade, now) for name, pods in regions.items()]
    creates = _name_creates(world, [wish for part in parts for wish in part.creates], rng)
    deletes = [action for part in parts for action in part.actions if isinstance(action, DeleteNode)]
    others = [action for part in parts for action in part.actions if not isinstance(action, DeleteNode)]
    plan = Plan(
        actions=(*creates[:MAX_CREATES_PER_PASS], *others, *deletes[:MAX_DELETES_PER_PASS]),
        desired=desired,
        again_at=min((part.again_at for part in parts if part.again_at), default=None),
        partial=len(creates) > MAX_CREATES_PER_PASS or len(deletes) > MAX_DELETES_PER_PASS,
        held=(*([health.alarm] if health.alarm else []), *upgrade.held, *(h for p in parts for h in p.held)),
        upgrade=upgrade.status,
    )
    leaving = frozenset(action.name for action in deletes)
    services = plan_services(world, leaving)
    if services:  # nobody tells us of the ports that they get
        soon = now if plan.again_at is None else min(plan.again_at, now)
        plan = replace(plan, again_at=soon)
    return replace(plan, actions=(*plan.actions, *services, *plan_guards(world, plan)))


@dataclass(frozen=True, slots=True)
class _Part:
    """One region's share of the plan; `creates` are still without names."""

    creates: tuple[tuple[str, Reason, str], ...]
    actions: tuple[Action, ...]
    held: tuple[Held, ...]
    again_at: datetime | None


def _plan_region(  # noqa: PLR0917
    world: ClusterWorld,
    region: str,
    pods: RegionPods,
    desired: Mapping[str, int],
    health: Health,
    upgrade: UpgradePlan,
    now: datetime,
) -> _Part:
    wanted = desired.get(region, 0)
    own = [wish for wish in upgrade.wishes if wish.pod.region == region]
    wishes = [*repairs(health, pods.alive), *triggers(world, pods.alive), *own]
    wishes.sort(key=lambda wish: not wish.urgent)
    reason, why = Reason.ABOVE_DESIRED_NODES, f"{len(pods.alive)} nodes exist, {wanted} are wanted"
    if region not in desired:
        reason, why = Reason.NODE_ORPHANED, f"region {region} is no longer in spec.regions"
    drains = plan_drains(
        world, pods, wishes, wanted, health, surplus_reason=(reason, why), first=upgrade.first, now=now
    )
    actions: list[Action] = [*drains.actions, *_bury(world, pods, health, wanted, now)]
    if upgrade.no_creates is not None:
        return _Part((), tuple(actions), drains.held, drains.again_at)
    creates, held, wait_until = _creates(world, region, pods, drains, wanted, health, now)
    again_at = min((at for at in (drains.again_at, wait_until) if at), default=None)
    return _Part(tuple(creates), tuple(actions), (*drains.held, *held), again_at)


def _bury(
    world: ClusterWorld, pods: RegionPods, health: Health, wanted: int, now: datetime
) -> list[DeleteNode]:
    """Pods whose process has ended, and lost ones that have been given up and replaced."""
    ended = [
        delete_node(pod, Reason.NODE_FAILED, pod.ended or f"its Pod is {pod.phase.value}")
        for pod in pods.dead
        if health.believed(pod)
    ]
    if len(pods.ready) < wanted:
        return ended
    given_up = [(pod, may_give_up(world, health, pod, now)) for pod in pods.lost]
    return [*ended, *(delete_node(pod, Reason.NODE_UNHEALTHY, why) for pod, why in given_up if why)]


def _creates(  # noqa: PLR0917
    world: ClusterWorld,
    region: str,
    pods: RegionPods,
    drains: RegionDrains,
    wanted: int,
    health: Health,
    now: datetime,
) -> tuple[list[tuple[str, Reason, str]], list[Held], datetime | None]:
    """Wishes for new nodes, or why they must wait and until when."""
    wishes = _wanted_creates(pods, drains, wanted)
    if health.alarm is not None:
        # If they are well after all, these are too many: no more than a share at once.
        wishes = wishes[: max(0, math.ceil(wanted * MASS_SHARE) - len(pods.starting))]
    wait_until = _create_not_before(world.deaths, region, now)
    if not wishes or wait_until is None:
        return [(region, reason, text) for reason, text in wishes], [], None
    return [], [_crash_loop(region, world.deaths, wait_until)], wait_until


def _wanted_creates(pods: RegionPods, drains: RegionDrains, wanted: int) -> list[tuple[Reason, str]]:
    """A reason and a text for each Pod that is missing."""
    staying = [pod for pod in pods.alive if pod.name not in drains.leaving]
    missing = wanted - len(staying)
    if missing <= 0:
        return []
    leaving = [pod for pod in pods.alive if pod.name in drains.leaving]
    gone = [(pod, pod.ended or "whose process ended") for pod in pods.dead]
    gone += [(pod, "which is going away") for pod in (*pods.terminating, *leaving)]
    gone += [(pod, "which is lost") for pod in pods.lost]
    texts = [(Reason.NODE_REPLACED, f"replaces {pod.name}, {how}") for pod, how in gone]
    plain = (Reason.BELOW_MIN_NODES, f"{len(staying)} of {wanted} wanted nodes exist")
    return [*texts[:missing], *([plain] * (missing - len(texts)))]


def _name_creates(
    world: ClusterWorld, wishes: Sequence[tuple[str, Reason, str]], rng: Chooser
) -> list[CreateNode]:
    taken = {pod.name for pod in world.pods}
    creates = []
    for region, reason, because in wishes:
        name = node_name(world.cluster.metadata.name, region, rng)
        while name in taken:
            name = node_name(world.cluster.metadata.name, region, rng)
        taken.add(name)
        creates.append(CreateNode(name, region, reason, because))
    return creates


def node_name(cluster: str, region: str, rng: Chooser) -> str:
    """`<cluster>-<region>-<5 random>`, at most 63 characters: it is a host name too."""
    suffix = "".join(rng.choice(_SUFFIX_ALPHABET) for _ in range(_SUFFIX_LENGTH))
    room = 63 - len(region) - _SUFFIX_LENGTH - 2
    return f"{cluster.replace('.', '-')[:room].rstrip('-')}-{region}-{suffix}"


def _short_lives(deaths: Sequence[Death], region: str, now: datetime) -> list[Death]:
    """The early ends of late. Those ahead of `now` (the clock was set back) are forgotten: they would hold
    new nodes up until the clock is there again."""
    return [
        death
        for death in deaths
        if death.region == region
        and death.lifetime_s < SHORT_LIFE_S
        and 0 <= (now - death.at).total_seconds() < CRASH_WINDOW_S
    ]


def _create_not_before(deaths: Sequence[Death], region: str, now: datetime) -> datetime | None:
    """When the region may have a new Pod after a run of early deaths; None: now."""
    early = _short_lives(deaths, region, now)
    if len(early) < 2:
        return None  # the first death is replaced at once
    delay = min(MAX_CREATE_DELAY_S, 2.0 ** (len(early) - 1))
    ready_at = max(death.at for death in early) + timedelta(seconds=delay)
    return ready_at if ready_at > now else None


def _crash_loop(region: str, deaths: Sequence[Death], until: datetime) -> Held:
    last = max((death for death in deaths if death.region == region), key=lambda death: death.at)
    return Held(
        Reason.NODE_FAILED,
        f"SFU nodes of region {region} end soon after they start (last: {last.name}, {last.how}); "
        f"the next one is made at {until:%H:%M:%S} UTC",
    )
