"""What a region's load asks for, in nodes: one need for each signal, the largest counts.

Each need is a sum over the nodes divided by what one node should carry, as HorizontalPodAutoscaler's
ceil(replicas * usage / target), so that nodes which are starting or silent count as idle when it raises.
Every need grows with every figure and never falls because another one grew.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from headwater_api.reasons import Reason
from headwater_api.sfucluster import RegionSpec, SFUClusterSpec

from headwater_planner.scale.signals import REQUIRED, NodeSignals, fault_of
from headwater_planner.supply import nodes_text

# Until a node that is ordered now takes participants.
START_ALLOWANCE: Final = timedelta(seconds=60)
# A queue half full means that the node falls behind.
QUEUE_TARGET_PERCENT: Final = 50.0
# Of its limit of connections, from which on a node is full: a participant needs two.
FULL_SHARE: Final = 0.95
# One sick node must not multiply the fleet: its latency counts as at most so many times the target.
MAX_RATIO: Final = 2.0


@dataclass(frozen=True, slots=True)
class Need:
    """`nodes` is not rounded. `counted`: the figure counts what a node can hold, so no tolerance applies."""

    reason: Reason
    nodes: float
    counted: bool
    text: str


@dataclass(frozen=True, slots=True)
class RegionUsage:
    """A region's believable figures and what is wrong with the others.

    `serving`: nodes that may carry load; `faults`: "node: why" for each that cannot be believed.
    `usable` are the figures of all nodes that can, `steady` those of nodes in service (not draining).
    """

    serving: int
    usable: tuple[NodeSignals, ...]
    steady: tuple[NodeSignals, ...]
    joins: float
    faults: tuple[str, ...]


def measure(
    spec: SFUClusterSpec,
    signals: Mapping[str, NodeSignals],
    joins: Mapping[str, float],
    *,
    in_service: Sequence[str],
    leaving: Iterable[str] = (),
    lost: Iterable[str] = (),
) -> RegionUsage:
    """The usage of one region's nodes. `leaving` ones still carry load; `lost` ones carry an unknown one."""
    required = required_figures(spec)
    usable: list[NodeSignals] = []
    steady: list[NodeSignals] = []
    faults = [f"{name}: is lost" for name in lost]
    names = list(in_service)
    for name in (*names, *leaving):
        node = signals.get(name)
        fault = fault_of(node, required)
        if node is None or fault:
            faults.append(f"{name}: {fault}")
            continue
        usable.append(node)
        if name in in_service:
            steady.append(node)
    region_joins = sum(joins.get(name, 0.0) for name in names)
    return RegionUsage(len(names), tuple(usable), tuple(steady), region_joins, tuple(faults))


def required_figures(spec: SFUClusterSpec) -> tuple[str, ...]:
    """The figures without which a node's load is not known."""
    capacity = spec.node.capacity
    extra = [
        *(["egress_mbps"] if capacity.egress_mbps else []),
        *(["packets_per_second"] if capacity.packets_per_second else []),
    ]
    return (*REQUIRED, *extra)


def connections_per_node(spec: SFUClusterSpec) -> int:
    """What one node should carry: never more than placement allows it."""
    return min(spec.autoscaling.targets.connections_per_node, spec.node.capacity.connections)


def nodes_for_connections(spec: SFUClusterSpec, connections: float) -> float:
    """Nodes for so many connections with the spare capacity of bufferPercent, not rounded."""
    return connections * (1 + spec.autoscaling.targets.buffer_percent / 100) / connections_per_node(spec)


def needs_of(
    spec: SFUClusterSpec, region: RegionSpec, usage: RegionUsage, expected: float = 0.0
) -> tuple[Need, ...]:
    """Every signal's need. `expected`: connections of announced participants who are not here yet."""
    return (
        _fullness(spec, region, usage),
        _connections(spec, usage, expected),
        _cpu(spec, usage),
        *_capacities(spec, usage),
        _latency(spec, usage),
        _queues(usage),
    )


def ceil_nodes(value: float) -> int:
    """Whole nodes, without the noise of floating-point sums."""
    return math.ceil(value - 1e-9)


def _connections(spec: SFUClusterSpec, usage: RegionUsage, expected: float) -> Need:
    now = sum(node.connections or 0.0 for node in usage.usable)
    parts = [f"{now:,.0f} connections"]
    if usage.joins:
        parts.append(f"{usage.joins:,.0f} opened since the last sample")
    if expected:
        parts.append(f"{expected:,.0f} of participants expected at meetings")
    nodes = nodes_for_connections(spec, now + usage.joins + expected)
    text = _size_text(" and ".join(parts), nodes, connections_per_node(spec), spec)
    return Need(Reason.CONNECTIONS_ABOVE_TARGET, nodes, True, text)


def _fullness(spec: SFUClusterSpec, region: RegionSpec, usage: RegionUsage) -> Need:
    """Full nodes hide how many more want to join: as many again, so that a crowd is met by doubling."""
    limit = spec.node.capacity.connections
    count = len(usage.steady)
    is_full = count > 0 and all((node.connections or 0.0) >= FULL_SHARE * limit for node in usage.steady)
    text = f"all of {nodes_text(count)} carry their limit of {limit:,} connections"
    nodes = float(min(2 * count, region.max_nodes)) if is_full else 0.0
    return Need(Reason.CAPACITY_EXHAUSTED, nodes, True, text)


def _cpu(spec: SFUClusterSpec, usage: RegionUsage) -> Need:
    target = spec.autoscaling.targets.cpu_percent
    used = sum(node.cpu_percent or 0.0 for node in usage.usable)
    mean = used / len(usage.usable) if usage.usable else 0.0
    text = f"CPU is {mean:.0f} % on average over {nodes_text(len(usage.usable))}, its target is {target} %"
    return Need(Reason.CPU_ABOVE_TARGET, used / target, False, text)


def _capacities(spec: SFUClusterSpec, usage: RegionUsage) -> list[Need]:
    capacity, spare = spec.node.capacity, 1 + spec.autoscaling.targets.buffer_percent / 100
    needs = []
    if capacity.egress_mbps:
        sent = sum(node.egress_mbps or 0.0 for node in usage.usable)
        nodes = sent * spare / capacity.egress_mbps
        text = _size_text(f"{sent:,.0f} Mbit/s of egress", nodes, capacity.egress_mbps, spec)
        needs.append(Need(Reason.EGRESS_ABOVE_CAPACITY, nodes, True, text))
    if capacity.packets_per_second:
        packets = sum(node.packets_per_second or 0.0 for node in usage.usable)
        nodes = packets * spare / capacity.packets_per_second
        text = _size_text(f"{packets:,.0f} packets/s", nodes, capacity.packets_per_second, spec)
        needs.append(Need(Reason.PACKETS_ABOVE_CAPACITY, nodes, True, text))
    return needs


def _latency(spec: SFUClusterSpec, usage: RegionUsage) -> Need:
    target = float(spec.autoscaling.targets.p95_latency_ms)
    values = [node.p95_ms or 0.0 for node in usage.steady]
    mean, nodes = _strain(values, target)
    over = nodes_text(len(values))
    text = f"P95 latency is {mean:.1f} ms on average over {over}, its target is {target:.0f} ms"
    return Need(Reason.LATENCY_ABOVE_TARGET, nodes, False, text)


def _queues(usage: RegionUsage) -> Need:
    target = QUEUE_TARGET_PERCENT
    values = [node.queue_percent or 0.0 for node in usage.steady]
    mean, nodes = _strain(values, target)
    over = nodes_text(len(values))
    text = f"queues are {mean:.0f} % full on average over {over}, their target is {target:.0f} %"
    return Need(Reason.QUEUES_ABOVE_TARGET, nodes, False, text)


def _size_text(what: str, nodes: float, per_node: int, spec: SFUClusterSpec) -> str:
    needed, spare = nodes_text(ceil_nodes(nodes)), spec.autoscaling.targets.buffer_percent
    return f"{what} need {needed} at {per_node:,} a node with {spare} % to spare"


def _strain(values: Sequence[float], target: float) -> tuple[float, float]:
    """The mean, and the nodes it asks for.

    Latency and queues do not grow in proportion to load: below half the target they ask for nothing, up to
    the target for the nodes there are, above it for more in proportion.
    """
    if not values:
        return 0.0, 0.0
    mean = sum(values) / len(values)
    ratio = sum(min(value / target, MAX_RATIO) for value in values) / len(values)
    if ratio < 0.5:
        return mean, 0.0
    return mean, len(values) * max(1.0, ratio)
