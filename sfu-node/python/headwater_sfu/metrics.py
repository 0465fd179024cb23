"""Prometheus metrics of a node: the newest report, turned into families when somebody asks.

Imported on the first scrape only. Counters are the engine's cumulative figures, never reset here.
"""

import heapq
from collections.abc import Callable, Iterable

from headwater_api.nodev1 import node_pb2
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES = (
    ("draining", "1 while the node takes no new transports", "draining"),
    ("cpu_percent", "CPU use, percent of all cores the process may use", "cpu_percent"),
    ("resident_memory_bytes", "Resident memory", "rss_bytes"),
    ("connections", "Transports that are connected", "connections"),
    ("participants", "Participants with a transport here", "participants"),
    ("max_connections", "Connections this node is meant to carry", "max_connections"),
    ("receive_packets_per_second", "Packets received", "rx_pps"),
    ("transmit_packets_per_second", "Packets sent", "tx_pps"),
    ("receive_megabits_per_second", "Received", "rx_mbps"),
    ("transmit_megabits_per_second", "Sent", "tx_mbps"),
    ("queue_fill_percent", "Fullest of the node's bounded queues, 0 to 100", "buffer_percent"),
)
_QUANTILES = (("0.5", "forward_p50_us"), ("0.95", "forward_p95_us"), ("0.99", "forward_p99_us"))
TOP_ROOMS = 10
ROOM_CHARS = 64
_LINK_GAUGES: tuple[tuple[str, str, str, Callable[[Iterable[float]], float]], ...] = (
    ("link_up", "Relay links that pass packets", "up", sum),
    ("link_transmit_megabits_per_second", "Sent over the links", "tx_mbps", sum),
    ("link_receive_megabits_per_second", "Received over the links", "rx_mbps", sum),
    ("link_rtt_milliseconds", "Longest round-trip time of the links", "rtt_ms", max),
    ("link_loss_ratio", "Highest loss of the links, 0 to 1", "loss", max),
    ("link_transmit_tracks", "Tracks now sent over the links", "tx_tracks", sum),
    ("link_receive_tracks", "Tracks now received over the links", "rx_tracks", sum),
)


class ReportCollector(Collector):
    """One scrape of one report."""

    def __init__(
        self,
        report: node_pb2.NodeReport,
        watchers: int,
        lagged: int,
        loop_lag_s: float,
        certificate_expires: float | None = None,
    ) -> None:
        self._certificate_expires = certificate_expires  # None: no TLS
        self._report = report
        self._watchers = watchers
        self._lagged = lagged
        self._loop_lag_s = loop_lag_s

    def collect(self) -> Iterable[Metric]:
        report = self._report
        for name, text, field in _GAUGES:
            yield GaugeMetricFamily(f"headwater_sfu_{name}", text, value=float(getattr(report, field)))
        yield CounterMetricFamily(
            "headwater_sfu_transports_created",
            "Transports made since the process started",
            value=report.transports_created,
        )
        latency = GaugeMetricFamily(
            "headwater_sfu_forward_seconds", "Ingress socket to egress, last second", labels=["quantile"]
        )
        for quantile, field in _QUANTILES:
            latency.add_metric([quantile], getattr(report, field) / 1e6)
        yield latency
        yield GaugeMetricFamily("headwater_sfu_rooms", "Rooms with state here", value=len(report.rooms))
        yield from self._links()
        yield from self._largest_rooms()
        drops = CounterMetricFamily("headwater_sfu_drops", "Packets and datagrams dropped", labels=["reason"])
        for reason, count in sorted(report.drops.items()):
            drops.add_metric([reason], count)
        yield drops
        yield GaugeMetricFamily("headwater_sfu_watchers", "Open Watch streams", value=self._watchers)
        yield CounterMetricFamily(
            "headwater_sfu_watchers_lagged",
            "Watch streams dropped because they fell behind",
            value=self._lagged,
        )
        yield GaugeMetricFamily(
            "headwater_sfu_loop_lag_seconds", "How late the agent's loop runs", value=self._loop_lag_s
        )

        if self._certificate_expires is not None:
            yield GaugeMetricFamily(
                "headwater_sfu_certificate_expiry_timestamp_seconds",
                "When the certificate of the node's gRPC runs out; 0: it has",
                value=self._certificate_expires,
            )

    def _links(self) -> Iterable[Metric]:
        """By peer node, of which there are few; links and rooms there are many."""
        peers: dict[str, list[node_pb2.LinkReport]] = {}
        for link in self._report.links:
            peers.setdefault(link.peer_node_id, []).append(link)
        for name, text, field, combine in _LINK_GAUGES:
            family = GaugeMetricFamily(f"headwater_sfu_{name}", text, labels=["peer"])
            for peer, links in sorted(peers.items()):
                family.add_metric([peer], float(combine(getattr(link, field) for link in links)))
            yield family

    def _largest_rooms(self) -> Iterable[Metric]:
        """The few largest rooms by name, to look into; the others are in the sums."""
        largest = heapq.nlargest(TOP_ROOMS, self._report.rooms, key=lambda r: (r.participants, r.room_id))
        participants = GaugeMetricFamily(
            "headwater_sfu_top_room_participants", f"Participants of the {TOP_ROOMS} largest rooms here",
            labels=["room"],
        )  # fmt: skip
        tracks = GaugeMetricFamily(
            "headwater_sfu_top_room_tracks", f"Tracks published in the {TOP_ROOMS} largest rooms here",
            labels=["room"],
        )  # fmt: skip
        for room in largest:
            participants.add_metric([room.room_id[:ROOM_CHARS]], room.participants)
            tracks.add_metric([room.room_id[:ROOM_CHARS]], room.published_tracks)
        yield participants
        yield tracks


def render_metrics(
    report: node_pb2.NodeReport,
    watchers: int,
    lagged: int,
    loop_lag_s: float,
    certificate_expires: float | None = None,
) -> bytes:
    """The text exposition format (version 0.0.4)."""
    registry = CollectorRegistry()
    registry.register(ReportCollector(report, watchers, lagged, loop_lag_s, certificate_expires))
    return generate_latest(registry)
