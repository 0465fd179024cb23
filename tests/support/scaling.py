"""Passes of `plan_scale` over worlds whose figures a test sets."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from headwater_api.meeting import Meeting
from headwater_api.sfucluster import SFUCluster
from headwater_planner.scale.plan import plan_scale
from headwater_planner.scale.result import RegionDecision, ScalePlan, ScaleState
from headwater_planner.scale.signals import NodeSignals
from headwater_planner.world import NodeLoad
from support.fleet import NOW, a_cluster, a_load, a_pod, a_world

REGIONS = {"eu": (50.1, 8.7), "us": (39.0, -77.5), "ap": (1.35, 103.8)}
IDLE = NodeSignals(0.5, cpu_percent=1.0, connections=0.0, p95_ms=0.3, egress_mbps=0.0, packets_per_second=0.0)


def an_autoscaled(
    regions: Mapping[str, tuple[int, int]] | None = None, *, autoscaling: Any = None, **spec: Any
) -> SFUCluster:
    """A fleet that scales; regions at real places, so that `nearest` means something."""
    bounds = regions or {"eu": (1, 10)}
    cluster = a_cluster(dict(bounds), autoscaling={"mode": "Automatic", **(autoscaling or {})}, **spec)
    body = cluster.to_kubernetes()
    for region in body["spec"]["regions"]:
        latitude, longitude = REGIONS[region["name"]]
        region["coordinates"] = {"latitude": latitude, "longitude": longitude}
    return SFUCluster.from_kubernetes(body)


def busy(**figures: float | None) -> NodeSignals:
    """A node's figures; those not named are idle."""
    return NodeSignals(
        **{name: figures.get(name, getattr(IDLE, name)) for name in NodeSignals.__dataclass_fields__}
    )


@dataclass
class Passes:
    """A fleet under plan_scale: call `step` with each node's figures by region."""

    cluster: SFUCluster
    now: datetime = NOW
    seed: int = 1
    state: ScaleState = field(default_factory=ScaleState)
    plan: ScalePlan | None = None

    def step(
        self,
        nodes: Mapping[str, Iterable[NodeSignals | None]],
        *,
        meetings: Iterable[Meeting] = (),
        after_s: float = 5.0,
        loads: Mapping[str, NodeLoad] | None = None,
        **world: Any,
    ) -> ScalePlan:
        """One pass `after_s` later. None: that ready node is silent."""
        if self.plan is not None:
            self.now += timedelta(seconds=after_s)
        pods, signals, told = [], {}, {}
        for region, figures in nodes.items():
            for number, figure in enumerate(figures):
                name = f"{region}-{number}"
                pods.append(a_pod(name, region))
                told[name] = a_load(name, region)
                if figure is not None:
                    signals[name] = figure
        known = a_world(self.cluster, pods, (loads or told).values(), **world)
        self.plan = plan_scale(known, signals, tuple(meetings), self.state, self.now, seed=self.seed)
        self.state = self.plan.state
        return self.plan

    def hold(self, nodes: Mapping[str, Iterable[NodeSignals | None]], *, for_s: float) -> ScalePlan:
        """Passes with the same figures for so long."""
        figures = {region: list(values) for region, values in nodes.items()}
        for _ in range(math.ceil(for_s / 5)):
            self.step(figures)
        assert self.plan is not None
        return self.plan

    def decision(self, region: str = "eu") -> RegionDecision:
        """The last pass's decision for the region."""
        assert self.plan is not None
        return next(decision for decision in self.plan.decisions if decision.region == region)
