"""Which nodes are dead, frozen, cut off or grey, and whether that may be believed: pure.

Evidence is of four kinds, from different observers. What the kubelet says (the Pod is not ready, or its
process has ended), our own report stream, relay neighbours that hear a node no longer, and the node's own
word that its media loop stands still. Where many nodes seem to fail together it is more likely that an
observer has failed: then only a node against which two kinds of evidence agree is believed to have failed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from headwater_api.reasons import Reason

from headwater_planner.supply import Held
from headwater_planner.world import STALLED_S, ClusterWorld, NodeLoad, Phase, PodView

# A node whose Pod is not Ready, or which is silent, for so long is given a substitute.
LOST_AFTER_S: Final = 15.0
# A lost node, or one whose media stands still, is deleted after so long, with two kinds of evidence.
GIVEN_UP_AFTER_S: Final = 60.0
# A neighbour that has heard nothing for so long counts; links ping each other several times a second.
NEIGHBOUR_SILENT_S: Final = 5.0
MASS_SHARE: Final = 0.2
MASS_COUNT: Final = 2


class Evidence(StrEnum):
    """Who speaks against a node."""

    KUBELET = "its Pod is not ready"
    STREAM = "it sends no report"
    NEIGHBOURS = "its relay neighbours hear nothing from it"
    ITSELF = "its media loop stands still"


@dataclass(frozen=True, slots=True)
class Health:
    """Evidence by Pod name. `alarm`: too many at once to be believed without two kinds of it."""

    evidence: Mapping[str, frozenset[Evidence]]
    heard: frozenset[str]  # nodes that a credible neighbour hears
    alarm: Held | None = None

    def against(self, pod: PodView) -> frozenset[Evidence]:
        """What speaks against that node."""
        return self.evidence.get(pod.name, frozenset())

    def believed(self, pod: PodView) -> bool:
        """Whether the evidence against the node is enough to act on it."""
        return self.alarm is None or len(self.against(pod)) >= 2

    def lost(self, pod: PodView) -> bool:
        """Whether it needs a substitute: two observers have missed it for LOST_AFTER_S."""
        kinds = self.against(pod)
        return Evidence.STREAM in kinds and bool(kinds & {Evidence.KUBELET, Evidence.NEIGHBOURS})

    def grey(self, pod: PodView) -> Evidence | None:
        """The evidence that its control answers while its media is dead, or None."""
        kinds = self.against(pod)
        if Evidence.STREAM in kinds or not self.believed(pod):
            return None
        return next((kind for kind in (Evidence.ITSELF, Evidence.NEIGHBOURS) if kind in kinds), None)


def assess(world: ClusterWorld, now: datetime) -> Health:
    """The evidence against each node of the fleet that has run."""
    silent, heard = _testimony(world)
    evidence = {pod.name: _against(world, pod, now, silent) for pod in world.pods if _has_run(world, pod)}
    suspects = sorted(name for name, kinds in evidence.items() if kinds)
    alarm = None
    if len(suspects) >= MASS_COUNT and len(suspects) > MASS_SHARE * len(evidence):
        unproven = [name for name in suspects if len(evidence[name]) < 2]
        if unproven:
            shown = ", ".join(unproven[:3]) + (f" and {len(unproven) - 3} more" if len(unproven) > 3 else "")
            alarm = Held(
                Reason.MASS_FAILURE_SUSPECTED,
                f"{len(suspects)} of {len(evidence)} nodes seem to have failed together; {shown}: one kind "
                "of evidence only, so nothing is drained or deleted until a second one agrees",
            )
    return Health(evidence, frozenset(heard), alarm)


def may_give_up(world: ClusterWorld, health: Health, pod: PodView, now: datetime) -> str:
    """Why a node that does not answer may be deleted; empty: it may not.

    A frozen or vanished node, or one whose media has stood still: for GIVEN_UP_AFTER_S, with two kinds of
    evidence, and with no neighbour that hears it. That a node which drains is not ready is no evidence.
    """
    kinds = health.against(pod)
    since = pod.ready_changed_at
    if len(kinds) < 2 or pod.name in health.heard or pod.terminating or since is None:
        return ""
    if Evidence.KUBELET not in kinds or (now - since).total_seconds() < GIVEN_UP_AFTER_S:
        return ""
    load = world.load(pod)
    if Evidence.STREAM in kinds:
        quiet_s = load.age_s if load is not None else 0.0
        if _is_cordoned(pod, load) and Evidence.NEIGHBOURS not in kinds and not _machine_is_gone(world, pod):
            return ""
    else:
        quiet_s = load.stalled_s if load is not None else 0.0
    if quiet_s < GIVEN_UP_AFTER_S:
        return ""
    return f"for {quiet_s:.0f} s {' and '.join(sorted(kinds))}"


def _is_cordoned(pod: PodView, load: NodeLoad | None) -> bool:
    """By its last word, or by what we wrote on its Pod when we told it to drain."""
    return (load is not None and load.draining) or (pod.guard is not None and bool(pod.guard.state))


def _machine_is_gone(world: ClusterWorld, pod: PodView) -> bool:
    """What the kubelet says by not answering. Of a frozen process it will say that it has ended."""
    if pod.phase is Phase.UNKNOWN:
        return True
    if world.kube_nodes is None or not pod.node_name:
        return False
    return not any(machine.ready for machine in world.kube_nodes if machine.name == pod.node_name)


def _has_run(world: ClusterWorld, pod: PodView) -> bool:
    return not pod.terminating and (pod.dead or pod.ready or world.load(pod) is not None)


def _against(world: ClusterWorld, pod: PodView, now: datetime, silent: frozenset[str]) -> frozenset[Evidence]:
    kinds: set[Evidence] = set()
    load = world.load(pod)
    since = pod.ready_changed_at
    # Not ready on purpose, as it said last.
    is_well = load is not None and load.age_s < LOST_AFTER_S and load.stalled_s < STALLED_S
    cordoned = is_well and load is not None and load.draining
    unready_s = (now - since).total_seconds() if since and not pod.ready and not cordoned else 0.0
    if pod.dead or unready_s >= LOST_AFTER_S or pod.phase is Phase.UNKNOWN:
        kinds.add(Evidence.KUBELET)
    unready = not pod.ready and not cordoned
    if load is not None and not load.fresh and (load.age_s >= LOST_AFTER_S or unready):
        kinds.add(Evidence.STREAM)
    if pod.dead and (load is None or not load.fresh):
        kinds.add(Evidence.STREAM)  # an ended process has nothing to report with
    if pod.name in silent and not pod.dead:
        kinds.add(Evidence.NEIGHBOURS)
    if load is not None and load.fresh and load.stalled_s >= STALLED_S:
        kinds.add(Evidence.ITSELF)
    return frozenset(kinds)


def _testimony(world: ClusterWorld) -> tuple[frozenset[str], frozenset[str]]:
    """Nodes that credible neighbours hear nothing from, and nodes that some hear.

    A witness is credible only while it hears somebody itself: else its own network may be what is dead.
    """
    silent: set[str] = set()
    heard: set[str] = set()
    for load in _witnesses(world):
        hears = {link.peer for link in load.links if link.up and link.silent_s < NEIGHBOUR_SILENT_S}
        misses = {link.peer for link in load.links if link.silent_s >= NEIGHBOUR_SILENT_S} - hears
        heard |= hears
        if hears:
            silent |= misses
    return frozenset(silent - heard), frozenset(heard)


def _witnesses(world: ClusterWorld) -> Iterable[NodeLoad]:
    for pod in world.pods:
        load = world.fresh_load(pod)
        if load is not None and not pod.dead and load.stalled_s < STALLED_S:
            yield load
