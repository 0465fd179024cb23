"""Every Prometheus metric of the gateway. One instance for each process; tests make their own registry.

Labels are bounded: reasons, regions, kinds; never users or rooms. A room's name is in exemplars only.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from headwater_api.nodev1 import node_pb2
from livekit.protocol import models
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from headwater_gateway.room.directory import RoomDirectory
    from headwater_gateway.turn.servers import TurnServers

# A node tells of each participant's quality once in so many seconds.
QUALITY_EVERY_S: Final = 5.0
_EXEMPLAR_CHARS: Final = 60
_LOSS: Final = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0)
_RTT: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_JOIN: Final = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
_LONG: Final = (10, 30, 60, 300, 600, 1800, 3600, 7200, 14_400, 28_800)


class Metrics:
    """Names carry the unit; labels are bounded (reasons, sources, kinds; never users or rooms)."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.joins = Counter(
            "headwater_gateway_joins",
            "Joins by outcome: reason is Admitted or why it was refused.",
            ["endpoint", "reason"],
            registry=self.registry,
        )
        self.sessions = Gauge(
            "headwater_gateway_sessions", "Open signalling WebSockets.", registry=self.registry
        )
        self.regions = Counter(
            "headwater_gateway_region_resolutions",
            "How the region of a client was found.",
            ["source"],
            registry=self.registry,
        )
        self.bad_frames = Counter(
            "headwater_gateway_bad_frames",
            "Signalling frames that were not taken, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.slow_clients = Counter(
            "headwater_gateway_slow_clients",
            "Sessions closed because the client did not read.",
            registry=self.registry,
        )
        self.session_errors = Counter(
            "headwater_gateway_session_errors",
            "Sessions that ended with an error of ours.",
            registry=self.registry,
        )
        self._add_edge_metrics()
        self._add_experience()
        self._add_business()
        ProcessCollector(registry=self.registry)

    def watch_certificate(self, expires: Callable[[], float]) -> None:
        """Where gateways reach each other by TLS."""
        Gauge(
            "headwater_gateway_certificate_expiry_timestamp_seconds",
            "When the certificate that other gateways are shown runs out; 0: they do not take it.",
            registry=self.registry,
        ).set_function(expires)

    def _add_edge_metrics(self) -> None:
        self.forwarded = Counter(
            "headwater_gateway_forwarded_sessions",
            "Sessions passed on to the gateway that owns the room, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.join_seconds = Histogram(
            "headwater_gateway_admission_seconds",
            "From the request to the end of admission, in seconds.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0),
            registry=self.registry,
        )

    def _add_experience(self) -> None:
        """Connection success, quality and what users live through."""
        self.connected = Counter(
            "headwater_gateway_participants_connected",
            "Participants whose media connected: the join succeeded for the user.",
            ["region"],
            registry=self.registry,
        )
        self.aborted = Counter(
            "headwater_gateway_participants_aborted",
            "Participants that were admitted and left before their media connected.",
            ["region"],
            registry=self.registry,
        )
        self.media_seconds = Histogram(
            "headwater_gateway_join_to_media_seconds",
            "From admission to connected media, in seconds.",
            ["region"],
            buckets=_JOIN,
            registry=self.registry,
        )
        self.left = Counter(
            "headwater_gateway_participants_left",
            "Participants that left after their media had connected, by the protocol's reason.",
            ["region", "reason"],
            registry=self.registry,
        )
        self.participant_seconds = Counter(
            "headwater_gateway_participant_seconds",
            "Time of connected participants by the quality of their connection, in seconds.",
            ["quality"],
            registry=self.registry,
        )
        self.loss = Histogram(
            "headwater_gateway_loss_ratio",
            "Packet loss of participants, 0 to 1, by direction, each 5 seconds.",
            ["direction"],
            buckets=_LOSS,
            registry=self.registry,
        )
        self.rtt = Histogram(
            "headwater_gateway_rtt_seconds",
            "Round-trip time between participants and their node, each 5 seconds.",
            buckets=_RTT,
            registry=self.registry,
        )
        # Series exist before the first user, so that rates start at 0.
        for quality in ("EXCELLENT", "GOOD", "POOR"):
            self.participant_seconds.labels(quality)

    def _add_business(self) -> None:
        self.rooms_started = Counter(
            "headwater_gateway_rooms_started", "Rooms that were opened.", registry=self.registry
        )
        self.room_seconds = Histogram(
            "headwater_gateway_room_seconds",
            "How long rooms lasted, in seconds.",
            buckets=_LONG,
            registry=self.registry,
        )
        self.session_seconds = Histogram(
            "headwater_gateway_session_seconds",
            "How long participants stayed, in seconds.",
            buckets=_LONG,
            registry=self.registry,
        )
        self.peak = Histogram(
            "headwater_gateway_room_size",
            "Participants in the room when another one connected.",
            buckets=(1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )


class RoomFigures:
    """Counts what rooms tell. Called on the join path and for each event: cheap, never raises."""

    def __init__(self, metrics: Metrics, unix_ms: Callable[[], int]) -> None:
        self._metrics, self._unix_ms = metrics, unix_ms

    def happened(
        self, event: str, row: Callable[[], models.Room], participant: models.ParticipantInfo | None
    ) -> None:
        """What applications are told of, by the webhooks' names."""
        metrics, now_ms = self._metrics, self._unix_ms()
        region = participant.region if participant is not None else ""
        stayed_s = max(0.0, (now_ms - participant.joined_at_ms) / 1000) if participant is not None else 0.0
        match event:
            case "room_started":
                metrics.rooms_started.inc()
            case "room_finished":
                metrics.room_seconds.observe(max(0.0, (now_ms - row().creation_time_ms) / 1000))
            case "participant_joined":
                metrics.connected.labels(region).inc()
                room = row()
                exemplar = {"room": room.name[:_EXEMPLAR_CHARS]}
                metrics.media_seconds.labels(region).observe(stayed_s, exemplar)
                metrics.peak.observe(room.num_participants)
            case "participant_connection_aborted":
                metrics.aborted.labels(region).inc()
            case "participant_left" if participant is not None:
                reason = models.DisconnectReason.Name(participant.disconnect_reason)
                metrics.left.labels(region, reason).inc()
                metrics.session_seconds.observe(stayed_s)
            case _:
                pass

    def quality(self, event: node_pb2.QualityEvent, verdict: models.ConnectionQuality) -> None:
        """One participant's last QUALITY_EVERY_S seconds."""
        metrics = self._metrics
        metrics.participant_seconds.labels(models.ConnectionQuality.Name(verdict)).inc(QUALITY_EVERY_S)
        metrics.loss.labels("uplink").observe(event.uplink_loss)
        metrics.loss.labels("downlink").observe(event.downlink_loss)
        if event.rtt_ms > 0:
            metrics.rtt.observe(event.rtt_ms / 1000)


class PlaneCollector(Collector):
    """Figures of rooms and nodes, counted when Prometheus asks."""

    def __init__(self, directory: "RoomDirectory", turn: "TurnServers") -> None:
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
