"""Which relay links a room needs, and the way each track takes over them. Pure.

Each region with a node of the room has one hub. Few hubs form a mesh, many a tree; the other nodes of a
region hang under their hub. A track runs publisher's node → its hub → other hubs → their nodes, so that each
node gets it over exactly one link and no link carries it twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from headwater_api.ids import NodeId, RegionName

from headwater_planner.hub_tree import Edge, RegionMap, neighbours, plan_hub_tree

MESH_REGIONS: Final = 5  # so many hubs form a mesh; more, a tree


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


@dataclass(frozen=True, slots=True)
class Topology:
    """The cascade of one room. `tree`: the edges between its regions; None: all hubs are linked."""

    hubs: Mapping[RegionName, NodeId]
    region_of: Mapping[NodeId, RegionName]
    links: frozenset[Link]
    tree: frozenset[Edge] | None = None


@dataclass(frozen=True, slots=True)
class LinkChange:
    opened: tuple[Link, ...]
    closed: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class CascadePolicy:
    """How an SFUCluster wants its rooms linked. `max_hops`: links between two regions' hubs, at most."""

    shape: Literal["Auto", "Mesh", "Tree"] = "Auto"
    max_hops: int = 3
    geography: RegionMap = field(default_factory=RegionMap)


AUTO: Final = CascadePolicy()
EMPTY: Final = Topology(hubs={}, region_of={}, links=frozenset())


def plan_topology(
    members: Iterable[Member],
    current: Topology = EMPTY,
    avoid: frozenset[NodeId] = frozenset(),
    policy: CascadePolicy = AUTO,
) -> Topology:
    """The wanted cascade. Living hubs stay hubs, so that a change touches only the nodes that it must.

    Nodes to `avoid` are on their way out: they hand over as soon as their region has another.
    """
    present = sorted(members, key=lambda m: m.node_id)
    region_of = {m.node_id: m.region for m in present}
    by_region: dict[RegionName, list[Member]] = {}
    for member in present:
        by_region.setdefault(member.region, []).append(member)
    hubs: dict[RegionName, NodeId] = {}
    for region, members_there in sorted(by_region.items()):
        local = [m for m in members_there if m.node_id not in avoid] or members_there
        kept = current.hubs.get(region)
        if kept is not None and any(m.node_id == kept for m in local):
            hubs[region] = kept
        else:
            hubs[region] = min(local, key=lambda m: (-m.participants, m.node_id)).node_id
    tree = _plan_tree(hubs, current, policy)
    return Topology(hubs=hubs, region_of=region_of, links=_links(hubs, region_of, tree), tree=tree)


def _plan_tree(
    hubs: Mapping[RegionName, NodeId], current: Topology, policy: CascadePolicy
) -> frozenset[Edge] | None:
    """The tree between the regions; None: a mesh."""
    # A way of one link between any two hubs is a mesh and nothing else.
    if policy.shape == "Mesh" or policy.max_hops < 2 or len(hubs) < 3:
        return None
    # Once a tree, a room stays one until it is clearly smaller: a region that comes and goes must not flap.
    limit = MESH_REGIONS - 1 if current.tree is not None else MESH_REGIONS
    if policy.shape != "Tree" and len(hubs) <= limit:
        return None
    if current.tree is not None and set(hubs) == set(current.hubs):
        return current.tree
    return plan_hub_tree(hubs, current.tree or frozenset(), policy.geography, policy.max_hops)


def _links(
    hubs: Mapping[RegionName, NodeId], region_of: Mapping[NodeId, RegionName], tree: frozenset[Edge] | None
) -> frozenset[Link]:
    heads = sorted(hubs.values())
    if tree is None:
        core = {Link.between(a, b) for i, a in enumerate(heads) for b in heads[i + 1 :]}
    else:
        core = {Link.between(hubs[a], hubs[b]) for a, b in tree}
    spokes = {Link.between(n, hubs[r]) for n, r in region_of.items() if n != hubs[r]}
    return frozenset(core | spokes)


def diff_links(before: Topology, after: Topology) -> LinkChange:
    """What has to be opened and closed, in a stable order."""
    return LinkChange(
        opened=tuple(sorted(after.links - before.links)),
        closed=tuple(sorted(before.links - after.links)),
    )


def routes(topology: Topology, publisher: NodeId) -> dict[NodeId, Link]:
    """For each other node: the one link on which a track of `publisher` arrives there.

    KeyError if the publisher's node is not in the topology.
    """
    home = topology.region_of[publisher]
    inbound = {home: topology.hubs[home]}  # region → the hub that its hub gets the track from
    queue = [home]
    near = neighbours(topology.tree) if topology.tree is not None else None
    for region in queue:
        others = topology.hubs if near is None else near.get(region, ())
        for other in others:
            if other not in inbound:
                inbound[other] = topology.hubs[region]
                queue.append(other)
    found: dict[NodeId, Link] = {}
    for node, region in topology.region_of.items():
        hub = topology.hubs[region]
        if node == publisher:
            continue
        if node != hub:
            found[node] = Link.between(node, hub)
        else:
            found[node] = Link.between(node, publisher if region == home else inbound[region])
    return found
