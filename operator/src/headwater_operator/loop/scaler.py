"""The fleets' sizes, decided every SCALE_EVERY_S and remembered between passes."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from headwater_api.meeting import Meeting
from headwater_planner.scale.plan import plan_scale
from headwater_planner.scale.result import ScalePlan, ScaleState
from headwater_planner.world import ClusterWorld

from headwater_operator.loop.history import HistoryStore
from headwater_operator.loop.observe import Key
from headwater_operator.metrics_source.choose import MetricsSources

SCALE_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Last:
    plan: ScalePlan
    generation: int
    at: float
    now: datetime


class Scaler:
    """State lives in memory: after a restart nothing is lowered for a stabilisation window. Only the load
    history of a fleet that is forecast is kept, once for each of its buckets."""

    def __init__(
        self, sources: MetricsSources, history: HistoryStore, *, monotonic: Callable[[], float]
    ) -> None:
        self._sources = sources
        self._history = history
        self._monotonic = monotonic
        self._last: dict[Key, _Last] = {}

    async def plan(
        self, key: Key, world: ClusterWorld, meetings: Iterable[Meeting], now: datetime
    ) -> tuple[ScalePlan, bool]:
        """The fleet's sizes, and whether they have been decided anew: joins are counted between decisions,
        so these keep their pace however often the fleet is looked at."""
        last, generation = self._last.get(key), world.cluster.metadata.generation
        if last is not None and last.generation == generation and self.due_s(key) > 0.0:
            return last.plan, False
        at = self._monotonic()
        is_forecast = world.cluster.spec.autoscaling.forecast.method != "None"
        if last is not None:
            state = last.plan.state
        else:
            state = (
                ScaleState(history=await self._history.load(world.cluster)) if is_forecast else ScaleState()
            )
        seed = zlib.crc32(world.cluster.metadata.uid.encode())
        signals, trouble = await self._sources.read(world, now)
        plan = plan_scale(world, signals, meetings, state, now, seed=seed)
        if trouble is not None:
            plan = replace(plan, problems=(trouble, *plan.problems))
        self._last[key] = _Last(plan, generation, at, now)
        known, bucket = state.history, plan.state.history.bucket(now)
        if is_forecast and last is not None and known.bucket(last.now) != bucket:
            await self._history.save(world.cluster, plan.state.history)
        return plan, True

    def due_s(self, key: Key) -> float:
        """Seconds until its sizes want to be decided anew: whoever looks at the fleet in between, for another
        reason, must look again then, or a crowd that came meanwhile waits for up to two periods."""
        last = self._last.get(key)
        return 0.0 if last is None else max(0.0, last.at + SCALE_EVERY_S - self._monotonic())

    def forget(self, key: Key) -> None:
        """The fleet is gone."""
        self._last.pop(key, None)
