"""Whether clients get through to a node at the address that they are told. Pure.

The evidence is the clients' own: a node makes a transport for each that is sent to it and knows which of them
have connected. A probe from inside the cluster would say less: what is sent to a load balancer's address is
often delivered without leaving the machine, and many networks turn nothing round to their own outside.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from headwater_api.reasons import Reason
from headwater_api.wellknown import PORT_MEDIA

from headwater_planner.world import ClusterWorld, NodeLoad, PodView

# So many transports, two for each participant, in vain, and for so long after the first of them.
IN_VAIN: Final = 20
IN_VAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Tries:
    """What a node's reports tell of clients that were sent to it. `since`: the first in vain, seconds."""

    base: int  # transports made when a client was last connected, or when the node was first heard
    since: float | None = None


def tried(before: Tries | None, created: int, connections: int, now: float) -> Tries:
    """With one more report: its transports so far, and how many of them are connected."""
    if before is None or connections > 0 or created < before.base:
        return Tries(created)
    if created > before.base and before.since is None:
        return Tries(before.base, now)
    return before


@dataclass(frozen=True, slots=True)
class Reached:
    """The verdict on a fleet; None: nobody has tried enough to tell."""

    status: bool | None
    reason: Reason
    text: str


def judge_reach(world: ClusterWorld, pods: Iterable[PodView]) -> Reached:
    """Of these Pods' nodes. The text keeps its words while the verdict holds: status is written once."""
    heard = [(pod, load) for pod in pods if (load := world.fresh_load(pod)) is not None]
    in_vain = sorted((pod.region, pod.name) for pod, load in heard if _is_in_vain(load))
    if in_vain:
        region, name = in_vain[0]
        others = f" and {len(in_vain) - 1} more" if len(in_vain) > 1 else ""
        pod = next(pod for pod, _ in heard if pod.name == name)
        text = (
            f"region {region}: clients are sent to {name}{others} and none connects: "
            f"open UDP to {_where(pod)}, and try `headwater probe` from outside"
        )
        return Reached(False, Reason.CLIENTS_DO_NOT_CONNECT, text)
    if any(load.connections for _, load in heard):
        return Reached(True, Reason.CLIENTS_CONNECT, "clients connect to the nodes that they are sent to")
    return Reached(None, Reason.NO_CLIENT_YET, "no client has been there to tell")


def _is_in_vain(load: NodeLoad) -> bool:
    return load.in_vain >= IN_VAIN and load.in_vain_s >= IN_VAIN_S


def _where(pod: PodView) -> str:
    """The addresses that clients are told."""
    external = pod.guard.external if pod.guard is not None else ()
    return ", ".join(external) or f"{pod.pod_ip}:{PORT_MEDIA}"
