"""TURN nodes of one SFUCluster: observe, tell them who may be reached, plan, act."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Any, Final

import structlog
from headwater_api import wellknown as wk
from headwater_api.reasons import Reason
from headwater_planner.supply import Held
from headwater_planner.turn import (
    AdvertiseTurn,
    CreateTurn,
    DeleteTurn,
    DrainTurn,
    TurnAction,
    TurnLoad,
    TurnPlan,
    TurnPod,
    TurnWorld,
    plan_turn,
)
from headwater_planner.world import ClusterWorld, PodView

from headwater_operator.kube.client import KubeClient, Object
from headwater_operator.kube.errors import Conflict, NotFound, Refused
from headwater_operator.kube.events import EventRecorder, Regarding
from headwater_operator.kube.resources import PODS, SFUCLUSTERS
from headwater_operator.loop.act import refusal_text
from headwater_operator.loop.views import pod_ended_at, pod_view
from headwater_operator.metrics import Metrics
from headwater_operator.nodes.turn import TurnClient, TurnUnreachable, TurnWish
from headwater_operator.render.turn_node import TurnDefaults, render_external, render_turn_pod, revision_of

log = structlog.get_logger(__name__)
MAX_AT_ONCE: Final = 16


class TurnLoop:
    """`reconcile` is called with each pass over a fleet, for one fleet at a time."""

    def __init__(
        self,
        *,
        client: KubeClient,
        nodes: TurnClient,
        events: EventRecorder,
        defaults: TurnDefaults,
        metrics: Metrics,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        rng: Random,
    ) -> None:
        self._client, self._nodes, self._events = client, nodes, events
        self._defaults, self._metrics = defaults, metrics
        self._now, self._monotonic, self._rng = now, monotonic, rng
        self._loads: dict[str, tuple[float, TurnLoad]] = {}  # by Pod uid
        self._leaving: set[str] = set()  # uids that were told to drain
        self._gate = asyncio.Semaphore(MAX_AT_ONCE)

    async def reconcile(self, world: ClusterWorld) -> tuple[Held, ...]:
        """What is put off or was refused. Raises Unavailable and NotLeader."""
        cluster = world.cluster
        turn = cluster.spec.turn
        labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_TURN},{wk.LABEL_CLUSTER}={cluster.metadata.name}"
        bodies = await self._client.list(PODS, cluster.metadata.namespace, labels=labels)
        if not bodies and turn.max_per_region == 0:
            return ()
        pods = [(pod_view(body), body) for body in bodies]
        await asyncio.gather(*(self._ask(world, pod) for pod, *_ in pods if pod.pod_ip and not pod.dead))
        self._forget({pod.uid for pod, *_ in pods})
        seen = TurnWorld(
            cluster,
            tuple(self._seen(pod, body) for pod, body in pods),
            {region.name: revision_of(cluster, region, self._defaults) for region in cluster.spec.regions},
            world.kube_nodes or (),
        )
        plan = plan_turn(seen, self._now(), self._rng)
        self._metrics.set_turn(cluster.metadata.namespace, cluster.metadata.name, _counts(seen, plan))
        held = [await self._act(seen, action) for action in plan.actions]
        return tuple(dict.fromkeys(h for h in held if h is not None))

    def _seen(self, pod: PodView, body: Object) -> TurnPod:
        said = body["metadata"].get("annotations") or {}
        return TurnPod(
            pod,
            str(said.get(wk.ANNOTATION_REVISION, "")),
            self._load(pod),
            pod_ended_at(body),
            str(said.get(wk.ANNOTATION_EXTERNAL, "")),
        )

    # -- what the nodes are told and say ---------------------------------------------------------

    async def _ask(self, world: ClusterWorld, pod: PodView) -> None:
        turn = world.cluster.spec.turn
        wish = TurnWish(
            peers=tuple(sorted({sfu.pod_ip for sfu in world.pods if sfu.pod_ip and not sfu.dead})),
            secrets=tuple(f"{reference.name}/{reference.key}" for reference in turn.shared_secret_refs),
            draining=pod.uid in self._leaving,
            deadline_s=turn.drain.deadline.total_seconds(),
        )
        async with self._gate:
            self._client.require_leadership()
            try:
                answer = await self._nodes.desire(pod.pod_ip, wish, tls=pod.tls)
            except TurnUnreachable as error:
                log.info("TURN node does not answer", node=pod.name, error=str(error))
                return
        load = load_of(answer)
        if load.draining:
            self._leaving.add(pod.uid)  # by itself, or told by this operator's predecessor
        self._loads[pod.uid] = (self._monotonic(), load)

    def _load(self, pod: PodView) -> TurnLoad | None:
        entry = self._loads.get(pod.uid)
        if entry is None:
            return None
        at, load = entry
        return TurnLoad(
            self._monotonic() - at, load.allocations, load.mbps, load.draining or pod.uid in self._leaving,
            load.drained,
        )  # fmt: skip

    def _forget(self, alive: set[str]) -> None:
        """Uids are of all fleets: forget only those not heard of for long."""
        old = self._monotonic() - 600
        for uid in [uid for uid, (at, _) in self._loads.items() if uid not in alive and at < old]:
            del self._loads[uid]
            self._leaving.discard(uid)

    # -- acting ----------------------------------------------------------------------------------

    async def _act(self, world: TurnWorld, action: TurnAction) -> Held | None:
        metadata = world.cluster.metadata
        outcome, error = "done", ""
        try:
            await self._carry_out(world, action)
        except (Conflict, NotFound) as overtaken:
            outcome, error = "overtaken", str(overtaken)
        except Refused as refused:
            outcome, error = "refused", str(refused)
        reason = action.reason.value
        self._metrics.actions.labels(type(action).__name__, reason, outcome).inc()
        log.info(str(action), cluster=metadata.name, reason=reason, outcome=outcome, error=error or None)
        regarding = Regarding(SFUCLUSTERS, metadata.namespace, metadata.name, metadata.uid)
        if outcome == "done":
            warning = action.reason is Reason.NODE_FAILED
            self._events.emit(regarding, action.reason, str(action), warning=warning)
            return None
        if outcome == "overtaken":
            return None
        text = refusal_text(action, error)
        why = Reason.POD_CREATE_REFUSED if isinstance(action, CreateTurn) else Reason.APPLY_FAILED
        self._events.emit(regarding, why, text, warning=True)
        return Held(why, text)

    async def _carry_out(self, world: TurnWorld, action: TurnAction) -> None:
        namespace = world.cluster.metadata.namespace
        match action:
            case CreateTurn(name=name, region=region_name):
                region = world.cluster.spec.region(region_name)
                assert region is not None, f"the plan makes a node in {region_name}, which the spec lacks"
                pod = render_turn_pod(world.cluster, region, name, self._defaults)
                await self._client.create(PODS, namespace, pod)
            case AdvertiseTurn(name=name, uid=uid, external=external):
                await self._client.apply(PODS, namespace, name, render_external(name, uid, external))
            case DeleteTurn(name=name, uid=uid):
                await self._client.delete(PODS, namespace, name, uid=uid)
            case DrainTurn(name=name):
                (uid,) = (t.pod.uid for t in world.pods if t.pod.name == name)
                self._leaving.add(uid)  # it hears of it with the next wish


def load_of(answer: Mapping[str, Any]) -> TurnLoad:
    """A TURN node's account, fresh. Fields that are missing or odd count as nothing."""

    def number(name: str) -> float:
        value = answer.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0

    return TurnLoad(
        age_s=0.0,
        allocations=int(number("allocations")),
        mbps=number("mbps"),
        draining=answer.get("draining") is True,
        drained=answer.get("drained") is True,
    )


def _counts(world: TurnWorld, plan: TurnPlan) -> dict[str, dict[str, float]]:
    """Figures by region, for the metrics."""
    counts: dict[str, dict[str, float]] = {}
    for region, desired in plan.desired.items():
        mine = [t for t in world.pods if t.pod.region == region]
        counts[region] = {
            "desired": desired,
            "ready": sum(1 for t in mine if t.pod.ready),
            "draining": sum(1 for t in mine if t.load is not None and t.load.draining),
        }
    return counts
