"""A node's figures for scaling, and which of them can be believed.

A figure that is missing, stale, not a number, negative or absurd is never read as "no load": the region's
believable figures may still raise the number of nodes, but nothing lowers it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headwater_planner.world import NodeLoad

STALE_S: Final = 30.0
# Above these a figure is a fault of the source, not load.
_LIMITS: Final[Mapping[str, float]] = {
    "cpu_percent": 200.0,  # of all cores; a little above 100 is noise of measuring
    "connections": 200_000.0,
    "p95_ms": 60_000.0,
    "egress_mbps": 1_000_000.0,
    "packets_per_second": 1e9,
    "queue_percent": 200.0,
    "transports_created": 2.0**53,
}
# Without these nothing can be said about a node; the others are used where the source has them.
REQUIRED: Final = ("cpu_percent", "connections", "p95_ms")


@dataclass(frozen=True, slots=True)
class NodeSignals:
    """One node's figures, `age_s` seconds old. None: the source does not have this figure."""

    age_s: float
    cpu_percent: float | None = None  # of all cores that the process may use
    connections: float | None = None  # transports
    p95_ms: float | None = None  # ingress socket to egress
    egress_mbps: float | None = None
    packets_per_second: float | None = None  # sent
    queue_percent: float | None = None  # fullest of the node's bounded queues
    transports_created: float | None = None  # cumulative since the process started


def signals_of_load(load: NodeLoad) -> NodeSignals:
    """The figures of a node's own report. A participant without a connected transport counts as one."""
    return NodeSignals(
        age_s=load.age_s,
        cpu_percent=load.cpu_percent,
        connections=max(load.connections, load.participants),
        p95_ms=load.p95_ms,
        egress_mbps=load.egress_mbps,
        packets_per_second=load.packets_per_second,
        queue_percent=load.queue_percent,
        transports_created=load.transports_created,
    )


def signals_of_reports(loads: Mapping[str, NodeLoad]) -> dict[str, NodeSignals]:
    """Signals by node name from the nodes' own reports (metricsSource NodeReports)."""
    return {name: signals_of_load(load) for name, load in loads.items()}


def fault_of(signals: NodeSignals | None, required: tuple[str, ...] = REQUIRED) -> str:
    """Why the node's figures cannot be believed, in words; empty where they can."""
    if signals is None:
        return "sends no figures"
    if not 0 <= signals.age_s <= STALE_S:  # also when the age is NaN
        age = "of an unknown time" if not math.isfinite(signals.age_s) else f"{signals.age_s:.0f} s old"
        return f"has figures {age}"
    for name, limit in _LIMITS.items():
        value: float | None = getattr(signals, name)
        if value is None:
            if name in required:
                return f"has no {_WORDS[name]}"
        elif not 0 <= value <= limit:
            return f"says {_WORDS[name]} {value:g}"
    return ""


_WORDS: Final[Mapping[str, str]] = {
    "cpu_percent": "CPU percent",
    "connections": "connections",
    "p95_ms": "P95 latency",
    "egress_mbps": "egress Mbit/s",
    "packets_per_second": "packets/s",
    "queue_percent": "queue percent",
    "transports_created": "transports created",
}


def joins_since(
    signals: Mapping[str, NodeSignals], before: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Transports made since the last sample, by node, and the counters to remember.

    A counter that went back belongs to a new process and is counted from zero; a node seen for the first
    time has no joins yet. Nodes without a believable counter keep what was known of them.
    """
    joins: dict[str, float] = {}
    counters: dict[str, float] = {}
    for name, node in signals.items():
        known = before.get(name)
        value = node.transports_created
        if value is None or fault_of(node, ()):
            if known is not None:
                counters[name] = known
            continue
        counters[name] = value
        if known is not None:
            joins[name] = value - known if value >= known else value
    return joins, counters
