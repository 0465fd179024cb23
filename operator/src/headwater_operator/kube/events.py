"""Kubernetes Events (events.k8s.io/v1) on transitions: bounded, merged, rate-limited, best effort."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final

import structlog
from headwater_api.reasons import Reason

from headwater_operator.kube.client import KubeClient, Object
from headwater_operator.kube.errors import KubeError
from headwater_operator.kube.limits import TokenBucket
from headwater_operator.kube.resources import EVENTS, Resource
from headwater_operator.metrics import Metrics

log = structlog.get_logger(__name__)
CONTROLLER: Final = "headwater.dev/operator"
_QUEUE: Final = 256
_REMEMBERED: Final = 1024
_NOTE_LIMIT: Final = 1024  # bytes, set by the API


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an event is about."""

    resource: Resource
    namespace: str
    name: str
    uid: str


class EventRecorder:
    """`emit` never waits; `run` posts. A note on an object is repeated after `quiet_s` seconds only."""

    def __init__(
        self,
        client: KubeClient,
        *,
        instance: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        rng: Random,
        metrics: Metrics,
        quiet_s: float = 60.0,
    ) -> None:
        self._client = client
        self._instance = instance
        self._now = now
        self._monotonic = monotonic
        self._rng = rng
        self._metrics = metrics
        self._quiet_s = quiet_s
        self._queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue(_QUEUE)
        self._bucket = TokenBucket(rate_per_s=5.0, burst=25, monotonic=monotonic)
        self._posted: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def emit(self, regarding: Regarding, reason: Reason, note: str, *, warning: bool = False) -> None:
        """Queues one event; dropped and counted when the queue is full."""
        key, at = (regarding.uid, reason.value, note), self._monotonic()
        if at - self._posted.get(key, float("-inf")) < self._quiet_s:
            return
        self._posted[key] = at
        self._posted.move_to_end(key)
        while len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)
        try:
            self._queue.put_nowait((regarding.namespace, self._render(regarding, reason, note, warning)))
        except asyncio.QueueFull:
            self._metrics.events.labels(outcome="dropped").inc()

    async def run(self) -> None:
        """Posts until cancelled; an event that cannot be posted is logged and forgotten."""
        while True:
            namespace, body = await self._queue.get()
            await self._bucket.take()
            try:
                await self._client.create(EVENTS, namespace, body)
                self._metrics.events.labels(outcome="posted").inc()
            except KubeError as error:
                self._metrics.events.labels(outcome="failed").inc()
                log.info("event not posted", reason=body["reason"], error=str(error))

    def _render(self, regarding: Regarding, reason: Reason, note: str, warning: bool) -> Object:
        stem = regarding.name[:230]
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {
                "name": f"{stem}.{self._rng.getrandbits(64):016x}",
                "namespace": regarding.namespace,
            },
            "eventTime": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": reason.value,
            "type": "Warning" if warning else "Normal",
            "note": note.encode()[:_NOTE_LIMIT].decode(errors="ignore"),
            "regarding": {
                "apiVersion": regarding.resource.api_version,
                "kind": regarding.resource.kind,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
            },
        }
