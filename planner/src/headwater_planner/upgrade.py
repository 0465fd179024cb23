"""Which nodes an upgrade replaces now, and when it stops: pure.

A node is outdated when the hash of what it was made from is not today's. The first ones are replaced as
canaries and watched; then the rest in batches, each by surge and drain. An upgrade halts when a new node
ends early, does not come up, is slow, or cannot speak with the old ones; it stays halted, through restarts,
until the template changes: setting the old one back rolls back.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final

from headwater_api.reasons import Reason
from headwater_api.sfucluster import UpgradeStatus

from headwater_planner.drain import Wish
from headwater_planner.heal import Health
from headwater_planner.pods import RegionPods, is_draining, victim_order
from headwater_planner.supply import Held
from headwater_planner.world import SUSTAINED_S, ClusterWorld, PodView

# A new node that ends sooner than this was not killed by chance.
EARLY_DEATH_S: Final = 300.0
# A new node that is not ready for so long will not be; images were pulled by then.
START_DEADLINE_S: Final = 180.0
TROUBLE_S: Final = 20.0
# Forwarding on a new node may take so many times what it takes on the old ones, above a floor.
SLOWER_TIMES: Final = 3.0
SLOW_FLOOR_MS: Final = 10.0
# By it the status' message tells after a restart that the halt is one of incompatible nodes.
_ENVELOPE: Final = "of the relay envelope"


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """Whom to replace now. `status` is None when no node is outdated."""

    wishes: tuple[Wish, ...] = ()
    status: UpgradeStatus | None = None
    held: tuple[Held, ...] = ()
    first: frozenset[str] = frozenset()  # nodes to give up first where there are too many
    no_creates: Held | None = None  # why a new node would only have to go again


def plan_upgrade(
    world: ClusterWorld,
    regions: Mapping[str, RegionPods],
    desired: Mapping[str, int],
    health: Health,
    now: datetime,
) -> UpgradePlan:
    """The upgrade's next step over the whole fleet."""
    alive = [pod for pods in regions.values() for pod in pods.alive]
    outdated = [pod for pod in alive if _is_outdated(world, pod)]
    updated = [pod for pod in alive if pod.region in world.templates and pod not in outdated]
    template = template_of(world.templates)
    lost = [pod for pods in regions.values() for pod in pods.lost if _is_outdated(world, pod)]
    if not outdated and not (lost and _was_halted(world, template)):
        return UpgradePlan()
    halted = _halted(world, template, updated, outdated, health, now)
    if halted is not None:
        left = outdated + lost  # a lost node may come back
        status = _status("Halted", template, updated, left, halted.text)
        blocked = _incompatible(world, updated, outdated)
        away = [Wish(pod, Reason.UPGRADE_INCOMPATIBLE, why, urgent=True) for pod, why in blocked]
        text = f"the upgrade to {template} is halted with {len(left)} nodes left: {halted.text}"
        first = frozenset(pod.name for pod in updated)
        held = Held(halted.reason, text)
        # Once no old node is left there is nothing that a new one could fail to understand.
        futile = bool(outdated) and _ENVELOPE in halted.text
        return UpgradePlan(tuple(away), status, (held,), first, held if futile else None)
    spare = {name: len(pods.alive) - desired.get(name, 0) for name, pods in regions.items()}
    order = sorted(
        outdated,
        key=lambda pod: (
            not is_draining(world.fresh_load(pod)),
            spare[pod.region] <= 0,  # its substitute is there already
            victim_order(world, pod),
        ),
    )
    count, phase, text = _batch(world, updated, outdated, spare, now)
    because = f"it is made from an older template than {template}"
    wishes = [Wish(pod, Reason.UPGRADING, because, patient=True) for pod in order[:count]]
    first = frozenset(pod.name for pod in outdated)
    return UpgradePlan(tuple(wishes), _status(phase, template, updated, outdated, text), (), first)


def template_of(templates: Mapping[str, str]) -> str:
    """One short name for what all regions' nodes are made from."""
    text = ",".join(f"{region}={templates[region]}" for region in sorted(templates))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _is_outdated(world: ClusterWorld, pod: PodView) -> bool:
    return pod.region in world.templates and pod.template != world.templates[pod.region]


def _batch(
    world: ClusterWorld,
    updated: Sequence[PodView],
    outdated: Sequence[PodView],
    spare: Mapping[str, int],
    now: datetime,
) -> tuple[int, str, str]:
    """How many may leave now, the phase, and its sentence. `spare`: nodes beyond the wanted, by region."""
    spec = world.cluster.spec.upgrade
    total = len(updated) + len(outdated)
    since = [pod.ready_changed_at for pod in updated if pod.ready and pod.ready_changed_at is not None]
    canaries = min(spec.canary.nodes, total)
    if sum(now - at >= spec.canary.duration for at in since) >= canaries:
        return spec.max_unavailable, "Rolling", f"{len(updated)} of {total} nodes are upgraded"
    # A canary whose old node is still there, or is leaving, owes its departure.
    owed = sum(max(0, count) for count in spare.values())
    leaving = sum(is_draining(world.fresh_load(pod)) for pod in outdated)
    minutes = spec.canary.duration.total_seconds() / 60
    text = f"{canaries} nodes are upgraded first and watched for {minutes:g} min"
    return min(max(canaries - len(updated), owed, leaving), spec.max_unavailable), "Canary", text


def _halted(  # noqa: PLR0917
    world: ClusterWorld,
    template: str,
    updated: Sequence[PodView],
    outdated: Sequence[PodView],
    health: Health,
    now: datetime,
) -> Held | None:
    """Why the upgrade must not go on; what was found once holds until the template changes."""
    before = world.cluster.status.upgrade
    if before is not None and _was_halted(world, template):
        return Held(Reason.UPGRADE_HALTED, before.message)
    early = [
        death
        for death in world.deaths
        if death.template == world.templates.get(death.region) and death.lifetime_s < EARLY_DEATH_S
    ]
    if early:
        return Held(Reason.UPGRADE_HALTED, f"the new node {early[-1].name} ended early: {early[-1].how}")
    blocked = _incompatible(world, updated, outdated)
    if blocked:
        return Held(Reason.UPGRADE_INCOMPATIBLE, f"{blocked[0][0].name}: {blocked[0][1]}")
    for pod in updated:
        why = _unfit(world, pod, outdated, health, now)
        if why:
            return Held(Reason.UPGRADE_HALTED, f"the new node {pod.name} {why}")
    return None


def _was_halted(world: ClusterWorld, template: str) -> bool:
    before = world.cluster.status.upgrade
    return before is not None and before.phase == "Halted" and before.template == template


def _unfit(
    world: ClusterWorld, pod: PodView, outdated: Sequence[PodView], health: Health, now: datetime
) -> str:
    """What is wrong with a new node; empty: nothing that is seen."""
    age_s = (now - pod.created_at).total_seconds()
    if pod.trouble and age_s >= TROUBLE_S:
        return f"does not start: {pod.trouble_message or pod.trouble}"
    unready_s = (now - (pod.ready_changed_at or pod.created_at)).total_seconds()
    if not pod.ready and unready_s >= START_DEADLINE_S and not _is_excused(world, pod, health):
        return f"is not ready after {START_DEADLINE_S:.0f} s"
    load = world.fresh_load(pod)
    if health.grey(pod) is not None:
        return f"answers, but {health.grey(pod)}"
    if load is None or not load.participants:
        return ""
    old = [other for peer in outdated if (other := world.fresh_load(peer)) and other.participants]
    usual = median(other.p95_ms for other in old) if old else 0.0
    if old and load.sustained_p95_ms > max(SLOW_FLOOR_MS, SLOWER_TIMES * usual):
        slow = f"{load.sustained_p95_ms:.1f} ms at best (95th percentile) for {SUSTAINED_S:.0f} s"
        return f"forwards in {slow}, the old ones in {usual:.1f} ms"
    return ""


def _is_excused(world: ClusterWorld, pod: PodView, health: Health) -> bool:
    """Whether a node may be unready without a fault of its own: it drains, or may for all that is known."""
    if is_draining(world.load(pod)) or pod.unschedulable:
        return True
    return pod.was_ready and world.fresh_load(pod) is None and not health.against(pod)


def _incompatible(
    world: ClusterWorld, updated: Sequence[PodView], outdated: Sequence[PodView]
) -> list[tuple[PodView, str]]:
    """New nodes that do not understand the relay envelope of nodes that still serve."""
    spoken = [
        load.wire_version for pod in outdated if (load := world.load(pod)) is not None and load.wire_version
    ]
    found = []
    for pod in updated:
        load = world.load(pod)
        if load is not None and spoken and load.min_wire_version > min(spoken):
            why = (
                f"it needs version {load.min_wire_version} {_ENVELOPE} or newer, old nodes speak "
                f"{min(spoken)}: upgrade to a version between them first"
            )
            found.append((pod, why))
    return found


def _status(
    phase: str, template: str, updated: Sequence[PodView], outdated: Sequence[PodView], text: str
) -> UpgradeStatus:
    return UpgradeStatus.model_validate(
        {
            "phase": phase,
            "template": template,
            "updated": len(updated),
            "outdated": len(outdated),
            "message": text[:1024],
        }
    )
