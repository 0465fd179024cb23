"""Figures of rooms and nodes, counted when Prometheus asks."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater_gateway.room.directory import RoomDirectory
from headwater_gateway.turn.servers import TurnServers


class PlaneCollector(Collector):
    """Bounded labels only: regions, never rooms or users."""

    def __init__(self, directory: RoomDirectory, turn: TurnServers) -> None:
        self._directory, self._turn = directory, turn

    def collect(self) -> Iterator[Metric]:
        """One pass over the rooms of this gateway."""
        rooms = self._directory.rooms()
        yield GaugeMetricFamily("headwater_gateway_rooms", "Rooms that live here.", value=len(rooms))
        participants = GaugeMetricFamily(
            "headwater_gateway_participants", "Participants of rooms that live here.", labels=["region"]
        )
        by_region: dict[str, int] = {}
        for room in rooms:
            for participant in room.state.participants.values():
                by_region[participant.region] = by_region.get(participant.region, 0) + 1
        for region, count in sorted(by_region.items()):
            participants.add_metric([region], count)
        yield participants
        links = sum(len(room.state.cascade.open) for room in rooms)
        yield GaugeMetricFamily("headwater_gateway_links", "Relay links between nodes.", value=links)
        up = GaugeMetricFamily("headwater_gateway_nodes_up", "SFU nodes that answer.", labels=["region"])
        nodes: dict[str, int] = {}
        for view in self._directory.pool.views():
            nodes[view.region] = nodes.get(view.region, 0) + 1
        for region, count in sorted(nodes.items()):
            up.add_metric([region], count)
        yield up
        turn = GaugeMetricFamily(
            "headwater_gateway_turn_servers", "TURN nodes that clients are sent to.", labels=["region"]
        )
        for region, count in sorted(self._turn.ready().items()):
            turn.add_metric([region], count)
        yield turn
        moved = CounterMetricFamily(
            "headwater_gateway_moved", "Participants sent to another node: it died, drained or refused."
        )
        moved.add_metric([], self._directory.moved_total())
        yield moved
        dropped = CounterMetricFamily(
            "headwater_gateway_dropped_events", "Node events and requests that a room had no time for."
        )
        dropped.add_metric([], sum(room.dropped_events for room in rooms))
        yield dropped
