"""What the loops remember of the API server between reads: fleets with their last world, and Meetings.

Filled by watch events and by full relists; a relist drops what is gone, whatever the watch missed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from headwater_api.meeting import Meeting
from headwater_planner.world import ClusterWorld

from headwater_operator.loop.observe import Key


@dataclass(slots=True)
class Store:
    """`listed`: everything has been read once, so absence means absence."""

    fleets: dict[Key, ClusterWorld] = field(default_factory=dict)
    fleet_keys: set[Key] = field(default_factory=set)
    meetings: dict[Key, Meeting] = field(default_factory=dict)
    listed: bool = False

    def meetings_of(self, fleet: Key) -> Iterator[Key]:
        """The Meetings that refer to the fleet."""
        namespace, name = fleet
        for key, meeting in self.meetings.items():
            if key[0] == namespace and meeting.spec.cluster_ref.name == name:
                yield key

    def drop_meetings(self, keys: Iterable[Key]) -> None:
        """They are gone."""
        for key in keys:
            self.meetings.pop(key, None)
