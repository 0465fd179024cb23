"""How full a node is, with those who were sent there since its last report. Pure."""

from dataclasses import dataclass
from typing import Final

from headwater_api.ids import ClusterName, NodeId, RegionName

from headwater_planner.cluster_policy import ClusterPolicy

CONNECTIONS_PER_PARTICIPANT: Final = 2  # a publisher and a subscriber transport
# What a participant costs at egress where a node has too few to tell.
TYPICAL_MBPS: Final = 1.5
TYPICAL_PACKETS: Final = 250.0  # per second
TELLING: Final = 10  # participants from which a node's own average counts


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as last reported. `connections`: transports, with those promised since the report."""

    node_id: NodeId
    region: RegionName
    connections: int
    max_connections: int
    draining: bool = False
    report_age_s: float = 0.0
    cluster: ClusterName | None = None
    participants: int = 0  # of all rooms, as last reported
    move_rate: float = 0.0  # while draining: participants per second to be moved off it; 0: not named
    move_by_ms: int = 0  # while draining: Unix ms by which all must have gone; 0: no deadline
    egress_mbps: float = 0.0  # as last reported, as the next
    packets_per_second: float = 0.0  # sent
    promised: int = 0  # participants placed here since the report
    media_stands: bool = False  # its control answers, its media loop does not turn

    @property
    def utilisation(self) -> float:
        """Share of the node's connections in use, 0…1 and above."""
        return self.connections / self.max_connections if self.max_connections > 0 else 1.0


def predicted(node: NodeView, more: int = 0) -> tuple[float, float]:
    """Mbit/s and packets per second sent once those on their way are there, and `more` after them."""
    coming = node.promised + more
    if node.participants >= TELLING:
        each = node.egress_mbps / node.participants, node.packets_per_second / node.participants
    else:
        each = TYPICAL_MBPS, TYPICAL_PACKETS
    return node.egress_mbps + coming * each[0], node.packets_per_second + coming * each[1]


def fullness(node: NodeView, policy: ClusterPolicy) -> float:
    """The largest share of anything limited that is in use, 0…1 and above."""
    mbps, packets = predicted(node)
    shares = [node.utilisation]
    if policy.egress_mbps:
        shares.append(mbps / policy.egress_mbps)
    if policy.packets_per_second:
        shares.append(packets / policy.packets_per_second)
    return max(shares)


def has_room(node: NodeView, policy: ClusterPolicy) -> bool:
    """Whether one more participant fits: by connections, and by what it is likely to cost at egress."""
    if node.draining or node.media_stands:
        return False
    if node.connections + CONNECTIONS_PER_PARTICIPANT > node.max_connections:
        return False
    mbps, packets = predicted(node, 1)
    return (not policy.egress_mbps or mbps <= policy.egress_mbps) and (
        not policy.packets_per_second or packets <= policy.packets_per_second
    )
