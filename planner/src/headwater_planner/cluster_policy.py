"""What an SFUCluster's spec says of rooms and participants: capacity, placement, cascade."""

from dataclasses import dataclass, field
from typing import Final, Literal

from headwater_planner.cascade import CascadePolicy


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    """spec.node.capacity, spec.placement and spec.cascade, but for regions. None: no limit."""

    egress_mbps: float | None = None
    packets_per_second: float | None = None
    strategy: Literal["Nearest", "Packed", "Spread"] = "Nearest"
    sticky: bool = True  # the room's own nodes come first
    one_node: bool = False  # rooms are not cascaded: everybody of a room on one node
    cascade: CascadePolicy = field(default_factory=CascadePolicy)


DEFAULT: Final = ClusterPolicy()
