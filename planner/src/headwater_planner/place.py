"""Which SFU node takes a participant. Pure: the view and the request in, one answer with its reason out.

Regions are tried nearest first; within a region the room's own nodes come before the least loaded one.
A Meeting's allowed and denied regions, and a cluster's allowed ones, are never broken: no room there means
a refusal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from headwater_api.ids import ClusterName, NodeId, RegionName
from headwater_api.reasons import Reason

from headwater_planner.cluster_policy import DEFAULT, ClusterPolicy
from headwater_planner.geo_distance import Coordinates, great_circle_km
from headwater_planner.node_load import CONNECTIONS_PER_PARTICIPANT, NodeView, fullness, has_room

__all__ = ["CONNECTIONS_PER_PARTICIPANT", "NodeView", "Placement", "PlacementRequest", "Refusal", "place"]

STALE_REPORT_S: Final = 5.0
# A room that is larger on one node takes another, where its region has one: a node's fan-out is its square.
ROOM_PER_NODE: Final = 250
# A measured time is worth so much distance: round trips in fibre, by ways that are half as long again.
KM_PER_MS: Final = 66.0
# Measured times that differ by less are as good as equal.
RTT_STEP_MS: Final = 10.0


@dataclass(frozen=True, slots=True)
class RegionView:
    name: RegionName
    coordinates: Coordinates | None = None


@dataclass(frozen=True, slots=True)
class PlacementView:
    """`cluster_regions`: where each SFUCluster lets participants be placed; empty or absent: everywhere."""

    regions: tuple[RegionView, ...]
    nodes: tuple[NodeView, ...]
    cluster_regions: Mapping[ClusterName, frozenset[RegionName]] = field(default_factory=dict)
    policies: Mapping[ClusterName, ClusterPolicy] = field(default_factory=dict)

    def policy_of(self, cluster: ClusterName | None) -> ClusterPolicy:
        """A cluster's policy; of no cluster, or one that is not known, the defaults."""
        return self.policies.get(cluster, DEFAULT) if cluster is not None else DEFAULT


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """`allowed_regions` empty means all. `excluded_nodes` are known to be dying, whatever they reported.

    `cluster`: only that SFUCluster's nodes; None: any.
    """

    named_region: RegionName | None = None
    coordinates: Coordinates | None = None
    allowed_regions: frozenset[RegionName] = frozenset()
    denied_regions: frozenset[RegionName] = frozenset()
    cluster: ClusterName | None = None
    room_nodes: frozenset[NodeId] = frozenset()
    # How many of the room each of its nodes has.
    room_counts: Mapping[NodeId, int] = field(default_factory=dict)
    # Round-trip times that the client has measured, ms. They count for more than distance.
    rtts_ms: Mapping[RegionName, float] = field(default_factory=dict)
    excluded_nodes: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True)
class Placement:
    node_id: NodeId
    region: RegionName
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    sentence: str


def place(view: PlacementView, request: PlacementRequest) -> Placement | Refusal:
    """Pick a node for one participant, or say in one sentence why there is none."""
    alive = [n for n in view.nodes if n.node_id not in request.excluded_nodes]
    if not alive:
        return Refusal(Reason.NO_NODE, "No SFU node is known; wait for the cluster to start one.")
    if request.cluster is not None:
        alive = [n for n in alive if n.cluster == request.cluster]
        if not alive:
            return Refusal(
                Reason.NO_NODE, f"SFUCluster {request.cluster!r} of the room's Meeting has no node that runs."
            )
    permitted = [n for n in alive if is_permitted(view, request, n)]
    if not permitted:
        return _nowhere(view, request, alive)
    ranked = _rank_regions(view, request, {n.region for n in permitted})
    fresh = [n for n in permitted if n.report_age_s <= STALE_REPORT_S]
    stale = [n for n in permitted if n.report_age_s > STALE_REPORT_S]
    for candidates in (fresh, stale):
        for position, region in enumerate(ranked):
            node = _pick_node(view, request, [n for n in candidates if n.region == region])
            if node is not None:
                return _placed(node, ranked[:position], request, stale_used=candidates is stale)
    return Refusal(Reason.NO_CAPACITY, _describe_full(permitted))


def is_permitted(view: PlacementView, request: PlacementRequest, node: NodeView) -> bool:
    """Whether policy lets the node serve the room: the Meeting's cluster and regions, the cluster's own."""
    if request.cluster is not None and node.cluster != request.cluster:
        return False
    offered = view.cluster_regions.get(node.cluster) if node.cluster is not None else None
    return _is_wished(node.region, request) and (not offered or node.region in offered)


def _is_wished(region: RegionName, request: PlacementRequest) -> bool:
    if region in request.denied_regions:
        return False
    return not request.allowed_regions or region in request.allowed_regions


def _nowhere(view: PlacementView, request: PlacementRequest, alive: list[NodeView]) -> Refusal:
    """Policy stands against every node: for good, or until a permitted region has one."""
    seen = ", ".join(sorted({n.region for n in alive}))
    clusters = {request.cluster} if request.cluster is not None else {n.cluster for n in alive}
    offers = [view.cluster_regions.get(c, frozenset()) if c is not None else frozenset() for c in clusters]
    left = sorted(
        region.name
        for region in view.regions
        if _is_wished(region.name, request) and any(not offer or region.name in offer for offer in offers)
    )
    if view.regions and not left:
        return Refusal(
            Reason.NO_REGION_ALLOWED,
            "The placement policies leave no region: the Meeting's spec.placement and its SFUCluster's "
            f"spec.placement.allowedRegions have none in common (regions with nodes: {seen}).",
        )
    where = f"; {', '.join(left)} would be permitted but has no node" if left else ""
    return Refusal(
        Reason.REGION_NOT_ALLOWED,
        f"The room's placement policy permits none of the regions with nodes ({seen}){where}.",
    )


def _origin(view: PlacementView, request: PlacementRequest) -> Coordinates | None:
    """Where distance is measured from: the named region if it is known, else the participant."""
    for region in view.regions:
        if request.named_region is not None and region.name == request.named_region and region.coordinates:
            return region.coordinates
    return request.coordinates


def _rank_regions(
    view: PlacementView, request: PlacementRequest, wanted: set[RegionName]
) -> list[RegionName]:
    """Regions in order of trying: named, then by distance; by room and load if no place is known."""
    places = {r.name: r.coordinates for r in view.regions}
    origin = _origin(view, request)
    load = {r: _region_load(view.nodes, r) for r in wanted}
    in_room = {n.region for n in view.nodes if n.node_id in request.room_nodes}

    def key(region: RegionName) -> tuple[bool, float, bool, float, str]:
        place_of = places.get(region)
        distance = great_circle_km(origin, place_of) if origin and place_of else float("inf")
        away = distance / KM_PER_MS
        if region in request.rtts_ms:
            away = request.rtts_ms[region] // RTT_STEP_MS * RTT_STEP_MS
        return (region != request.named_region, away, region not in in_room, load[region], region)

    return sorted(wanted, key=key)


def _region_load(nodes: Iterable[NodeView], region: RegionName) -> float:
    loads = [n.utilisation for n in nodes if n.region == region and not n.draining]
    return min(loads, default=1.0)


def _pick_node(view: PlacementView, request: PlacementRequest, nodes: list[NodeView]) -> NodeView | None:
    """By the cluster's strategy. The room's own node comes first (each further node costs links)."""

    def key(node: NodeView) -> tuple[bool, float, NodeId]:
        policy = view.policy_of(node.cluster)
        crowded = request.room_counts.get(node.node_id, 0) >= ROOM_PER_NODE
        stays = node.node_id in request.room_nodes and not crowded
        sticky = policy.one_node or (policy.sticky and policy.strategy != "Spread")
        full = fullness(node, policy)
        return (not (stays and sticky), -full if policy.strategy == "Packed" else full, node.node_id)

    usable = [n for n in nodes if has_room(n, view.policy_of(n.cluster)) and _may_host(view, request, n)]
    return min(usable, key=key, default=None)


def _may_host(view: PlacementView, request: PlacementRequest, node: NodeView) -> bool:
    """Rooms that are not cascaded stay on the node that they have."""
    elsewhere = bool(request.room_nodes) and node.node_id not in request.room_nodes
    return not (elsewhere and view.policy_of(node.cluster).one_node)


def _placed(
    node: NodeView, skipped: list[RegionName], request: PlacementRequest, *, stale_used: bool
) -> Placement:
    why = "it already serves the room" if node.node_id in request.room_nodes else "it fits best there"
    if skipped:
        reason = Reason.PLACED_ELSEWHERE
        text = f"{', '.join(skipped)} had no room, so {node.node_id} in {node.region}: {why}."
    elif request.named_region == node.region:
        reason, text = Reason.PLACED_IN_REGION, f"{node.region} was asked for, {node.node_id}: {why}."
    elif node.region in request.rtts_ms:
        reason = Reason.PLACED_NEAREST
        ms = request.rtts_ms[node.region]
        text = f"{node.region} answers the participant in {ms:.0f} ms, {node.node_id}: {why}."
    elif request.coordinates is not None or request.named_region is not None:
        reason = Reason.PLACED_NEAREST
        text = f"{node.region} is the nearest permitted region, {node.node_id}: {why}."
    else:
        reason = Reason.PLACED_WITH_ROOM
        text = f"The participant's place is unknown, {node.node_id} in {node.region}: {why}."
    if stale_used:
        text += f" Its last report is {node.report_age_s:.0f} s old; no node with a fresh one had room."
    return Placement(node.node_id, node.region, reason, text)


def _describe_full(permitted: list[NodeView]) -> str:
    draining = sum(n.draining for n in permitted)
    full = len(permitted) - draining
    regions = ", ".join(sorted({n.region for n in permitted}))
    return f"No node in {regions} has room: {full} full, {draining} draining. Raise maxNodes or add a region."
