"""SFUCluster.status from what was seen and what is planned: conditions, figures, printer columns.

Figures are rounded, so that a status is written when something changed and not each second.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headwater_api import sfucluster as api
from headwater_api.conditions import Condition, Status, is_true, set_condition
from headwater_api.reasons import Reason
from headwater_api.sfucluster import RegionSpec, RegionStatus, ScaleDecision, SFUClusterStatus
from headwater_api.wellknown import COMPONENT_SFU, LABEL_CLUSTER, LABEL_COMPONENT

from headwater_planner.exposure import reach
from headwater_planner.heal import assess
from headwater_planner.pods import RegionPods, is_draining, sort_pods
from headwater_planner.reached import judge_reach
from headwater_planner.scale.forecast import Forecast
from headwater_planner.scale.result import ScalePlan
from headwater_planner.supply import Action, GuardNode, Plan
from headwater_planner.world import ClusterWorld, NodeLoad, PodView

REGION_LABEL: Final = "topology.kubernetes.io/region"
CPU_STEP: Final = 5  # percent
P95_STEP_MS: Final = 0.5
# A Pod that is Ready but has said nothing for so long is worth a complaint.
REPORT_GRACE_S: Final = 10.0
_MESSAGE_LIMIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without its times."""

    type: str
    status: bool | None
    reason: Reason
    message: str


def selector_of(region: RegionSpec) -> dict[str, str]:
    """The labels that a Kubernetes node of the region carries."""
    return dict(region.node_selector) or {REGION_LABEL: region.name}


def scale_selector(cluster: str) -> str:
    """The label selector of a fleet's Pods, for the scale subresource."""
    return f"{LABEL_COMPONENT}={COMPONENT_SFU},{LABEL_CLUSTER}={cluster}"


def status_of_cluster(world: ClusterWorld, plan: Plan, scale: ScalePlan, now: datetime) -> SFUClusterStatus:
    """The whole status, built upon the old one's condition times."""
    cluster = world.cluster
    health = assess(world, now)
    pods = {name: sort_pods(world, name, health) for name in _region_names(world)}
    forecasts = {decision.region: decision.forecast for decision in scale.decisions}
    regions = tuple(_region_status(world, name, pods[name], plan, forecasts.get(name)) for name in pods)
    short = _capacity_gaps(world, pods)
    faults = _faults(world, pods, plan, now)
    verdicts = (
        _ready(regions, short),
        _progressing(world, pods, plan),
        _degraded([*short.values(), *faults]),
        _capacity(world, pods, short),
        Verdict(api.SCALING_ACTIVE, scale.active.status, scale.active.reason, scale.active.text),
        Verdict(api.SCALING_LIMITED, scale.limited.status, scale.limited.reason, scale.limited.text),
        *_reachable(world, pods),
    )
    return SFUClusterStatus(
        observed_generation=cluster.metadata.generation,
        conditions=_conditions(cluster.status.conditions, verdicts, cluster.metadata.generation, now),
        regions=regions,
        last_scale=_last_scale(cluster.status, scale, now),
        upgrade=plan.upgrade,
        replicas=sum(not pod.dead for pod in world.pods),
        selector=scale_selector(cluster.metadata.name),
        nodes=f"{sum(region.ready for region in regions)}/{sum(region.desired for region in regions)}",
        rooms=len({room.room for load in _loads(world) for room in load.rooms}),
        participants=sum(region.participants for region in regions),
        region_summary=", ".join(f"{region.name} {region.ready}/{region.desired}" for region in regions)[
            :2048
        ],
    )


def invalid_status(
    old: SFUClusterStatus, *, reason: Reason, message: str, generation: int, now: datetime
) -> SFUClusterStatus:
    """The old figures with Ready=False and why: for a fleet that cannot be worked on."""
    verdicts = (
        Verdict(api.READY, False, reason, message),
        Verdict(api.DEGRADED, True, reason, message),
    )
    return old.model_copy(update={"conditions": _conditions(old.conditions, verdicts, generation, now)})


def _conditions(
    old: Sequence[Condition], verdicts: Iterable[Verdict], generation: int, now: datetime
) -> tuple[Condition, ...]:
    conditions = tuple(old)
    for verdict in verdicts:
        condition = Condition(
            type=verdict.type,
            status=Status.of(verdict.status),
            reason=verdict.reason.value,
            message=verdict.message[:_MESSAGE_LIMIT],
            observed_generation=generation,
        )
        conditions = set_condition(conditions, condition, now)
    return conditions


def _region_names(world: ClusterWorld) -> list[str]:
    """Those of the spec, and those that Pods are left in."""
    return sorted({region.name for region in world.cluster.spec.regions} | {pod.region for pod in world.pods})


def _loads(world: ClusterWorld) -> list[NodeLoad]:
    """The last reports of Pods that exist: an old one is the best guess at now."""
    return [load for pod in world.pods if not pod.dead and (load := world.load(pod)) is not None]


def _region_status(
    world: ClusterWorld, name: str, pods: RegionPods, plan: Plan, forecast: Forecast | None
) -> RegionStatus:
    loads = [load for load in _loads(world) if load.region == name]
    fresh = [load for load in loads if load.fresh]
    draining = sum(1 for pod in pods.alive if (load := world.load(pod)) is not None and load.draining)
    cpu = _believable(load.cpu_percent for load in fresh)
    p95_ms = _believable(load.p95_ms for load in fresh)
    return RegionStatus(
        name=name,
        desired=plan.desired.get(name, 0),
        ready=len(pods.ready),
        draining=draining + len(pods.terminating),
        participants=sum(load.participants for load in loads),
        rooms=len({room.room for load in loads for room in load.rooms}),
        cpu_percent=round(sum(cpu) / len(cpu) / CPU_STEP) * CPU_STEP if cpu else None,
        p95_latency_ms=round(max(p95_ms) / P95_STEP_MS) * P95_STEP_MS if p95_ms else None,
        forecast_nodes=None if forecast is None or forecast.nodes is None else math.ceil(forecast.nodes),
    )


def _believable(figures: Iterable[float]) -> list[float]:
    """Without those that no node can have: one node's nonsense is not the fleet's."""
    return [figure for figure in figures if math.isfinite(figure) and figure >= 0]


def _capacity_gaps(world: ClusterWorld, pods: dict[str, RegionPods]) -> dict[str, Verdict]:
    """By region: why its nodes have no place to run."""
    gaps: dict[str, Verdict] = {}
    for region in world.cluster.spec.regions:
        selector = selector_of(region)
        labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        matching = [
            node
            for node in world.kube_nodes or ()
            if all(node.labels.get(k) == v for k, v in selector.items())
        ]
        waiting = [pod for pod in pods[region.name].starting if pod.unschedulable]
        if world.kube_nodes is not None and not matching and region.min_nodes > 0:
            text = f"region {region.name}: no Kubernetes node carries the labels {labels}"
            gaps[region.name] = Verdict(region.name, False, Reason.NO_NODE_MATCHES_REGION, text)
        elif waiting:
            text = (
                f"region {region.name}: {len(waiting)} Pods cannot be scheduled on nodes with {labels}: "
                f"{waiting[0].unschedulable}"
            )
            gaps[region.name] = Verdict(region.name, False, Reason.PODS_UNSCHEDULABLE, text)
    return gaps


_TROUBLES: Final = {
    "ErrImagePull": Reason.IMAGE_UNAVAILABLE,
    "ImagePullBackOff": Reason.IMAGE_UNAVAILABLE,
    "InvalidImageName": Reason.IMAGE_UNAVAILABLE,
    "ErrImageNeverPull": Reason.IMAGE_UNAVAILABLE,
    # The Secret with the nodes' token is the only thing that a node's container takes from elsewhere.
    "CreateContainerConfigError": Reason.NODE_TOKEN_MISSING,
}


def _faults(world: ClusterWorld, pods: dict[str, RegionPods], plan: Plan, now: datetime) -> list[Verdict]:
    """What is wrong beside missing capacity, worst first."""
    faults = [Verdict(api.DEGRADED, True, held.reason, held.text) for held in plan.held]
    for name, region in pods.items():
        for pod in region.starting:
            if pod.trouble:
                text = f"region {name}: {pod.name}: {pod.trouble_message or pod.trouble}"
                faults.append(
                    Verdict(api.DEGRADED, True, _TROUBLES.get(pod.trouble, Reason.NODES_UNREADY), text)
                )
        hidden = [pod for pod in region.starting if pod.ready and _waits_long(pod, now)]
        if hidden:
            why = reach(world, hidden[0]).missing
            text = f"region {name}: clients cannot reach {_names(hidden)}: {why}"
            faults.append(Verdict(api.DEGRADED, True, Reason.NODE_NOT_EXPOSED, text))
        if region.dead:
            text = f"region {name}: {_names(region.dead)} ended: {region.dead[0].ended or 'no reason known'}"
            faults.append(Verdict(api.DEGRADED, True, Reason.NODE_FAILED, text))
        if region.lost:
            text = f"region {name}: {_names(region.lost)} is not ready and silent"
            faults.append(Verdict(api.DEGRADED, True, Reason.NODE_UNHEALTHY, text))
        silent = [pod for pod in region.ready if _silent(world, pod, now)]
        if silent:
            text = f"region {name}: {_names(silent)} is ready but sends no report: its load is unknown"
            faults.append(Verdict(api.DEGRADED, True, Reason.NODE_REPORTS_MISSING, text))
    return faults


def _silent(world: ClusterWorld, pod: PodView, now: datetime) -> bool:
    since = pod.ready_changed_at or pod.created_at
    return world.fresh_load(pod) is None and (now - since).total_seconds() >= REPORT_GRACE_S


def _waits_long(pod: PodView, now: datetime) -> bool:
    since = pod.ready_changed_at or pod.created_at
    return pod.awaits_address and (now - since).total_seconds() >= REPORT_GRACE_S


def _names(pods: Sequence[PodView]) -> str:
    shown = ", ".join(pod.name for pod in pods[:3])
    return shown if len(pods) <= 3 else f"{shown} and {len(pods) - 3} more"


def _ready(regions: Sequence[RegionStatus], short: dict[str, Verdict]) -> Verdict:
    behind = [region for region in regions if region.ready < region.desired]
    ready, desired = sum(region.ready for region in regions), sum(region.desired for region in regions)
    if not behind:
        text = f"{ready} of {desired} wanted nodes are ready in {len(regions)} regions"
        return Verdict(api.READY, True, Reason.ALL_NODES_READY, text)
    text = "; ".join(
        f"region {region.name}: {region.ready} of {region.desired} nodes ready" for region in behind
    )
    first = next((short[region.name] for region in behind if region.name in short), None)
    if first is None:
        return Verdict(api.READY, False, Reason.NODES_MISSING, text)
    return Verdict(api.READY, False, first.reason, f"{text} ({first.message})")


def _progressing(world: ClusterWorld, pods: dict[str, RegionPods], plan: Plan) -> Verdict:
    upgrade = plan.upgrade
    if upgrade is not None:
        reason = Reason.UPGRADE_HALTED if upgrade.phase == "Halted" else Reason.UPGRADING
        text = f"upgrade to {upgrade.template}: {upgrade.message}"
        return Verdict(api.PROGRESSING, upgrade.phase != "Halted", reason, text)
    actions = [action for action in plan.actions if not isinstance(action, GuardNode)]
    if actions:
        reasons = {action.reason for action in actions}
        why = Reason.NODES_REPLACING if reasons & {Reason.NODE_REPLACED, Reason.NODE_FAILED} else None
        return Verdict(api.PROGRESSING, True, why or actions[0].reason, _count_actions(actions))
    draining = [
        pod.name for region in pods.values() for pod in region.alive if is_draining(world.fresh_load(pod))
    ]
    starting = sum(pod.name not in draining for region in pods.values() for pod in region.starting)
    going = sum(len(region.terminating) for region in pods.values())
    if draining:
        text = f"{len(draining)} nodes are draining: {', '.join(draining[:3])}"
        return Verdict(api.PROGRESSING, True, Reason.DRAIN_STARTED, text)
    if starting:
        return Verdict(api.PROGRESSING, True, Reason.NODES_STARTING, f"{starting} nodes are starting")
    if going:
        return Verdict(api.PROGRESSING, True, Reason.SCALED_DOWN, f"{going} nodes are going away")
    return Verdict(api.PROGRESSING, False, Reason.UP_TO_DATE, "the fleet is as wanted")


def _count_actions(actions: Sequence[Action]) -> str:
    counts: dict[str, int] = {}
    for action in actions:
        verb = str(action).split(" ", 1)[0].lower()
        counts[verb] = counts.get(verb, 0) + 1
    return "SFU nodes to " + ", ".join(f"{verb}: {count}" for verb, count in counts.items())


def _degraded(problems: Sequence[Verdict]) -> Verdict:
    if not problems:
        return Verdict(api.DEGRADED, False, Reason.AS_EXPECTED, "nothing is wrong")
    return Verdict(api.DEGRADED, True, problems[0].reason, "; ".join(problem.message for problem in problems))


def _capacity(world: ClusterWorld, pods: dict[str, RegionPods], short: dict[str, Verdict]) -> Verdict:
    if short:
        first = next(iter(short.values()))
        text = "; ".join(verdict.message for verdict in short.values())
        return Verdict(api.CAPACITY_AVAILABLE, False, first.reason, text)
    for name, region in pods.items():
        loads = [world.fresh_load(pod) for pod in region.ready]
        known = [load for load in loads if load is not None]
        if known and len(known) == len(loads) and all(_full(load) for load in known):
            text = f"region {name}: all {len(known)} nodes carry their limit of connections"
            return Verdict(api.CAPACITY_AVAILABLE, False, Reason.CAPACITY_EXHAUSTED, text)
    if not any(region.ready for region in pods.values()):
        return Verdict(api.CAPACITY_AVAILABLE, None, Reason.CAPACITY_UNKNOWN, "no node is ready yet")
    return Verdict(
        api.CAPACITY_AVAILABLE, True, Reason.CAPACITY_FREE, "every region has a place to run its nodes"
    )


def _reachable(world: ClusterWorld, pods: dict[str, RegionPods]) -> list[Verdict]:
    """Empty: nothing new is known, and what was good stays so while nobody is there."""
    told = judge_reach(world, [pod for region in pods.values() for pod in region.ready])
    if told.status is None and is_true(world.cluster.status.conditions, api.ADDRESS_REACHABLE):
        return []
    return [Verdict(api.ADDRESS_REACHABLE, told.status, told.reason, told.text)]


def _full(load: NodeLoad) -> bool:
    return load.max_connections > 0 and load.connections >= load.max_connections


def _last_scale(old: SFUClusterStatus, scale: ScalePlan, now: datetime) -> ScaleDecision | None:
    """The last change of a wanted number, or the old one's record."""
    before = {region.name: region.desired for region in old.regions}
    for decision in scale.decisions:
        if decision.changed and before.get(decision.region) != decision.to_nodes:
            return ScaleDecision(
                time=now.replace(microsecond=0),
                region=decision.region,
                from_nodes=decision.from_nodes,
                to_nodes=decision.to_nodes,
                reason=decision.reason.value,
                message=decision.sentence[:_MESSAGE_LIMIT],
            )
    return old.last_scale
