"""Every metric of the operator, declared once. Labels are bounded: no room or participant names."""

import contextlib
from collections.abc import Mapping
from typing import Final, Protocol

from headwater_api.reasons import Reason
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

NODE_STATES: Final = ("desired", "ready", "starting", "lost")
TURN_STATES: Final = ("desired", "ready", "draining")


class _Forecast(Protocol):
    @property
    def nodes(self) -> float | None: ...

    @property
    def error(self) -> float: ...


class Decision(Protocol):
    """A region's number and why, as the planner has it: this module stands below the planner's users."""

    @property
    def region(self) -> str: ...

    @property
    def from_nodes(self) -> int: ...

    @property
    def to_nodes(self) -> int: ...

    @property
    def wanted(self) -> int: ...

    @property
    def load_nodes(self) -> float | None: ...

    @property
    def reason(self) -> Reason: ...

    @property
    def forecast(self) -> _Forecast | None: ...


class Metrics:
    """Instruments on their own registry, so that two operators in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leader = Gauge(
            "headwater_operator_leader", "1 while this replica holds the Lease", registry=self.registry
        )
        self.reconciles = Histogram(
            "headwater_operator_reconcile_seconds",
            "Duration of one reconcile",
            ["kind", "outcome"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
            registry=self.registry,
        )
        self.queue_length = Gauge(
            "headwater_operator_queue_length",
            "Keys that wait to be reconciled",
            ["kind"],
            registry=self.registry,
        )
        self.actions = Counter(
            "headwater_operator_actions_total",
            "Actions carried out, by kind of action, reason and outcome",
            ["action", "reason", "outcome"],
            registry=self.registry,
        )
        self.status_writes = Counter(
            "headwater_operator_status_writes_total",
            "Status writes",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.events = Counter(
            "headwater_operator_events_total",
            "Kubernetes Events, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self.nodes = Gauge(
            "headwater_sfu_nodes",
            "SFU nodes by cluster, region and state",
            ["namespace", "cluster", "region", "state"],
            registry=self.registry,
        )
        self.participants = Gauge(
            "headwater_fleet_participants",
            "Participants by cluster and region, as the nodes report them",
            ["namespace", "cluster", "region"],
            registry=self.registry,
        )
        self.turn_nodes = Gauge(
            "headwater_turn_nodes",
            "TURN nodes by cluster, region and state",
            ["namespace", "cluster", "region", "state"],
            registry=self.registry,
        )
        self.node_streams = Gauge(
            "headwater_operator_node_streams", "Report streams that are up", registry=self.registry
        )
        self.node_reports = Counter(
            "headwater_operator_node_reports_total",
            "Node reports, by outcome",
            ["outcome"],
            registry=self.registry,
        )

        self._add_scaling()
        ProcessCollector(registry=self.registry)

    def _add_scaling(self) -> None:
        where = ["namespace", "cluster", "region"]
        self.load_nodes = Gauge(
            "headwater_scale_load_nodes",
            "Nodes that load alone asks for, not rounded",
            where,
            registry=self.registry,
        )
        self.wanted_nodes = Gauge(
            "headwater_scale_wanted_nodes",
            "Nodes wanted before windows, policies and limits",
            where,
            registry=self.registry,
        )
        self.scale_reason = Gauge(
            "headwater_scale_reason",
            "1 for the reason of the region's number",
            [*where, "reason"],
            registry=self.registry,
        )
        self.scale_changes = Counter(
            "headwater_scale_changes_total",
            "Changes of a region's number",
            [*where, "direction"],
            registry=self.registry,
        )
        self.forecast_nodes = Gauge(
            "headwater_scale_forecast_nodes",
            "Nodes that the forecast asks for, the peak within its horizon",
            where,
            registry=self.registry,
        )
        self.forecast_error = Gauge(
            "headwater_scale_forecast_error_nodes",
            "Mean absolute error of the forecasts over the last season, in nodes",
            where,
            registry=self.registry,
        )
        self._reasons: dict[tuple[str, str, str], str] = {}

    def set_scale(self, namespace: str, cluster: str, decision: Decision, *, is_new: bool) -> None:
        """Why a region has its number."""
        where = (namespace, cluster, decision.region)
        if decision.load_nodes is not None:
            self.load_nodes.labels(*where).set(decision.load_nodes)
        self.wanted_nodes.labels(*where).set(decision.wanted)
        before, reason = self._reasons.get(where), decision.reason.value
        if before not in (None, reason):
            self.scale_reason.remove(*where, before)
        self._reasons[where] = reason
        self.scale_reason.labels(*where, reason).set(1)
        if decision.forecast is not None and decision.forecast.nodes is not None:
            self.forecast_nodes.labels(*where).set(decision.forecast.nodes)
            self.forecast_error.labels(*where).set(decision.forecast.error)
        if is_new and decision.to_nodes != decision.from_nodes:
            direction = "up" if decision.to_nodes > decision.from_nodes else "down"
            self.scale_changes.labels(*where, direction).inc()

    def set_region(
        self, namespace: str, cluster: str, region: str, nodes: dict[str, int], participants: int
    ) -> None:
        """The figures of one region."""
        for state, count in nodes.items():
            self.nodes.labels(namespace, cluster, region, state).set(count)
        self.participants.labels(namespace, cluster, region).set(participants)

    def set_turn(self, namespace: str, cluster: str, regions: Mapping[str, Mapping[str, float]]) -> None:
        """The figures of a fleet's TURN nodes, by region and state."""
        for region, counts in regions.items():
            for state in TURN_STATES:
                self.turn_nodes.labels(namespace, cluster, region, state).set(counts.get(state, 0))

    def drop_region(self, namespace: str, cluster: str, region: str) -> None:
        """The region's fleet is gone: its series must not go on with its last values."""
        for state in NODE_STATES:
            self.nodes.remove(namespace, cluster, region, state)
        self.participants.remove(namespace, cluster, region)
        where = (namespace, cluster, region)
        for gauge in (self.load_nodes, self.wanted_nodes, self.forecast_nodes, self.forecast_error):
            with contextlib.suppress(KeyError):
                gauge.remove(*where)
        if (reason := self._reasons.pop(where, None)) is not None:
            self.scale_reason.remove(*where, reason)
        for state in TURN_STATES:
            with contextlib.suppress(KeyError):  # a fleet without TURN nodes has none
                self.turn_nodes.remove(namespace, cluster, region, state)
