"""Every metric of a TURN node, from its status, when Prometheus asks."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater_turn.desired import Status
from headwater_turn.usage import Usage


class TurnCollector(Collector):
    """One scrape. Labels are bounded: directions and STUN error codes."""

    def __init__(self, status: Callable[[], Status], usage: Usage, counts: Mapping[str, int]) -> None:
        self._status, self._usage, self._counts = status, usage, counts

    def collect(self) -> Iterable[Metric]:
        status, usage = self._status(), self._usage
        gauges = (
            ("ready", "1 while clients are sent here", float(status.ready)),
            ("draining", "1 while no client is sent here any more", float(status.draining)),
            ("allocations", "Allocations that live now", status.allocations),
            ("egress_megabits_per_second", "Sent to clients and SFU nodes, Mbit/s", status.mbps),
            ("peers", "SFU nodes that relayed packets may reach", status.peers),
            ("shared_secrets", "Shared secrets that are accepted", len(status.accepted)),
            ("packet_filter", "1 while the kernel's packet filter is set", float(status.packet_filter)),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"headwater_turn_{name}", text, value=value)
        if status.certificate_expires is not None:
            yield GaugeMetricFamily(
                "headwater_turn_certificate_expiry_timestamp_seconds",
                "When the TLS certificate expires, Unix seconds",
                value=status.certificate_expires,
            )
        yield CounterMetricFamily(
            "headwater_turn_allocations_made", "Allocations since the start", value=usage.allocations_total
        )
        relayed = CounterMetricFamily(
            "headwater_turn_relayed_bytes", "Received and sent, by side", labels=["side"]
        )
        relayed.add_metric(["client"], usage.client_bytes)
        relayed.add_metric(["peer"], usage.peer_bytes)
        yield relayed
        errors = CounterMetricFamily(
            "headwater_turn_errors", "Error answers by STUN error code (401 is part of every start)",
            labels=["code"],
        )  # fmt: skip
        for code, count in sorted(usage.errors.items()):
            errors.add_metric([code], count)
        yield errors
        renewals = CounterMetricFamily(
            "headwater_turn_renewals",
            "Secrets, certificates and peers taken over while running",
            labels=["what"],
        )
        for what, count in self._counts.items():
            renewals.add_metric([what], count)
        yield renewals
        version = GaugeMetricFamily("headwater_turn_info", "coturn's version", labels=["version"])
        version.add_metric([status.version], 1)
        yield version


def registry_of(collector: TurnCollector) -> CollectorRegistry:
    """A registry of its own, so that two nodes in one process do not collide."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry
