"""Places and regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from headwater_api.ids import RegionName


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Degrees: latitude −90…90, longitude −180…180."""

    latitude: float
    longitude: float


class RegionCatalogue(Protocol):
    """The regions that clusters offer now, with their coordinates. Backed by the watch on SFUClusters."""

    def regions(self) -> Mapping[RegionName, Coordinates]:
        """All known regions; empty before the first cluster was seen."""
