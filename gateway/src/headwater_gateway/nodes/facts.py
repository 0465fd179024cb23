"""What is known of a node, and the small decisions about it. Pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from headwater_api.ids import ClusterName, NodeId, RegionName
from headwater_api.nodev1 import node_pb2
from headwater_planner.place import CONNECTIONS_PER_PARTICIPANT, NodeView

# A promise is dropped once the node has had the time to count the connection itself.
PROMISE_LIFETIME_S: Final = 4.0
# A media loop turns each few milliseconds.
MEDIA_STANDS_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class NodePod:
    """A node's Pod: where its gRPC listens. From the Pod watch."""

    node_id: NodeId
    region: RegionName
    address: str  # ip:port
    cluster: ClusterName | None = None  # its SFUCluster
    tls: bool = False  # its gRPC
    # Where clients reach it beside its own address. Told later, or changed, it is still the same node.
    external: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One incarnation of a node, as it says of itself."""

    node_id: NodeId
    region: RegionName
    incarnation: str
    media_addresses: tuple[str, ...]  # "ip:port" or "[ip6]:port", most wanted first
    dtls_fingerprint: str  # "sha-256 AB:CD:…"
    max_connections: int
    features: frozenset[node_pb2.Feature.ValueType] = frozenset()
    external_addresses: tuple[str, ...] = ()  # by the Pod's word: the node does not know them

    @property
    def client_addresses(self) -> tuple[str, ...]:
        """Where clients send media, most wanted first. Relay links and TURN keep to `media_addresses`."""
        return tuple(dict.fromkeys((*self.external_addresses, *self.media_addresses)))

    @classmethod
    def of(cls, info: node_pb2.NodeInfo) -> "NodeFacts":
        """From the node's answer. ValueError names the field that makes it unusable."""
        for name in ("node_id", "region", "incarnation", "dtls_fingerprint"):
            if not getattr(info, name):
                raise ValueError(f"NodeInfo.{name} is empty")
        if not info.media_addresses:
            raise ValueError("NodeInfo.media_addresses is empty: the node takes no media")
        return cls(
            NodeId(info.node_id),
            RegionName(info.region),
            info.incarnation,
            tuple(info.media_addresses),
            info.dtls_fingerprint,
            info.max_connections,
            frozenset(info.features),
        )


class Promises:
    """Participants that were sent to a node lately and that it may not have counted. Monotonic seconds."""

    def __init__(self) -> None:
        self._made: deque[float] = deque()  # oldest first

    def add(self, now: float) -> None:
        self._made.append(now)

    def count(self, now: float) -> int:
        """Those that have not lapsed."""
        while self._made and now - self._made[0] > PROMISE_LIFETIME_S:
            self._made.popleft()
        return len(self._made)

    def clear(self) -> None:
        self._made.clear()


def node_view(
    facts: NodeFacts,
    report: node_pb2.NodeReport | None,
    report_age_s: float,
    promised: int,
    *,
    cluster: ClusterName | None = None,
) -> NodeView:
    """The planner's view: the last report plus the joins `promised` since."""
    told = report if report is not None else node_pb2.NodeReport()
    reported = report.connections if report is not None else 0
    limit = (report.max_connections if report is not None else 0) or facts.max_connections
    return NodeView(
        node_id=facts.node_id,
        region=facts.region,
        connections=reported + promised * CONNECTIONS_PER_PARTICIPANT,
        max_connections=limit,
        draining=bool(report is not None and report.draining),
        report_age_s=report_age_s,
        cluster=cluster,
        participants=told.participants,
        move_rate=told.drain.move_rate,
        move_by_ms=told.drain.deadline_ms,
        egress_mbps=told.tx_mbps,
        packets_per_second=told.tx_pps,
        promised=promised,
        media_stands=told.media_stalled_ms >= MEDIA_STANDS_MS,
    )
