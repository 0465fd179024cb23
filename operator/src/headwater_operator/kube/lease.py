"""Leadership by a coordination.k8s.io Lease: one replica acts, the other stands by.

The holder trusts its own monotonic clock only. It may write until `renew_deadline_s` after the *start* of
its last successful renewal; others wait `duration_s` after they last saw the record change. With
`renew_deadline_s + write timeout <= duration_s` two replicas never write at once, whatever their wall
clocks say and however long one of them was paused.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import structlog

from headwater_operator.kube.client import KubeClient, Object
from headwater_operator.kube.errors import Conflict, KubeError, NotFound, NotLeader
from headwater_operator.kube.resources import LEASES

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Which Lease, as whom, and its times in seconds."""

    namespace: str
    name: str
    identity: str
    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_s: float = 2.0

    @property
    def write_timeout_s(self) -> float:
        """A write that starts just before the renew deadline ends before another replica may start."""
        return self.duration_s - self.renew_deadline_s

    def __post_init__(self) -> None:
        if not 0 < self.retry_s < self.renew_deadline_s < self.duration_s:
            raise ValueError("lease times must keep 0 < retry < renew deadline < duration")


class Lease:
    """`acquire()`, then `keep()` until it returns: from then on `fence()` raises."""

    def __init__(
        self,
        client: KubeClient,
        settings: LeaseSettings,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        rng: Random,
    ) -> None:
        self._client = client
        self._settings = settings
        self._monotonic = monotonic
        self._now = now
        self._rng = rng
        self._valid_until = float("-inf")
        self._seen: tuple[str, float] = ("", float("-inf"))
        self.generation = 0  # leaseTransitions while it is ours: the fencing token in logs

    @property
    def held(self) -> bool:
        """Whether this replica may write now."""
        return self._monotonic() < self._valid_until

    def fence(self) -> None:
        """Raises NotLeader unless the Lease is held now."""
        if not self.held:
            raise NotLeader(f"lease {self._settings.namespace}/{self._settings.name} is not held")

    async def acquire(self) -> None:
        """Returns once the Lease is ours; API errors are waited out."""
        while not await self._try():  # noqa: ASYNC110  the Lease changes elsewhere, nobody sets an event
            await asyncio.sleep(self._pause())
        log.info("lease acquired", identity=self._settings.identity, generation=self.generation)

    async def keep(self) -> None:
        """Renews until the Lease is lost, then returns."""
        while self.held:
            await asyncio.sleep(min(self._pause(), max(0.0, self._valid_until - self._monotonic())))
            await self._try()
        log.warning("lease lost", identity=self._settings.identity, generation=self.generation)

    async def release(self) -> None:
        """Gives the Lease up, so that a standby need not wait; best effort. Nothing is written afterwards."""
        was_held, self._valid_until = self.held, float("-inf")
        if not was_held:
            return
        try:
            lease = await self._client.get(LEASES, self._settings.namespace, self._settings.name)
            if lease.get("spec", {}).get("holderIdentity") == self._settings.identity:
                lease["spec"]["holderIdentity"] = ""
                lease["spec"]["leaseDurationSeconds"] = 1
                await self._client.replace(LEASES, self._settings.namespace, self._settings.name, lease)
        except KubeError as error:
            log.info("lease not released, it will run out", error=str(error))

    def _pause(self) -> float:
        return self._settings.retry_s * self._rng.uniform(0.8, 1.2)

    async def _try(self) -> bool:
        """One round: read, decide, write under the read resourceVersion. True when the Lease is ours."""
        started = self._monotonic()
        try:
            async with asyncio.timeout(self._settings.renew_deadline_s):
                written = await self._write(started)
        except (KubeError, TimeoutError) as error:
            log.info("lease round failed", error=str(error) or "timeout")
            return False
        if written is None:
            return False
        self.generation = int(written["spec"].get("leaseTransitions", 0))
        self._valid_until = started + self._settings.renew_deadline_s
        return True

    async def _write(self, started: float) -> Object | None:
        """The Lease as written, or None where another holds it."""
        settings = self._settings
        try:
            lease = await self._client.get(LEASES, settings.namespace, settings.name)
        except NotFound:
            body = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": settings.name, "namespace": settings.namespace},
                "spec": self._spec({}),
            }
            return await self._client.create(LEASES, settings.namespace, body)
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") != settings.identity and self._others(lease, started):
            self._valid_until = float("-inf")
            return None
        lease["spec"] = self._spec(spec)
        try:
            return await self._client.replace(LEASES, settings.namespace, settings.name, lease)
        except Conflict:
            return None

    def _others(self, lease: Object, started: float) -> bool:
        """Whether somebody else's claim still stands, by how long we have seen it unchanged."""
        spec = lease.get("spec") or {}
        if not spec.get("holderIdentity"):
            return False
        version = str(lease["metadata"]["resourceVersion"])
        if self._seen[0] != version:
            self._seen = (version, started)
        duration = float(spec.get("leaseDurationSeconds") or self._settings.duration_s)
        return started - self._seen[1] < duration

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = old.get("holderIdentity") == self._settings.identity
        return {
            "holderIdentity": self._settings.identity,
            # Whole seconds in the API: rounded up, so that others never wait too short.
            "leaseDurationSeconds": max(1, -int(-self._settings.duration_s // 1)),
            "acquireTime": old.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if same or not old else 1),
        }
