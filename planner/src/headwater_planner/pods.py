"""A region's Pods by what they are good for, and the order in which they are given up: pure."""

from dataclasses import dataclass
from typing import Final

from headwater_planner.heal import Health
from headwater_planner.world import ClusterWorld, NodeLoad, Phase, PodView

# Why people had a node drained, as it reports it back: once they take that back, it is like any other node.
ASKED_TEXT: Final = "its annotation asks for it"
CORDONED_TEXT: Final = "the Kubernetes node {} is cordoned"


@dataclass(frozen=True, slots=True)
class RegionPods:
    """Each Pod of one region is in one list, in the order of names."""

    ready: tuple[PodView, ...] = ()
    # On their way, not ready for a short time, or without an address that clients can reach.
    starting: tuple[PodView, ...] = ()
    lost: tuple[PodView, ...] = ()
    dead: tuple[PodView, ...] = ()
    terminating: tuple[PodView, ...] = ()

    @property
    def alive(self) -> tuple[PodView, ...]:
        """Those that count towards the wanted number."""
        return self.ready + self.starting


def sort_pods(world: ClusterWorld, region: str, health: Health) -> RegionPods:
    """The region's Pods by state."""
    lists: dict[str, list[PodView]] = {"ready": [], "starting": [], "lost": [], "dead": [], "terminating": []}
    for pod in sorted(world.pods, key=lambda pod: pod.name):
        if pod.region == region:
            lists[_state(pod, health)].append(pod)
    return RegionPods(**{state: tuple(pods) for state, pods in lists.items()})


def never_served(world: ClusterWorld, pod: PodView) -> bool:
    """Its process has not run yet, so nobody can be on it."""
    return pod.phase is Phase.PENDING and not pod.started and not pod.ready and world.load(pod) is None


def is_draining(load: NodeLoad | None) -> bool:
    """Whether that report says so."""
    return load is not None and load.draining


def victim_order(
    world: ClusterWorld, pod: PodView, first: frozenset[str] = frozenset()
) -> tuple[bool, bool, bool, bool, int, int, float, str]:
    """Not started first, then those that leave already for the fleet's sake, then those in `first`, then the
    emptiest (unknown load last), then the cheapest to move (rooms and links must be handed over), then the
    youngest."""
    load = world.fresh_load(pod)
    return (
        not never_served(world, pod),
        not (is_draining(load) and not _was_asked_for(load)),
        pod.name not in first,
        load is None,
        load.participants if load else 0,
        len(load.rooms) + 2 * len(load.links) if load else 0,
        -pod.created_at.timestamp(),
        pod.name,
    )


def _was_asked_for(load: NodeLoad | None) -> bool:
    return load is not None and load.drain_reason.startswith((ASKED_TEXT, CORDONED_TEXT.split("{}")[0]))


def _state(pod: PodView, health: Health) -> str:
    if pod.terminating:
        return "terminating"
    if pod.dead:
        return "dead"
    # Only a node that was heard of before can be lost; one that never spoke is still starting.
    if health.lost(pod):
        return "lost"
    return "ready" if pod.ready and not pod.awaits_address else "starting"
