"""What the supply side knows when it decides: immutable views of Pods, Kubernetes nodes and node reports.

Built by the operator's observers from fresh reads; times are aware datetimes, ages are seconds.
A report that is missing or old never means "no load".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from headwater_api.sfucluster import SFUCluster
from headwater_api.wellknown import EXPOSED_ELSEWHERE

# A node reports once a second: three lost reports and it counts as silent.
FRESH_S: Final = 4.0
# Until then after its creation a Pod gets its first Ready condition, which is False.
BOUND_S: Final = 5.0
# One bad second of a machine is no fault of a node: what lasts so long is.
SUSTAINED_S: Final = 10.0
# A media loop turns at least twice a second.
STALLED_S: Final = 5.0


class Phase(StrEnum):
    """A Pod's phase as the API server tells it."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Guard:
    """What an SFU Pod says to those who would evict it, to people and to gateways: whether it serves, its
    state, and where clients reach it beside its own address (ip:port)."""

    serves: bool
    state: str = ""
    external: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodView:
    """One SFU Pod. `trouble` is why its container waits (kubelet's reason), or empty."""

    name: str
    uid: str
    region: str
    phase: Phase
    created_at: datetime
    ready: bool = False
    ready_changed_at: datetime | None = None
    terminating: bool = False
    pod_ip: str = ""
    started: bool = False  # its container has run at some time
    unschedulable: str = ""  # the scheduler's message, or empty
    trouble: str = ""
    trouble_message: str = ""
    ended: str = ""  # how its process ended, or empty
    resource_version: str = ""
    node_name: str = ""  # the Kubernetes node it is bound to
    template: str = ""  # hash of what it was made from; empty: not known
    drain_wanted: bool = False  # somebody annotated it so
    guard: "Guard | None" = None  # what its labels and annotations say now
    exposure: str = "PodIP"  # the mode that it was made with
    tls: bool = False  # its gRPC
    host_ips: tuple[str, ...] = ()  # of its Kubernetes node, as the kubelet tells them

    @property
    def dead(self) -> bool:
        """Its process is gone for good (restartPolicy Never)."""
        return self.phase in (Phase.FAILED, Phase.SUCCEEDED)

    @property
    def awaits_address(self) -> bool:
        """Clients cannot reach it yet: it has no external address, and its own one is of no use to them."""
        return self.exposure in EXPOSED_ELSEWHERE and not (self.guard is not None and self.guard.external)

    @property
    def was_ready(self) -> bool:
        """It is not ready, but was: it may be draining, and is not just starting."""
        since = self.ready_changed_at
        if self.ready or not self.started or since is None:
            return False
        return (since - self.created_at).total_seconds() >= BOUND_S


@dataclass(frozen=True, slots=True)
class KubeNodeView:
    """One Kubernetes node."""

    name: str
    labels: Mapping[str, str]
    ready: bool = True
    schedulable: bool = True
    notice: str = ""  # why the machine is about to go, or empty
    external_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceView:
    """The Service of one SFU Pod. `addresses` and `names`: of its load balancer."""

    pod_uid: str
    node_port: int = 0  # 0: none yet
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoomLoad:
    """A room on one node."""

    room: str
    participants: int


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """One end of a relay link."""

    link: str
    room: str
    peer: str
    up: bool
    silent_s: float = 0.0  # since anything authentic came over it


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """A node's last report, `age_s` seconds old when the world was built."""

    node: str
    region: str
    age_s: float
    draining: bool = False
    participants: int = 0
    connections: int = 0
    max_connections: int = 0
    cpu_percent: float = 0.0
    p95_ms: float = 0.0
    # The lowest of the last SUSTAINED_S; 0 until it has been heard for so long without a break.
    sustained_p95_ms: float = 0.0
    egress_mbps: float = 0.0
    packets_per_second: float = 0.0  # sent
    queue_percent: float = 0.0  # fullest of the node's bounded queues
    transports_created: int = 0  # since the process started
    # Those of them that were made since a client was last connected, and how long ago the first one was.
    in_vain: int = 0
    in_vain_s: float = 0.0
    rooms: tuple[RoomLoad, ...] = ()
    links: tuple[LinkLoad, ...] = ()
    drain_reason: str = ""  # while it drains
    drain_deadline: datetime | None = None
    stopping: bool = False  # it drains because its Pod is going to end: nobody can call it back
    stalled_s: float = 0.0  # since its media loop last turned
    empty_s: float = 0.0  # how long it has been known to be empty
    version: str = ""
    wire_version: int = 0  # of the relay envelope; 0: not told
    min_wire_version: int = 0

    @property
    def fresh(self) -> bool:
        """Whether it still tells about now."""
        return self.age_s <= FRESH_S

    @property
    def empty(self) -> bool:
        """Nobody is on the node and no media passes through it."""
        idle_rooms = all(room.participants == 0 for room in self.rooms)
        return (
            self.participants == 0
            and self.connections == 0
            and idle_rooms
            and not any(link.up for link in self.links)
        )


@dataclass(frozen=True, slots=True)
class Death:
    """An SFU Pod that ended by itself."""

    name: str
    region: str
    at: datetime
    lifetime_s: float
    how: str
    template: str = ""


@dataclass(frozen=True, slots=True)
class ClusterWorld:
    """All that matters for one SFUCluster. `kube_nodes` and `services` are None where the operator may not
    list them."""

    cluster: SFUCluster
    pods: tuple[PodView, ...] = ()
    kube_nodes: tuple[KubeNodeView, ...] | None = None
    loads: Mapping[str, NodeLoad] = field(default_factory=dict)
    deaths: tuple[Death, ...] = ()
    # By region: the hash of what a new Pod would be made from. Empty: no Pod is held to be outdated.
    templates: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, ServiceView] | None = field(default_factory=dict)  # by Pod name

    def load(self, pod: PodView) -> NodeLoad | None:
        """The Pod's last report, however old."""
        return self.loads.get(pod.name)

    def fresh_load(self, pod: PodView) -> NodeLoad | None:
        """The Pod's report if it still tells about now."""
        load = self.load(pod)
        return load if load is not None and load.fresh else None
