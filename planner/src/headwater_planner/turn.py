"""How many TURN nodes each region should have, and which Pods to make, drain or delete for that.

A TURN node that is sent away leaves the clients' server list first and ends when its last allocation has, or
at its deadline; it never comes back. An old report neither shrinks the fleet nor counts as no load.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from headwater_api.fleet_policy import Turn
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUCluster

from headwater_planner.cluster import Chooser, node_name
from headwater_planner.world import FRESH_S, KubeNodeView, PodView

# A smaller fleet must carry the load at no more than this share of its targets.
SHRINK_AT: Final = 0.7
# A node that lived for less than SHORT_LIFE_S is not replaced for CRASH_PAUSE_S after its end.
SHORT_LIFE_S: Final = 60.0
CRASH_PAUSE_S: Final = 20.0
MAX_CREATES_PER_PASS: Final = 10


@dataclass(frozen=True, slots=True)
class TurnLoad:
    """A TURN node's last answer, `age_s` seconds old. `drained`: nobody is left, or the deadline is over."""

    age_s: float
    allocations: int = 0
    mbps: float = 0.0
    draining: bool = False
    drained: bool = False

    @property
    def fresh(self) -> bool:
        """Whether it still tells about now."""
        return self.age_s <= 2 * FRESH_S


@dataclass(frozen=True, slots=True)
class TurnPod:
    """A Pod and what it was made of; of another revision: replaced. `ended_at`: None where unknown.

    `external`: what it says of the address by which clients reach it beside its own; empty: nothing.
    """

    pod: PodView
    revision: str
    load: TurnLoad | None = None
    ended_at: datetime | None = None
    external: str = ""


@dataclass(frozen=True, slots=True)
class TurnWorld:
    """All that matters for one SFUCluster's TURN nodes. `revisions`: the wanted one by region. `machines`:
    the Kubernetes nodes, as far as they are known."""

    cluster: SFUCluster
    pods: tuple[TurnPod, ...] = ()
    revisions: Mapping[str, str] = field(default_factory=dict)
    machines: tuple[KubeNodeView, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateTurn:
    """Make a TURN Pod of this name."""

    name: str
    region: str
    reason: Reason
    because: str

    def __str__(self) -> str:
        return f"Create TURN node {self.name} in region {self.region}: {self.because}"


@dataclass(frozen=True, slots=True)
class DrainTurn:
    """Take a TURN node out of the clients' server list, for good."""

    name: str
    region: str
    reason: Reason
    because: str

    def __str__(self) -> str:
        return f"Drain TURN node {self.name} in region {self.region}: {self.because}"


@dataclass(frozen=True, slots=True)
class DeleteTurn:
    """Delete that incarnation of a TURN Pod, which relays nothing any more."""

    name: str
    uid: str
    region: str
    reason: Reason
    because: str

    def __str__(self) -> str:
        return f"Delete TURN node {self.name} in region {self.region}: {self.because}"


@dataclass(frozen=True, slots=True)
class AdvertiseTurn:
    """Say on a TURN Pod by which address clients reach it beside its own."""

    name: str
    uid: str
    region: str
    reason: Reason
    external: str

    def __str__(self) -> str:
        return f"Clients reach TURN node {self.name} in region {self.region} at {self.external}"


TurnAction = CreateTurn | DrainTurn | DeleteTurn | AdvertiseTurn


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """What to do now, and the wanted number by region."""

    actions: tuple[TurnAction, ...] = ()
    desired: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Region:
    """One region in one pass."""

    name: str
    pods: tuple[TurnPod, ...]
    serving: tuple[TurnPod, ...]
    target: int
    revision: str | None


def plan_turn(world: TurnWorld, now: datetime, rng: Chooser) -> TurnPlan:
    """The plan for one pass. `rng` names the new Pods."""
    cluster = world.cluster
    if cluster.metadata.deletion_timestamp is not None:
        return TurnPlan()  # its Pods go with it, by their owner reference
    wanted = {region.name for region in cluster.spec.regions}
    desired: dict[str, int] = {}
    actions: list[TurnAction] = []
    for name in sorted(wanted | {t.pod.region for t in world.pods}):
        pods = tuple(sorted((t for t in world.pods if t.pod.region == name), key=lambda t: t.pod.name))
        serving = tuple(t for t in pods if _serves(t))
        target = desired_turn(cluster.spec.turn, serving) if name in wanted else 0
        if name in wanted:
            desired[name] = target
        region = _Region(name, pods, serving, target, world.revisions.get(name))
        actions += _bury(pods, now)
        actions += _grow(world, region, now, rng)
        actions += _shrink(region)
    return TurnPlan((*actions, *_advertise(world)), desired)


def _advertise(world: TurnWorld) -> list[AdvertiseTurn]:
    """On the host's network, behind one-to-one NAT: the ExternalIP of the Pod's Kubernetes node, where that
    is known and another than its own."""
    found = {machine.name: machine.external_ips for machine in world.machines}
    actions = []
    for turn in world.pods:
        pod = turn.pod
        if pod.exposure != "HostNetwork" or pod.dead or pod.terminating or not pod.pod_ip:
            continue
        external = next(iter(found.get(pod.node_name, ())), "")
        if external and external != turn.external and (turn.external or external != pod.pod_ip):
            actions.append(AdvertiseTurn(pod.name, pod.uid, pod.region, Reason.NODE_EXPOSED, external))
    return actions


def desired_turn(turn: Turn, serving: Sequence[TurnPod]) -> int:
    """Wanted nodes of a region, by allocations and Mbit/s. Without all reports it never falls."""
    low, high = min(turn.min_per_region, turn.max_per_region), turn.max_per_region
    loads = [t.load for t in serving if t.load is not None and t.load.fresh]
    allocations, mbps = sum(load.allocations for load in loads), sum(load.mbps for load in loads)
    shares = (
        allocations / turn.targets.allocations_per_node,
        mbps / turn.targets.mbps_per_node,
    )
    up = max(math.ceil(share) for share in shares)
    down = max(math.ceil(share / SHRINK_AT) for share in shares)
    have = len(serving)
    needed = have if len(loads) < have else min(max(up, min(down, have)), max(have, up))
    return max(low, min(high, needed))


def _serves(turn: TurnPod) -> bool:
    """It is, or soon will be, in the clients' list."""
    pod = turn.pod
    draining = turn.load is not None and turn.load.draining
    return not (pod.terminating or pod.dead or draining)


def _bury(pods: Sequence[TurnPod], now: datetime) -> list[TurnAction]:
    actions: list[TurnAction] = []
    for turn in pods:
        pod = turn.pod
        if pod.terminating:
            continue
        if pod.dead and not _too_soon(turn, now):
            how = pod.ended or f"its Pod is {pod.phase.value}"
            actions.append(DeleteTurn(pod.name, pod.uid, pod.region, Reason.NODE_FAILED, how))
        elif not pod.dead and turn.load is not None and _drained(turn.load):
            text = "it is drained" if turn.load.allocations == 0 else "the deadline of its drain is over"
            actions.append(DeleteTurn(pod.name, pod.uid, pod.region, Reason.DRAIN_FINISHED, text))
    return actions


def _drained(load: TurnLoad) -> bool:
    """It said so just now: an old word may be from before a client came."""
    return load.fresh and load.draining and load.drained


def _too_soon(turn: TurnPod, now: datetime) -> bool:
    """It ended at once: a successor would, too, so it keeps the place for a while."""
    ended_at = turn.ended_at or turn.pod.created_at
    life, since = (ended_at - turn.pod.created_at).total_seconds(), (now - ended_at).total_seconds()
    return turn.pod.dead and life < SHORT_LIFE_S and since < CRASH_PAUSE_S


def _grow(world: TurnWorld, region: _Region, now: datetime, rng: Chooser) -> list[TurnAction]:
    serving, target = region.serving, region.target
    current = [t for t in serving if t.revision == region.revision]
    held = sum(1 for t in region.pods if _too_soon(t, now))
    # One node of the new revision beside the old ones; the next when it is ready.
    rolling = target > 0 and len(current) < len(serving) and all(t.pod.ready for t in current)
    missing = min(target + rolling - len(serving), target - len(current)) - held
    gone = [t.pod.name for t in region.pods if t.pod.dead]
    actions: list[TurnAction] = []
    taken = {t.pod.name for t in world.pods}
    for number in range(min(missing, MAX_CREATES_PER_PASS)):
        name = turn_name(world.cluster.metadata.name, region.name, rng)
        while name in taken:
            name = turn_name(world.cluster.metadata.name, region.name, rng)
        taken.add(name)
        reason, text = Reason.BELOW_MIN_NODES, f"{len(serving)} of {target} wanted TURN nodes exist"
        if number < len(gone):
            reason, text = Reason.NODE_REPLACED, f"replaces {gone[number]}"
        elif len(serving) >= target:
            reason, text = Reason.NODES_REPLACING, "replaces a node of an older revision"
        actions.append(CreateTurn(name, region.name, reason, text))
    return actions


def _shrink(region: _Region) -> list[TurnAction]:
    """Drains what is too many: outdated first, then the one with the fewest allocations, one at a time."""
    serving, target = region.serving, region.target
    leaving = any(t.load is not None and t.load.draining for t in region.pods if not t.pod.terminating)
    if len(serving) <= target or (leaving and target > 0):
        return []
    spare = sum(1 for t in serving if t.pod.ready) - target
    victims = sorted(
        (t for t in serving if _may_go(t, spare=spare)),
        key=lambda t: (t.revision == region.revision, t.pod.ready, _allocations(t), t.pod.name),
    )
    actions: list[TurnAction] = []
    for turn in victims if target == 0 else victims[:1]:
        pod = turn.pod
        reason, why = Reason.ABOVE_DESIRED_NODES, f"{len(serving)} TURN nodes exist, {target} are wanted"
        if turn.revision != region.revision and target > 0:
            reason, why = Reason.NODES_REPLACING, "it is of an older revision"
        if turn.load is None and not pod.started:
            actions.append(DeleteTurn(pod.name, pod.uid, pod.region, reason, why))
        elif turn.load is not None:
            actions.append(DrainTurn(pod.name, pod.region, reason, why))
    return actions


def _may_go(turn: TurnPod, *, spare: int) -> bool:
    """A ready node goes only where enough other ready ones stay."""
    return not turn.pod.ready or spare > 0


def _allocations(turn: TurnPod) -> int:
    return turn.load.allocations if turn.load is not None else 0


def turn_name(cluster: str, region: str, rng: Chooser) -> str:
    """`<cluster>-turn-<region>-<5 random>`, at most 63 characters."""
    return node_name(f"{cluster[:40]}-turn", region, rng)
