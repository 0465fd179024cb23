"""How many SFU nodes each region should have, and which Pods to make, cordon or delete for that.

Never deletes a node that serves or might serve: a running node goes only after its own fresh report says
that it is cordoned and empty. Caps each pass; the rest comes with the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUClusterSpec

from headwater_planner.supply import Action, CordonNode, CreateNode, DeleteNode, Held, Plan, UncordonNode
from headwater_planner.world import ClusterWorld, Death, NodeLoad, Phase, PodView

MAX_CREATES_PER_PASS: Final = 20
MAX_DELETES_PER_PASS: Final = 10
# A node whose Pod is not Ready and which is silent for so long is given a substitute.
LOST_AFTER_S: Final = 15.0
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


@dataclass(frozen=True, slots=True)
class RegionPods:
    """One region's Pods by what they are good for; each Pod is in one list."""

    ready: tuple[PodView, ...] = ()
    starting: tuple[PodView, ...] = ()  # on their way, or not ready for a short time
    lost: tuple[PodView, ...] = ()
    dead: tuple[PodView, ...] = ()
    terminating: tuple[PodView, ...] = ()

    @property
    def alive(self) -> tuple[PodView, ...]:
        """Those that count towards the wanted number."""
        return self.ready + self.starting


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


def sort_pods(world: ClusterWorld, region: str, now: datetime) -> RegionPods:
    """The region's Pods by state, each list in the order of names."""
    lists: dict[str, list[PodView]] = {"ready": [], "starting": [], "lost": [], "dead": [], "terminating": []}
    for pod in sorted(world.pods, key=lambda pod: pod.name):
        if pod.region == region:
            lists[_state(world, pod, now)].append(pod)
    return RegionPods(**{state: tuple(pods) for state, pods in lists.items()})


def plan_cluster(world: ClusterWorld, now: datetime, rng: Chooser) -> Plan:
    """The plan for one pass. `rng` names the new Pods."""
    cluster = world.cluster
    if cluster.metadata.deletion_timestamp is not None:
        return Plan()  # its Pods go with it, by their owner reference
    desired = desired_nodes(cluster.spec)
    creates: list[CreateNode] = []
    deletes: list[DeleteNode] = []
    cordons: list[Action] = []
    held: list[Held] = []
    again: list[datetime] = []
    for region in sorted({*desired, *(pod.region for pod in world.pods)}):
        pods = sort_pods(world, region, now)
        deletes += [_bury(pod) for pod in pods.dead]
        wait_until = _create_not_before(world.deaths, region, now)
        wishes = _wanted_creates(pods, desired.get(region, 0))
        if wishes and wait_until is not None:
            held.append(_crash_loop(region, world.deaths, wait_until))
            again.append(wait_until)
        elif wishes:
            creates += _name_creates(world, region, wishes, rng)
        shrink = _shrink(world, region, pods, desired)
        deletes += [action for action in shrink if isinstance(action, DeleteNode)]
        cordons += [action for action in shrink if not isinstance(action, DeleteNode)]
    return Plan(
        actions=(*creates[:MAX_CREATES_PER_PASS], *cordons, *deletes[:MAX_DELETES_PER_PASS]),
        desired=desired,
        again_at=min(again, default=None),
        partial=len(creates) > MAX_CREATES_PER_PASS or len(deletes) > MAX_DELETES_PER_PASS,
        held=tuple(held),
    )


def _state(world: ClusterWorld, pod: PodView, now: datetime) -> str:
    if pod.terminating:
        return "terminating"
    if pod.dead:
        return "dead"
    if pod.ready:
        return "ready"
    # Only a node that was heard of before can be lost; one that never spoke is still starting.
    known = world.load(pod)
    since = pod.ready_changed_at
    silent = known is not None and not known.fresh
    if silent and since is not None and (now - since).total_seconds() >= LOST_AFTER_S:
        return "lost"
    return "lost" if pod.phase is Phase.UNKNOWN and silent else "starting"


def _bury(pod: PodView) -> DeleteNode:
    how = pod.ended or f"its Pod is {pod.phase.value}"
    return DeleteNode(pod.name, pod.uid, pod.region, Reason.NODE_FAILED, how)


def _wanted_creates(pods: RegionPods, desired: int) -> list[tuple[Reason, str]]:
    """A reason and a text for each Pod that is missing."""
    missing = desired - len(pods.alive)
    if missing <= 0:
        return []
    gone = [
        (Reason.NODE_REPLACED, f"replaces {pod.name}, {pod.ended or 'whose process ended'}")
        for pod in pods.dead
    ]
    gone += [(Reason.NODE_REPLACED, f"replaces {pod.name}, which is going away") for pod in pods.terminating]
    gone += [(Reason.NODE_REPLACED, f"replaces {pod.name}, which is lost") for pod in pods.lost]
    have = len(pods.alive)
    plain = (Reason.BELOW_MIN_NODES, f"{have} of {desired} wanted nodes exist")
    return [*gone[:missing], *([plain] * (missing - len(gone)))]


def _name_creates(
    world: ClusterWorld, region: str, wishes: Sequence[tuple[Reason, str]], rng: Chooser
) -> list[CreateNode]:
    taken = {pod.name for pod in world.pods}
    creates = []
    for reason, because in wishes:
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
    return [
        death
        for death in deaths
        if death.region == region
        and death.lifetime_s < SHORT_LIFE_S
        and (now - death.at).total_seconds() < CRASH_WINDOW_S
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


def _shrink(world: ClusterWorld, region: str, pods: RegionPods, desired: dict[str, int]) -> list[Action]:
    """Cordons and deletions of nodes above the wanted number; returns others to service."""
    wanted = desired.get(region, 0)
    victims = _victims(world, pods, wanted)
    reason, why = Reason.ABOVE_DESIRED_NODES, f"{len(pods.alive)} nodes exist, {wanted} are wanted"
    if region not in desired:
        reason, why = Reason.NODE_ORPHANED, f"region {region} is no longer in spec.regions"
    unstarted = [pod for pod in victims if _never_served(world, pod)]
    serving = [pod for pod in victims if pod not in unstarted]
    actions: list[Action] = [DeleteNode(pod.name, pod.uid, region, reason, why) for pod in unstarted]
    for pod in serving[: world.cluster.spec.drain.max_concurrent_per_region]:
        load = world.fresh_load(pod)
        if load is None:
            continue  # silent is not empty
        if not load.draining:
            actions.append(CordonNode(pod.name, region, reason, why))
        elif load.empty:
            actions.append(DeleteNode(pod.name, pod.uid, region, reason, f"{why}; it is cordoned and empty"))
    actions += [
        UncordonNode(pod.name, region, Reason.DRAIN_CANCELLED, f"{wanted} nodes are wanted")
        for pod in pods.alive
        if pod not in victims and _is_draining(world.fresh_load(pod))
    ]
    return actions


def _victims(world: ClusterWorld, pods: RegionPods, wanted: int) -> list[PodView]:
    """Which nodes should go, first ones first; the ready ones never fall below `wanted`."""
    surplus = len(pods.alive) - wanted
    spare_ready = len(pods.ready) - wanted
    victims: list[PodView] = []
    for pod in sorted(pods.alive, key=lambda pod: _victim_order(world, pod)):
        if len(victims) >= surplus:
            break
        if pod.ready and spare_ready <= 0:
            continue
        spare_ready -= pod.ready
        victims.append(pod)
    return victims


def _is_draining(load: NodeLoad | None) -> bool:
    return load is not None and load.draining


def _never_served(world: ClusterWorld, pod: PodView) -> bool:
    """Its process has not run yet, so nobody can be on it."""
    return pod.phase is Phase.PENDING and not pod.started and not pod.ready and world.load(pod) is None


def _victim_order(world: ClusterWorld, pod: PodView) -> tuple[bool, bool, bool, int, float, str]:
    """Not started first, then already cordoned, then the emptiest (unknown load last), then the youngest."""
    load = world.fresh_load(pod)
    return (
        not _never_served(world, pod),
        not _is_draining(load),
        load is None,
        load.participants if load else 0,
        -pod.created_at.timestamp(),
        pod.name,
    )
