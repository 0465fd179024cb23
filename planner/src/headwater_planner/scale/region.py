"""One region as a pass sees it: what was decided last, what its nodes say, what that asks for."""

from dataclasses import dataclass

from headwater_api.sfucluster import RegionSpec

from headwater_planner.scale.need import Need, RegionUsage
from headwater_planner.scale.result import RegionMemory


@dataclass(frozen=True, slots=True)
class RegionView:
    """Input to the region's decision."""

    region: RegionSpec
    memory: RegionMemory
    usage: RegionUsage
    needs: tuple[Need, ...]

    @property
    def blind(self) -> bool:
        """Something that serves, or should, is not known: nothing may be lowered."""
        return bool(self.usage.faults) or (not self.usage.usable and self.memory.desired > 0)

    @property
    def largest(self) -> Need:
        """The need that counts; the first of equals."""
        return max(self.needs, key=lambda need: need.nodes)

    @property
    def load(self) -> float | None:
        """Nodes that load asks for, not rounded; None where it is not known."""
        return None if self.blind else self.largest.nodes
