"""How many nodes each region wants, before windows, policies and limits are applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater_api.fleet_policy import ScalingBehavior
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUClusterSpec

from headwater_planner.cluster import desired_nodes
from headwater_planner.scale.floors import Floor
from headwater_planner.scale.forecast import Forecast
from headwater_planner.scale.need import Need, ceil_nodes
from headwater_planner.scale.region import RegionView
from headwater_planner.scale.spill import Spill, spill_over


@dataclass(frozen=True, slots=True)
class Wishes:
    """By region: what its own load asks for, and what is wanted with floors and other regions' surplus."""

    own: Mapping[str, int]
    wanted: Mapping[str, int]
    overflow: Mapping[str, int]
    spills: tuple[Spill, ...]

    def out_of(self, name: str) -> tuple[Spill, ...]:
        """What the region sends elsewhere."""
        return tuple(spill for spill in self.spills if spill.source == name)

    def into(self, name: str) -> tuple[Spill, ...]:
        """What the region takes over."""
        return tuple(spill for spill in self.spills if spill.target == name)


def wishes_of(
    spec: SFUClusterSpec,
    views: Mapping[str, RegionView],
    floors: Mapping[str, Floor],
) -> Wishes:
    """Every region's wish. `blind` ones wish for at least what they have and spill no less than before."""
    own: dict[str, int] = {}
    within: dict[str, int] = {}
    overflow: dict[str, int] = {}
    for region in spec.regions:
        name, view = region.name, views[region.name]
        memory = view.memory
        # What was taken over from elsewhere is not this region's own: it comes again from there.
        held = max(0, memory.desired - memory.received)
        own[name] = recommend(view.needs, held, view.blind, spec.autoscaling.behavior)
        within[name] = min(max(own[name], floors[name].nodes), region.max_nodes)
        overflow[name] = max(0, own[name] - region.max_nodes)
        if view.blind:
            overflow[name] = max(overflow[name], memory.overflow)
    wanted, spills = spill_over(spec, within, overflow)
    for region in spec.regions:
        view = views[region.name]
        if view.blind:
            here = min(view.memory.desired, region.max_nodes)
            wanted[region.name] = max(wanted[region.name], here)
    return Wishes(own, wanted, overflow, spills)


def recommend(needs: Sequence[Need], current: int, blind: bool, behavior: ScalingBehavior) -> int:
    """What load asks for, given `current` nodes.

    Within scaleUp's tolerance a strained region is left as it is (a counted need has no tolerance: a full
    node takes nobody). To go down, load must fit the smaller number with scaleDown's tolerance to spare,
    so that it does not come back at once.
    """
    up = 1 + behavior.scale_up.tolerance_percent / 100
    down = 1 + behavior.scale_down.tolerance_percent / 100
    raise_to = max(
        ceil_nodes(need.nodes) if need.counted or need.nodes > current * up else 0 for need in needs
    )
    if raise_to > current or blind:
        return max(raise_to, current)
    return min(current, max(ceil_nodes(need.nodes * down) for need in needs))


def floors_of(
    spec: SFUClusterSpec, *sources: Mapping[str, Floor], forecasts: Mapping[str, Forecast]
) -> dict[str, Floor]:
    """Each region's highest floor within its maxNodes; of equals the first: minNodes and replicas."""
    least = desired_nodes(spec)
    floors = {}
    for region in spec.regions:
        name = region.name
        options = [_least(least[name], region.min_nodes), *(s[name] for s in sources if name in s)]
        forecast = forecasts.get(name)
        if (
            forecast is not None
            and forecast.nodes is not None
            and spec.autoscaling.forecast.mode == "Enabled"
        ):
            options.append(Floor(ceil_nodes(forecast.nodes), Reason.FORECAST_HIGHER, forecast.text))
        top = max(options, key=lambda floor: floor.nodes)
        floors[name] = Floor(min(top.nodes, region.max_nodes), top.reason, top.text)
    return floors


def _least(nodes: int, minimum: int) -> Floor:
    if nodes > minimum:
        return Floor(nodes, Reason.REPLICAS_REQUESTED, f"spec.replicas asks for {nodes} here")
    return Floor(nodes, Reason.BELOW_MIN_NODES, f"minNodes is {minimum}")
