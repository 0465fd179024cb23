"""Which relay links a room needs, and the way each track takes over them. Pure.

Each region with a node of the room has one hub; hubs form a full mesh and the other nodes of a region
hang under their hub. A track runs publisher's node → its hub → the other hubs → their nodes, so that each
node gets it over exactly one link and no link carries it twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from headwater_api.ids import NodeId, RegionName


@dataclass(frozen=True, slots=True)
class Member:
    """A node that takes part in a room."""

    node_id: NodeId
    region: RegionName
    participants: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """An unordered pair of nodes; `a` sorts before `b`. Make it with `between`."""

    a: NodeId
    b: NodeId

    @classmethod
    def between(cls, one: NodeId, other: NodeId) -> Self:
        """The link of two different nodes. ValueError if they are the same."""
        if one == other:
            raise ValueError(f"a link needs two nodes, got {one} twice")
        return cls(min(one, other), max(one, other))

    def peer_of(self, node: NodeId) -> NodeId:
        """The other end."""
        return self.b if node == self.a else self.a


@dataclass(frozen=True, slots=True)
class Topology:
    """The cascade of one room."""

    hubs: Mapping[RegionName, NodeId]
    region_of: Mapping[NodeId, RegionName]
    links: frozenset[Link]

    def hub_of(self, node: NodeId) -> NodeId:
        """The hub of the node's region (may be the node itself)."""
        return self.hubs[self.region_of[node]]


@dataclass(frozen=True, slots=True)
class LinkChange:
    opened: tuple[Link, ...]
    closed: tuple[Link, ...]


EMPTY = Topology(hubs={}, region_of={}, links=frozenset())


def plan_topology(
    members: Iterable[Member], current: Topology = EMPTY, avoid: frozenset[NodeId] = frozenset()
) -> Topology:
    """The wanted cascade. Living hubs stay hubs, so that a change touches only the nodes that it must.

    Nodes to `avoid` are on their way out: they hand over as soon as their region has another.
    """
    present = sorted(members, key=lambda m: m.node_id)
    region_of = {m.node_id: m.region for m in present}
    hubs: dict[RegionName, NodeId] = {}
    for region in sorted({m.region for m in present}):
        local = [m for m in present if m.region == region]
        local = [m for m in local if m.node_id not in avoid] or local
        kept = current.hubs.get(region)
        if kept is not None and any(m.node_id == kept for m in local):
            hubs[region] = kept
        else:
            hubs[region] = min(local, key=lambda m: (-m.participants, m.node_id)).node_id
    return Topology(hubs=hubs, region_of=region_of, links=_links(hubs, region_of))


def _links(hubs: Mapping[RegionName, NodeId], region_of: Mapping[NodeId, RegionName]) -> frozenset[Link]:
    heads = sorted(hubs.values())
    mesh = {Link.between(a, b) for i, a in enumerate(heads) for b in heads[i + 1 :]}
    spokes = {Link.between(n, hubs[r]) for n, r in region_of.items() if n != hubs[r]}
    return frozenset(mesh | spokes)


def diff_links(before: Topology, after: Topology) -> LinkChange:
    """What has to be opened and closed, in a stable order."""
    return LinkChange(
        opened=tuple(sorted(after.links - before.links)),
        closed=tuple(sorted(before.links - after.links)),
    )


def inbound_link(topology: Topology, publisher: NodeId, receiver: NodeId) -> Link | None:
    """The link over which a track published on `publisher` reaches `receiver`; None on its own node.

    KeyError if either node is not in the topology.
    """
    if publisher == receiver:
        return None
    receiver_hub = topology.hub_of(receiver)
    if receiver != receiver_hub:
        return Link.between(receiver, receiver_hub)
    publisher_hub = topology.hub_of(publisher)
    if receiver == publisher_hub:
        return Link.between(publisher, receiver)
    return Link.between(publisher_hub, receiver)


def routes(topology: Topology, publisher: NodeId) -> dict[NodeId, Link]:
    """For each other node: the one link on which a track of `publisher` arrives there."""
    found: dict[NodeId, Link] = {}
    for node in topology.region_of:
        link = inbound_link(topology, publisher, node)
        if link is not None:
            found[node] = link
    return found
