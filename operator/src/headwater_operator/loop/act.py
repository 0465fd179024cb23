"""Carries out a plan, action by action. What was refused comes back as text for the status."""

from collections.abc import Sequence

import structlog
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUCluster
from headwater_planner.supply import (
    Action,
    CreateNode,
    DeleteNode,
    DrainNode,
    ExposeNode,
    GuardNode,
    Held,
    UncordonNode,
)
from headwater_planner.turn import CreateTurn, TurnAction
from headwater_planner.world import ClusterWorld

from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import Conflict, NotFound, Refused
from headwater_operator.kube.events import EventRecorder, Regarding
from headwater_operator.kube.resources import BUDGETS, PODS, SERVICES, SFUCLUSTERS
from headwater_operator.metrics import Metrics
from headwater_operator.nodes.watch import NodeStreams, NodeUnreachable
from headwater_operator.render.service import render_service
from headwater_operator.render.sfu_node import (
    SfuDefaults,
    budget_name,
    render_budget,
    render_guard,
    render_sfu_pod,
)

log = structlog.get_logger(__name__)


class Actor:
    """Writes what plans say, and nothing else."""

    def __init__(
        self,
        client: KubeClient,
        streams: NodeStreams,
        events: EventRecorder,
        *,
        defaults: SfuDefaults,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._streams = streams
        self._events = events
        self._defaults = defaults
        self._metrics = metrics

    async def act(self, world: ClusterWorld, actions: Sequence[Action]) -> tuple[Held, ...]:
        """What was refused. Raises Unavailable and NotLeader: the rest of the plan is made again later."""
        metadata = world.cluster.metadata
        regarding = Regarding(SFUCLUSTERS, metadata.namespace, metadata.name, metadata.uid)
        refused: list[Held] = []
        for action in actions:
            outcome, error = await self._one(world, action)
            labels = {"action": type(action).__name__, "reason": action.reason.value, "outcome": outcome}
            self._metrics.actions.labels(**labels).inc()
            log.info(
                str(action), cluster=metadata.name, namespace=metadata.namespace, reason=action.reason.value,
                outcome=outcome, error=error or None,
            )  # fmt: skip
            if outcome == "done" and not isinstance(action, GuardNode):
                self._events.emit(regarding, action.reason, str(action), warning=_is_bad(action))
            elif outcome == "refused":
                reason = _refusal(action)
                text = refusal_text(action, error)
                refused.append(Held(reason, text))
                self._events.emit(regarding, reason, text, warning=True)
        return tuple(dict.fromkeys(refused))

    async def keep_budget(self, cluster: SFUCluster) -> None:
        """Makes the fleet's PodDisruptionBudget what it should be. Raises KubeError."""
        namespace, name = cluster.metadata.namespace, budget_name(cluster.metadata.name)
        await self._client.apply(BUDGETS, namespace, name, render_budget(cluster))

    async def _one(self, world: ClusterWorld, action: Action) -> tuple[str, str]:
        """Outcome and error text. Somebody else having been faster is an outcome."""
        try:
            await self._carry_out(world, action)
        except (Conflict, NotFound) as error:
            return "overtaken", str(error)
        except (Refused, NodeUnreachable) as error:
            return "refused", str(error)
        return "done", ""

    async def _carry_out(self, world: ClusterWorld, action: Action) -> None:
        namespace = world.cluster.metadata.namespace
        match action:
            case CreateNode(name=name, region=region_name):
                region = world.cluster.spec.region(region_name)
                assert region is not None, f"the plan makes a node in {region_name}, which the spec lacks"
                await self._client.create(
                    PODS, namespace, render_sfu_pod(world.cluster, region, name, self._defaults)
                )
            case DeleteNode(name=name, uid=uid, resource_version=version):
                if action.drained and not self._streams.is_drained((namespace, name), uid):
                    raise Conflict(f"{name} is no longer cordoned and empty")
                await self._client.delete(PODS, namespace, name, uid=uid, resource_version=version)
            case DrainNode(name=name, because=because, deadline=deadline, moves_per_s=rate):
                self._client.require_leadership()
                await self._streams.drain((namespace, name), because, deadline, rate)
            case UncordonNode(name=name, because=because):
                self._client.require_leadership()
                await self._streams.uncordon((namespace, name), because)
            case ExposeNode(name=name, uid=uid, region=region_name, kind=kind):
                service = render_service(world.cluster, region_name, name, uid=uid, kind=kind)
                await self._client.create(SERVICES, namespace, service)
            case GuardNode(name=name, uid=uid, guard=guard):
                body = render_guard(name, guard)
                body["metadata"]["uid"] = uid  # else a Pod that is gone would be made anew
                await self._client.apply(PODS, namespace, name, body)


def refusal_text(action: Action | TurnAction, error: str) -> str:
    """What is told of a refusal. A Pod that could not be made has another name with each try: without it,
    as else the status would change and an Event be posted each time."""
    if not isinstance(action, CreateNode | CreateTurn):
        return f"{action} was refused: {error}"
    kind = "TURN" if isinstance(action, CreateTurn) else "SFU"
    return f"a new {kind} node in region {action.region} was refused: {error.replace(action.name, 'its Pod')}"


def _is_bad(action: Action) -> bool:
    return action.reason in (Reason.NODE_FAILED, Reason.NODE_UNHEALTHY)


def _refusal(action: Action) -> Reason:
    match action:
        case CreateNode():
            return Reason.POD_CREATE_REFUSED
        case DeleteNode() | GuardNode() | ExposeNode():
            return Reason.APPLY_FAILED
        case _:
            return Reason.NODE_UNREACHABLE
