"""How the hubs of a room's regions are linked where a mesh would be too much: a bounded, cheap tree. Pure.

Cheap is a sum of prices for what crosses each link, both ways. Bounded are the links on the way between any
two hubs and the time that the way takes, compared with the straight one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from headwater_api.ids import RegionName

Edge: TypeAlias = tuple[RegionName, RegionName]  # in order of their names

DEFAULT_COST: Final = 1.0
# A way through other regions may take so much longer than the straight one.
MAX_DETOUR_MS: Final = 120.0
# A repaired tree is kept unless a new one is cheaper by that factor: each change costs a key frame.
KEEP_FACTOR: Final = 1.3


@dataclass(frozen=True, slots=True)
class RegionMap:
    """What lies between regions: the price of one GiB, by (from, to), and one-way times, by edge."""

    costs: Mapping[tuple[RegionName, RegionName], float] = field(default_factory=dict)
    times_ms: Mapping[Edge, float] = field(default_factory=dict)

    def cost(self, a: RegionName, b: RegionName) -> float:
        """Both ways. A price given one way holds for the other too."""
        there, back = self.costs.get((a, b)), self.costs.get((b, a))
        known = [c for c in (there, back) if c is not None]
        return sum(known) * 2 / len(known) if known else 2 * DEFAULT_COST

    def time_ms(self, a: RegionName, b: RegionName) -> float:
        """One way; 0 where places are not known."""
        return self.times_ms.get(edge(a, b), 0.0)


def edge(a: RegionName, b: RegionName) -> Edge:
    """The edge of two regions."""
    return (a, b) if a < b else (b, a)


def plan_hub_tree(
    regions: Iterable[RegionName], current: frozenset[Edge], geography: RegionMap, max_hops: int
) -> frozenset[Edge]:
    """Edges of a tree over the regions, at most `max_hops` (2 at least) between any two of them.

    What is left of the current edges stays where that is good enough.
    """
    names = sorted(regions)
    if len(names) < 2:
        return frozenset()
    fresh = min(
        (_grow(names, root, geography, max(2, max_hops)) for root in names),
        key=lambda tree: (_price(tree, geography), sorted(tree)),
    )
    repaired = _repair(names, current, geography)
    good = diameter(repaired) <= max(2, max_hops) and not has_detours(repaired, names, geography)
    if good and _price(repaired, geography) <= KEEP_FACTOR * _price(fresh, geography):
        return repaired
    return fresh


def _grow(names: list[RegionName], root: RegionName, geography: RegionMap, max_hops: int) -> frozenset[Edge]:
    """From the root outwards, the cheapest next region first (Prim), no deeper than half the hops."""
    depth, time = {root: 0}, {root: 0.0}
    best = {name: root for name in names if name != root}
    edges = set()
    while best:
        name = min(best, key=lambda n: (geography.cost(best[n], n), geography.time_ms(best[n], n), n))
        parent = best.pop(name)
        edges.add(edge(parent, name))
        depth[name], time[name] = depth[parent] + 1, time[parent] + geography.time_ms(parent, name)
        if 2 * (depth[name] + 1) > max_hops:
            continue
        for other, via in best.items():
            detour = time[name] + geography.time_ms(name, other) - geography.time_ms(root, other)
            if 2 * detour <= MAX_DETOUR_MS and geography.cost(name, other) < geography.cost(via, other):
                best[other] = name
    return frozenset(edges)


def _repair(names: list[RegionName], current: frozenset[Edge], geography: RegionMap) -> frozenset[Edge]:
    """The edges that are left, and the cheapest ones that join the parts again (Kruskal)."""
    part = {name: name for name in names}

    def find(name: RegionName) -> RegionName:
        while part[name] != name:
            part[name] = part[part[name]]
            name = part[name]
        return name

    kept = set()
    every = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    every.sort(key=lambda e: (geography.cost(*e), geography.time_ms(*e), e))
    for a, b in [*sorted(current), *every]:
        if a in part and b in part and find(a) != find(b):
            part[find(a)] = find(b)
            kept.add((a, b))
    return frozenset(kept)


def _price(tree: frozenset[Edge], geography: RegionMap) -> float:
    return sum(geography.cost(*e) for e in tree)


def diameter(tree: frozenset[Edge]) -> int:
    """The most edges between two regions of a tree."""
    near = neighbours(tree)
    if not near:
        return 0
    far, _ = _farthest(near, min(near))
    return _farthest(near, far)[1]


def _farthest(near: Mapping[RegionName, list[RegionName]], start: RegionName) -> tuple[RegionName, int]:
    hops = {start: 0}
    queue = [start]
    for here in queue:
        for other in near[here]:
            if other not in hops:
                hops[other] = hops[here] + 1
                queue.append(other)
    return queue[-1], hops[queue[-1]]


def neighbours(edges: Iterable[Edge]) -> dict[RegionName, list[RegionName]]:
    """Each region's neighbours, in order of their names."""
    near: dict[RegionName, list[RegionName]] = {}
    for a, b in sorted(edges):
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    return near


def has_detours(tree: frozenset[Edge], names: list[RegionName], geography: RegionMap) -> bool:
    """Whether some way through the tree takes too much longer than the straight one."""
    if not geography.times_ms:
        return False
    near = neighbours(tree)
    for start in names:
        times = {start: 0.0}
        queue = [start]
        for here in queue:
            for other in near.get(here, ()):
                if other not in times:
                    times[other] = times[here] + geography.time_ms(here, other)
                    queue.append(other)
        if any(times[n] - geography.time_ms(start, n) > MAX_DETOUR_MS for n in names if n in times):
            return True
    return False
