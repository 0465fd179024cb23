"""One SFUCluster: observe, plan, act, report."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Final

import structlog
from headwater_api.model import InvalidResource
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUCluster, SFUClusterStatus
from headwater_api.wellknown import PORT_NODE_GRPC
from headwater_planner.cluster import plan_cluster
from headwater_planner.heal import assess
from headwater_planner.pods import sort_pods
from headwater_planner.scale.result import ScalePlan
from headwater_planner.status import invalid_status, status_of_cluster
from headwater_planner.supply import Plan
from headwater_planner.world import ClusterWorld, Phase, PodView

from headwater_operator.kube.errors import Refused
from headwater_operator.kube.events import EventRecorder, Regarding
from headwater_operator.kube.resources import SFUCLUSTERS
from headwater_operator.kube.status import StatusWriter
from headwater_operator.loop.act import Actor
from headwater_operator.loop.observe import Invalid, Key, Observer
from headwater_operator.loop.scaler import Scaler
from headwater_operator.loop.store import Store
from headwater_operator.loop.transitions import transitions
from headwater_operator.loop.turn import TurnLoop
from headwater_operator.metrics import Metrics
from headwater_operator.nodes.inbox import NodeKey
from headwater_operator.nodes.watch import NodeStreams, Target

log = structlog.get_logger(__name__)
TICK_S: Final = 5.0
SOON_S: Final = 0.5
# CPU and latency alone are not worth a write more often than this.
FIGURES_EVERY_S: Final = 15.0
# In a large fleet somebody comes or goes all the time.
COUNTS_EVERY_S: Final = 3.0
BUDGET_EVERY_S: Final = 300.0


class FleetLoop:
    """`reconcile` is called for one key at a time; `on_change` hears of fleets whose status changed."""

    def __init__(
        self,
        *,
        observer: Observer,
        actor: Actor,
        statuses: StatusWriter,
        events: EventRecorder,
        streams: NodeStreams,
        scaler: Scaler,
        turn: TurnLoop,
        store: Store,
        metrics: Metrics,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        rng: Random,
        on_change: Callable[[Key], None],
    ) -> None:
        self._observer = observer
        self._actor = actor
        self._statuses = statuses
        self._events = events
        self._streams = streams
        self._turn = turn
        self._store = store
        self._metrics = metrics
        self._now = now
        self._monotonic = monotonic
        self._rng = rng
        self._on_change = on_change
        self._written_at: dict[Key, float] = {}
        self._budget_at: dict[Key, float] = {}
        self._scaler = scaler

    async def reconcile(self, key: Key) -> float | None:
        """One pass; seconds until the next tick, None where the fleet is gone. Raises KubeError."""
        world = await self._observer.observe_cluster(key)
        if world is None:
            await self._forget(key)
            return None
        if isinstance(world, Invalid):
            return await self._report_invalid(key, world)
        await self._streams.sync(key, _targets(world))
        await self._keep_budget(key, world.cluster)
        scale = await self._scale(key, world)
        plan = plan_cluster(world, scale.desired, self._now(), self._rng)
        refused = await self._actor.act(world, plan.actions)
        refused += await self._turn.reconcile(world)
        held = (*refused, *plan.held, *scale.problems)
        plan = replace(plan, held=held, partial=plan.partial and not refused)
        await self._report(key, world, plan, scale)
        return min(self._next_s(plan), self._scaler.due_s(key))

    async def _scale(self, key: Key, world: ClusterWorld) -> ScalePlan:
        """The wanted sizes; what has changed is told at once, before it is acted on."""
        store = self._store
        meetings = [store.meetings[meeting] for meeting in store.meetings_of(key)]
        scale, is_new = await self._scaler.plan(key, world, meetings, self._now())
        for decision in scale.decisions:
            self._metrics.set_scale(*key, decision, is_new=is_new)
        if is_new:
            regarding = Regarding(SFUCLUSTERS, *key, world.cluster.metadata.uid)
            for change in scale.changes:
                log.info(change.sentence, namespace=key[0], cluster=key[1], reason=change.reason.value)
                self._events.emit(regarding, change.reason, change.sentence)
        return scale

    async def _keep_budget(self, key: Key, cluster: SFUCluster) -> None:
        """Now and then: nobody tells us when somebody removes it."""
        if cluster.metadata.deletion_timestamp is not None:
            return
        if self._monotonic() - self._budget_at.get(key, float("-inf")) < BUDGET_EVERY_S:
            return
        try:
            await self._actor.keep_budget(cluster)
        except Refused as error:
            log.warning("PodDisruptionBudget refused", namespace=key[0], cluster=key[1], error=str(error))
        self._budget_at[key] = self._monotonic()

    async def _report(self, key: Key, world: ClusterWorld, plan: Plan, scale: ScalePlan) -> None:
        now = self._now()
        status = status_of_cluster(world, plan, scale, now)
        self._set_gauges(world, status)
        before = self._store.fleets.get(key)
        reported = replace(world, cluster=world.cluster.model_copy(update={"status": status}))
        self._store.fleets[key] = reported
        if before is None or _as_meetings_see_it(before) != _as_meetings_see_it(reported):
            self._on_change(key)
        await self._write(key, world.cluster, status)

    async def _write(self, key: Key, cluster: SFUCluster, status: SFUClusterStatus) -> None:
        if cluster.metadata.deletion_timestamp is not None or cluster.status == status:
            return
        since_s = self._monotonic() - self._written_at.get(key, float("-inf"))
        if since_s < COUNTS_EVERY_S and _without_counts(cluster.status) == _without_counts(status):
            return
        if since_s < FIGURES_EVERY_S and _without_figures(cluster.status) == _without_figures(status):
            return
        if await self._statuses.write(SFUCLUSTERS, *key, status) is None:
            return
        self._written_at[key] = self._monotonic()
        regarding = Regarding(SFUCLUSTERS, *key, cluster.metadata.uid)
        for change in transitions(cluster.status.conditions, status.conditions):
            self._events.emit(regarding, change.reason, change.note, warning=change.warning)

    async def _report_invalid(self, key: Key, invalid: Invalid) -> float:
        metadata = invalid.body["metadata"]
        log.warning("SFUCluster cannot be read", namespace=key[0], cluster=key[1], error=invalid.why)
        status = invalid_status(
            _written_status(invalid),
            reason=Reason.INVALID_SPEC,
            message=invalid.why,
            generation=int(metadata.get("generation", 0)),
            now=self._now(),
        )
        regarding = Regarding(SFUCLUSTERS, *key, metadata["uid"])
        self._events.emit(regarding, Reason.INVALID_SPEC, invalid.why, warning=True)
        written = (invalid.body.get("status") or {}).get("conditions") or []
        if not any(condition.get("reason") == Reason.INVALID_SPEC.value for condition in written):
            await self._statuses.write(SFUCLUSTERS, *key, status)
        return TICK_S * 6

    async def _forget(self, key: Key) -> None:
        await self._streams.sync(key, {})
        world = self._store.fleets.pop(key, None)
        self._store.fleet_keys.discard(key)
        self._written_at.pop(key, None)
        self._budget_at.pop(key, None)
        self._scaler.forget(key)
        if world is not None:
            self._observer.forget(world.cluster.metadata.uid)
            for region in world.cluster.status.regions:
                self._metrics.drop_region(*key, region.name)
        self._on_change(key)

    def _next_s(self, plan: Plan) -> float:
        if plan.partial:
            return SOON_S
        wait = TICK_S * self._rng.uniform(0.8, 1.2)
        if plan.again_at is not None:
            wait = min(wait, max(SOON_S, (plan.again_at - self._now()).total_seconds()))
        return wait

    def _set_gauges(self, world: ClusterWorld, status: SFUClusterStatus) -> None:
        metadata = world.cluster.metadata
        health = assess(world, self._now())
        for region in status.regions:
            pods = sort_pods(world, region.name, health)
            counts = {
                "desired": region.desired,
                "ready": region.ready,
                "starting": len(pods.starting),
                "lost": len(pods.lost),
            }
            self._metrics.set_region(
                metadata.namespace, metadata.name, region.name, counts, region.participants
            )


def _as_meetings_see_it(world: ClusterWorld) -> tuple[int, dict[str, int]]:
    """What decides about a fleet's Meetings beside the reports, which wake them by themselves."""
    ready = {region.name: region.ready for region in world.cluster.status.regions}
    return world.cluster.metadata.generation, ready


def _written_status(invalid: Invalid) -> SFUClusterStatus:
    """What an apply must repeat, as it would drop it else; empty where that is what cannot be read."""
    try:
        return SFUClusterStatus.from_kubernetes(invalid.body.get("status") or {})
    except InvalidResource:
        return SFUClusterStatus()


def _targets(world: ClusterWorld) -> dict[NodeKey, Target]:
    namespace = world.cluster.metadata.namespace
    return {
        (namespace, pod.name): Target(pod.uid, _address(pod), pod.tls)
        for pod in world.pods
        if pod.pod_ip and pod.phase in (Phase.RUNNING, Phase.UNKNOWN)
    }


def _address(pod: PodView) -> str:
    host = f"[{pod.pod_ip}]" if ":" in pod.pod_ip else pod.pod_ip
    return f"{host}:{PORT_NODE_GRPC}"


def _without_counts(status: SFUClusterStatus) -> SFUClusterStatus:
    """The status without figures, and without how many participants and rooms there are."""
    bare = _without_figures(status)
    regions = tuple(region.model_copy(update={"participants": 0, "rooms": 0}) for region in bare.regions)
    return bare.model_copy(update={"regions": regions, "participants": 0, "rooms": 0})


def _without_figures(status: SFUClusterStatus) -> SFUClusterStatus:
    """The status with every known CPU and latency the same; whether they are known stays."""
    regions = tuple(
        region.model_copy(
            update={
                "cpu_percent": None if region.cpu_percent is None else 0,
                "p95_latency_ms": None if region.p95_latency_ms is None else 0.0,
            }
        )
        for region in status.regions
    )
    return status.model_copy(update={"regions": regions})
