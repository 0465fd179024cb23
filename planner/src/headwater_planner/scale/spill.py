"""What does not fit: a region's surplus goes to the next nearest allowed region; the total has a limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater_api.sfucluster import RegionSpec, SFUClusterSpec

from headwater_planner.geo_distance import Coordinates, great_circle_km


@dataclass(frozen=True, slots=True)
class Spill:
    """`nodes` of `source`'s demand are met in `target`; no target: nowhere."""

    source: str
    target: str | None
    nodes: int


def nearest_regions(spec: SFUClusterSpec, name: str) -> list[str]:
    """The other regions where participants may be placed, nearest first, then by name."""
    allowed = spec.placement.allowed_regions
    here = spec.region(name)
    others = [r for r in spec.regions if r.name != name and (not allowed or r.name in allowed)]
    return [r.name for r in sorted(others, key=lambda r: (_distance(here, r), r.name))]


def spill_over(
    spec: SFUClusterSpec, wanted: Mapping[str, int], surplus: Mapping[str, int]
) -> tuple[dict[str, int], tuple[Spill, ...]]:
    """The wanted numbers with every region's surplus added elsewhere, never beyond a region's maxNodes.

    `wanted` is within the regions' bounds; `surplus` is what each wants beyond its maxNodes.
    """
    result = dict(wanted)
    spills: list[Spill] = []
    for source in sorted(surplus):
        rest = surplus[source]
        for target in nearest_regions(spec, source):
            region = spec.region(target)
            taken = min(rest, region.max_nodes - result[target]) if region else 0
            if taken > 0:
                result[target] += taken
                rest -= taken
                spills.append(Spill(source, target, taken))
        if rest > 0:
            spills.append(Spill(source, None, rest))
    return result, tuple(spills)


def cap_total(limit: int, wanted: Mapping[str, int], stages: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """`wanted` cut to `limit` nodes in total.

    Each stage is a number by region that goes before the next stage's; the first stage is always granted.
    Within a stage the region that lacks the most gets the next node.
    """
    over = sum(wanted.values()) - limit
    if over <= 0:
        return dict(wanted)
    granted = {name: min(stages[0].get(name, 0), nodes) for name, nodes in wanted.items()}
    for stage in (*stages[1:], wanted):
        goal = {name: max(granted[name], min(stage.get(name, 0), nodes)) for name, nodes in wanted.items()}
        for _ in range(limit - sum(granted.values())):
            short = [name for name in goal if granted[name] < goal[name]]
            if not short:
                break
            granted[min(short, key=lambda name: (granted[name] - goal[name], name))] += 1
    return granted


def _distance(here: RegionSpec | None, there: RegionSpec) -> float:
    """Kilometres; regions without a place are far away."""
    if here is None or here.coordinates is None or there.coordinates is None:
        return float("inf")
    a, b = here.coordinates, there.coordinates
    return great_circle_km(Coordinates(a.latitude, a.longitude), Coordinates(b.latitude, b.longitude))
